//! CHILD. An execution plan to a running command with exactly those rights. Never goes on after a failed step, never allocates.
//!
//! This runs in a fresh clone, where only system calls are safe: another thread of a cloned process may have
//! held any lock. It ends in an exec or an exit. The one pipe it writes to gets a report where a step fails,
//! or where the system refuses something that no right depends on; its end without a failure means that the
//! command is being executed.
//!
//! Dispositions of signals are at their default already: the zygote saw to that once for all its children.

mod clue;
mod identity;
mod stage;
pub mod words;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub use clue::Clue;
pub use stage::{CPUS, Check, NICE, NOWHERE, Stage};

use crate::plan::image::Bad;
use crate::plan::{FIRST_SOCKET, MOST_SOCKETS, Resource};
use crate::sys::image::{Fault, Image};
use crate::sys::{clone, errno, exec, fds, gate, identity as rights, limits, signals, terminal};
use crate::wire::zygote::{MOST_CLUE_BYTES, Piece, REPORT_BYTES, Report, Weight};
use clue::Found;

/// How often a busy program file is tried, and how long between: someone is still writing it.
const BUSY_TRIES: u32 = 5;
const BUSY_NAP_MS: u32 = 20;

/// Descriptors of our own stay this far above the last passed socket.
const GAP: usize = 16;

/// The descriptors that came with a request.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The plan's image.
    pub plan: BorrowedFd<'a>,
    /// One byte lets the child through; the end means that nobody wrote it down.
    pub gate: BorrowedFd<'a>,
    /// Takes reports.
    pub status: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// To pass on, in order; none of them at 0, 1 or 2.
    pub sockets: &'a [Option<OwnedFd>],
}

/// Where and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    stage: Stage,
    errno: i32,
    detail: u32,
}

impl Stage {
    fn failed(self, errno: i32, detail: u32) -> Failure {
        Failure { stage: self, errno, detail }
    }

    /// The result of a system call of this step.
    fn of<T>(self, result: io::Result<T>) -> Result<T, Failure> {
        self.with(0, result)
    }

    /// The same, with something more to say.
    fn with<T>(self, detail: u32, result: io::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| self.failed(errno::of(&error), detail))
    }
}

/// Carries out the plan. Ends in the command, or with [`Stage::exit_code`] and a report.
pub fn run(job: &Job<'_>) -> ! {
    let failure = launch(job);
    clone::end(failure.stage.exit_code())
}

fn launch(job: &Job<'_>) -> Failure {
    let image = match read_plan(job) {
        Ok(image) => image,
        Err(failure) => return reported(job.status, failure),
    };
    // Above all places of passed sockets, so that none of them lands on it.
    let least = FIRST_SOCKET as usize + job.sockets.len() + GAP;
    let status = match Stage::Descriptors.of(fds::duplicate_from(job.status, least as RawFd)) {
        Ok(status) => status,
        Err(failure) => return reported(job.status, failure),
    };
    let failure = match prepare(job, &image, status.as_fd()) {
        Ok(()) => execute(&image),
        Err(failure) => failure,
    };
    // No step before these has given up every right, and none of them needs more than its words.
    let clue = match failure.stage {
        Stage::User | Stage::Directory | Stage::Exec => clue::after(&image, failure),
        _ => None,
    };
    reported_with(status.as_fd(), failure, clue.as_ref())
}

/// Everything up to the exec. What is done before the gate is undone by the child's end, and told only behind it:
/// a child that nobody has written down says nothing and runs nothing. Until then it is root's, so that no process of
/// the service's user can touch it.
fn prepare(job: &Job<'_>, image: &Image, status: BorrowedFd<'_>) -> Result<(), Failure> {
    let arranged = arrange(job, image, status);
    pass_gate(job.gate)?;
    arranged?;
    identity::assume(image)?;
    identity::verify(image)?;
    place_sockets(job.sockets)?;
    lower_limits(image)?;
    Stage::Directory.of(exec::enter(image.directory()))?;
    if !Stage::Directory.of(exec::directory_is_reachable())? {
        return Err(Stage::Directory.failed(errno::ENOENT, 0));
    }
    Stage::NoNewPrivs.of(rights::no_new_privileges())
}

