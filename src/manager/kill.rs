//! ROOT. Signals that an operator sends to services by hand. Never one that policy wants: those are actions.

use std::collections::BTreeMap;

use std::os::fd::AsFd;

use super::Manager;
use super::answer::Asker;
use crate::policy::{Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::process;
use crate::unit::Signal;
use crate::wire::control::{Failed, Failure, OperationReply, Refusal, Reply};
use crate::wire::keeper::Kind;
use crate::wire::varlink::Standard;
use crate::wire::verb::Right;

impl Manager {
    /// Sends it and says so. A service that has no process is a failure; the others have got theirs then.
    pub(super) fn answer_kill(&mut self, asker: Asker<'_>, names: &[String], signal: &str, all: bool) {
        let Asker { session, caller } = asker;
        let Some(signal) = Signal::named(signal) else {
            let wrong = Standard::InvalidParameter("signal".to_owned());
            self.reply(session, &Reply::Standard(wrong), true);
            return;
        };
        let chosen = match self.resolve(names, caller, Right::Control) {
            Ok(chosen) => chosen,
            Err(refusal) => return self.refuse(session, refusal),
        };
        let failures: Vec<Failure> =
            chosen.iter().filter_map(|id| self.signal_one(*id, signal, all)).collect();
        let mut failures = failures.into_iter();
        let reply = match failures.next() {
            Some(first) => {
                Reply::Refused(Refusal::Failed(Box::new(Failed { first, others: failures.collect() })))
            }
            None => {
                let notes = BTreeMap::new();
                let services = chosen.iter().filter_map(|id| self.outcome_value(*id, None, &notes)).collect();
                Reply::Operation(OperationReply { services, progress: None })
            }
        };
        self.reply(session, &reply, true);
    }

    fn signal_one(&self, id: ServiceId, signal: Signal, all: bool) -> Option<Failure> {
        let name = self.name_of(id).to_owned();
        let runs: Vec<Run> =
            self.processes.iter().filter(|(_, process)| process.service == id).map(|(run, _)| run).collect();
        let failure = |reason: String, hint: Option<String>| Failure {
            service: name.clone(),
            step: format!("sending SIG{signal}"),
            reason,
            hint,
            ..Failure::default()
        };
        let mut reached = false;
        for run in runs {
            let Some(pidfd) = self.kept.fd(Kind::Process, run.0) else { continue };
            if all && let Some(tree) = self.tree(run) {
                reached |= !tree.is_empty();
                tree.signal(signal.number());
                continue;
            }
            match process::signal(pidfd.as_fd(), signal.number()) {
                Ok(()) => reached = true,
                // It has ended, and its exit is on its way.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Some(failure(reason(&error), None)),
            }
        }
        if reached {
            log::info!("service={name} signal={signal} sent by an operator");
            return None;
        }
        let hint = Some(format!("`supervise start {name}` starts it"));
        Some(failure("it has no process".to_owned(), hint))
    }
}
