//! ROOT. Other processes: pidfds, signals through them, who they are. Never decides whom to signal.
//!
//! Sources: pidfd_open(2), pidfd_send_signal(2), the PIDFD_GET_INFO ioctl of linux/pidfd.h, proc_pid_stat(5).
//! A pid is only ever used to get a pidfd, and what was read about the pid is checked again after that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::fds::{self, owned};
use super::retry;

/// A descriptor for the process that has this pid now; close-on-exec by nature.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes plain numbers.
    retry(|| unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) }).map(owned)
}

/// Has the kernel end this process after some seconds, whatever it does then.
pub fn end_after(seconds: u32) {
    // SAFETY: it takes a number; SIGALRM has its default action in a process that has just been executed.
    unsafe { libc::alarm(seconds) };
}

/// Sends a signal. ESRCH when the process has ended.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null info makes it behave like kill(2).
    retry(|| unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Sends a signal to a process group whose leader the caller has not let be reaped or whose session lives
/// on, so that the number is nobody else's. ESRCH when the group is empty; signal 0 only asks.
pub fn signal_group(group: u32, signal: i32) -> io::Result<()> {
    if group < 2 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: kill takes plain numbers; the group is neither ours (0) nor everybody (-1).
    retry(|| unsafe { libc::kill(-(group as libc::pid_t), signal) }.into()).map(drop)
}

/// Whether a process has ended (a pidfd polls readable then).
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one initialised pollfd that outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLIN != 0 }
}

/// What proc_pid_stat(5) says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// One letter; `Z` for one that has ended and waits to be reaped.
    pub state: u8,
    /// Pid of the parent.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// Number of its controlling terminal; 0 without one.
    pub terminal: i32,
    /// Clock ticks after boot at which it started; with the pid, an identity for as long as the machine runs.
    pub start_time: u64,
    /// Clock ticks of processor time that it has used.
    pub ticks: u64,
    /// Pages of memory that it has in RAM.
    pub pages: u64,
    /// The status of one that has ended, as wait(2) encodes it; 0 also where we may not know (ptrace(2)'s
    /// access check).
    pub exit_code: i32,
}

impl Stat {
    /// Bytes of memory that it has in RAM.
    pub fn memory_bytes(&self) -> u64 {
        // SAFETY: sysconf takes a plain number and touches no memory of ours.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        self.pages.saturating_mul(u64::try_from(page).unwrap_or(4096))
    }

    /// Microseconds of processor time that it has used.
    pub fn processor_us(&self) -> u64 {
        // SAFETY: as above.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        self.ticks.saturating_mul(1_000_000) / u64::try_from(ticks).unwrap_or(100).max(1)
    }
}

/// Room for any /proc/PID/stat.
const STAT_BYTES: usize = 2048;

/// Whose pidfd that is; None once it was reaped (`Pid:` of proc_pid_fdinfo(5)).
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// Reads /proc/PID/stat.
pub fn stat(pid: u32) -> io::Result<Stat> {
    // 51 numbers of at most 20 digits and a name of at most 64 bytes: one read takes all of it.
    let mut text = [0; STAT_BYTES];
    let file = File::open(format!("/proc/{pid}/stat"))?;
    let count = fds::read(file.as_fd(), &mut text)?;
    text.get(..count).and_then(parse_stat).ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
}

/// The name in the second field may hold anything, so the fields are counted from the last parenthesis.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after = memchr::memrchr(b')', text)?;
    let rest = std::str::from_utf8(text.get(after + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        terminal: fields.get(4)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
        ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        pages: fields.get(21).and_then(|text| text.parse().ok()).unwrap_or(0),
        exit_code: fields.get(49).and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// What a process is called (`comm` of proc_pid_comm(5)).
pub fn name(pid: u32) -> io::Result<String> {
    let text = std::fs::read(format!("/proc/{pid}/comm"))?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Real, effective, saved and file system user of a process (proc_pid_status(5)).
pub fn users(pid: u32) -> io::Result<[u32; 4]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    let numbers: Vec<u32> =
        line.unwrap_or_default().split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EPROTO))
}

