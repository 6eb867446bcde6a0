//! PURE. What a service says on its notify socket, as sd_notify(3) describes it: bytes to values. Never believes
//! more than it must.
//!
//! One datagram is a list of lines `NAME=value`. What is too long, empty, or holds a NUL (one at its end is
//! tolerated) is no message at all; of a message, names that are unknown and values that make no sense are
//! passed over. Descriptors that come along are not for this module; `BARRIER` needs no more than that its descriptor
//! is closed in its turn. `EXIT_STATUS` is what a manager says to the one above, and nothing to one below.

use serde::{Deserialize, Serialize};

/// The most bytes of a message that is read.
pub const MOST_BYTES: usize = 4096;

/// The most bytes of `STATUS=` that are kept.
pub const MOST_STATUS: usize = 512;

/// The most bytes of the name of an error, as D-Bus has it, and of a descriptor, as sd_listen_fds(3) has it.
pub const MOST_NAME: usize = 255;

/// Whom to believe from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Nobody.
    None,
    /// The main process.
    Main,
    /// Whoever can send to the socket: the service's user, and root.
    All,
}

/// What one message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// `READY=1`: it is ready, or has finished reading its configuration again.
    pub ready: bool,
    /// `RELOADING=1`: it has begun to read its configuration again.
    pub reloading: bool,
    /// `MONOTONIC_USEC=`: when, in microseconds of CLOCK_MONOTONIC.
    pub monotonic_us: Option<u64>,
    /// `STOPPING=1`: it is going down.
    pub stopping: bool,
    /// `STATUS=`: how it is, in a line of at most [`MOST_STATUS`] bytes; empty to take the last one back.
    pub status: Option<String>,
    /// `ERRNO=`: what went wrong, as errno(3).
    pub errno: Option<i32>,
    /// `BUSERROR=`: the same as the name of a D-Bus error; empty to take the last one back.
    pub bus_error: Option<String>,
    /// `VARLINKERROR=`: the same as the name of a Varlink error.
    pub varlink_error: Option<String>,
    /// `MAINPID=`: the process that it calls its main one.
    pub main_pid: Option<u32>,
    /// `MAINPIDFDID=`: the number that no other process of this boot has, of that process.
    pub main_id: Option<u64>,
    /// `MAINPIDFD=1`: the descriptor that comes along is that process.
    pub main_pidfd: bool,
    /// `FDSTORE=1`: it wants descriptors kept.
    pub stores: bool,
    /// `FDSTOREREMOVE=1`: it wants those of a name kept no longer.
    pub removes: bool,
    /// `FDNAME=`: which name.
    pub fd_name: Option<String>,
    /// `FDPOLL=0`: they are kept whether anybody is at their other end or not.
    pub unpolled: bool,
    /// `NOTIFYACCESS=`: whom to believe from now on.
    pub access: Option<Access>,
    /// `EXTEND_TIMEOUT_USEC=`, in milliseconds from now, rounded up.
    pub extend_ms: Option<u64>,
    /// `WATCHDOG=1`: it lives.
    pub alive: bool,
    /// `WATCHDOG=trigger`: it is to be treated as if it had not said so in time.
    pub trigger: bool,
    /// `WATCHDOG_USEC=`: how often it will say so from now on, in microseconds.
    pub watchdog_us: Option<u64>,
    /// `RESTART_RESET=1`: what failed before is mended.
    pub healed: bool,
}

/// Reads one message. None for what is none, which the caller counts.
pub fn parse(bytes: &[u8]) -> Option<Notice> {
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if text.is_empty() || bytes.len() > MOST_BYTES || text.contains(&0) {
        return None;
    }
    let mut notice = Notice::default();
    for line in text.split(|byte| *byte == b'\n') {
        // A line of bytes that are no text is passed over alone.
        if let Ok(line) = std::str::from_utf8(line)
            && let Some((name, value)) = line.split_once('=')
        {
            notice.take(name, value);
        }
    }
    Some(notice)
}

