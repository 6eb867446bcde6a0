//! USER. Which supervisor a command means, and which settings a new one gets: from arguments, then variables,
//! then defaults. Reads the environment in one place and decides purely.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::trouble::{Trouble, reason};
use crate::sys::peer;
use crate::wire::settings::{Homeless, Settings, Xdg, control_in};

/// Milliseconds for stopping everything as PID 1: `docker stop` gives 10 s, and then kills all there is.
const FIRST_STOP_MS: u64 = 9_000;

/// What the command line says of the supervisor that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `--runtime-dir`.
    pub runtime_dir: Option<PathBuf>,
    /// `--user`.
    pub user: bool,
}

/// What the command line says of a supervisor that is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub place: Place,
    /// `--units`, as often as given.
    pub units: Vec<PathBuf>,
    /// `--log-dir`.
    pub log_dir: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--stop-timeout`, in milliseconds; `Some(None)` is `off`.
    pub stop_timeout: Option<Option<u64>>,
    /// `--ready-fd`.
    pub ready_fd: Option<i32>,
    /// `--strict`.
    pub strict: bool,
}

/// What surrounds this process.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The effective user.
    pub uid: u32,
    /// This process is PID 1.
    pub is_first: bool,
    /// The working directory, where it can be told.
    pub directory: Option<PathBuf>,
    /// The user's directories.
    pub xdg: Xdg,
    /// `SUPERVISE_UNITS`: directories with `:` between them.
    pub units: Option<OsString>,
    /// `SUPERVISE_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `SUPERVISE_LOG_DIR`.
    pub log_dir: Option<PathBuf>,
    /// `SUPERVISE_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process. An empty variable counts as unset.
    pub fn of_this_process() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        Self {
            uid: peer::own_uid(),
            is_first: std::process::id() == 1,
            directory: std::env::current_dir().ok(),
            xdg: Xdg {
                home: path("HOME"),
                config_home: path("XDG_CONFIG_HOME"),
                state_home: path("XDG_STATE_HOME"),
                runtime_dir: path("XDG_RUNTIME_DIR"),
            },
            units: set("SUPERVISE_UNITS"),
            runtime_dir: path("SUPERVISE_RUNTIME_DIR"),
            log_dir: path("SUPERVISE_LOG_DIR"),
            state_dir: path("SUPERVISE_STATE_DIR"),
        }
    }

    /// A path that stays the same when the process moves to another directory.
    fn absolute(&self, path: &Path) -> Result<PathBuf, Trouble> {
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        match &self.directory {
            Some(directory) => Ok(directory.join(path)),
            None => Err(Trouble::plain(
                Exit::Failed,
                format!(
                    "`{}`: {}",
                    super::trouble::shown_path(path),
                    reason(&std::io::ErrorKind::NotFound.into())
                ),
            )
            .hint("the working directory is gone: give an absolute path")),
        }
    }
}

fn homeless(error: Homeless) -> Trouble {
    Trouble::plain(Exit::Failed, error.to_string()).hint("set `HOME`, or give `--runtime-dir`")
}

/// The control socket of the supervisor that is meant.
pub fn control(place: &Place, around: &Surroundings) -> Result<PathBuf, Trouble> {
    if let Some(directory) = place.runtime_dir.as_ref().or(around.runtime_dir.as_ref()) {
        return Ok(control_in(directory));
    }
    if place.user {
        return Ok(Settings::of_user(&around.xdg).map_err(homeless)?.control());
    }
    Ok(Settings::of_root().control())
}

/// The log directory of the supervisor that is meant, as far as it can be told without asking it.
pub fn log_dir(place: &Place, given: &Option<PathBuf>, around: &Surroundings) -> Result<PathBuf, Trouble> {
    let wanted = Wanted { place: place.clone(), log_dir: given.clone(), ..Wanted::default() };
    match given.as_ref().or(around.log_dir.as_ref()) {
        Some(path) => around.absolute(path),
        // With a place of its own a supervisor has a log directory of its own.
        None if place.runtime_dir.is_some() || around.runtime_dir.is_some() => {
            Err(Trouble::plain(Exit::NoSupervisor, "the log directory is not known"))
        }
        None if place.user => settings(&wanted, around).map(|settings| settings.log_dir),
        None => Ok(Settings::of_root().log_dir),
    }
}

/// The settings of the supervisor that is to run.
pub fn settings(wanted: &Wanted, around: &Surroundings) -> Result<Settings, Trouble> {
    let defaults = if around.uid == 0 && !wanted.place.user {
        Settings::of_root()
    } else {
        match Settings::of_user(&around.xdg) {
            Ok(settings) => settings,
            // Without a home everything has to be given; what is not given then is missed by name below.
            Err(error) => homeless_settings(wanted, around).ok_or_else(|| homeless(error))?,
        }
    };
    let pick = |flag: &Option<PathBuf>, variable: &Option<PathBuf>, default: PathBuf| {
        around.absolute(flag.as_ref().or(variable.as_ref()).unwrap_or(&default))
    };
    let given: Vec<PathBuf> = match &around.units {
        Some(list) if wanted.units.is_empty() => {
            std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect()
        }
        Some(_) | None => wanted.units.clone(),
    };
    let units = if given.is_empty() { defaults.units } else { given };
    Ok(Settings {
        units: units.iter().map(|path| around.absolute(path)).collect::<Result<_, _>>()?,
        runtime_dir: pick(&wanted.place.runtime_dir, &around.runtime_dir, defaults.runtime_dir)?,
        log_dir: pick(&wanted.log_dir, &around.log_dir, defaults.log_dir)?,
        state_dir: pick(&wanted.state_dir, &around.state_dir, defaults.state_dir)?,
        stop_timeout_ms: wanted.stop_timeout.unwrap_or(around.is_first.then_some(FIRST_STOP_MS)),
        strict: wanted.strict,
        log_user: None,
    })
}

