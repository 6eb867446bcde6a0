//! ROOT. Limits and shares of this process: resources, priority, processors, the score of the out-of-memory
//! killer. Never decides how much.
//!
//! Sources: prlimit(2), setpriority(2), sched_setaffinity(2), proc_pid_oom_score_adj(5).

use std::io;

use super::fds::{self, owned};
use super::retry;
use crate::plan::Resource;
use std::os::fd::AsFd;

fn number(resource: Resource) -> libc::c_int {
    let number = match resource {
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Nproc => libc::RLIMIT_NPROC,
    };
    number as libc::c_int
}

/// Soft and hard limit now; `u64::MAX` is unlimited.
pub fn limit(resource: Resource) -> io::Result<(u64, u64)> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let unchanged = std::ptr::null::<libc::rlimit64>();
    // SAFETY: with a null new limit prlimit only writes the old one, for which there is room.
    retry(|| unsafe { libc::syscall(libc::SYS_prlimit64, 0, number(resource), unchanged, &raw mut now) })?;
    Ok((now.rlim_cur, now.rlim_max))
}

/// Sets both. EPERM where the hard limit would rise without CAP_SYS_RESOURCE.
pub fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let wish = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let nowhere = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: prlimit only reads the new limit, which is alive across the call.
    retry(|| unsafe { libc::syscall(libc::SYS_prlimit64, 0, number(resource), &raw const wish, nowhere) })
        .map(drop)
}

/// -20 (most) to 19 (least). EACCES where it would rise above what is allowed.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: setpriority touches no memory.
    retry(|| unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// The processors to run on, one bit each. EINVAL where none of them exists.
pub fn set_processors(mask: &[u8]) -> io::Result<()> {
    // SAFETY: the length and pointer describe `mask`, which the call only reads.
    retry(|| unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) }).map(drop)
}

/// -1000 (never) to 1000 (first), by way of /proc. Only while the process is dumpable: before it changes
/// its user. EACCES where it would sink below what is allowed.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: the path is a NUL-terminated constant.
    let file =
        retry(|| unsafe { libc::open(c"/proc/self/oom_score_adj".as_ptr(), flags) }.into()).map(owned)?;
    let mut digits = [0_u8; 12];
    fds::write(file.as_fd(), decimal(score, &mut digits)).map(drop)
}

/// The number in decimal digits at the end of `room`; empty where they do not fit.
pub(super) fn decimal(number: i32, room: &mut [u8; 12]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = room.len();
    loop {
        let Some(place) = start.checked_sub(1).and_then(|at| room.get_mut(at)) else { return &[] };
        *place = b'0' + (rest % 10) as u8;
        start -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0
        && let Some(place) = start.checked_sub(1).and_then(|at| room.get_mut(at))
    {
        *place = b'-';
        start -= 1;
    }
    room.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_digits_up_to_the_last() {
        for value in [0, 7, 10, -1, -1000, 4_194_304, i32::MAX, i32::MIN] {
            assert_eq!(decimal(value, &mut [0; 12]), value.to_string().as_bytes());
        }
    }
}
