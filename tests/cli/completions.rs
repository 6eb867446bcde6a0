//! Completions as bash works them out: for commands, options and names, and of which supervisor those are asked.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::BINARY;

/// What bash offers for the last of the words, and what it has asked for on the way; `program` is what is asked.
fn completed(program: &str, words: &[&str]) -> (Vec<String>, String) {
    let place = tempfile::tempdir().unwrap();
    let script = Command::new(BINARY).args(["completions", "bash"]).output().unwrap();
    assert!(script.status.success(), "{script:?}");
    fs::write(place.path().join("script"), script.stdout).unwrap();
    let stub = place.path().join("supervise");
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\n{program}\n", place.path().join("asked").display());
    // By another process: what we open for writing, a child of another test could have open while this is executed.
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let written = Command::new("sh").args(["-c", write, "sh", &text]).arg(&stub).status().unwrap();
    assert!(written.success(), "{written}");
    let driver = "source ./script; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                  _supervise_with_names \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", driver, "bash"]).args(words).current_dir(place.path());
    let path = format!("{}:/usr/bin:/bin", place.path().display());
    let output = bash.env_clear().env("PATH", path).env("HOME", "/home/of-mine").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let offered = String::from_utf8(output.stdout).unwrap();
    let mut offered: Vec<_> = offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    offered.dedup(); // a program may be there below two names of one directory
    (offered, fs::read_to_string(place.path().join("asked")).unwrap_or_default())
}

#[track_caller]
fn offers(words: &[&str], expected: &[&str], asked: &str) {
    let names = "printf 'web\\nworker\\nbeat\\n'";
    let expected = (expected.iter().map(|word| (*word).to_owned()).collect(), asked.to_owned());
    // Who is asked has two seconds, of which a busy machine may leave him none.
    let mut all = std::iter::repeat_with(|| completed(names, words)).take(3);
    let found = all.find(|found| *found == expected).unwrap_or_else(|| completed(names, words));
    assert_eq!(found, expected);
}

#[test]
fn commands_options_and_names_are_completed() {
    offers(&["supervise", "rest"], &["restart"], "");
    offers(&["supervise", "restart", "--st"], &["--stop-first"], "");
    offers(&["supervise", "restart", "w"], &["web", "worker"], "status --names\n");
    offers(&["supervise", "exec", "-T", "b"], &["beat"], "status --names\n");
    offers(&["supervise", "completions", "z"], &["zsh"], "");
    offers(&["supervise", "kill", "-s", "te"], &["TERM"], "");
    // Behind the dashes is a command, whatever services are called.
    offers(&["supervise", "exec", "web", "--", "mkfif"], &["mkfifo"], "");
    offers(&["supervise", "exec", "web", "--", "ls", "w"], &[], "");
}

#[test]
fn names_are_those_of_the_supervisor_that_the_line_means() {
    offers(&["supervise", "--user", "stop", "be"], &["beat"], "--user status --names\n");
    let asked = "--runtime-dir /home/of-mine/run status --names\n";
    offers(&["supervise", "--runtime-dir", "~/run", "stop", "be"], &["beat"], asked);
    // As bash splits it.
    offers(&["supervise", "stop", "--runtime-dir", "=", "~/run", "be"], &["beat"], asked);
}

#[test]
fn one_that_does_not_answer_holds_no_shell_up_and_says_nothing() {
    let began = Instant::now();
    let words = ["supervise", "restart", "w"];
    assert_eq!(completed("exec sleep 1000", &words).0, Vec::<String>::new());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(completed("echo no supervisor there >&2; exit 5", &words).0, Vec::<String>::new());
}