/// What need not wait for the manager: it is at its own work meanwhile.
fn arrange(job: &Job<'_>, image: &Image, status: BorrowedFd<'_>) -> Result<(), Failure> {
    let layout = image.layout();
    Stage::Session.of(exec::new_session())?;
    place_stdio(job)?;
    if layout.has_terminal() {
        Stage::Terminal.of(terminal::take())?;
    }
    if let Some(score) = layout.oom_score_adj() {
        let tolerated = [errno::EACCES, errno::EPERM, errno::ENOENT];
        tolerate(status, Stage::Oom, &tolerated, limits::set_oom_score(score))?;
    }
    raise_limits(image)?;
    exec::set_umask(layout.umask());
    let tolerated = [errno::ENOSYS, errno::EPERM, errno::EACCES, errno::EDQUOT];
    tolerate(status, Stage::Keyring, &tolerated, exec::private_keyring())?;
    identity::narrow(image)
}

fn read_plan(job: &Job<'_>) -> Result<Image, Failure> {
    let image = Image::read(job.plan, clone::own_number()).map_err(|fault| match fault {
        Fault::System(error) => Stage::Plan.failed(errno::of(&error), 0),
        Fault::Bad(bad) => Stage::Plan.failed(0, bad as u32),
    })?;
    if image.layout().sockets() != job.sockets.len() || job.sockets.len() > MOST_SOCKETS {
        return Err(Stage::Plan.failed(0, Bad::Sockets as u32));
    }
    Ok(image)
}

fn pass_gate(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    loop {
        match fds::read(fd, &mut [0]) {
            // The manager has gone before it wrote the child down: nothing may run that is in no book.
            Ok(0) => return Err(Stage::Gate.failed(0, 0)),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Stage::Gate.of(gate::wait_readable(fd))?
            }
            Err(error) => return Err(Stage::Gate.failed(errno::of(&error), 0)),
        }
    }
}

fn place_stdio(job: &Job<'_>) -> Result<(), Failure> {
    // Sockets come later and would be overwritten here; the zygote never receives one below 3.
    if job.sockets.iter().flatten().any(|socket| socket.as_raw_fd() < FIRST_SOCKET.cast_signed()) {
        return Err(Stage::Stdio.failed(errno::EBADF, 0));
    }
    // First all away from 0 to 2, as one may sit in the place of another.
    let [input, output, error] = job.stdio.map(|fd| fds::duplicate_from(fd, 3));
    for (number, lifted) in (0..).zip([input, output, error]) {
        let lifted = Stage::Stdio.with(number, lifted)?;
        Stage::Stdio.with(number, exec::place(lifted.as_fd(), number.cast_signed()))?;
    }
    Ok(())
}

fn place_sockets(sockets: &[Option<OwnedFd>]) -> Result<(), Failure> {
    let end = FIRST_SOCKET + sockets.len() as u32;
    let mut lifted = [const { None::<OwnedFd> }; MOST_SOCKETS];
    for ((number, socket), place) in (FIRST_SOCKET..).zip(sockets).zip(&mut lifted) {
        let socket = socket.as_ref().ok_or(Stage::Descriptors.failed(errno::EBADF, number))?;
        let least = end as RawFd + GAP as RawFd;
        *place = Some(Stage::Descriptors.with(number, fds::duplicate_from(socket.as_fd(), least))?);
    }
    for (number, socket) in (FIRST_SOCKET..).zip(lifted.iter().flatten()) {
        Stage::Descriptors.with(number, exec::place(socket.as_fd(), number.cast_signed()))?;
    }
    Stage::Descriptors.of(exec::close_rest_on_exec(end.cast_signed()))
}

/// Raises what is to be raised, while that is allowed. A lower limit on descriptors waits until they are in
/// place: dup2(2) onto a number at or above the limit fails.
fn raise_limits(image: &Image) -> Result<(), Failure> {
    let layout = image.layout();
    for (resource, soft, hard) in limits_of(image) {
        let detail = resource as u32;
        let now = Stage::Limits.with(detail, limits::limit(resource))?;
        let first = match resource {
            Resource::Nofile => (now.0.max(soft), now.1.max(hard)),
            Resource::Core | Resource::Nproc => (soft, hard),
        };
        if first != now {
            Stage::Limits.with(detail, limits::set_limit(resource, first.0, first.1))?;
        }
    }
    if let Some(nice) = layout.nice() {
        Stage::Limits.with(NICE, limits::set_nice(nice))?;
    }
    match layout.cpus(image.bytes()) {
        [] => Ok(()),
        mask => Stage::Limits.with(CPUS, limits::set_processors(mask)),
    }
}

