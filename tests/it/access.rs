//! `[access]`: who is not root sees and does what the units say, by the numbers that the kernel gives of them.

use std::process::Stdio;

use super::accounts::Account;
use super::place::{Place, Who};
use super::supervisor::Said;

/// What a command says to somebody.
fn asked_as(place: &Place, who: &Account, groups: &[u32], arguments: &[&str]) -> Said {
    let mut command = place.command_as(who.uid, who.gid, groups, &place.binary());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.arg("--runtime-dir").arg(place.path("run")).args(arguments);
    let began = std::time::Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
        took: began.elapsed(),
    }
}

/// A supervisor with three services, one of which `owner` may control and one of which `group` may see.
fn three(owner: &Account, group: &Account) -> Place {
    let mut place = Place::new(Who::Root);
    let service = "command = \"sleep 1000\"\nsettle = \"1ms\"\n";
    place.unit("web", &format!("{service}[access]\ncontrol = [\"user:{}\"]\n", owner.name));
    place.unit("db", &format!("{service}[access]\nstatus = [\"group:{}\"]\n", group.gid));
    place.unit("secret", service);
    place.run();
    for name in ["web", "db", "secret"] {
        place.reaches(name, "running");
    }
    place
}

#[test]
fn root_who_may_control_a_service_controls_that_one_and_sees_no_other() {
    let (owner, group) = (Account::make(), Account::make());
    let place = three(&owner, &group);
    let ask = |arguments: &[&str]| asked_as(&place, &owner, &[], arguments);
    let names = ask(&["status", "--names"]);
    assert_eq!((names.code, names.out.as_str()), (Some(0), "web\n"), "{names:?}");
    let before = place.pid_of("web");
    for arguments in [&["restart", "web"][..], &["stop", "web"], &["start", "*"], &["show", "web"]] {
        let said = ask(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
    }
    assert_ne!(place.pid_of("web"), before);
    assert_eq!(ask(&["kill", "-s", "CONT", "web"]).code, Some(0));
    // One more that may only be seen does not keep the logs of the others away.
    let with_group = |arguments: &[&str]| asked_as(&place, &owner, &[group.gid], arguments);
    assert_eq!(with_group(&["status", "--names"]).out, "db\nweb\n");
    assert_eq!(with_group(&["logs", "-n", "1"]).code, Some(0));
    assert_eq!(with_group(&["logs", "db"]).code, Some(6));
    // Of several it is said which.
    let pid = place.pid_of("web");
    let said = with_group(&["stop", "*"]);
    assert!(
        said.code == Some(6) && said.err.starts_with("supervise: not permitted to `stop` `db`\n"),
        "{said:?}"
    );
    assert_eq!(place.pid_of("web"), pid);
    // What one may not see is answered like what there is not, near names and all.
    let there = ask(&["stop", "secret"]);
    let nowhere = ask(&["stop", "secrex"]);
    assert_eq!((there.code, nowhere.code), (Some(4), Some(4)));
    assert_eq!(there.err.replace("secret", "secrex"), nowhere.err);
    assert_eq!(there.err, "supervise: no such service `secret`\nhint: `supervise status` lists them all\n");
    assert_eq!(place.service("secret")["state"], "running");
}

#[test]
fn root_who_may_see_a_service_does_no_more_and_a_group_counts() {
    let (owner, group) = (Account::make(), Account::make());
    let member = Account::make();
    let place = three(&owner, &group);
    let ask = |arguments: &[&str]| asked_as(&place, &member, &[group.gid], arguments);
    let names = ask(&["status", "--names"]);
    assert_eq!((names.code, names.out.as_str()), (Some(0), "db\n"), "{names:?}");
    for arguments in [&["stop", "db"][..], &["kill", "db"], &["scale", "db", "2"], &["restart", "d*"]] {
        let said = ask(arguments);
        let expected = format!(
            "supervise: not permitted to `{}` `{}`\nhint: ask as root, or let root give you `control` in the unit's \
             `[access]`; `--user` asks your own supervisor\n",
            arguments[0], arguments[1]
        );
        assert_eq!((said.code, said.err.as_str()), (Some(6), expected.as_str()), "{arguments:?}");
    }
    assert_eq!(ask(&["show", "db"]).code, Some(6));
    // What `show` would tell `status` does not.
    let status: serde_json::Value = serde_json::from_str(&ask(&["status", "db", "--json"]).out).unwrap();
    assert_eq!(status["services"][0]["command"], serde_json::json!([]));
    assert_eq!(place.service("db")["command"], serde_json::json!(["sleep", "1000"]));
    // Without the group there is nothing that he may, and nothing that he says is looked at.
    let stranger = asked_as(&place, &member, &[], &["status"]);
    assert_eq!((stranger.code, stranger.out.as_str()), (Some(6), ""), "{stranger:?}");
}

#[test]
fn root_a_service_sees_itself_and_controls_nothing() {
    let (owner, group) = (Account::make(), Account::make());
    let place = three(&owner, &group);
    let ask = |arguments: &[&str]| asked_as(&place, &place.account, &[], arguments);
    assert_eq!(ask(&["status", "--names"]).out, "db\nsecret\nweb\n");
    assert_eq!(ask(&["show", "web"]).code, Some(0));
    assert_eq!(ask(&["restart", "web"]).code, Some(6));
}

#[test]
fn root_a_name_that_nobody_has_keeps_the_unit_from_running() {
    let mut place = Place::new(Who::Root);
    place.unit("web", "command = \"sleep 1000\"\n[access]\ncontrol = [\"user:no-such-account\"]\n");
    place.run();
    let service = place.reaches("web", "backing-off");
    let problem = service["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("looking up the user `no-such-account`: there is none of that name"),
        "{problem}"
    );
}
