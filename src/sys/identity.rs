//! ROOT. Users, groups and capabilities of this process. Never decides which.
//!
//! Raw calls on the calling thread alone, which must be the only one. Sources: setresuid(2), setgroups(2),
//! capset(2), capabilities(7).

use std::io;

use super::retry;
use crate::plan::MOST_GROUPS;

const CAPABILITY_VERSION: u32 = 0x2008_0522;
const LEAVE: libc::c_long = -1;

/// Real, effective and saved number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
}

impl Ids {
    /// Whether all three are `id`.
    pub fn all(self, id: u32) -> bool {
        self == Self { real: id, effective: id, saved: id }
    }
}

/// Three of the five capability sets, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What is used.
    pub effective: u64,
    /// What may be used.
    pub permitted: u64,
    /// What a file may let through an exec.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes exactly these the supplementary groups. EPERM without CAP_SETGID.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and count describe `groups`, alive across the call.
    retry(|| unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Whether the supplementary groups are exactly these; `groups` is ascending, as the kernel keeps them.
pub fn groups_are(groups: &[u32]) -> io::Result<bool> {
    let mut now = [0_u32; MOST_GROUPS];
    // SAFETY: the count and pointer describe `now`; with too many groups the kernel fails with EINVAL.
    let count = retry(|| unsafe { libc::syscall(libc::SYS_getgroups, now.len(), now.as_mut_ptr()) });
    match count {
        Ok(count) => Ok(now.get(..count as usize) == Some(groups)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets real, effective and saved group.
pub fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: setresgid touches no memory.
    retry(|| unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective and saved user.
pub fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: setresuid touches no memory.
    retry(|| unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// The three user numbers now.
pub fn users() -> io::Result<Ids> {
    ids(libc::SYS_getresuid)
}

/// The three group numbers now.
pub fn groups() -> io::Result<Ids> {
    ids(libc::SYS_getresgid)
}

fn ids(call: libc::c_long) -> io::Result<Ids> {
    let mut ids = Ids { real: 0, effective: 0, saved: 0 };
    // SAFETY: both calls write one 32-bit number to each of three places, which are fields of `ids`.
    retry(|| unsafe { libc::syscall(call, &raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved) })?;
    Ok(ids)
}

/// Tries to become user 0 again: true where that worked, and so nothing was given up.
pub fn regains_root_user() -> bool {
    // SAFETY: setresuid touches no memory.
    retry(|| unsafe { libc::syscall(libc::SYS_setresuid, LEAVE, 0 as libc::c_long, LEAVE) }).is_ok()
}

/// Tries to become group 0 again: true where that worked.
pub fn regains_root_group() -> bool {
    // SAFETY: setresgid touches no memory.
    retry(|| unsafe { libc::syscall(libc::SYS_setresgid, LEAVE, 0 as libc::c_long, LEAVE) }).is_ok()
}

/// Effective, permitted and inheritable capabilities now.
pub fn capabilities() -> io::Result<Sets> {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 of capget writes two halves, which is what there is room for.
    retry(|| unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) })?;
    let [low, high] = halves;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Sets effective, permitted and inheritable capabilities. EPERM where that would add to the permitted ones.
pub fn set_capabilities(sets: Sets) -> io::Result<()> {
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 of capset reads two halves, which is what there is.
    retry(|| unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) }).map(drop)
}

fn control(option: libc::c_int, one: libc::c_ulong, two: libc::c_ulong) -> io::Result<libc::c_long> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used below take numbers alone and touch no memory.
    retry(|| unsafe { libc::prctl(option, one, two, none, none) }.into())
}

/// Whether a capability is in the bounding set; EINVAL for a number that this kernel does not have.
pub fn bounding_has(capability: u32) -> io::Result<bool> {
    control(libc::PR_CAPBSET_READ, capability.into(), 0).map(|there| there == 1)
}

/// Takes a capability out of the bounding set for good. EPERM without CAP_SETPCAP.
pub fn bounding_drop(capability: u32) -> io::Result<()> {
    control(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Whether a capability is in the ambient set; EINVAL for a number that this kernel does not have.
pub fn ambient_has(capability: u32) -> io::Result<bool> {
    let is_set = libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong;
    control(libc::PR_CAP_AMBIENT, is_set, capability.into()).map(|there| there == 1)
}

/// Adds a capability that is permitted and inheritable to the ambient set.
pub fn ambient_raise(capability: u32) -> io::Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    control(libc::PR_CAP_AMBIENT, raise, capability.into()).map(drop)
}

/// Empties the ambient set.
pub fn ambient_clear() -> io::Result<()> {
    control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map(drop)
}

/// Whether permitted capabilities survive the change from user 0 to another.
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    control(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// No exec gives more rights from here on, for this process and all below it.
pub fn no_new_privileges() -> io::Result<()> {
    control(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}
