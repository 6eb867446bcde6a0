//! ROOT. Signal masks and dispositions of this process, and signals that are waited for. Never installs a handler.
//!
//! Raw calls, as the C library keeps two signals to itself that must be reset like the others. Sources: sigaction(2),
//! sigwaitinfo(2), signal(7): a blocked signal waits even where it is ignored, and even for PID 1.

use std::io;

use super::retry;

const SET_BYTES: usize = 8;
const LAST: libc::c_int = 64;

/// What rt_sigaction(2) takes on x86_64.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Blocks every signal that can be.
pub fn block_all() -> io::Result<()> {
    set_mask(u64::MAX).map(drop)
}

/// Blocks none.
pub fn unblock_all() -> io::Result<()> {
    set_mask(0).map(drop)
}

/// Which signals are blocked.
#[derive(Clone, Copy, Debug)]
pub struct Mask(u64);

/// Blocks every signal that can be; which ones were before.
pub fn block_all_instead() -> io::Result<Mask> {
    set_mask(u64::MAX)
}

/// Blocks those again that were.
pub fn restore(mask: Mask) -> io::Result<()> {
    set_mask(mask.0).map(drop)
}

/// Blocks these besides.
pub fn block(signals: &[i32]) -> io::Result<()> {
    change_mask(libc::SIG_BLOCK, bits(signals)).map(drop)
}

fn bits(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << ((signal - 1) & 63))
}

/// Sets the mask; the one before.
fn set_mask(mask: u64) -> io::Result<Mask> {
    change_mask(libc::SIG_SETMASK, mask)
}

fn change_mask(how: libc::c_int, mask: u64) -> io::Result<Mask> {
    let mut before = 0_u64;
    // SAFETY: `mask` is the eight bytes that the kernel reads, `before` those that it writes.
    retry(|| unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, &raw mut before, SET_BYTES)
    })?;
    Ok(Mask(before))
}

/// A signal that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// Its number.
    pub signal: i32,
    /// Who sent it: a process of this pid namespace, or None for the kernel and processes from outside.
    pub sender: Option<u32>,
    /// It is the kernel's own doing, as the keys of a terminal are.
    pub by_kernel: bool,
}

/// Waits for a blocked signal and takes it.
pub fn wait() -> io::Result<Got> {
    take(u64::MAX, std::ptr::null())
}

/// Waits for one of these, which are blocked, and takes it.
pub fn wait_for(among: &[i32]) -> io::Result<Got> {
    take(bits(among), std::ptr::null())
}

/// Takes a blocked signal that is there already, one of `among` or any; None where there is none.
pub fn take_pending(among: &[i32]) -> io::Result<Option<Got>> {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    match take(if among.is_empty() { u64::MAX } else { bits(among) }, &raw const at_once) {
        Ok(got) => Ok(Some(got)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn take(set: u64, within: *const libc::timespec) -> io::Result<Got> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `set` has the eight bytes that are read, `info` room for what is written; `within` is null or
    // points at a time that outlives the call.
    let signal = retry(|| unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), within, SET_BYTES)
    })?;
    // SAFETY: all-zero bytes are a valid siginfo, and the call has filled it.
    let info = unsafe { info.assume_init() };
    let by_kernel = info.si_code == libc::SI_KERNEL;
    // SAFETY: whatever the kernel wrote there, a number can be read; of whom it is says si_code.
    let pid = unsafe { info.si_pid() };
    let by_process = matches!(info.si_code, libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL) && pid > 0;
    Ok(Got { signal: signal as i32, sender: by_process.then_some(pid as u32), by_kernel })
}

/// Has a blocked signal do at once what it does by default, to the whole process; for one that stops it this returns
/// when it goes on.
pub fn deliver(signal: i32) -> io::Result<()> {
    let before = change_mask(libc::SIG_UNBLOCK, bits(&[signal]))?;
    // SAFETY: raise takes a plain number; what it does is the default, as no handler is ever installed.
    let raised = retry(|| unsafe { libc::raise(signal) }.into());
    restore(before)?;
    raised.map(drop)
}

/// Has the default done for a signal; whether it was ignored before.
pub fn default_one(signal: i32) -> io::Result<bool> {
    dispose(signal, libc::SIG_DFL).map(|before| before == libc::SIG_IGN)
}

/// Ignores a signal.
pub fn ignore(signal: i32) -> io::Result<()> {
    dispose(signal, libc::SIG_IGN).map(drop)
}

fn dispose(signal: i32, handler: usize) -> io::Result<usize> {
    let wanted = Action { handler, flags: 0, restorer: 0, mask: 0 };
    let mut before = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: both have the kernel's layout and outlive the call; no handler is installed.
    retry(|| unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, &raw const wanted, &raw mut before, SET_BYTES)
    })?;
    Ok(before.handler)
}

/// Puts every disposition back to default, ignored signals as well: those would survive an exec.
pub fn default_all() -> io::Result<()> {
    let default = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    let none = std::ptr::null_mut::<Action>();
    for signal in 1..=LAST {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: `default` has the kernel's layout, installs no handler, and is alive across the call.
        retry(|| unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, SET_BYTES)
        })?;
    }
    Ok(())
}
