//! ROOT. What only a parent can do: start our own helper processes, peek at ended children, reap them, and
//! read signals from a descriptor. Never decides what an end means.
//!
//! Sources: waitid(2), signalfd(2), prctl(2), execveat(2).

use std::ffi::{CString, OsString, c_char};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use super::fds::owned;
use super::retry;

/// The signals a keeper takes from its descriptor instead of dying of them.
const TAKEN: [libc::c_int; 9] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPWR,
    libc::SIGWINCH,
];

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn taken_set() -> libc::sigset_t {
    let mut set = empty_set();
    for signal in TAKEN {
        // SAFETY: the set is initialised, and the call takes nothing else but a number.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Keeps the keeper's signals back for [`take_signals`], across an execve: what comes on the way to it is neither lost
/// nor this process's death.
pub fn hold_signals() {
    let set = taken_set();
    // SAFETY: the set is initialised and outlives the call.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// Blocks the keeper's signals, puts SIGCHLD and SIGPIPE in order, and returns a non-blocking signalfd.
pub fn take_signals() -> io::Result<OwnedFd> {
    let set = taken_set();
    // SAFETY: plain calls on a set of ours; SIG_DFL and SIG_IGN run no handler.
    unsafe {
        // An inherited SIG_IGN of SIGCHLD would make the kernel throw exits away.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set is initialised and outlives the call.
    retry(|| unsafe { libc::signalfd(-1, &raw const set, flags) }.into()).map(owned)
}

/// Unblocks everything and ignores SIGPIPE: what a helper process of ours starts with.
pub fn plain_signals() {
    let set = empty_set();
    // SAFETY: plain calls on a set of ours; SIG_IGN runs no handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// The next signal from a signalfd; None when there is none.
pub fn next_signal(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` has room for the `size` bytes read writes.
    match retry(|| unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) as libc::c_long }) {
        // SAFETY: signalfd reads are whole records.
        Ok(count) if count as usize == size => Ok(Some(unsafe { info.assume_init() }.ssi_signo as i32)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes this process the one that orphans below it are given to (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes plain numbers.
    retry(|| unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Whether this process is init of its pid namespace.
pub fn is_pid_one() -> bool {
    std::process::id() == 1
}

/// An ended child that has not been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: u32,
    /// CLD_EXITED, CLD_KILLED or CLD_DUMPED.
    pub code: u32,
    /// The exit status or the signal.
    pub status: i32,
}

/// Looks at one ended child without reaping it (WNOWAIT). None: none has ended, or there are none.
pub fn peek() -> io::Result<Option<Ended>> {
    // SAFETY: an all-zero siginfo is valid; waitid fills it.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: `info` outlives the call.
    match retry(|| unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) }.into()) {
        Ok(_) => {
            // SAFETY: waitid filled the SIGCHLD members, or left the zeros in place.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            Ok((pid > 0).then_some(Ended { pid: pid as u32, code: info.si_code as u32, status }))
        }
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reaps one ended child.
pub fn reap(pid: u32) -> io::Result<()> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: waitid takes a null info.
    retry(|| unsafe { libc::waitid(libc::P_PID, pid, ptr::null_mut(), flags) }.into()).map(drop)
}

/// Sends a signal to a child that the caller has not reaped, so that the pid can be nobody else's.
pub fn signal_child(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    retry(|| unsafe { libc::kill(pid as libc::pid_t, signal) }.into()).map(drop)
}

/// Waits until one of the descriptors is readable or has hung up, at most `timeout_ms` (-1: for ever).
/// Writes to `ready` which ones are.
pub fn wait(fds: &[BorrowedFd<'_>], timeout_ms: i32, ready: &mut [bool]) -> io::Result<()> {
    const MOST: usize = 4;
    // SAFETY: an all-zero pollfd is valid.
    let mut polls: [libc::pollfd; MOST] = unsafe { zeroed() };
    let count = fds.len().min(MOST);
    for (poll, fd) in polls.iter_mut().zip(fds) {
        *poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    }
    // SAFETY: `polls` has `count` initialised elements and outlives the call.
    let result = unsafe { libc::poll(polls.as_mut_ptr(), count as libc::nfds_t, timeout_ms) };
    if result < 0 {
        let error = io::Error::last_os_error();
        // An interruption is a wake-up like any other: the caller looks at everything anyway.
        return if error.raw_os_error() == Some(libc::EINTR) { Ok(()) } else { Err(error) };
    }
    for (flag, poll) in ready.iter_mut().zip(&polls) {
        *flag = poll.revents != 0;
    }
    Ok(())
}

/// A program of our own binary, ready to be executed at any time without allocating.
#[derive(Debug)]
pub struct Helper {
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

impl Helper {
    /// From arguments and variables; a NUL byte in one is EINVAL.
    pub fn of(
        arguments: Vec<OsString>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let string = |text: OsString| {
            CString::new(text.into_vec()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
        };
        let pair = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            string(name)
        };
        let arguments = arguments.into_iter().map(string).collect::<io::Result<_>>()?;
        let environment = variables.map(pair).collect::<io::Result<_>>()?;
        Ok(Self::new(arguments, environment))
    }

    /// Prepares the vectors.
    fn new(arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|one| one.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Self { _arguments: arguments, _environment: environment, argv, envp }
    }

    /// Starts it in a session of its own, with `fds` at 3, 4, … and nothing else but 0 to 2. Its exit signal
    /// is SIGCHLD. Returns its pid.
    pub fn start(&self, binary: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<u32> {
        // SAFETY: this process has one thread; the child only makes async-signal-safe calls, on memory
        // prepared before, and ends in execveat or _exit.
        let pid = retry(|| unsafe { libc::fork() }.into())?;
        if pid == 0 {
            self.become_it(binary, fds);
        }
        Ok(pid as u32)
    }

    /// Executes it in place of this process. Only returns with an error.
    pub fn replace(&self, binary: BorrowedFd<'_>) -> io::Error {
        // SAFETY: both vectors end in null and point at strings that `self` owns.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                binary.as_raw_fd(),
                c"".as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        io::Error::last_os_error()
    }

    fn become_it(&self, binary: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> ! {
        const MOST: usize = 8;
        let set = empty_set();
        let floor = 3 + MOST as RawFd + 1;
        // SAFETY: only async-signal-safe calls on plain numbers and on `set`; every descriptor is first
        // copied above the places that dup3 then fills, so none is overwritten before it is used.
        unsafe {
            libc::setsid();
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
            if null >= 0 {
                libc::dup2(null, 0);
            }
            let exe = libc::fcntl(binary.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor);
            let mut copies = [-1; MOST];
            for (copy, fd) in copies.iter_mut().zip(fds) {
                *copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor);
            }
            libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            for (index, copy) in copies.iter().take(fds.len()).enumerate() {
                if *copy < 0 || libc::dup2(*copy, 3 + index as RawFd) < 0 {
                    libc::_exit(125);
                }
            }
            libc::syscall(
                libc::SYS_execveat,
                exe,
                c"".as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(127)
        }
    }
}

/// This process's own binary, as a descriptor that stays the same across upgrades of the file (O_PATH).
pub fn own_binary() -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the path is a NUL-terminated constant.
    retry(|| unsafe { libc::open(c"/proc/self/exe".as_ptr(), flags) }.into()).map(owned)
}

/// Asks for SIGKILL when the parent ends, and checks that the parent is still the expected one
/// (PR_SET_PDEATHSIG; set again after every change of identity).
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: this prctl takes plain numbers.
    retry(|| unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into())?;
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Asks for a signal when the parent ends (PR_SET_PDEATHSIG). Look at the parent afterwards: it may have ended
/// before.
pub fn signal_when_parent_ends(signal: i32) -> io::Result<()> {
    // SAFETY: this prctl takes plain numbers.
    retry(|| unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) }.into()).map(drop)
}

/// The limit on descriptors, soft and hard, and the soft one raised to the hard one from now on.
pub fn raise_descriptor_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for what getrlimit writes.
    retry(|| unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }.into())?;
    let before = (limit.rlim_cur, limit.rlim_max);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised and outlives the call.
    retry(|| unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())?;
    Ok(before)
}
