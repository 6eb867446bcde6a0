//! ROOT. Why an operation has failed on a service: the step, the reason, the remedy and its last words. Never decides
//! that it has.

use super::Manager;
use super::inputs::Which;
use super::last_words::has_words;
use super::report::REHEARSING;
use super::rival::may_come_of_rehearsing;
use crate::policy::service::{Ended, Role, Service};
use crate::policy::{End, Outcome, ServiceId};
use crate::unit::{Kind, LogTo};
use crate::wire::control::{Failure, State};

impl Manager {
    /// One failure; also what it leaves as it is, of a rehearsal what does without, and that its unit has changed.
    pub(super) fn told_failure(&self, id: ServiceId, outcome: Outcome) -> Option<Failure> {
        let mut failure = self.failure(id, outcome)?;
        if let Outcome::Ended(end) = outcome
            && let Some(ended) = self.ended_like(id, end)
        {
            let service = self.world.get(id)?;
            if service.instances.len() > 1 {
                let (number, count) = (ended.instance, service.instances.len());
                failure.reason = format!("instance {number} of {count}: {}", failure.reason);
            }
            if let Some(words) = left_as_it_is(service, &ended) {
                failure.reason.push_str(if failure.reason.contains('\n') { "\n" } else { "; " });
                failure.reason.push_str(&words);
            }
        }
        let name = self.name_of(id);
        let log = self.log_hint(id);
        let may = may_come_of_rehearsing(&failure.reason, &failure.output);
        failure.hint = match failure.hint {
            hint if failure.step != REHEARSING => hint,
            // A remedy for this very reason says more.
            Some(own) if own != log => Some(own),
            hint if may => {
                let way = format!(
                    "where it cannot be tried beside the old one, `supervise restart --stop-first {name}` does without"
                );
                Some(hint.map_or(way.clone(), |first| format!("{first}; {way}")))
            }
            hint => hint.map(|log| format!("mend it, and restart it again; {log}")),
        };
        if let Some(changed) = self.changed_words(id) {
            failure.hint_also(changed);
        }
        Some(failure.bounded())
    }

    /// Where all of its output is.
    fn log_hint(&self, id: ServiceId) -> String {
        let name = self.name_of(id);
        let file = || format!("its output is in `{}`", self.log_file(id).display());
        match self.log_to(id) {
            LogTo::File => file(),
            // Where nobody takes it, it goes to the file.
            LogTo::Journal | LogTo::Syslog if !self.logs.troubles_of(name).is_empty() => file(),
            LogTo::Journal => format!("`journalctl -t {name}` shows its output"),
            LogTo::Syslog => {
                format!("its output is in the system's log, where its lines begin with `{name}: `")
            }
            LogTo::Inherit => "its output is where supervise's own output goes".to_owned(),
            LogTo::Null => "its output goes nowhere: `to = \"file\"` in `[log]` keeps it".to_owned(),
        }
    }

    /// That a file of its unit is not what it was, which no start and no restart heeds.
    pub(super) fn changed_words(&self, id: ServiceId) -> Option<String> {
        let path = self.changed_files(id).into_iter().next()?;
        let is_gone = std::path::Path::new(&path).symlink_metadata().is_err();
        let what = if is_gone { "is gone" } else { "has changed since it was read" };
        Some(format!("`{path}` {what}: what was read still counts, until supervise starts again"))
    }

    fn failure(&self, id: ServiceId, outcome: Outcome) -> Option<Failure> {
        let (step, mut reason, mut hint, exit) = match outcome {
            Outcome::Done | Outcome::Already => return None,
            Outcome::Ended(end) => {
                let hint = self.log_hint(id);
                let ended = self.ended_like(id, end);
                let words = ended.map_or_else(String::new, |ended| self.words_of(id, &ended));
                match end {
                    End::Exited(_) => {
                        let exit = ended.and_then(|ended| self.exit_of(id, Which::of(&ended), end));
                        (self.doing(id, ended), words, Some(hint), exit)
                    }
                    End::NotReady | End::Unhealthy | End::Watchdog => {
                        (self.doing(id, ended), words, Some(hint), None)
                    }
                    End::Launch { .. }
                    | End::TimedOut
                    | End::Unprepared
                    | End::Unbound
                    | End::Unanswered
                    | End::NoProcess(_) => (self.doing(id, ended), words, None, None),
                }
            }
            Outcome::Superseded => {
                ("waiting", "another command for it came in between".to_owned(), None, None)
            }
            Outcome::Closing => ("waiting", "the supervisor is stopping".to_owned(), None, None),
            Outcome::NotRunning => {
                let (words, hint) = self.not_reloadable(id);
                ("reloading it", words, Some(hint), None)
            }
            Outcome::NotReloaded => {
                let words = self.words.get(&id).cloned().unwrap_or_default();
                ("reloading it", words, None, None)
            }
            Outcome::Off => {
                let hint = Some("write `start = \"manual\"` where operators may start it".to_owned());
                ("starting it", "its unit says `start = \"off\"`".to_owned(), hint, None)
            }
            Outcome::Requires(other) => {
                let other = self.name_of(other);
                let hint = Some(format!("`supervise status {other}` says why"));
                ("starting it", format!("it requires `{other}`, which is not up"), hint, None)
            }
        };
        let service = self.name_of(id).to_owned();
        let ended = match outcome {
            Outcome::Ended(end) if has_words(end) => self.ended_like(id, end),
            _ => None,
        };
        let words = ended.map(|ended| self.last_words_of(id, ended.run)).unwrap_or_default();
        let (output, silent) = (words.lines, words.nothing);
        // What helps with this very reason says more than where to read on.
        if let Some((words, own)) = reason.rsplit_once("\nhint: ").filter(|(_, own)| !own.contains('\n')) {
            (hint, reason) = (Some(own.to_owned()), words.to_owned());
        }
        if let Some(rival) = self.rival(id, &output) {
            reason = format!("{reason}; {}", rival.words);
            hint = Some(rival.hint);
        }
        Some(Failure { service, step: step.to_owned(), reason, hint, exit, output, silent }.bounded())
    }

