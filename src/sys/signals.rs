//! ROOT. Signal masks and dispositions of this process. Never handles one.
//!
//! Raw calls, as the C library keeps two signals to itself that must be reset like the others. Source: sigaction(2).

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
    set_mask(u64::MAX)
}

/// Blocks none.
pub fn unblock_all() -> io::Result<()> {
    set_mask(0)
}

fn set_mask(mask: u64) -> io::Result<()> {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: `mask` is the eight bytes that the kernel reads; it writes nothing.
    retry(|| unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, SET_BYTES)
    })
    .map(drop)
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
