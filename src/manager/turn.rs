//! ROOT. The loop. A turn takes launch news first, then what services say, then exits, then requests, then deadlines: a service that
//! says it is ready and dies at once must not be lost. Never decides.

use crate::sys::errno::reason;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Manager;
use super::kept::News;
use super::launches::{self, Told};
use super::watch::{self, Watch};
use crate::launch::{Stage, words};
use crate::policy::service::Phase;
use crate::policy::{End, Event, Exit, Mono, Run};
use crate::sys::{clock, memory, objects, process};
use crate::wire::cri::Which;
use crate::wire::keeper::{ExitRecord, Kind, exits};
use crate::wire::state::header;
use crate::wire::zygote::Report;

/// Milliseconds between looks at trees without a cgroup while they are cleared.
const LOOK_AGAIN_MS: u64 = 20;
/// Milliseconds after the end of a process that is not our child for which its status is waited for.
const STATUS_WITHIN_MS: u64 = 3_000;
/// Milliseconds that the logger has for the last lines.
const LAST_LINES_MS: u32 = 1_500;
/// Events taken from the poll at once.
const EVENTS: usize = 256;
/// With nothing to do for so long, what only the reading of units needed is given back.
const QUIET: Duration = Duration::from_secs(1);
/// The most groups that are left to be removed while processes are waited for.
const MOST_LEFT: usize = 64;

/// How far an incarnation has got before its command, as its report says.
pub enum Launched {
    /// Nothing yet.
    Pending,
    /// The report has ended: the command executes.
    Executed,
    /// A step failed.
    Failed(End),
    /// Its gate was closed.
    GateLost,
}

