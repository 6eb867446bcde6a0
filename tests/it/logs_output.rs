//! Where output goes: every way that `[log]` names, and the last words of what fails.

use std::fs;

use super::cri;
use super::place::{Place, Who};
use super::processes;
use super::supervisor::Role;
use super::wait;

/// `"/bin/sh" "-c"` with this script.
fn shell(script: &str) -> String {
    format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n")
}

#[test]
fn root_a_failed_command_shows_the_last_words_of_its_service() {
    let mut place = Place::new(Who::Root);
    let script =
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; printf 'the last words'; exit 3";
    place.unit(
        "web",
        &format!("{}settle = \"50s\"\nstart = \"manual\"\n[restart]\npolicy = \"never\"\n", shell(script)),
    );
    place.run();
    for _ in 0..2 {
        let said = place.ask(&["start", "web"]);
        let expected: String = (4..=12).map(|number| format!("    line {number}\n")).collect();
        let expected = format!("  its last output:\n{expected}    the last words\nhint: ");
        assert!(said.code == Some(1) && said.err.contains(&expected), "{said:?}");
    }
    let said = place.ask(&["logs", "web", "-n", "1", "--raw"]);
    assert_eq!(said.out, "the last words\n");
}

#[test]
fn user_a_failure_says_where_the_output_really_is() {
    let mut place = Place::new(Who::User);
    let file = place.log().join("file/current").display().to_string();
    let ways = [
        ("file", format!("its output is in `{file}`")),
        ("inherit", "its output is where supervise's own output goes".to_owned()),
        ("null", "its output goes nowhere: `to = \"file\"` in `[log]` keeps it".to_owned()),
    ];
    for (to, _) in &ways {
        let rest = "settle = \"50s\"\nstart = \"manual\"\n[restart]\npolicy = \"never\"\n";
        place.unit(to, &format!("{}{rest}[log]\nto = \"{to}\"\n", shell("echo it; exit 3")));
    }
    place.run();
    for (to, hint) in ways {
        let said = place.ask(&["start", to]);
        assert!(said.code == Some(1) && said.err.ends_with(&format!("\nhint: {hint}\n")), "{said:?}");
    }
}

#[test]
fn root_a_service_that_is_not_root_can_open_its_standard_output() {
    let mut place = Place::new(Who::Root);
    place.unit(
        "web",
        &shell(
            "echo one > /dev/stdout; echo two > /dev/stderr; echo three > /proc/self/fd/1; exec sleep 1000",
        ),
    );
    place.run();
    let mut texts = wait::until(wait::LONG, "the lines", || {
        let texts = cri::texts(&place.log(), "web");
        (texts.len() == 3).then_some(texts)
    });
    texts.sort();
    assert_eq!(texts, ["one", "three", "two"]);
}

#[test]
fn user_nowhere_and_our_own_output_are_the_services_own_descriptors() {
    let mut place = Place::new(Who::User);
    place.unit("nowhere", &format!("{}[log]\nto = \"null\"\n", shell("echo lost; exec sleep 1000")));
    place.unit("ours", &format!("{}[log]\nto = \"inherit\"\n", shell("echo here it is; exec sleep 1000")));
    place.run();
    for name in ["nowhere", "ours"] {
        place.reaches(name, "running");
    }
    wait::until(wait::LONG, "the line", || place.stderr().contains("here it is\n").then_some(()));
    let output = |name: &str| fs::read_link(format!("/proc/{}/fd/1", place.pid_of(name))).unwrap();
    assert_eq!(output("nowhere").to_str(), Some("/dev/null"));
    assert_eq!(output("ours"), place.path("supervise.err"));
    assert!(!place.log().join("nowhere").exists() && !place.log().join("ours").exists());
    let said = place.order(&["logs"]);
    let expected = "nowhere: its output goes nowhere, as its unit says\n\
                    ours: its output goes to where supervise's own output goes\n";
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", expected));
    // A new manager finds services without pipes, and takes nothing for lost.
    let pids = ["nowhere", "ours"].map(|name| place.pid_of(name));
    place.kill(Role::Manager);
    wait::until(wait::LONG, "the next manager", || place.try_status());
    assert_eq!(["nowhere", "ours"].map(|name| place.pid_of(name)), pids);
}

#[test]
fn user_output_of_a_daemon_child_is_kept_after_its_parent_has_closed_its_own() {
    let mut place = Place::new(Who::User);
    let script = "(i=0; while [ $i -lt 50 ]; do echo child $i; i=$((i+1)); done; sleep 0.2; echo late) & \
                  exec >&- 2>&-; exec sleep 1000";
    place.unit("web", &shell(script));
    place.run();
    place.reaches("web", "running");
    let texts = wait::until(wait::LONG, "the child's last line", || {
        let texts = cri::texts(&place.log(), "web");
        texts.last().is_some_and(|text| text == "late").then_some(texts)
    });
    let expected: Vec<String> =
        (0..50).map(|number| format!("child {number}")).chain(["late".into()]).collect();
    assert_eq!(texts, expected);
    assert!(processes::lives(place.pid_of("web")), "the end of its output was taken for its own");
}

#[test]
fn user_every_line_is_kept_when_the_logger_dies_while_files_give_way() {
    let mut place = Place::new(Who::User);
    let script = "seq -f 'line %.0f' 1 300000; echo end; exec sleep 1000";
    place.unit("web", &format!("{}[log]\nmax-size = \"64K\"\nkeep = 10000\n", shell(script)));
    place.run();
    for _ in 0..3 {
        place.kill(Role::Logger); // which waits for the next one first
    }
    let texts = wait::until(4 * wait::LONG, "the last line", || {
        // Files that give way while they are read one after the other would be missed.
        let before = cri::files(&place.log(), "web").len();
        let texts = cri::texts(&place.log(), "web");
        let steady = cri::files(&place.log(), "web").len() == before;
        (steady && texts.last().is_some_and(|text| text == "end")).then_some(texts)
    });
    assert_eq!(texts.len(), 300_001);
    for (number, text) in texts.iter().take(300_000).enumerate() {
        assert_eq!(*text, format!("line {}", number + 1));
    }
}

#[test]
fn root_the_logger_has_an_account_of_its_own_where_the_system_has_one() {
    use std::os::unix::fs::MetadataExt;
    let mut place = Place::new(Who::Root);
    place.unit("web", &shell("echo one; exec sleep 1000"));
    // The account is in a passwd file of its own, which only this supervisor sees.
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = format!("supervise-log:x:{}:{}::/nonexistent:/usr/sbin/nologin\n", 64_998, 64_997);
    place.write("passwd", &(passwd + &line));
    place.run_below(&[
        "unshare",
        "-m",
        "sh",
        "-c",
        &format!("mount --bind {} /etc/passwd && exec \"$@\"", place.path("passwd").display()),
        "sh",
    ]);
    wait::until(wait::LONG, "the line", || (cri::texts(&place.log(), "web").len() == 1).then_some(()));
    let status = fs::read_to_string(format!("/proc/{}/status", place.role(Role::Logger))).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:"), ["64998"; 4].join("\t"));
    assert_eq!((field("Groups:"), field("CapEff:")), (String::new(), "0".repeat(16)));
    for path in ["", "web", "web/current"] {
        let data = fs::metadata(place.log().join(path)).unwrap();
        assert_eq!((data.uid(), data.gid()), (64_998, 64_997), "{path}");
    }
    assert_eq!(place.order(&["logs", "web", "--raw"]).out, "one\n");
}