/// For a user without a home who says where everything is (a container's uid without an account).
fn homeless_settings(wanted: &Wanted, around: &Surroundings) -> Option<Settings> {
    let units = !wanted.units.is_empty() || around.units.is_some();
    let given =
        |flag: &Option<PathBuf>, variable: &Option<PathBuf>| flag.clone().or_else(|| variable.clone());
    units.then_some(())?;
    Some(Settings {
        units: Vec::new(),
        runtime_dir: given(&wanted.place.runtime_dir, &around.runtime_dir)?,
        log_dir: given(&wanted.log_dir, &around.log_dir)?,
        state_dir: given(&wanted.state_dir, &around.state_dir)?,
        stop_timeout_ms: None,
        strict: false,
        log_user: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Surroundings {
        Surroundings {
            uid: 1000,
            directory: Some("/here/now".into()),
            xdg: Xdg { home: Some("/home/al".into()), ..Xdg::default() },
            ..Surroundings::default()
        }
    }

    #[test]
    fn the_supervisor_that_is_meant() {
        let none = Place::default();
        let own = Place { user: true, ..Place::default() };
        let given = Place { runtime_dir: Some("/g".into()), user: true };
        let set = Surroundings { runtime_dir: Some("/v".into()), ..user() };
        let found = |place: &Place, around: &Surroundings| control(place, around).unwrap();
        assert_eq!(found(&none, &user()), Path::new("/run/supervise/control"));
        assert_eq!(found(&own, &user()), Path::new("/home/al/.local/state/supervise/run/control"));
        assert_eq!(found(&none, &set), Path::new("/v/control"));
        assert_eq!(found(&given, &set), Path::new("/g/control"));
        let lost = control(&own, &Surroundings::default()).unwrap_err();
        assert_eq!(
            lost.rendered(),
            "supervise: no place for a supervisor of your own: `HOME` is not set\n\
             hint: set `HOME`, or give `--runtime-dir`\n"
        );
    }

    #[test]
    fn arguments_go_before_variables_and_those_before_defaults() {
        let around = Surroundings {
            units: Some("/a::b".into()),
            log_dir: Some("/vl".into()),
            state_dir: Some("/vs".into()),
            ..user()
        };
        let wanted = Wanted { state_dir: Some("s".into()), strict: true, ..Wanted::default() };
        let found = settings(&wanted, &around).unwrap();
        assert_eq!(found.units, [Path::new("/a"), Path::new("/here/now/b")]);
        assert_eq!(found.log_dir, Path::new("/vl"));
        assert_eq!(found.state_dir, Path::new("/here/now/s"));
        assert_eq!(found.runtime_dir, Path::new("/home/al/.local/state/supervise/run"));
        assert!(found.strict);
        let wanted = Wanted { units: vec!["/u".into()], ..wanted };
        assert_eq!(settings(&wanted, &around).unwrap().units, [Path::new("/u")]);
    }

    #[test]
    fn root_and_users_have_their_own_defaults() {
        let root = Surroundings { uid: 0, ..user() };
        assert_eq!(settings(&Wanted::default(), &root), Ok(Settings::of_root()));
        let own = Wanted { place: Place { user: true, ..Place::default() }, ..Wanted::default() };
        assert_eq!(settings(&own, &root), settings(&Wanted::default(), &user()));
    }

    #[test]
    fn pid_one_stops_before_it_is_killed() {
        let first = Surroundings { is_first: true, ..user() };
        let limit =
            |wanted: &Wanted, around: &Surroundings| settings(wanted, around).unwrap().stop_timeout_ms;
        assert_eq!(limit(&Wanted::default(), &user()), None);
        assert_eq!(limit(&Wanted::default(), &first), Some(9_000));
        for given in [None, Some(60_000)] {
            assert_eq!(limit(&Wanted { stop_timeout: Some(given), ..Wanted::default() }, &first), given);
        }
    }

    #[test]
    fn without_a_home_everything_has_to_be_given() {
        let around = Surroundings { uid: 1000, ..Surroundings::default() };
        let mut wanted = Wanted {
            place: Place { runtime_dir: Some("/r".into()), user: false },
            units: vec!["/u".into()],
            log_dir: Some("/l".into()),
            ..Wanted::default()
        };
        assert_eq!(settings(&wanted, &around).unwrap_err().exit, Exit::Failed);
        wanted.state_dir = Some("/s".into());
        assert_eq!(settings(&wanted, &around).unwrap().units, [Path::new("/u")]);
        wanted.log_dir = Some("l".into());
        assert!(settings(&wanted, &around).unwrap_err().rendered().contains("`l`"));
    }
}
