//! A control group for the supervisor of a test, with all controllers of the machine; empty when it goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use super::place::Place;
use super::wait;

const ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

static MADE: AtomicU32 = AtomicU32::new(0);

/// One.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    pub path: PathBuf,
    ours: bool,
}

impl Group {
    /// A new one, directly below the root of all.
    #[track_caller]
    pub fn new() -> Self {
        let given = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
        for one in CONTROLLERS {
            let has = given.split_ascii_whitespace().any(|name| name == one);
            assert!(has, "this kernel gives {ROOT} no controller `{one}`: run tests/kernel/run");
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{one}")).unwrap();
        }
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(ROOT).join(format!("supervise-test.{}.{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path, ours: true }
    }

    /// Runs the supervisor of a place in it, until it answers.
    #[track_caller]
    pub fn run(&self, place: &mut Place) {
        self.run_by(place, "exec \"$@\"");
    }

    /// The same by a script that executes its arguments in the end.
    #[track_caller]
    pub fn run_by(&self, place: &mut Place, script: &str) {
        let script = format!("echo $$ >{}/cgroup.procs && {script}", self.path.display());
        place.keeper = Some(place.spawn_by(&script, Stdio::null()));
        wait::until(wait::LONG, "the supervisor to answer", || place.try_status());
    }

    #[track_caller]
    pub fn read(&self, file: &str) -> String {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim_end().to_owned()
    }

    #[track_caller]
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path.join(file), text).unwrap();
    }

    /// The names of the groups in it.
    pub fn below(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap().map(Result::unwrap);
        let groups = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        groups.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// Those of a service's incarnations.
    pub fn all_of(&self, service: &str) -> Vec<Self> {
        let of = |name: &String| {
            let parts: Vec<&str> = name.split('.').collect();
            matches!(parts[..], ["supervise", _, one, number] if one == service && number.parse::<u64>().is_ok())
        };
        self.below()
            .into_iter()
            .filter(of)
            .map(|name| Self { path: self.path.join(name), ours: false })
            .collect()
    }

    /// That of the only one.
    #[track_caller]
    pub fn of(&self, service: &str) -> Self {
        let mut all = self.all_of(service);
        assert_eq!(all.len(), 1, "incarnations of {service}: {all:?}");
        all.remove(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let failing = std::thread::panicking();
        let left = self.below();
        let removed = fs::remove_dir(&self.path);
        if failing {
            eprintln!("---- left in {}: {left:?}", self.path.display());
            return;
        }
        assert!(removed.is_ok(), "left in {}: {left:?}", self.path.display());
    }
}
