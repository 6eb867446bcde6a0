//! ROOT. Clones itself for each start, and nothing else. Never parses more than sixteen bytes, never
//! allocates after its start, never outlives its parent.
//!
//! Its children are its parent's (CLONE_PARENT), so whoever made this process reaps them. It must have been
//! made with SIGCHLD as its exit signal, which the children inherit. All signals stay blocked: the ways to
//! end it are the end of its link, the end of its parent, and SIGKILL.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use crate::launch::{self, Job};
use crate::plan::{MOST_SOCKETS, image};
use crate::sys::clone::{self, Half};
use crate::sys::link::{Link, Received};
use crate::sys::{errno, exec, fds, gate, memory, signals};
use crate::wire::zygote::{FIXED_FDS, MESSAGE_BYTES, Reply, Spawn};

/// The descriptor number of the link, by agreement with the parent.
pub const LINK: i32 = 3;

/// Descriptors one message can bring: the fixed ones, the sockets, the cgroup.
const MOST_FDS: usize = FIXED_FDS + MOST_SOCKETS + 1;

/// How long to wait before a reply is tried again that the system had no room for. Room on the link itself
/// ends the wait at once; other shortages (descriptors in flight) say nothing when they pass.
const AGAIN_MS: i32 = 10;

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The manager has closed the link.
    Link,
    /// The parent is not the one it was: a clone would hand children to a stranger.
    Parent,
    /// The link failed with this error number.
    Broken(i32),
}

/// How the loop ended, and what it refused to understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub why: End,
    /// Messages that were none.
    pub malformed: u64,
}

/// `zygote --parent PID`: the arguments are those behind the word `zygote`; descriptor 3 is the link.
///
/// Exits with 0 at the end of the link, 1 where the parent has gone or the link is broken, 2 on wrong
/// arguments.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let parent = match args.as_slice() {
        [flag, number] if flag == "--parent" => number.to_str().and_then(|number| number.parse().ok()),
        _ => None,
    };
    let Some(parent) = parent else {
        fds::complain("zygote: `--parent PID` is needed: this process is started by supervise itself");
        return ExitCode::from(2);
    };
    drop(args);
    let link = match start(parent) {
        Ok(Some(link)) => link,
        Ok(None) => return ExitCode::from(1),
        Err(error) => {
            fds::complain(&format!("zygote: starting: {}", errno::words(errno::of(&error))));
            return ExitCode::from(1);
        }
    };
    match serve(link, parent).why {
        End::Link => ExitCode::SUCCESS,
        End::Parent | End::Broken(_) => ExitCode::from(1),
    }
}

fn start(parent: u32) -> io::Result<Option<Link>> {
    clone::die_with_parent()?;
    // It may have ended before that call.
    if clone::parent() != parent {
        return Ok(None);
    }
    let link = Link::from_fd(fds::inherited(LINK)?);
    fds::fill_standard()?;
    fds::close_on_exec_from(LINK)?;
    fds::set_nonblocking(link.as_fd(), true)?;
    image::know_processor(); // here once, instead of in each child
    Ok(Some(link))
}

/// Serves the link until it ends. In a child this does not return: it becomes the command or exits.
pub fn serve(link: Link, parent: u32) -> Ended {
    image::warm_up();
    let mut zygote = Zygote { link, parent, malformed: 0, way: Way::default() };
    // Once here instead of for each child: a disposition is inherited, and an ignored one survives an exec.
    let why = match signals::block_all().and_then(|()| signals::default_all()) {
        Ok(()) => {
            memory::give_back();
            zygote.turns()
        }
        Err(error) => End::Broken(errno::of(&error)),
    };
    Ended { why, malformed: zygote.malformed }
}

/// What this kernel, and the filter around us, let us use; learned from refusals.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    keep_handlers: bool,
    old_clone: bool,
}

struct Zygote {
    link: Link,
    parent: u32,
    malformed: u64,
    way: Way,
}

/// A clone that worked, from the side of the one that cloned.
struct Cloned {
    pid: u32,
    pidfd: Option<OwnedFd>,
    cgroup_errno: u16,
    old_clone: bool,
}

impl Zygote {
    fn turns(&mut self) -> End {
        let mut places = [const { None::<OwnedFd> }; MOST_FDS];
        loop {
            let mut bytes = [0; MESSAGE_BYTES];
            let turn = match self.link.receive(&mut bytes, &mut places) {
                Ok(None) => return End::Link,
                Ok(Some(received)) => self.answer(&bytes, received, &mut places),
                Err(error) => self.without_message(&error, &bytes),
            };
            // Whatever a message brought is closed before the next one, understood or not.
            close(&mut places);
            if let Err(end) = turn {
                return end;
            }
        }
    }

    fn without_message(&mut self, error: &io::Error, bytes: &[u8]) -> Result<(), End> {
        match errno::of(error) {
            errno::EAGAIN => {
                gate::wait_readable(self.link.as_fd()).map_err(|error| End::Broken(errno::of(&error)))
            }
            // Too long, or descriptors were lost on the way because our table is full. The start may still
            // say which request it was, and the manager waits for an answer.
            errno::EMSGSIZE => match Spawn::decode(bytes) {
                Some(spawn) => {
                    self.reply(Reply::Refused { request: spawn.request, errno: errno::EMFILE }, None)
                }
                None => self.count_malformed(),
            },
            other => Err(End::Broken(other)),
        }
    }