impl Notice {
    fn take(&mut self, name: &str, value: &str) {
        match name {
            "READY" => self.ready |= value == "1",
            "RELOADING" => self.reloading |= value == "1",
            "STOPPING" => self.stopping |= value == "1",
            "RESTART_RESET" => self.healed |= value == "1",
            "WATCHDOG" => {
                self.alive |= value == "1";
                self.trigger |= value == "trigger";
            }
            "WATCHDOG_USEC" => self.watchdog_us = number(value),
            "MONOTONIC_USEC" => self.monotonic_us = number(value),
            "EXTEND_TIMEOUT_USEC" => self.extend_ms = number(value).map(|us| us.div_ceil(1_000)),
            "ERRNO" => self.errno = number(value).and_then(|errno| i32::try_from(errno).ok()),
            "BUSERROR" => self.bus_error = error_name(value),
            "VARLINKERROR" => self.varlink_error = error_name(value),
            "MAINPID" => {
                let pid = number(value).and_then(|pid| i32::try_from(pid).ok());
                self.main_pid = pid.filter(|pid| *pid > 0).map(i32::unsigned_abs);
            }
            "MAINPIDFDID" => self.main_id = number(value),
            "MAINPIDFD" => self.main_pidfd |= value == "1",
            "FDSTORE" => self.stores |= value == "1",
            "FDSTOREREMOVE" => self.removes |= value == "1",
            "FDPOLL" => self.unpolled |= value == "0",
            "FDNAME" => self.fd_name = fd_name(value),
            "NOTIFYACCESS" => self.access = access(value).or(self.access),
            "STATUS" => {
                let end = value.floor_char_boundary(MOST_STATUS);
                self.status = value.get(..end).map(str::to_owned);
            }
            _ => {} // of another time, or private (`X_…`)
        }
    }
}

