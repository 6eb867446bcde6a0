//! The example units say what they should, as far as text can tell: no problem and no warning in any of them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn examples() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("units/examples");
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_str().unwrap().to_owned()).collect()
}

#[test]
fn user_every_example_is_checked_without_a_problem_or_a_warning() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supervise"));
    command.args(["check", "--offline", "--deny-warnings", "units/examples"]);
    let said = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let text = String::from_utf8(said.stderr).unwrap() + &String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("{} units", examples().len())), "all of them were looked at: {text}");
}

#[test]
fn user_there_is_an_example_for_each_kind_of_program() {
    let names = examples();
    for wanted in [
        "gunicorn",
        "uwsgi",
        "uvicorn",
        "hypercorn",
        "celery-worker",
        "celery-beat",
        "redis",
        "migrate",
        "ping-helper",
    ] {
        assert!(names.contains(&format!("{wanted}.toml")), "units/examples/{wanted}.toml is missing");
    }
}
