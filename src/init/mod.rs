//! ROOT. `supervise init`: one command as the only child of PID 1, or of any process. Signals go on to it,
//! orphans are reaped, its exit status is passed through. Never reads a unit, never starts another process.
//!
//! Every signal is blocked and waited for, so none is handled: a blocked signal is kept for PID 1 too, which the
//! kernel otherwise spares all that have no handler, and where the parent had it ignored. The command gets the
//! mask and the dispositions that this process was started with.

use std::ffi::{CString, OsString};
use std::fmt;
use std::io::{self, Write};

use crate::sys::command::{self, Half, Words};
use crate::sys::signals::{self, Got, Mask};
use crate::sys::{errno, exec, memory, parent, process, terminal};
use crate::unit::Signal;

/// Status where init itself fails.
pub const FAILED: u8 = 125;
/// Status where the command is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Status where there is no such command.
const NOT_FOUND: u8 = 127;

/// Exits taken before signals are looked at again, so that a storm of orphans cannot hold up a TERM.
const REAPS_A_TURN: usize = 64;

/// Signals of a terminal's keys and size, which every process of the group in the foreground gets.
const OF_TERMINAL: [i32; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH];
/// Signals that stop a job.
const OF_JOBS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// How it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Signals go to the command alone, which stays in this session and process group.
    pub single_child: bool,
    /// What is sent on instead of a signal; 0 for nothing. Of two for the same signal the later counts.
    pub rewrites: Vec<(i32, i32)>,
    /// Orphans below come here although this is not PID 1.
    pub subreaper: bool,
    /// The signal to get when the parent ends.
    pub parent_death: Option<i32>,
    /// Statuses that are passed on as 0.
    pub as_success: Vec<u8>,
    /// Each orphan that is reaped is told.
    pub tell_reaped: bool,
    /// Everything is told.
    pub verbose: bool,
}

/// Runs a command to its end; the status to exit with. Also returns in the child, where that cannot be executed.
pub fn run(wanted: &Wanted, words: Vec<OsString>) -> u8 {
    let name = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    match Init::start(wanted, words, &name) {
        Ok(Started::Parent(mut init)) => {
            memory::give_back(); // it waits as long as the command runs
            init.serve().unwrap_or_else(|error| {
                say(format_args!("waiting for signals: {}", errno::reason(&error)));
                FAILED
            })
        }
        Ok(Started::Child(error)) => not_executed(&name, &error),
        Err((step, error)) => {
            say(format_args!("{step}: {}", errno::reason(&error)));
            FAILED
        }
    }
}