/// Decimal digits alone: no sign, no space.
fn number(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// A name as `LISTEN_FDNAMES` can have it: what prints, without the colon that stands between two.
fn fd_name(value: &str) -> Option<String> {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    (value.len() <= MOST_NAME && value.bytes().all(fits)).then(|| value.to_owned())
}

fn access(value: &str) -> Option<Access> {
    match value {
        "none" => Some(Access::None),
        // The commands beside it, which `exec` adds, have no socket here.
        "main" | "exec" => Some(Access::Main),
        "all" => Some(Access::All),
        _ => None,
    }
}

/// Letters, digits and what stands between them; or nothing at all.
fn error_name(value: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (value.len() <= MOST_NAME && value.bytes().all(known)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(text: &str) -> Notice {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_name_is_understood() {
        let all = said(
            "READY=1\nRELOADING=1\nMONOTONIC_USEC=77\nSTOPPING=1\nSTATUS=two workers = fine\nERRNO=2\n\
             EXTEND_TIMEOUT_USEC=1500001\nRESTART_RESET=1\nWATCHDOG=1\nWATCHDOG_USEC=2000000\nX_MINE=1\nMAINPID=7\n\
             BUSERROR=org.freedesktop.DBus.Error.TimedOut\nVARLINKERROR=io.example.Full\nFDSTORE=1\nFDNAME=a b\n\
             FDPOLL=0\nFDSTOREREMOVE=1\nMAINPIDFDID=18446744073709551615\nMAINPIDFD=1\nNOTIFYACCESS=main\n\
             EXIT_STATUS=3",
        );
        let wanted = Notice {
            ready: true,
            reloading: true,
            monotonic_us: Some(77),
            stopping: true,
            status: Some("two workers = fine".into()),
            errno: Some(2),
            bus_error: Some("org.freedesktop.DBus.Error.TimedOut".into()),
            varlink_error: Some("io.example.Full".into()),
            main_pid: Some(7),
            main_id: Some(u64::MAX),
            main_pidfd: true,
            stores: true,
            removes: true,
            fd_name: Some("a b".into()),
            unpolled: true,
            access: Some(Access::Main),
            extend_ms: Some(1_501),
            alive: true,
            trigger: false,
            watchdog_us: Some(2_000_000),
            healed: true,
        };
        assert_eq!(all, wanted);
        // As gunicorn and uWSGI say it.
        assert_eq!(
            said("READY=1\nSTATUS=Gunicorn arbiter booted\n").status.unwrap(),
            "Gunicorn arbiter booted"
        );
    }

    #[test]
    fn values_without_sense_say_nothing() {
        for text in ["READY=0", "READY", "READY= 1", "ready=1", "=1", "\n\n", "ERRNO=-1", "ERRNO=99999999999"]
        {
            assert_eq!(said(text), Notice::default(), "{text:?}");
        }
        assert_eq!(said("EXTEND_TIMEOUT_USEC=99999999999999999999"), Notice::default());
        for text in
            ["MAINPID=0", "MAINPID=-1", "MAINPID=2147483648", "BUSERROR=a b", "VARLINKERROR=\u{1b}[2J"]
        {
            assert_eq!(said(text), Notice::default(), "{text:?}");
        }
        assert_eq!(said(&format!("BUSERROR={}", "x".repeat(MOST_NAME + 1))), Notice::default());
        for text in
            ["FDNAME=a:b", "FDNAME=\u{e9}", "FDNAME=a\tb", "NOTIFYACCESS=nobody", "FDPOLL=1", "MAINPIDFDID=x"]
        {
            assert_eq!(said(text), Notice::default(), "{text:?}");
        }
        assert_eq!(said(&format!("FDNAME={}", "x".repeat(MOST_NAME + 1))), Notice::default());
        assert_eq!(said("FDNAME=").fd_name.unwrap(), "");
        assert_eq!(said("NOTIFYACCESS=all\nNOTIFYACCESS=?").access, Some(Access::All));
        let half = parse(b"STATUS=\xff\nREADY=1").unwrap();
        assert_eq!((half.status, half.ready), (None, true));
    }

    #[test]
    fn what_is_no_message_is_dropped() {
        for bytes in [&b""[..], b"\0", b"READY=1\0X=1", b"READY=1\0\0"] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
        assert!(said("READY=1\0").ready);
        let longest = format!("READY=1\nX={}", "x".repeat(MOST_BYTES - 10));
        assert!(said(&longest).ready);
        assert_eq!(parse(format!("{longest}x").as_bytes()), None);
    }

    #[test]
    fn a_long_status_is_cut_between_two_letters() {
        let status = said(&format!("STATUS={}", "é".repeat(400))).status.unwrap();
        assert_eq!(status, "é".repeat(MOST_STATUS / 2));
        assert_eq!(said(&format!("STATUS=a{}", "é".repeat(400))).status.unwrap().len(), MOST_STATUS - 1);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            if let Some(notice) = parse(&bytes) {
                prop_assert!(notice.status.is_none_or(|status| status.len() <= MOST_STATUS));
            }
        }

        #[test]
        fn a_name_of_a_descriptor_is_one_that_its_list_can_have(value in "\\PC{0,300}") {
            if let Some(name) = said(&format!("FDSTORE=1\nFDNAME={value}")).fd_name {
                prop_assert!(name.len() <= MOST_NAME && !name.contains([':', '\n', '\0']) && name.is_ascii());
            }
        }

        #[test]
        fn known_names_with_any_value_do_no_harm(name in "READY|STATUS|ERRNO|BUSERROR|MAINPID|MAINPIDFDID|MAINPIDFD|FDNAME|FDSTORE|FDPOLL|NOTIFYACCESS|EXTEND_TIMEOUT_USEC|MONOTONIC_USEC", value in "\\PC{0,600}") {
            let text = format!("{name}={value}");
            prop_assert!(parse(text.as_bytes()).is_some());
        }
    }
}
