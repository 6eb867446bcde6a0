//! The control server where there is no descriptor left. Alone in its process, since the limit is the
//! process's.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use mio::{Events, Poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use supervise::manager::control::{ACCEPT_PAUSE_MS, Control, Heard};
use supervise::policy::Mono;
use supervise::sys::peer;
use supervise::wire::request::Request;

#[test]
fn without_a_free_descriptor_nobody_is_accepted_and_nothing_spins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut poll = Poll::new().unwrap();
    let mut control = Control::new(listener.into(), peer::own_uid(), poll.registry(), 0).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&Request::Status { names: vec![], detail: false }.call().encode()).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let (mut events, mut heard) = (Events::with_capacity(8), Vec::new());
    poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
    for event in &events {
        control.on_event(poll.registry(), event, Mono(0), &mut heard);
    }
    for now in [0, ACCEPT_PAUSE_MS] {
        control.tick(poll.registry(), Mono(now), &mut heard);
        assert!(!control.has_ready(), "the loop would spin");
        assert_eq!(control.deadline(), Some(Mono(now + ACCEPT_PAUSE_MS)));
        assert_eq!(heard, []);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard).unwrap();
    control.tick(poll.registry(), Mono(2 * ACCEPT_PAUSE_MS), &mut heard);
    assert!(matches!(heard[..], [Heard::Asked { .. }]), "one who waited was forgotten");
    assert_eq!(control.deadline(), None);
}
