//! USER. One question to a supervisor until its last answer, across a supervisor that is put in place of
//! another meanwhile. Never asks anything but the same call again.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, Fault};
use super::exit::Exit;
use super::trouble::{self, Trouble, reason};
use crate::sys::peer;
use crate::wire::request::Request;
use crate::wire::varlink::{Answer, MOST_CALL, shape};

/// How long a supervisor that was there may be away, in milliseconds.
const GIVE_UP_MS: u64 = 10_000;
/// A connection that has been open for so long was to somebody who means it, in milliseconds.
const STOOD_MS: u128 = 1_000;
/// How long to wait before connecting again, in milliseconds.
const PAUSE_MS: u64 = 100;
/// After how much silence someone who watches is told, in milliseconds.
const SILENT_MS: u64 = 2_000;

const CONNECTION: Token = Token(0);
const INTERRUPT: Token = Token(1);

/// What happens on the way to the last answer.
#[derive(Debug)]
pub enum Event {
    /// Descriptors that came with the answer which comes next, or is the last.
    Passed(Vec<OwnedFd>),
    /// An answer that is not the last.
    Answer(Answer),
    /// The connection broke; everything begins anew.
    Again,
    /// There has been no answer for a while.
    Silent,
}

/// How a question ended.
#[derive(Debug)]
pub enum Ending {
    /// With this answer, which may be an error.
    Last(Answer),
    /// The user, or who was told, wants no more.
    Detached,
}

/// How long failures are borne. Counts from the first of several in a row.
#[derive(Debug, Default)]
struct Patience {
    since_ms: Option<u64>,
}

impl Patience {
    /// It failed: whether to try again.
    fn bears(&mut self, now_ms: u64) -> bool {
        now_ms.saturating_sub(*self.since_ms.get_or_insert(now_ms)) < GIVE_UP_MS
    }

    /// A connection has been open for so long before it failed: a supervisor was there, also where it had nothing to
    /// say yet. One that hangs up at once is none.
    fn stood(&mut self, ms: u128) {
        if ms >= STOOD_MS {
            self.restore();
        }
    }

    /// An answer came.
    fn restore(&mut self) {
        self.since_ms = None;
    }
}

/// Asks, and tells `each` what happens on the way. With `detachable`, Ctrl-C ends the waiting once the call is
/// sent, and not the process.
pub fn ask(
    control: &Path,
    request: &Request,
    detachable: bool,
    each: &mut dyn FnMut(Event),
) -> Result<Ending, Trouble> {
    ask_while(control, request, detachable, &mut |event| {
        each(event);
        ControlFlow::Continue(())
    })
}