fn lower_limits(image: &Image) -> Result<(), Failure> {
    for (resource, soft, hard) in limits_of(image) {
        match resource {
            Resource::Nofile => {
                Stage::Limits.with(resource as u32, limits::set_limit(resource, soft, hard))?
            }
            Resource::Core | Resource::Nproc => (),
        }
    }
    Ok(())
}

fn limits_of(image: &Image) -> impl Iterator<Item = (Resource, u64, u64)> {
    (0..image.layout().limits()).filter_map(|index| image.layout().limit(image.bytes(), index))
}

/// Tries every place in order, as execvp(3) does, but never a shell. Returns only where all failed.
fn execute(image: &Image) -> Failure {
    if let Err(failure) = Stage::Signals.of(signals::unblock_all()) {
        return failure;
    }
    let mut best = Stage::Exec.failed(errno::ENOENT, NOWHERE);
    for index in 0..image.layout().candidates() {
        let found = execute_one(image, index);
        let at = index as u32;
        match found {
            // A file that is there and yet "not found" lacks its interpreter; keep the first such story.
            errno::ENOENT if image.candidate(index).is_some_and(exec::exists) => {
                if best.detail == NOWHERE {
                    best = Stage::Exec.failed(found, at);
                }
            }
            errno::ENOENT | errno::ENOTDIR | errno::ESTALE | errno::ENODEV | errno::ETIMEDOUT => (),
            errno::EACCES => {
                if best.errno != errno::EACCES {
                    best = Stage::Exec.failed(found, at);
                }
            }
            other => return Stage::Exec.failed(other, at),
        }
    }
    best
}

fn execute_one(image: &Image, index: usize) -> i32 {
    for _ in 0..BUSY_TRIES {
        let error = errno::of(&image.execute(index));
        if error != errno::ETXTBSY {
            return error;
        }
        exec::nap(BUSY_NAP_MS);
    }
    errno::of(&image.execute(index))
}

/// Goes on, with a warning, where the system refuses something that no right depends on.
fn tolerate(
    status: BorrowedFd<'_>,
    stage: Stage,
    tolerated: &[i32],
    result: io::Result<()>,
) -> Result<(), Failure> {
    match stage.of(result) {
        Err(failure) if tolerated.contains(&failure.errno) => {
            report(status, Weight::Warning, failure);
            Ok(())
        }
        other => other,
    }
}

fn reported(status: BorrowedFd<'_>, failure: Failure) -> Failure {
    reported_with(status, failure, None)
}

/// The clue and the failure in one write, so that who reads the one has the other.
fn reported_with(status: BorrowedFd<'_>, failure: Failure, found: Option<&Found>) -> Failure {
    // The mask may be empty by now, and a reader that has gone must not change how this process ends.
    let _ = signals::block_all();
    let mut bytes = [0; MOST_CLUE_BYTES + REPORT_BYTES];
    let mut length = 0;
    let mut add = |record: [u8; REPORT_BYTES]| {
        if let Some(room) = bytes.get_mut(length..length + REPORT_BYTES) {
            room.copy_from_slice(&record);
            length += REPORT_BYTES;
        }
    };
    if let Some(found) = found {
        Piece::all(found.clue as u8, found.text()).for_each(|piece| add(piece.encode()));
    }
    let Failure { stage, errno, detail } = failure;
    add(Report { weight: Weight::Failure, stage: stage as u8, errno, detail }.encode());
    let _ = fds::write(status, bytes.get(..length).unwrap_or_default());
    failure
}

/// A pipe takes a record of this size whole or not at all. Nobody is left to tell if it does not.
fn report(status: BorrowedFd<'_>, weight: Weight, failure: Failure) {
    let Failure { stage, errno, detail } = failure;
    let _ = fds::write(status, &Report { weight, stage: stage as u8, errno, detail }.encode());
}
