//! PURE. Where one supervisor has its things, and how it behaves: defaults for root and for users, and the
//! argument vector that hands them from process to process. Never reads an environment or a directory.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The account that the log files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogUser {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl LogUser {
    /// The name of the account, where a system has one.
    pub const NAME: &str = "supervise-log";

    /// The account's line in the text of passwd(5).
    pub fn in_passwd(text: &str) -> Option<Self> {
        let mut fields = text
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(Self::NAME)).then_some(fields))?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        // -1 means "leave it as it is" to the kernel, and root is what this is to be instead of.
        (uid != 0 && uid != u32::MAX && gid != u32::MAX).then_some(Self { uid, gid })
    }

    /// From `UID:GID`.
    pub fn parse(text: &str) -> Option<Self> {
        let (uid, gid) = text.split_once(':')?;
        Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }
}

impl fmt::Display for LogUser {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}:{}", self.uid, self.gid)
    }
}

/// The settings of one supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directories of unit files; what an earlier one says goes before a later one.
    pub units: Vec<PathBuf>,
    /// Control socket, notify sockets, locks.
    pub runtime_dir: PathBuf,
    /// Log files.
    pub log_dir: PathBuf,
    /// History.
    pub state_dir: PathBuf,
    /// At most this long for stopping everything, in milliseconds; no limit where `None`.
    pub stop_timeout_ms: Option<u64>,
    /// Whether one bad unit keeps all from running.
    pub strict: bool,
    /// Who the logger is, where it is not the supervisor's own user.
    pub log_user: Option<LogUser>,
}