impl Manager {
    /// Runs until everything is stopped.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = mio::Events::with_capacity(EVENTS);
        loop {
            self.catch_up();
            self.watch_link(watch::KEEPER, self.kept.raw_link(), self.kept.waits());
            self.watch_link(watch::ZYGOTE, self.starts.raw_link(), self.starts.waits());
            self.watch_link(watch::LOGGER, self.logs.raw_link(), self.logs.waits());
            self.watch_link(watch::FILES, self.listeners.guard.raw(), false);
            if self.world.is_closed() && !self.execs.hold() {
                return self.finish();
            }
            if let Some(id) = self.world.fallen()
                && !self.world.is_closing()
            {
                log::error!("service={} is essential and has ended: stopping", self.name_of(id));
                self.close();
                continue;
            }
            self.now = Mono(clock::monotonic_ms());
            let timeout = self.timeout();
            let quiet = self.starts.is_idle() && self.watched.reports.is_empty();
            if self.untidy && quiet && timeout.is_none_or(|timeout| timeout >= QUIET) {
                memory::give_back();
                self.untidy = false;
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    // ENOMEM passes; there is nothing better to do than to try again.
                    log::error!("waiting for events: {}", reason(&error));
                    crate::sys::parent::wait(&[], 100, &mut [])?;
                }
                Ok(()) | Err(_) => {}
            }
            self.now = Mono(clock::monotonic_ms());
            self.turn(&events)?;
        }
    }

    /// What can wait until a process that is wanted has been asked for, or has been let through its gate.
    fn catch_up(&mut self) {
        if self.starts.is_idle() || self.left_groups.len() >= MOST_LEFT {
            self.kept.give_up();
            self.remove_left_groups();
        }
        self.save_unsaved();
        self.write_mirror();
        self.kept.flush();
        objects::let_go(self.kept.exhumed());
        self.logs.flush(&self.kept);
    }

    fn timeout(&self) -> Option<Duration> {
        let looks = !self.watched.polled.is_empty() || !self.watched.unsettled.is_empty();
        let deadlines = [
            self.world.deadline(),
            self.control.as_ref().and_then(super::control::Control::deadline),
            self.handover.as_ref().map(|waiting| Mono(waiting.until_ms)),
            self.stop_at,
            self.notices.deadline(),
            self.couriers.deadline(),
            self.above.deadline(),
            self.probes.deadline(),
            self.execs.deadline(),
            self.listeners.foreign.deadline(),
            self.control_at,
            self.lookups.deadline(),
            self.readings.deadline(),
            looks.then(|| self.now.after(LOOK_AGAIN_MS)),
            (!self.answered.is_empty()).then(|| self.now.after(LOOK_AGAIN_MS)),
            self.control.as_ref().is_some_and(super::control::Control::has_ready).then_some(self.now),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.since(self.now)))
    }

    fn turn(&mut self, events: &mio::Events) -> io::Result<()> {
        let news: Vec<Watch> = events.iter().map(|event| watch::meaning(event.token())).collect();
        for watch in &news {
            match watch {
                Watch::Zygote => {
                    if !self.hear_zygote() {
                        self.unwatch_link(watch::ZYGOTE);
                    }
                }
                Watch::Report(run) => self.take_report(*run),
                Watch::Keeper
                | Watch::Logger
                | Watch::Handover
                | Watch::Files
                | Watch::Binder(_)
                | Watch::Control
                | Watch::Tree(_)
                | Watch::Pidfd(_)
                | Watch::Probe(_)
                | Watch::Lookup(_)
                | Watch::Courier(_)
                | Watch::Stores
                | Watch::Voice(_) => {}
            }
        }
        self.run_events();
        for watch in &news {
            match watch {
                Watch::Voice(run) => self.hear(*run),
                Watch::Probe(request) => self.hear_probe(*request),
                Watch::Binder(request) => self.hear_binder(*request),
                Watch::Lookup(request) => self.hear_lookup(*request),
                Watch::Courier(request) => self.hear_courier(*request),
                Watch::Stores => self.look_at_stores(),
                _ => {}
            }
        }
        self.hear_paused();
        for watch in &news {
            match watch {
                Watch::Keeper => self.hear_keeper(),
                Watch::Logger => self.hear_logger(),
                Watch::Tree(run) => {
                    if let Some(id) = self.service_of(*run) {
                        self.look_at_tree(id, *run);
                    }
                }
                Watch::Pidfd(run) => self.take_foreign_end(*run),
                Watch::Handover => self.hand_over()?,
                Watch::Files => self.look_at_files(),
                Watch::Zygote
                | Watch::Report(_)
                | Watch::Control
                | Watch::Probe(_)
                | Watch::Binder(_)
                | Watch::Lookup(_)
                | Watch::Courier(_)
                | Watch::Stores
                | Watch::Voice(_) => {}
            }
        }
        self.look_again();
        self.run_events();
        self.take_requests(events);
        self.keep_deadlines()?;
        self.send_answers();
        self.keep_above_up();
        Ok(())
    }

    // ---- launch news ---------------------------------------------------------------------------------

    pub(super) fn take_report(&mut self, run: Run) {
        let launched = self.read_report(run);
        let Some(id) = self.service_of(run) else { return };
        match launched {
            Launched::Pending => return,
            Launched::Executed => self.feed(id, Event::Executed(run)),
            Launched::Failed(end) => self.feed(id, Event::NotExecuted(run, end)),
            Launched::GateLost => {
                // Either a manager died before it opened the gate, or this one ended it on purpose.
                let phase = self.world.incarnation(id, run).map(|one| one.phase);
                if matches!(phase, Some(Phase::Cloning | Phase::Launching { .. })) {
                    self.feed(id, Event::Lost(run));
                    return; // which drops the report with everything else
                }
            }
        }
        self.unwatch_report(run);
        self.kept.drop(Kind::Report, run.0);
    }

    /// Reads a report as far as it goes. One that is not kept any longer was read to its end before.
    pub(super) fn read_report(&mut self, run: Run) -> Launched {
        let Some(fd) = self.kept.fd(Kind::Report, run.0) else { return Launched::Executed };
        let mut left_out = Vec::new();
        let told = launches::read(fd, &mut left_out);
        self.note_left_out(run, &left_out);
        match told {
            Told::Pending => Launched::Pending,
            Told::Executed => Launched::Executed,
            Told::Failed(report, _) if report.stage == Stage::Gate as u8 => Launched::GateLost,
            Told::Failed(Report { stage, errno, detail, .. }, fact) => {
                self.launch_facts.note(run, fact);
                Launched::Failed(End::Launch { stage, errno, detail })
            }
        }
    }

    /// What a child could not do and went on without. The operator asked for it, so it is the service's problem; a
    /// keyring of its own nobody asked for.
    fn note_left_out(&mut self, run: Run, left_out: &[Report]) {
        let Some(id) = self.service_of(run) else { return };
        let asked = |report: &&Report| report.stage == Stage::Oom as u8;
        for report in left_out.iter().filter(asked) {
            let Some(Ok(plan)) = self.which(id, run).map(|which| self.exec_plan(id, which, "")) else {
                continue;
            };
            let words = format!("`oom-score-adjust` does not hold: {}", words::explain(&plan, report, None));
            if self.launch_facts.leave_out(id, &words) {
                log::warn!("service={} {words}", self.name_of(id));
            }
        }
    }

    // ---- exits ---------------------------------------------------------------------------------------

    fn hear_keeper(&mut self) {
        let mut news = Vec::new();
        self.kept.listen(&mut news);
        for one in news {
            match one {
                News::Exits => self.take_exits(),
                News::Zygote(link) => {
                    self.unwatch_link(watch::ZYGOTE);
                    self.attach_zygote(link);
                }
                News::Logger(link) => {
                    self.unwatch_link(watch::LOGGER);
                    self.attach_logger(link);
                }
                News::Signal(signal) => self.take_signal(signal),
                News::Ended => {
                    self.unwatch_link(watch::KEEPER);
                    self.keeper_ended();
                }
            }
        }
    }

    /// Takes in every exit that the keeper has written down since the last time.
    pub(super) fn take_exits(&mut self) {
        let word = |offset: usize| self.exits.word64(offset).map_or(0, |word| word.load(Ordering::Acquire));
        let (written, places) = (word(exits::WRITTEN), word(exits::PLACES));
        let mut cursor = self.store.get(header::EXIT_CURSOR);
        while cursor < written {
            let mut bytes = [0; exits::RECORD];
            self.exits.load(exits::offset(cursor, places), &mut bytes);
            if let Some(record) = ExitRecord::decode(&bytes) {
                if record.run >= super::exec::FIRST {
                    self.exec_ended(record.run, Some(record.pid), exit_of(&record));
                }
                let run = Run(record.run);
                self.hear_last(run); // how it began, and what it said, come before how it ended
                // The end of one that has made another the main process is nobody's end.
                let is_main = self.processes.get(run).is_some_and(|known| known.main().pid == record.pid);
                if let Some(id) = self.service_of(run).filter(|_| is_main) {
                    self.watched.unsettled.remove(&run);
                    self.note_end(run, exit_of(&record), record.code as i32 == libc::CLD_DUMPED);
                    self.feed(id, Event::Gone(run, exit_of(&record)));
                    self.run_events();
                }
            }
            cursor += 1;
            self.store.set(header::EXIT_CURSOR, cursor);
        }
    }

    fn take_foreign_end(&mut self, run: Run) {
        if self.process_has_ended(run) {
            self.watched.unsettled.entry(run).or_insert(self.now.0);
        }
    }

    /// Looks again at what has no descriptor that would tell.
    fn look_again(&mut self) {
        for run in self.watched.polled.clone() {
            match self.service_of(run) {
                Some(id) => drop(self.look_at_tree(id, run)),
                None => drop(self.watched.polled.remove(&run)),
            }
        }
        for (run, since_ms) in self.watched.unsettled.clone() {
            let main = self.processes.get(run).map(|known| known.main());
            let known = main.map(|main| (main.pid, main.start_time));
            let status = known.or_else(|| self.execs.process(run.0)).and_then(|(pid, start_time)| {
                let pidfd = self.kept.fd(Kind::Process, run.0)?;
                process::foreign_status(pidfd, pid, start_time)
            });
            let exit = match status {
                Some(status) => exit_of_wait(status),
                None if self.now.0.saturating_sub(since_ms) < STATUS_WITHIN_MS => continue,
                None => Exit::Unknown,
            };
            self.watched.unsettled.remove(&run);
            if run.0 >= super::exec::FIRST {
                self.exec_ended(run.0, None, exit);
                continue;
            }
            self.hear_last(run);
            if let Some(id) = self.service_of(run) {
                self.note_end(run, exit, false);
                self.feed(id, Event::Gone(run, exit));
            }
        }
    }

    // ---- the logger ----------------------------------------------------------------------------------

    pub(super) fn attach_logger(&mut self, link: crate::sys::link::Link) {
        self.logs.attach(link);
        let mut streams = Vec::new();
        for (kind, which) in [(Kind::Stdout, Which::Stdout), (Kind::Stderr, Which::Stderr)] {
            streams.extend(self.kept.ids(kind).into_iter().map(|id| (Run(id), which)));
        }
        self.add_streams(&streams);
    }

    fn add_streams(&mut self, streams: &[(Run, Which)]) {
        for (run, which) in streams {
            if let Some(id) = self.owner_of_stream(*run) {
                let (name, rule) = (self.name_of(id).to_owned(), self.log_rule(id));
                self.logs.add(&name, *run, *which, rule);
            }
        }
    }

    fn hear_logger(&mut self) {
        let mut lost = Vec::new();
        let lives = self.logs.listen(&mut self.kept, &mut lost);
        self.add_streams(&lost);
        self.drop_old_records();
        if !lives {
            self.unwatch_link(watch::LOGGER);
        }
    }

    // ---- requests and deadlines ----------------------------------------------------------------------

    fn take_requests(&mut self, events: &mio::Events) {
        let mut asked = Vec::new();
        if let Some(control) = &mut self.control {
            let registry = self.poll.registry();
            for event in events {
                if control.owns(event.token()) {
                    control.on_event(registry, event, self.now, &mut asked);
                }
            }
            control.again(registry, self.now, &mut asked);
            control.tick(registry, self.now, &mut asked);
        }
        for one in asked {
            self.take_request(one);
        }
    }

    fn keep_deadlines(&mut self) -> io::Result<()> {
        self.keep_probes();
        self.keep_execs();
        self.keep_binders();
        self.keep_control();
        self.keep_lookups();
        self.keep_readings();
        self.keep_couriers();
        // Every due tick moves its own deadline on; the bound only keeps a mistake there from holding us.
        for _ in 0..self.services.len() * 4 + 4 {
            let Some(id) = self.world.due(self.now) else { break };
            self.feed(id, Event::Tick);
            self.run_events();
        }
        if self.stop_at.is_some_and(|at| self.now >= at) {
            self.stop_at = None;
            self.kill_all();
        }
        if self.handover.as_ref().is_some_and(|waiting| self.now.0 >= waiting.until_ms) {
            return Err(self.become_keeper());
        }
        Ok(())
    }

    // ---- the end -------------------------------------------------------------------------------------

    pub(super) fn take_signal(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                if self.world.is_closing() {
                    log::info!("stopping at once");
                    self.kill_all();
                    return;
                }
                log::info!("stopping");
                self.close();
            }
            libc::SIGHUP => log::warn!("SIGHUP: reading units again is not supported yet"),
            _ => {}
        }
    }

    /// Stops everything, and lets nothing start again.
    pub(super) fn close(&mut self) {
        self.store.set(header::CLOSING, 1);
        self.tell_stopping();
        self.world.close();
        self.release_parked();
        self.stop_at = self.settings.stop_timeout_ms.map(|ms| self.now.after(ms));
        let ids: Vec<_> = self.services.keys().copied().collect();
        for id in ids {
            self.feed(id, Event::Close);
        }
        self.close_execs();
        self.run_events();
    }

    fn kill_all(&mut self) {
        self.hurry_execs();
        let runs: Vec<Run> = self.world.incarnations().map(|(_, one)| one.run).collect();
        for run in runs {
            self.kill(run);
        }
    }

    /// With what the supervisor ends: 0, or as the essential service did that ended.
    fn end_status(&self) -> u8 {
        let ended = self.world.fallen().and_then(|id| self.world.get(id)?.last_end().map(|ended| ended.end));
        match ended {
            None => 0,
            Some(End::Exited(Exit::Code(code))) => u8::try_from(code).unwrap_or(1),
            Some(End::Exited(Exit::Signal(signal))) => u8::try_from(128 + signal).unwrap_or(1),
            Some(_) => 1,
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.end_execs();
        self.end_lookups();
        self.end_strays();
        self.send_answers();
        if self.kept.fd(Kind::Control, 0).is_some() {
            let _ = std::fs::remove_file(self.settings.control());
        }
        self.sweep_notify(&[]);
        self.sweep_probes(&[]);
        self.remove_mirror();
        for directory in [self.notify_directory(), self.probe_directory()] {
            let _ = std::fs::remove_dir(directory); // not there, or with what is not ours in it
        }
        self.logs.drain(LAST_LINES_MS, &self.kept);
        self.give_group_back();
        let status = self.end_status();
        self.tell_end(status);
        self.kept.finish(status);
        self.kept.flush_within(1_000);
        Ok(())
    }
}

fn exit_of(record: &ExitRecord) -> Exit {
    match record.code as i32 {
        libc::CLD_EXITED => Exit::Code(record.status),
        libc::CLD_KILLED | libc::CLD_DUMPED => Exit::Signal(record.status),
        _ => Exit::Unknown,
    }
}

/// A status as wait(2) encodes it.
fn exit_of_wait(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        0x7f => Exit::Unknown,
        signal => Exit::Signal(signal),
    }
}
