//! A task is done when it has succeeded, and whoever starts it waits for that.

use super::host::Host;

#[test]
fn a_start_waits_for_the_end_and_fails_with_the_exit() {
    let mut host = Host::new();
    let task = "kind = \"task\"\nstart = \"manual\"\n";
    host.script("good", "echo ran >> ran", task);
    host.script("bad", "exit 7", task);
    host.script("odd", "exit 7", &format!("{task}success-codes = [0, 7]\n"));
    host.run();
    for ran in 1..3 {
        host.order(&["start", "good"]);
        assert_eq!(host.text("ran"), "ran\n".repeat(ran));
        assert_eq!(host.service("good")["state"], "done");
    }
    let said = host.ask(&["start", "bad"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("running it: exit status 7"), "{said:?}");
    let bad = host.service("bad");
    assert_eq!((bad["state"].as_str(), bad["exit"]["code"].as_i64()), (Some("failed"), Some(7)));
    assert_eq!(bad["restarts"], 0, "tasks are not started again");
    host.order(&["start", "odd"]);
    assert_eq!(host.service("odd")["state"], "done");
    assert_eq!(host.ask(&["status", "odd"]).code, Some(0));
}

#[test]
fn a_start_goes_on_waiting_over_the_death_of_the_manager() {
    let mut host = Host::new();
    host.script(
        "slow",
        "mkfifo wait; echo on > on; read x < wait; exit 4",
        "kind = \"task\"\nstart = \"manual\"\n",
    );
    host.run();
    let mut start = host.begin(&["start", "slow"]);
    host.line("on");
    host.kill_manager();
    assert!(start.is_waiting());
    std::fs::write(host.path("work/wait"), "go\n").unwrap();
    let said = start.wait();
    assert!(said.code == Some(1) && said.err.contains("exit status 4"), "{said:?}");
}
