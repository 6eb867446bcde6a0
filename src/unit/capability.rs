//! PURE. The names of capabilities and their numbers, as capabilities(7) has them. Never asks who has one.

use std::fmt;

/// In the order of their numbers, from 0 on.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The highest number that has a name here (Linux 5.9 to at least 6.18).
pub const HIGHEST_CAPABILITY: u32 = 40;

/// All that have a name, one bit each.
pub const KNOWN_CAPABILITIES: u64 = (1 << 41) - 1;

/// `net_bind_service` for 10; None beyond the last.
pub fn capability_name(number: u32) -> Option<&'static str> {
    NAMES.get(number as usize).copied()
}

/// 10 for `net-bind-service`, `CAP_NET_BIND_SERVICE` and the like.
pub fn capability_number(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let name = name.strip_prefix("cap_").unwrap_or(&name);
    (0..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number)
}

/// A capability that has a name. Shown, as a unit writes it: `net-bind-service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u32);

impl Capability {
    /// The capability of this name, with or without `cap-`; None for any other word.
    pub fn named(word: &str) -> Option<Self> {
        capability_number(word).map(Self)
    }

    /// Its number, from 0.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Names as units write them, for hints.
    pub(super) fn names() -> Vec<String> {
        NAMES.iter().map(|name| name.replace('_', "-")).collect()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&capability_name(self.0).unwrap_or_default().replace('_', "-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel_header() {
        for (name, number) in [("chown", 0), ("net_bind_service", 10), ("sys_resource", 24), ("bpf", 39)] {
            assert_eq!((capability_number(name), capability_name(number)), (Some(number), Some(name)));
        }
        assert_eq!(capability_number("net-raw"), Some(13));
        assert_eq!(Capability::named("CAP_NET_RAW").unwrap().to_string(), "net-raw");
        assert_eq!(capability_number("CAP_CHECKPOINT_RESTORE"), Some(HIGHEST_CAPABILITY));
        assert_eq!((capability_number("cap_"), capability_name(41)), (None, None));
    }
}