/// The variables of a user's environment from which defaults come, as they are (XDG Base Directory
/// Specification 0.8: what is empty or no absolute path counts as unset).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xdg {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`; else `$HOME/.config`.
    pub config_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`; else `$HOME/.local/state`.
    pub state_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

/// Neither a home directory nor a variable says where a user's things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Homeless;

impl fmt::Display for Homeless {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("no place for a supervisor of your own: `HOME` is not set")
    }
}

impl std::error::Error for Homeless {}

impl Settings {
    /// What root's supervisor has.
    pub fn of_root() -> Self {
        Self {
            units: vec!["/etc/supervise/units".into(), "/usr/lib/supervise/units".into()],
            runtime_dir: "/run/supervise".into(),
            log_dir: "/var/log/supervise".into(),
            state_dir: "/var/lib/supervise".into(),
            stop_timeout_ms: None,
            strict: false,
            log_user: None,
        }
    }

    /// What a user's own supervisor has.
    pub fn of_user(xdg: &Xdg) -> Result<Self, Homeless> {
        let set = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
        let below_home = |path: &str| set(&xdg.home).map(|home| home.join(path));
        let config = set(&xdg.config_home).or_else(|| below_home(".config")).ok_or(Homeless)?;
        let state = set(&xdg.state_home).or_else(|| below_home(".local/state")).ok_or(Homeless)?;
        let state = state.join("supervise");
        let runtime = set(&xdg.runtime_dir).map(|path| path.join("supervise"));
        Ok(Self {
            units: vec![config.join("supervise/units")],
            runtime_dir: runtime.unwrap_or_else(|| state.join("run")),
            log_dir: state.join("log"),
            state_dir: state,
            stop_timeout_ms: None,
            strict: false,
            log_user: None,
        })
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        control_in(&self.runtime_dir)
    }

    /// As `--key value` arguments, which [`Settings::from_args`] reads back.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut put = |key: &str, value: &Path| args.extend([key.into(), value.into()]);
        self.units.iter().for_each(|path| put("--units", path));
        put("--runtime-dir", &self.runtime_dir);
        put("--log-dir", &self.log_dir);
        put("--state-dir", &self.state_dir);
        if let Some(limit_ms) = self.stop_timeout_ms {
            put("--stop-timeout-ms", Path::new(&limit_ms.to_string()));
        }
        if let Some(user) = self.log_user {
            put("--log-user", Path::new(&user.to_string()));
        }
        put("--strict", Path::new(if self.strict { "yes" } else { "no" }));
        args
    }

    /// Reads what [`Settings::to_args`] wrote; anything else is an error that says what.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, BadArgs> {
        let mut args = args.into_iter();
        let (mut units, mut stop_timeout_ms, mut strict, mut log_user) = (Vec::new(), None, None, None);
        let (mut runtime_dir, mut log_dir, mut state_dir) = (None, None, None);
        while let Some(key) = args.next() {
            let key = key.to_str().unwrap_or_default().to_owned();
            let value = args.next().ok_or_else(|| BadArgs::NoValue(key.clone()))?;
            let once = |place: &mut Option<PathBuf>| match place.replace(PathBuf::from(&value)) {
                Some(_) => Err(BadArgs::Twice(key.clone())),
                None => Ok(()),
            };
            match key.as_str() {
                "--units" => units.push(value.into()),
                "--runtime-dir" => once(&mut runtime_dir)?,
                "--log-dir" => once(&mut log_dir)?,
                "--state-dir" => once(&mut state_dir)?,
                "--stop-timeout-ms" => {
                    let limit = value.to_str().and_then(|text| text.parse().ok());
                    stop_timeout_ms = Some(limit.ok_or(BadArgs::BadValue(key))?);
                }
                "--log-user" => {
                    let user = value.to_str().and_then(LogUser::parse);
                    log_user = Some(user.ok_or(BadArgs::BadValue(key))?);
                }
                "--strict" => {
                    strict = Some(match value.to_str() {
                        Some("yes") => true,
                        Some("no") => false,
                        Some(_) | None => return Err(BadArgs::BadValue(key)),
                    });
                }
                _ => return Err(BadArgs::Unknown(key)),
            }
        }
        Ok(Self {
            units,
            runtime_dir: runtime_dir.ok_or(BadArgs::Missing("--runtime-dir"))?,
            log_dir: log_dir.ok_or(BadArgs::Missing("--log-dir"))?,
            state_dir: state_dir.ok_or(BadArgs::Missing("--state-dir"))?,
            stop_timeout_ms,
            strict: strict.ok_or(BadArgs::Missing("--strict"))?,
            log_user,
        })
    }
}

/// The control socket in a runtime directory.
pub fn control_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control")
}

/// Why arguments between our own processes are not settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadArgs {
    /// No such key.
    Unknown(String),
    /// The key came last.
    NoValue(String),
    /// The value cannot be read.
    BadValue(String),
    /// The key came twice.
    Twice(String),
    /// The key is not there.
    Missing(&'static str),
}

impl fmt::Display for BadArgs {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(key) => write!(to, "unknown setting `{key}`"),
            Self::NoValue(key) => write!(to, "setting `{key}` has no value"),
            Self::BadValue(key) => write!(to, "setting `{key}` has a value that cannot be read"),
            Self::Twice(key) => write!(to, "setting `{key}` is given twice"),
            Self::Missing(key) => write!(to, "setting `{key}` is missing"),
        }
    }
}

impl std::error::Error for BadArgs {}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn args(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_users_places_come_from_xdg_and_else_from_home() {
        let home = Xdg { home: Some("/home/al".into()), ..Xdg::default() };
        let settings = Settings::of_user(&home).unwrap();
        assert_eq!(settings.units, [PathBuf::from("/home/al/.config/supervise/units")]);
        assert_eq!(settings.runtime_dir, Path::new("/home/al/.local/state/supervise/run"));
        assert_eq!(settings.log_dir, Path::new("/home/al/.local/state/supervise/log"));
        assert_eq!(settings.state_dir, Path::new("/home/al/.local/state/supervise"));
        let all = Xdg {
            home: None,
            config_home: Some("/c".into()),
            state_home: Some("/s".into()),
            runtime_dir: Some("/r".into()),
        };
        let settings = Settings::of_user(&all).unwrap();
        assert_eq!(settings.units, [PathBuf::from("/c/supervise/units")]);
        assert_eq!(settings.control(), Path::new("/r/supervise/control"));
        assert_eq!(settings.log_dir, Path::new("/s/supervise/log"));
    }

    #[test]
    fn empty_and_relative_variables_count_as_unset() {
        let xdg = Xdg {
            home: Some("/home/al".into()),
            config_home: Some("".into()),
            state_home: Some("state".into()),
            runtime_dir: Some("./run".into()),
        };
        let plain = Xdg { home: Some("/home/al".into()), ..Xdg::default() };
        assert_eq!(Settings::of_user(&xdg), Settings::of_user(&plain));
        assert_eq!(Settings::of_user(&Xdg::default()), Err(Homeless));
    }

    #[test]
    fn what_is_no_setting_is_said() {
        for (bad, says) in [
            (&["--units"][..], "setting `--units` has no value"),
            (&["--fly", "x"], "unknown setting `--fly`"),
            (&["--log-dir", "a", "--log-dir", "b"], "setting `--log-dir` is given twice"),
            (&["--stop-timeout-ms", "-1"], "setting `--stop-timeout-ms` has a value that cannot be read"),
            (&["--strict", "maybe"], "setting `--strict` has a value that cannot be read"),
            (&[], "setting `--runtime-dir` is missing"),
        ] {
            assert_eq!(Settings::from_args(args(bad)).unwrap_err().to_string(), says);
        }
    }

    fn path() -> impl Strategy<Value = PathBuf> {
        proptest::collection::vec(1u8..=255, 0..20).prop_map(|bytes| OsString::from_vec(bytes).into())
    }

    #[test]
    fn the_account_of_the_logs_is_read_from_its_line() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nsupervise-log:x:998:997:Logs:/nonexistent:/usr/sbin/nologin\n";
        let user = LogUser::in_passwd(passwd).unwrap();
        assert_eq!((user.uid, user.gid), (998, 997));
        assert_eq!(LogUser::parse(&user.to_string()), Some(user));
        for bad in [
            "",
            "supervise-log",
            "supervise-log:x:0:0:",
            "supervise-log:x:4294967295:1:",
            "x:supervise-log:1:2",
        ] {
            assert_eq!(LogUser::in_passwd(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn settings_read_back_as_they_were_written(
            units in proptest::collection::vec(path(), 0..4),
            (runtime_dir, log_dir, state_dir) in (path(), path(), path()),
            stop_timeout_ms in proptest::option::of(any::<u64>()),
            strict: bool,
        ) {
            let log_user = strict.then_some(LogUser { uid: 7, gid: 8 });
            let settings = Settings { units, runtime_dir, log_dir, state_dir, stop_timeout_ms, strict, log_user };
            prop_assert_eq!(Settings::from_args(settings.to_args()), Ok(settings));
        }
    }
}
