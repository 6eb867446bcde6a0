//! ROOT. Error numbers, their words, and whose want they tell of. Never more of an opinion about one.

pub use libc::{
    E2BIG, EACCES, EAGAIN, EBADF, EBADMSG, EBUSY, EDQUOT, EINVAL, EIO, ELOOP, EMFILE, EMSGSIZE, ENOBUFS,
    ENODEV, ENOENT, ENOEXEC, ENOMEM, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, ESTALE, ETIMEDOUT, ETOOMANYREFS,
    ETXTBSY,
};

use std::io;

/// The number in an error; EIO where it has none.
pub fn of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(EIO)
}

/// `permission denied` for EACCES: lower-case, without a number.
pub fn words(errno: i32) -> String {
    let text = nix::errno::Errno::from_raw(errno).desc();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// The words of an error, whether the system or we have made it.
pub fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), words)
}

/// Whether it tells of what this process or the machine is short of, and so of nothing that was asked.
pub fn is_shortage(error: &io::Error) -> bool {
    const SHORT: [i32; 5] = [EMFILE, libc::ENFILE, ENOMEM, ENOBUFS, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|errno| SHORT.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_is_no_shortage_of_ours() {
        for errno in [EMFILE, libc::ENFILE, ENOMEM, ENOBUFS, libc::EADDRNOTAVAIL] {
            assert!(is_shortage(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::ECONNREFUSED, libc::ECONNRESET, EAGAIN, ETIMEDOUT, ENOENT, EACCES] {
            assert!(!is_shortage(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_shortage(&io::Error::other("another can write its directory")));
    }

    #[test]
    fn words_are_lower_case_and_abbreviations_stay() {
        assert_eq!(words(EACCES), "permission denied");
        assert_eq!(words(EIO), "I/O error");
        assert_eq!(words(123_456), "unknown errno");
    }
}