/// Says why a command is not executed, and what may help.
fn not_executed(name: &str, error: &io::Error) -> u8 {
    say(format_args!("executing `{name}`: {}", errno::reason(error)));
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let path = CString::new(name).unwrap_or_default();
    let hint = match (is_missing, name.contains('/'), exec::exists(&path)) {
        (true, false, _) => "no directory of PATH has it",
        (true, true, true) => "it is there, but what interprets it (after its `#!`) or loads it is not",
        (true, true, false) => "a path with a slash is relative to the working directory",
        (false, _, _) if error.kind() == io::ErrorKind::PermissionDenied => {
            "`chmod +x` makes a file executable; a file system may be mounted `noexec`"
        }
        (false, _, _) => "it may be for another machine",
    };
    let _ = writeln!(io::stderr(), "hint: {hint}");
    if is_missing { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn say(text: fmt::Arguments<'_>) {
    // A standard error that is closed or full is no reason to stop.
    let _ = io::stderr().write_all(format!("supervise init: {text}\n").as_bytes());
}

/// What comes of a start: twice, once in each process.
enum Started<'a> {
    Parent(Init<'a>),
    Child(io::Error),
}

struct Init<'a> {
    wanted: &'a Wanted,
    child: u32,
}

type Step<T> = Result<T, (&'static str, io::Error)>;

impl<'a> Init<'a> {
    fn start(wanted: &'a Wanted, words: Vec<OsString>, name: &str) -> Step<Started<'a>> {
        let own_parent = std::os::unix::process::parent_id();
        let words = Words::of(words).map_err(|error| ("reading the command", error))?;
        let mask = signals::block_all_instead().map_err(|error| ("blocking signals", error))?;
        // The kernel would throw the exits of children away where SIGCHLD was ignored.
        let ignored = signals::default_one(libc::SIGCHLD).map_err(|error| ("resetting SIGCHLD", error))?;
        if wanted.subreaper {
            parent::become_subreaper().map_err(|error| ("becoming a subreaper", error))?;
        }
        if let Some(signal) = wanted.parent_death {
            let failed = |error| ("asking for a signal when the parent ends", error);
            parent::signal_when_parent_ends(signal).map_err(failed)?;
            if std::os::unix::process::parent_id() != own_parent {
                // It has ended already, and this is all that is left to tell of it.
                parent::signal_child(std::process::id(), signal).map_err(failed)?;
            }
        }
        if !wanted.single_child {
            give_up_terminal(wanted.verbose);
        }
        match command::fork().map_err(|error| ("making a process", error))? {
            Half::Child => Ok(Started::Child(become_command(wanted, &words, mask, ignored))),
            Half::Parent(child) => {
                let init = Init { wanted, child };
                init.told(format_args!("`{name}` is process {child}"));
                if wanted.verbose && !wanted.subreaper && !parent::is_pid_one() {
                    init.told(format_args!("this is not PID 1: orphans go elsewhere without `--subreaper`"));
                }
                // Where we were started can be unmounted; the command went in already, if it stays there.
                if let Err(error) = exec::enter(c"/") {
                    init.told(format_args!("entering /: {}", errno::reason(&error)));
                }
                Ok(Started::Parent(init))
            }
        }
    }

    fn told(&self, text: fmt::Arguments<'_>) {
        if self.wanted.verbose {
            say(text);
        }
    }

    /// Until the command has ended; its status.
    fn serve(&mut self) -> io::Result<u8> {
        let mut more = false;
        loop {
            let got = if more { signals::take_pending(&[])? } else { Some(signals::wait()?) };
            match got {
                Some(got) if got.signal != libc::SIGCHLD => self.pass_on(got),
                Some(_) | None => more = true,
            }
            if more {
                let mut taken = 0;
                while taken < REAPS_A_TURN
                    && let Some(ended) = parent::peek()?
                {
                    if ended.pid == self.child {
                        return self.finish(ended);
                    }
                    self.reap(ended)?;
                    taken += 1;
                }
                more = taken == REAPS_A_TURN;
            }
        }
    }

    fn reap(&self, ended: parent::Ended) -> io::Result<()> {
        parent::reap(ended.pid)?;
        if self.wanted.tell_reaped || self.wanted.verbose {
            say(format_args!("reaped process {}, which {}", ended.pid, how(ended)));
        }
        Ok(())
    }

    /// The command has ended: what is left of its process group is asked to end as well, as long as the command
    /// is not reaped and the number of the group can be nobody else's.
    fn finish(&self, ended: parent::Ended) -> io::Result<u8> {
        self.told(format_args!("process {} {}", ended.pid, how(ended)));
        let last = self.translated(libc::SIGTERM);
        if !self.wanted.single_child && last != 0 {
            let _ = process::signal_group(self.child, last);
        }
        parent::reap(ended.pid)?;
        let status = if ended.code == libc::CLD_EXITED as u32 { ended.status } else { 128 + ended.status };
        let status = (status & 0xff) as u8;
        Ok(if self.wanted.as_success.contains(&status) { 0 } else { status })
    }

    /// What a signal becomes; 0 for nothing. In a session of its own the command's group is nobody's job, so
    /// that the signals of job control would be without effect: it is stopped outright.
    fn translated(&self, signal: i32) -> i32 {
        match self.wanted.rewrites.iter().rfind(|(from, _)| *from == signal) {
            Some((_, to)) => *to,
            None if !self.wanted.single_child && OF_JOBS.contains(&signal) => libc::SIGSTOP,
            None => signal,
        }
    }

    fn pass_on(&self, got: Got) {
        let signal = self.translated(got.signal);
        let by_terminal = got.by_kernel && OF_TERMINAL.contains(&got.signal);
        if signal == 0 {
            self.told(format_args!("{} is not sent on", named(got.signal)));
        } else if by_terminal && self.wanted.single_child && terminal::shares_group(self.child) {
            self.told(format_args!("the terminal has sent {} to the command too", named(got.signal)));
        } else {
            let result = self.send(signal);
            let outcome = result.as_ref().map_or_else(errno::reason, |()| "sent on".to_owned());
            self.told(format_args!("{} as {}: {outcome}", named(got.signal), named(signal)));
        }
        if OF_JOBS.contains(&got.signal) {
            // The shell that waits for us has to see its job stop; PID 1 cannot.
            let _ = parent::signal_child(std::process::id(), libc::SIGSTOP);
        }
    }

    fn send(&self, signal: i32) -> io::Result<()> {
        if self.wanted.single_child {
            return parent::signal_child(self.child, signal);
        }
        match process::signal_group(self.child, signal) {
            // A child that has not come to its session yet: the signal waits until it has.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                parent::signal_child(self.child, signal)
            }
            result => result,
        }
    }
}

fn how(ended: parent::Ended) -> String {
    if ended.code == libc::CLD_EXITED as u32 {
        format!("exited with status {}", ended.status)
    } else {
        format!("was ended by {}", named(ended.status))
    }
}

fn named(signal: i32) -> String {
    Signal::numbered(signal).map_or_else(|| format!("signal {signal}"), |known| known.to_string())
}

/// Leaves the terminal to the command's session. Of a session's leader the kernel takes it with HUP and CONT to
/// all in the foreground, in our own name; those are not sent on.
fn give_up_terminal(verbose: bool) {
    let led = terminal::leads_session();
    if terminal::give_up().is_err() || !led {
        return;
    }
    for signal in [libc::SIGHUP, libc::SIGCONT] {
        if let Ok(Some(got)) = signals::take_pending(&[signal]) {
            if got.sender != Some(std::process::id()) {
                // Somebody else's was there before. It came to this process, and stays for it.
                let _ = parent::signal_child(std::process::id(), signal);
            } else if verbose {
                say(format_args!("{} comes of handing the terminal over", named(signal)));
            }
        }
    }
}

/// The child, up to the command. Only returns with an error.
fn become_command(wanted: &Wanted, words: &Words, mask: Mask, children_ignored: bool) -> io::Error {
    if !wanted.single_child {
        if let Err(error) = exec::new_session() {
            return error;
        }
        // Where standard input is no terminal, or another session's, there is nothing to take.
        let _ = terminal::take();
    }
    if wanted.parent_death == Some(libc::SIGKILL) {
        // KILL leaves us no time to send anything on.
        let _ = parent::signal_when_parent_ends(libc::SIGKILL);
    }
    hand_on_sockets();
    // The runtime of this program has SIGPIPE ignored; a command expects it to end a writer.
    let restored = signals::default_one(libc::SIGPIPE)
        .and_then(|_| if children_ignored { signals::ignore(libc::SIGCHLD) } else { Ok(()) })
        .and_then(|()| signals::restore(mask));
    match restored {
        Ok(()) => words.execute(),
        Err(error) => error,
    }
}

/// Sockets of sd_listen_fds(3) and the watchdog of sd_watchdog_enabled(3) are for the process that a variable
/// names: ours are the command's.
fn hand_on_sockets() {
    let own_parent = std::os::unix::process::parent_id().to_string();
    for name in ["LISTEN_PID", "WATCHDOG_PID"] {
        if std::env::var(name).is_ok_and(|value| value == own_parent)
            && let (Ok(name), Ok(value)) = (CString::new(name), CString::new(std::process::id().to_string()))
        {
            command::set_variable(&name, &value);
        }
    }
}
