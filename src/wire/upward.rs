//! PURE. What supervise says to the init above it, as sd_notify(3) describes it: values to bytes. Never says more
//! than that protocol has words for.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The most bytes of a descriptor's name in the store of systemd.
const MOST_NAME: usize = 255;

/// How the names begin under which sockets are stored.
pub const OURS: &str = "supervise ";

/// Something for the init above to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Sockets are bound, and control answers.
    Ready,
    /// Everything is being stopped.
    Stopping,
    /// How it is, in one line.
    Status(String),
    /// Still alive.
    Alive,
    /// The status to exit with, for an init of a container or a machine that asks.
    Exit(u8),
    /// Keep the descriptor that comes along, under this name.
    Store(String),
    /// What is kept under this name is not needed any more.
    Forget(String),
}

impl Said {
    /// As one datagram.
    pub fn encode(&self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Status(text) => format!("STATUS={}\n", text.replace('\n', " ")),
            Self::Alive => "WATCHDOG=1\n".to_owned(),
            Self::Exit(status) => format!("EXIT_STATUS={status}\n"),
            // Without FDPOLL=0 a listener that somebody has shut down would be dropped in silence.
            Self::Store(name) => format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}\n"),
            Self::Forget(name) => format!("FDSTOREREMOVE=1\nFDNAME={name}\n"),
        }
    }
}

/// The name under which a socket of this address is stored: printable ASCII without `:`, as systemd wants it,
/// and another one for each address.
pub fn stored_name(address: &str) -> String {
    let mut name = String::from(OURS);
    for byte in address.bytes() {
        match byte {
            b'!'..=b'~' if byte != b':' && byte != b'%' => name.push(byte.into()),
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    if name.len() > MOST_NAME {
        name = format!("{OURS}%{:08x}{:x}", crc32fast::hash(address.as_bytes()), address.len());
    }
    name
}

/// How many services are in which state, in a line: `5 running, 1 backing-off`.
pub fn summary(states: impl Iterator<Item = &'static str>) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    let running = counts.remove("running");
    let others = counts.into_iter().map(|(state, count)| (count, state));
    let parts = running.map(|count| (count, "running")).into_iter().chain(others);
    let parts: Vec<String> = parts.map(|(count, state)| format!("{count} {state}")).collect();
    if parts.is_empty() { "no services".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lines() {
        assert_eq!(Said::Status("a\nb".into()).encode(), "STATUS=a b\n");
        assert_eq!(Said::Store("x".into()).encode(), "FDSTORE=1\nFDPOLL=0\nFDNAME=x\n");
        assert_eq!(Said::Exit(3).encode(), "EXIT_STATUS=3\n");
    }

    #[test]
    fn names_are_valid_and_differ() {
        assert_eq!(stored_name("0.0.0.0:80"), "supervise 0.0.0.0%3a80");
        assert_eq!(stored_name("/run/ä%x"), "supervise /run/%c3%a4%25x");
        let long = "/é".repeat(90);
        let (one, other) = (stored_name(&long), stored_name(&format!("{long}x")));
        assert!(one != other && one.len() <= MOST_NAME && !one.contains(':'));
    }

    #[test]
    fn those_that_run_are_named_first() {
        let states = ["backing-off", "running", "done", "running"];
        assert_eq!(summary(states.into_iter()), "2 running, 1 backing-off, 1 done");
        assert_eq!(summary(std::iter::empty()), "no services");
    }
}