    /// That nothing of a service runs that could read its configuration anew: how it is, and what to do.
    fn not_reloadable(&self, id: ServiceId) -> (String, String) {
        let name = self.name_of(id);
        let Some(status) = self.service_status(id) else { return Default::default() };
        let again = format!("`supervise restart {name}` has it read everything again");
        match status.state {
            State::Starting => {
                let hint = format!("reload it when it runs (`supervise events {name}` tells), or {again}");
                ("it is starting: what it has read already nobody can tell".to_owned(), hint)
            }
            State::BackingOff => {
                let next = status.next_start.map_or_else(String::new, |at| format!(" (next start {at})"));
                let hint =
                    format!("each start reads its configuration; `supervise why {name}` says why it ends");
                (format!("it is not running, it is backing off{next}"), hint)
            }
            State::Waiting => {
                let first = status.waiting_for.first().map_or_else(String::new, |one| format!(" `{one}`"));
                let hint = format!("its start will read its configuration; `supervise why {name}` says more");
                (format!("it is not running, it waits for{first}"), hint)
            }
            State::Stopping => {
                ("it is stopping".to_owned(), format!("`supervise start {name}` starts it again"))
            }
            State::Running | State::Reloading => ("it has just ended and come again".to_owned(), again),
            State::Stopped | State::Listening | State::Failed | State::Done => {
                let words = format!("it is not running, it is {}", status.state.word());
                (words, format!("`supervise start {name}` starts it"))
            }
        }
    }

    /// The newest incarnation of a service that ended like this.
    pub(super) fn ended_like(&self, id: ServiceId, end: End) -> Option<Ended> {
        let service = self.world.get(id)?;
        service.ends.iter().rev().find(|ended| ended.end == end).copied()
    }

    /// What an incarnation of this service was about when it ended too early.
    fn doing(&self, id: ServiceId, ended: Option<Ended>) -> &'static str {
        let task = self.unit_of(id).is_some_and(|unit| unit.service.kind == Kind::Task);
        match ended.map(|ended| (ended.end, ended)) {
            Some((_, Ended { rehearsal: true, .. })) => REHEARSING,
            Some((End::Exited(_), Ended { before: Some(_), .. })) => "preparing it",
            Some((End::NotReady, _)) => "becoming ready",
            Some((End::Unhealthy, _)) => "proving itself",
            Some((End::Watchdog, _)) => "running it",
            Some((
                End::Launch { .. }
                | End::TimedOut
                | End::Unprepared
                | End::Unbound
                | End::Unanswered
                | End::NoProcess(_),
                _,
            )) => "starting it",
            Some((End::Exited(_), _)) | None if task => "running it",
            Some((End::Exited(_), _)) | None => "proving itself",
        }
    }
}

/// What goes on where a new generation has failed: the old one, and who had moved goes back to it.
fn left_as_it_is(service: &Service, ended: &Ended) -> Option<String> {
    let older = |generation: u32| generation < ended.generation;
    if !service.incarnations().any(|(_, _, one)| older(one.generation) && one.is_proven()) {
        return None;
    }
    let moved = service.incarnations().filter(|(instance, role, one)| {
        *role == Role::Current && one.generation == ended.generation && instance.number != ended.instance
    });
    let moved: Vec<String> = moved.map(|(instance, _, _)| instance.number.to_string()).collect();
    let (which, goes) = if moved.len() == 1 { ("instance", "goes") } else { ("instances", "go") };
    let back = match moved.split_last() {
        None => String::new(),
        Some((last, [])) => format!("; {which} {last}, which had moved, {goes} back to it"),
        Some((last, others)) => {
            format!("; {which} {} and {last}, which had moved, {goes} back to it", others.join(", "))
        }
    };
    Some(format!("the old generation goes on serving{back}"))
}