/// The same, as long as `each` wants to go on.
pub fn ask_while(
    control: &Path,
    request: &Request,
    detachable: bool,
    each: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Ending, Trouble> {
    let frame = request.call().encode();
    check_size(&frame, "names", "a glob names many: `'bagels-*'`")?;
    let failed =
        |error: io::Error| Trouble::plain(Exit::Failed, format!("preparing to wait: {}", reason(&error)));
    let mut question =
        Question { poll: Poll::new().map_err(failed)?, interrupt: None, patience: Patience::default() };
    let (began, own_uid, mut reached) = (Instant::now(), peer::own_uid(), false);
    loop {
        let fault = match Connection::open(control, own_uid) {
            Ok(mut connection) => {
                reached = true;
                let opened = Instant::now();
                match question.put(&mut connection, &frame, detachable, each) {
                    Ok(ending) => return Ok(ending),
                    Err(fault) => {
                        question.patience.stood(opened.elapsed().as_millis());
                        fault
                    }
                }
            }
            Err(fault) => fault,
        };
        let passing = match &fault {
            Fault::Absent(_) => reached,
            Fault::Busy => true,
            Fault::Broken => request.is_repeatable(),
            Fault::Denied | Fault::Untrusted(_) | Fault::Garbled | Fault::Other(..) => false,
        };
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if matches!(fault, Fault::Broken) && !request.is_repeatable() {
            let text = "the supervisor hung up before it answered: whether it was done is not known";
            return Err(Trouble::plain(Exit::Failed, text));
        }
        if !passing || !question.patience.bears(elapsed_ms) {
            return Err(explained(control, &fault));
        }
        if each(Event::Again).is_break() {
            return Ok(Ending::Detached);
        }
        if question.pause(Duration::from_millis(PAUSE_MS)).map_err(failed)? {
            return Ok(Ending::Detached);
        }
    }
}

/// Whether a supervisor takes a call of this size; it would hang up without a word. `what` there is too much of.
pub fn check_size(frame: &[u8], what: &str, hint: &str) -> Result<(), Trouble> {
    // The frame's NUL is none of the call.
    if frame.len() <= MOST_CALL + 1 && shape(frame).is_ok() {
        return Ok(());
    }
    let trouble = Trouble::plain(Exit::Usage, format!("too many {what} for one call"));
    Err(trouble.hint(format!("at most 64 KiB and some 4000 of them; {hint}")))
}

/// A fault in the user's words.
pub fn explained(control: &Path, fault: &Fault) -> Trouble {
    match fault {
        Fault::Absent(error) => trouble::absent(control, &reason(error)),
        Fault::Busy => {
            let text = format!("`{}`: too many clients are waiting for it", trouble::shown_path(control));
            Trouble::plain(Exit::NoSupervisor, text).hint("ask again; what it looks after runs on")
        }
        Fault::Broken => trouble::absent(control, "it hangs up without an answer"),
        Fault::Garbled => trouble::absent(control, "what answers there is no supervisor"),
        Fault::Denied => trouble::denied(control),
        Fault::Untrusted(uid) => trouble::untrusted(control, *uid),
        Fault::Other(doing, error) => Trouble::plain(Exit::Failed, format!("{doing}: {}", reason(error))),
    }
}

struct Question {
    poll: Poll,
    interrupt: Option<UnixStream>,
    patience: Patience,
}

impl Question {
    /// Sends the call over a fresh connection and listens to its last answer.
    fn put(
        &mut self,
        connection: &mut Connection,
        frame: &[u8],
        detachable: bool,
        each: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Ending, Fault> {
        connection.watch(self.poll.registry(), CONNECTION)?;
        // Before the call is sent: from then on Ctrl-C must not end the process without a word.
        if detachable && self.interrupt.is_none() {
            self.arm().map_err(|error| Fault::Other("preparing for Ctrl-C", error))?;
        }
        connection.send(frame)?;
        let mut quiet = Some(Duration::from_millis(SILENT_MS));
        let mut events = Events::with_capacity(4);
        loop {
            while let Some(answer) = connection.next()? {
                self.patience.restore();
                quiet = None;
                let passed = connection.passed();
                if !passed.is_empty() && each(Event::Passed(passed)).is_break() {
                    return Ok(Ending::Detached);
                }
                if !answer.continues {
                    return Ok(Ending::Last(answer));
                }
                if each(Event::Answer(answer)).is_break() {
                    return Ok(Ending::Detached);
                }
            }
            match self.poll.poll(&mut events, quiet) {
                Ok(()) if events.iter().any(|event| event.token() == INTERRUPT) => {
                    return Ok(Ending::Detached);
                }
                Ok(()) if events.is_empty() && quiet.take().is_some() => {
                    if each(Event::Silent).is_break() {
                        return Ok(Ending::Detached);
                    }
                }
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Other("waiting for the supervisor", error)),
            }
        }
    }

    /// From here on Ctrl-C is an event.
    fn arm(&mut self) -> io::Result<()> {
        let (read, write) = UnixStream::pair()?;
        self.poll.registry().register(&mut SourceFd(&read.as_raw_fd()), INTERRUPT, Interest::READABLE)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, write)?;
        self.interrupt = Some(read);
        Ok(())
    }

    /// Waits before another try; whether Ctrl-C came.
    fn pause(&mut self, long: Duration) -> io::Result<bool> {
        let until = Instant::now() + long;
        let mut events = Events::with_capacity(4);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(left)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            if events.iter().any(|event| event.token() == INTERRUPT) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_borne_for_ten_seconds_in_a_row() {
        let mut patience = Patience::default();
        assert!(patience.bears(5_000));
        assert!(patience.bears(14_999));
        assert!(!patience.bears(15_000));
        patience.restore();
        assert!(patience.bears(20_000));
        assert!(!patience.bears(30_000));
        // A manager that waits with us for minutes, dies, and whose next one does too.
        patience.stood(999);
        assert!(!patience.bears(30_000));
        patience.stood(1_000);
        assert!(patience.bears(90_000));
    }

    #[test]
    fn a_call_that_no_supervisor_takes_is_not_sent() {
        let of = |argv: Vec<String>| {
            let request = Request::Exec { name: "web".to_owned(), argv, terminal: None, resume: None };
            check_size(&request.call().encode(), "arguments", "and so on").map_err(|one| one.rendered())
        };
        assert_eq!(of(vec!["x".to_owned(); 4000]), Ok(()));
        let said = "supervise: too many arguments for one call\nhint: at most 64 KiB and some 4000 of them; and so on\n";
        assert_eq!(of(vec!["x".to_owned(); 4096]).unwrap_err(), said);
        assert_eq!(of(vec!["x".repeat(65_536)]).unwrap_err(), said);
        assert_eq!(of(vec![",".repeat(60_000)]), Ok(()));
    }

    #[test]
    fn each_fault_has_its_exit_status_and_names_the_path() {
        let path = Path::new("/run/supervise/control");
        let text = |fault: Fault| {
            let trouble = explained(path, &fault);
            (trouble.rendered(), trouble.exit)
        };
        let (said, exit) = text(Fault::Absent(io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        let expected = "supervise: no supervisor there: `/run/supervise/control`: connection refused\n\
                        hint: `supervise run` starts one; `--user` asks your own, `--runtime-dir` or \
                        `SUPERVISE_RUNTIME_DIR` another\n";
        assert_eq!((said.as_str(), exit), (expected, Exit::NoSupervisor));
        let (said, exit) = text(Fault::Untrusted(1001));
        let expected = "supervise: no supervisor there: `/run/supervise/control` belongs to a process of user \
                        1001, who is neither root nor you\nhint: name the runtime directory of the one you mean: \
                        `--runtime-dir`\n";
        assert_eq!((said.as_str(), exit), (expected, Exit::NoSupervisor));
        assert_eq!(text(Fault::Denied).1, Exit::NotPermitted);
        assert_eq!(text(Fault::Broken).1, Exit::NoSupervisor);
    }
}
