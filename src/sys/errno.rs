//! ROOT. Error numbers and their words. Never an opinion about one.

pub use libc::{
    E2BIG, EACCES, EAGAIN, EBADF, EBADMSG, EBUSY, EDQUOT, EINVAL, EIO, EMFILE, EMSGSIZE, ENOBUFS, ENODEV,
    ENOENT, ENOEXEC, ENOMEM, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, ESTALE, ETIMEDOUT, ETOOMANYREFS, ETXTBSY,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_abbreviations_stay() {
        assert_eq!(words(EACCES), "permission denied");
        assert_eq!(words(EIO), "I/O error");
        assert_eq!(words(123_456), "unknown errno");
    }
}
