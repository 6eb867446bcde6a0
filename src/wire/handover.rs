//! PURE. What one keeper is started with, and where the next one finds what is left of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::settings::Settings;

/// The socket in a runtime directory on which a manager waits for a new keeper.
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("handover")
}

/// The lock in a runtime directory.
pub fn lock_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("lock")
}

/// The argument vector of a keeper: the number of the descriptor with the carried table, the soft limit on
/// descriptors that services get back, and what its manager is told.
pub fn keeper_arguments(carried: i32, soft_nofile: u64, settings: &Settings) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "supervise".into(),
        "keeper".into(),
        "--carried".into(),
        carried.to_string().into(),
        "--soft-nofile".into(),
        soft_nofile.to_string().into(),
        "--log-dir".into(),
        settings.log_dir.clone().into(),
    ];
    if let Some(user) = settings.log_user {
        arguments.extend(["--log-user".into(), user.to_string().into()]);
    }
    arguments.push("--".into());
    arguments.extend(settings.to_args());
    arguments
}

/// Who holds the lock, as its file says: a pid and its start in clock ticks after boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The keeper.
    pub pid: u32,
    /// With the pid, who it is.
    pub start_time: u64,
}

impl Holder {
    /// The file's content.
    pub fn encode(&self) -> String {
        format!("{} {}\n", self.pid, self.start_time)
    }

    /// From the file's content.
    pub fn decode(text: &str) -> Option<Self> {
        let (pid, start_time) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_comes_back_and_half_a_line_does_not() {
        let holder = Holder { pid: 77, start_time: 123_456 };
        assert_eq!(Holder::decode(&holder.encode()), Some(holder));
        for text in ["", "77", "77 123", "x 1\n", "77 1 2\n"] {
            assert_eq!(Holder::decode(text), None, "{text:?}");
        }
    }
}