    fn count_malformed(&mut self) -> Result<(), End> {
        self.malformed = self.malformed.saturating_add(1);
        Ok(())
    }

    fn answer(&mut self, bytes: &[u8], got: Received, places: &mut [Option<OwnedFd>]) -> Result<(), End> {
        let Some(spawn) = bytes.get(..got.bytes).and_then(Spawn::decode) else {
            return self.count_malformed();
        };
        let request = spawn.request;
        let Some((job, cgroup)) = job(&spawn, places.get(..got.fds).unwrap_or_default()) else {
            self.count_malformed()?;
            return self.reply(Reply::Refused { request, errno: errno::EBADMSG }, None);
        };
        // An orphan would hand its children to whoever adopted it.
        if clone::parent() != self.parent {
            return Err(End::Parent);
        }
        let outcome = self.clone_for(&job, cgroup);
        // Before anybody can open the gate: once the command executes, its report has ended. With a copy here it
        // would end later than the first words of the command come.
        close(places);
        match outcome {
            Ok(cloned) => {
                let Cloned { pid, pidfd, cgroup_errno, old_clone } = cloned;
                self.reply(Reply::Spawned { request, pid, cgroup_errno, old_clone }, pidfd.as_ref())
            }
            Err(error) => self.reply(Reply::Refused { request, errno: errno::of(&error) }, None),
        }
    }

    /// Clones in the best way that is allowed here. In the child this does not return.
    fn clone_for(&mut self, job: &Job<'_>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
        let mut into = cgroup;
        let mut cgroup_errno = 0;
        if self.way.old_clone && into.take().is_some() {
            cgroup_errno = errno::ENOSYS as u16;
        }
        loop {
            let old_clone = self.way.old_clone;
            let half = if old_clone {
                clone::sibling_by_old_call()
            } else {
                clone::sibling(into, !self.way.keep_handlers)
            };
            match half {
                Ok(Half::Child) => self.become_child(job),
                Ok(Half::Parent { pid, pidfd }) => return Ok(Cloned { pid, pidfd, cgroup_errno, old_clone }),
                Err(error) if old_clone => return Err(error),
                Err(error) => match errno::of(&error) {
                    // The cgroup alone may be the trouble: gone, not ours, not allowed to hold processes.
                    number @ (errno::EACCES
                    | errno::ENOENT
                    | errno::EBUSY
                    | errno::EOPNOTSUPP
                    | errno::ENODEV
                    | errno::EBADF
                    | errno::EINVAL
                    | errno::E2BIG)
                        if into.is_some() =>
                    {
                        cgroup_errno = number as u16;
                        into = None;
                    }
                    errno::EINVAL | errno::E2BIG if !self.way.keep_handlers => self.way.keep_handlers = true,
                    // A filter around us, or an old kernel: the older call knows no cgroup.
                    number @ (errno::ENOSYS | errno::EPERM | errno::EINVAL | errno::E2BIG) => {
                        self.way.old_clone = true;
                        if into.take().is_some() {
                            cgroup_errno = number as u16;
                        }
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// The child's half. The link goes first: the manager must see the zygote's end however long this waits.
    fn become_child(&self, job: &Job<'_>) -> ! {
        exec::abandon(self.link.as_fd());
        launch::run(job)
    }

    fn reply(&self, reply: Reply, pidfd: Option<&OwnedFd>) -> Result<(), End> {
        let bytes = reply.encode();
        let one = pidfd.map(|fd| [fd.as_fd()]);
        let with = one.as_ref().map_or(&[][..], |one| &one[..]);
        loop {
            let Err(error) = self.link.send(&bytes, with) else { return Ok(()) };
            let waited = match errno::of(&error) {
                errno::EAGAIN => gate::wait_writable(self.link.as_fd(), -1),
                errno::ETOOMANYREFS | errno::ENOMEM | errno::ENOBUFS => {
                    gate::wait_gone(self.link.as_fd(), AGAIN_MS)
                }
                other => return Err(End::Broken(other)),
            };
            waited.map_err(|error| End::Broken(errno::of(&error)))?;
        }
    }
}

fn close(places: &mut [Option<OwnedFd>]) {
    places.iter_mut().for_each(|place| *place = None);
}

/// The descriptors of a message by what they are for; None where there are not as many as it says.
fn job<'a>(spawn: &Spawn, fds: &'a [Option<OwnedFd>]) -> Option<(Job<'a>, Option<BorrowedFd<'a>>)> {
    if fds.len() != spawn.fds() || fds.iter().any(Option::is_none) {
        return None;
    }
    let at = |index: usize| fds.get(index).and_then(Option::as_ref).map(OwnedFd::as_fd);
    let sockets_end = FIXED_FDS + usize::from(spawn.sockets);
    let job = Job {
        plan: at(0)?,
        gate: at(1)?,
        status: at(2)?,
        stdio: [at(3)?, at(4)?, at(5)?],
        sockets: fds.get(FIXED_FDS..sockets_end)?,
    };
    Some((job, if spawn.cgroup { Some(at(sockets_end)?) } else { None }))
}
