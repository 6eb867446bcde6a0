//! Where others than root can write, a socket is bound with the rights of its service, and root touches nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::place::{Place, Who};
use super::sockets::{another_than, ask_unix};
use super::supervisor::Role;
use super::{processes, wait};

#[test]
fn root_a_socket_in_a_services_own_directory_is_bound_with_its_rights() {
    let mut place = Place::new(Who::Root);
    let path = place.path("work/deep/s");
    place.sockets("web", &format!("[socket.a]\nlisten = \"{}\"\nmode = \"0600\"\n", path.display()));
    place.run();
    place.reaches("web", "running");
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o600, place.account.uid, place.account.gid));
    let parent = fs::symlink_metadata(place.path("work/deep")).unwrap();
    assert_eq!((parent.mode() & 0o7777, parent.uid()), (0o755, place.account.uid));
    let who = || ask_unix(&path, "who -");
    let pid = who().unwrap()["pid"].as_u64().unwrap();
    // It stays open across deaths, and what the service does to it is healed.
    place.kill(Role::Manager);
    assert_eq!(who().unwrap()["pid"], pid);
    ask_unix(&path, "shut a");
    assert!(who().is_none());
    processes::signal(pid as u32, 9);
    let pid = another_than(pid, who);
    fs::remove_file(&path).unwrap();
    place.order(&["restart", "web"]);
    another_than(pid, who);
    place.order(&["stop", "web"]);
    assert!(who().is_none());
    wait::until(wait::LONG, "its file to be removed", || (!path.exists()).then_some(()));
    place.order(&["start", "web"]);
    assert!(who().is_some());
}

#[test]
fn root_a_services_own_directory_leads_nowhere_where_it_may_not_write() {
    let mut place = Place::new(Who::Root);
    symlink(place.path("units"), place.path("work/way")).unwrap();
    let path = place.path("work/way/s");
    place.sockets("web", &format!("[socket.a]\nlisten = \"{}\"\n", path.display()));
    place.run();
    place.reaches("web", "backing-off");
    let expected = format!(
        "binding {}: permission denied\nhint: it is bound with the rights of the service's user, as others than root can write \
         on the way there, and that user may not: give it the directory, or put the socket below /run",
        path.display()
    );
    assert_eq!(place.service("web")["problems"], serde_json::json!([expected]));
    assert!(!place.path("units/s").exists());
    fs::remove_file(place.path("work/way")).unwrap();
    place.reaches("web", "running");
    assert!(ask_unix(&path, "who -").is_some());
}
