//! ROOT. One command as a child of this process, with this process's own rights. Never for services: those are
//! the zygote's, with identities of their own.
//!
//! Sources: fork(2), exec(3), environ(7).

use std::ffi::{CStr, CString, OsString, c_char};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use super::retry;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The new process.
    Child,
    /// The process that forked, with the number of the new one.
    Parent(u32),
}

/// A copy of this process, which has one thread.
pub fn fork() -> io::Result<Half> {
    // SAFETY: the caller has one thread, so nothing in the copy is held by a thread that is not in it.
    let pid = retry(|| unsafe { libc::fork() }.into())?;
    Ok(if pid == 0 { Half::Child } else { Half::Parent(pid as u32) })
}

/// The words of a command, as execve(2) takes them.
#[derive(Debug)]
pub struct Words {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Words {
    /// From the words; a NUL byte in one, or none at all, is EINVAL.
    pub fn of(words: Vec<OsString>) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let string = |word: OsString| CString::new(word.into_vec()).map_err(|_| invalid());
        let owned: Vec<CString> = words.into_iter().map(string).collect::<io::Result<_>>()?;
        if owned.is_empty() {
            return Err(invalid());
        }
        let pointers = owned.iter().map(|one| one.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { _owned: owned, pointers })
    }

    /// Executes the command in place of this process, found in PATH where it has no slash, by `/bin/sh` where
    /// it is a script that does not say by what (execvp(3)). Only returns with an error.
    pub fn execute(&self) -> io::Error {
        if let Some(program) = self.pointers.first() {
            // SAFETY: the vector ends in null and points at strings that `self` owns.
            unsafe { libc::execvp(*program, self.pointers.as_ptr()) };
        }
        io::Error::last_os_error()
    }
}

/// Sets a variable of the environment that the next execution gets. Only for a process that has one thread.
pub fn set_variable(name: &CStr, value: &CStr) {
    // SAFETY: both are NUL-terminated and copied by the call; nobody reads the environment meanwhile.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
}