/// The number that no other process of this boot has, of the process behind a pidfd. None before Linux 6.9, where
/// descriptors of processes have none.
pub fn id_of(pidfd: BorrowedFd<'_>) -> Option<u64> {
    const PIDFS: libc::c_long = 0x5049_4446;
    // SAFETY: an all-zero statfs is a valid value for the kernel to fill.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `system` is alive across the call.
    retry(|| unsafe { libc::fstatfs(pidfd.as_raw_fd(), &raw mut system) }.into()).ok()?;
    if system.f_type as libc::c_long != PIDFS {
        return None;
    }
    // SAFETY: an all-zero stat is a valid value for the kernel to fill.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is alive across the call.
    retry(|| unsafe { libc::fstat(pidfd.as_raw_fd(), &raw mut stat) }.into()).ok()?;
    Some(stat.st_ino)
}

/// The children of a process, those of each of its threads, from /proc/PID/task/TID/children where the kernel has
/// it, else from all of /proc. Names only: each must be opened and looked at again before anything is done to it.
pub fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(text) => {
                found.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()))
            }
            // A thread that has ended has left its children to another.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !thread.path().exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut found = all()?;
                found.retain(|one| stat(*one).is_ok_and(|stat| stat.parent == pid));
                return Ok(found);
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Every pid of this namespace.
pub fn all() -> io::Result<Vec<u32>> {
    let names = std::fs::read_dir("/proc")?;
    Ok(names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The status of a process that is another's child and has ended, as wait(2) encodes it. None where it is not
/// known: before Linux 6.15 once it is reaped, and while it waits to be reaped, for a success or without the
/// right to look.
pub fn foreign_status(pidfd: BorrowedFd<'_>, pid: u32, start_time: u64) -> Option<i32> {
    // A parent may take its time; what waits for it can be read as long as it is the same process.
    let waiting = stat(pid).ok().filter(|stat| stat.start_time == start_time && stat.state == b'Z');
    match waiting.map(|stat| stat.exit_code) {
        Some(code) if code != 0 => Some(code),
        Some(_) | None => exit_status(pidfd),
    }
}

/// The status of a process that somebody else has reaped.
fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        pids: [u32; 3],
        ids: [u32; 8],
        exit_code: i32,
        coredump: [u32; 2],
        supported: u64,
    }
    const EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info) with the structure's size, as linux/pidfd.h defines it.
    const GET_INFO: libc::c_ulong =
        (3 << 30) | ((size_of::<Info>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: `info` has the size that is encoded in the request, and outlives the call.
    let done = retry(|| unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) }.into());
    (done.is_ok() && info.mask & EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let mut text = b"42 (a) b) (c) S 7 8 9 0 -1".to_vec();
        for field in 9..=22 {
            text.extend_from_slice(format!(" {field}").as_bytes());
        }
        let stat = parse_stat(&text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.session), (b'S', 7, 8, 9));
        assert_eq!((stat.start_time, stat.exit_code), (22, 0));
        for field in 23..=52 {
            text.extend_from_slice(format!(" {field}").as_bytes());
        }
        assert_eq!(parse_stat(&text).unwrap().exit_code, 52);
        assert!(parse_stat(b"42 (a S").is_none());
    }

    #[test]
    fn a_process_has_one_number_however_it_is_opened() {
        let [one, other] = [(); 2].map(|()| open(std::process::id()).unwrap());
        assert_eq!(id_of(one.as_fd()), id_of(other.as_fd()));
        let (pipe, _) = fds::pipe(0).unwrap();
        assert_eq!((id_of(pipe.as_fd()), pid_of(one.as_fd())), (None, Some(std::process::id())));
    }

    #[test]
    fn this_process_is_seen_by_its_parent() {
        let me = stat(std::process::id()).unwrap();
        assert!(children(me.parent).unwrap().contains(&std::process::id()));
        let own = crate::sys::peer::own_uid();
        assert_eq!(users(std::process::id()).unwrap(), [own; 4]);
        assert!(users(0).is_err());
    }

    #[test]
    fn children_of_every_thread_are_children() {
        let mut child = std::thread::spawn(|| {
            let child =
                std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
            // This thread still lives.
            assert!(children(std::process::id()).unwrap().contains(&child.id()));
            child
        })
        .join()
        .unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children(std::process::id()).unwrap().contains(&child.id()));
    }
}
