//! ROOT. The server against real clients over real sockets, with a made-up clock.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use mio::{Events, Poll};

use super::*;
use crate::wire::control::{OperationReply, Outcome, Progress, Refusal, Service, StatusReply, Supervisor};
use crate::wire::request::{OperationId, Order};
use crate::wire::varlink::{Answer, Call, Frames, MOST_CALL, MOST_REPLY, SERVICE, Standard};
use crate::wire::verb::Right;

mod limits;

struct World {
    poll: Poll,
    control: Control,
    path: std::path::PathBuf,
    now: Mono,
    heard: Vec<Heard>,
    _dir: tempfile::TempDir,
}

impl World {
    /// A server that takes `own_uid` for its own: ours, or somebody else's to make us strangers.
    fn of(own_uid: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let poll = Poll::new().unwrap();
        let control = Control::new(listener.into(), own_uid, poll.registry(), 7).unwrap();
        Self { poll, control, path, now: Mono(1000), heard: Vec::new(), _dir: dir }
    }

    fn new() -> Self {
        Self::of(peer::own_uid())
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Turns of a loop until there is neither an event nor anything left over.
    fn settle(&mut self) {
        let mut events = Events::with_capacity(512);
        for turn in 0.. {
            assert!(turn < 100_000, "the loop spins");
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            for event in &events {
                assert!(self.control.owns(event.token()));
                self.control.on_event(self.poll.registry(), event, self.now, &mut self.heard);
            }
            if self.control.has_ready() {
                self.control.again(self.poll.registry(), self.now, &mut self.heard);
            } else if events.is_empty() {
                return;
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        self.control.tick(self.poll.registry(), self.now, &mut self.heard);
        self.settle();
    }

    fn asked(&mut self) -> (SessionId, Request) {
        self.settle();
        let at = self.heard.iter().position(|heard| matches!(heard, Heard::Asked { .. })).unwrap();
        match self.heard.remove(at) {
            Heard::Asked { session, request, .. } => (session, request),
            Heard::Room(_) | Heard::Gone(_) => unreachable!(),
        }
    }

    fn reply(&mut self, session: SessionId, reply: &Reply, last: bool) -> Room {
        self.control.reply(session, reply, last, self.now)
    }

    /// Turns of a loop until what the clients' ends bring about has happened. Waits for it, see [`is_closed`].
    fn settle_until(&mut self, happened: impl Fn(&Self) -> bool) {
        let mut events = Events::with_capacity(512);
        self.settle();
        while !happened(self) {
            self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "it does not happen");
            for event in &events {
                self.control.on_event(self.poll.registry(), event, self.now, &mut self.heard);
            }
            self.settle();
        }
    }

    fn clients(&self) -> usize {
        self.control.places.iter().flatten().count()
    }
}

fn status(names: &[&str]) -> Call {
    Request::Status { names: names.iter().map(|name| (*name).to_owned()).collect(), detail: false }.call()
}

fn start(name: &str) -> Call {
    Request::Start(Order { names: vec![name.into()], operation: OperationId(7), wait: true }).call()
}

fn service(name: &str) -> Reply {
    let service = Service { name: name.into(), ..Service::default() };
    Reply::Status(StatusReply { supervisor: None, services: vec![service] })
}

fn supervisor() -> Reply {
    let supervisor = Supervisor { version: "1".into(), ..Supervisor::default() };
    Reply::Status(StatusReply { supervisor: Some(supervisor), services: vec![] })
}

fn step(text: &str) -> Reply {
    let progress = Progress { service: "web".into(), step: text.into() };
    Reply::Operation(OperationReply { services: vec![], progress: Some(progress) })
}

fn outcome(name: &str) -> Reply {
    let outcome = Outcome { name: name.into(), ..Outcome::default() };
    Reply::Operation(OperationReply { services: vec![outcome], progress: None })
}

/// Reads until `count` replies have come.
fn answers(stream: &mut UnixStream, count: usize) -> Vec<Answer> {
    let (mut frames, mut got) = (Frames::new(MOST_REPLY), Vec::new());
    while got.len() < count {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "the server hung up after {} of {count} replies", got.len());
        frames.push(&bytes[..read]).unwrap();
        while let Some(frame) = frames.take().unwrap() {
            got.push(Answer::decode(&frame).unwrap());
        }
    }
    assert!(frames.is_empty(), "more came than {count} replies");
    got
}

/// Whether the server hangs up, whatever it says before. Waits for it: a process that another test is just
/// making may hold a copy of the connection until it executes.
fn is_closed(stream: &mut UnixStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_stream_of_replies_goes_to_the_one_who_asked() {
    let mut world = World::new();
    let (mut one, mut other) = (world.connect(), world.connect());
    one.write_all(&status(&[]).encode()).unwrap();
    let (session, request) = world.asked();
    assert_eq!(request, Request::Status { names: vec![], detail: false });
    assert_eq!(world.reply(session, &supervisor(), false), Room::Now);
    assert_eq!(world.reply(session, &service("a"), false), Room::Now);
    assert_eq!(world.reply(session, &service("b"), true), Room::Now);
    assert_eq!(world.reply(session, &service("c"), true), Room::Gone, "an answered call was answered again");
    let got = answers(&mut one, 3);
    let goes_on: Vec<bool> = got.iter().map(|answer| answer.continues).collect();
    assert_eq!(goes_on, [true, true, false]);
    assert_eq!(got[0].parameters["supervisor"]["version"], "1");
    assert_eq!(got[2].parameters["services"][0]["name"], "b");
    other.set_nonblocking(true).unwrap();
    let error = other.read(&mut [0; 1]).expect_err("the other client got something, or was closed");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn without_more_the_parts_come_as_one_and_steps_not_at_all() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&Call { more: false, ..status(&[]) }.encode()).unwrap();
    client.write_all(&Call { more: false, ..start("web") }.encode()).unwrap();
    let (session, _) = world.asked();
    world.reply(session, &supervisor(), false);
    world.reply(session, &service("a"), false);
    world.reply(session, &service("b"), true);
    let (session, _) = world.asked();
    world.reply(session, &step("starting"), false);
    world.reply(session, &outcome("web"), true);
    let got = answers(&mut client, 2);
    assert!(got.iter().all(|answer| !answer.continues && answer.error.is_none()));
    assert_eq!(got[0].parameters["supervisor"]["version"], "1");
    assert_eq!(got[0].parameters["services"].as_array().map(Vec::len), Some(2));
    assert_eq!(got[1].parameters["services"][0]["name"], "web");
}

#[test]
fn without_more_a_status_that_is_too_long_says_so() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&Call { more: false, ..status(&[]) }.encode()).unwrap();
    let (session, _) = world.asked();
    for _ in 0..2000 {
        assert_eq!(world.reply(session, &service("a"), false), Room::Now);
    }
    world.reply(session, &service("z"), true);
    assert_eq!(Standard::read(&answers(&mut client, 1)[0]), Some(Standard::ExpectedMore));
}

#[test]
fn calls_sent_ahead_are_answered_one_by_one_in_order() {
    let mut world = World::new();
    let mut client = world.connect();
    let info = Call { method: format!("{SERVICE}.GetInfo"), ..Call::default() };
    let calls = [start("a"), info.clone(), start("b"), info, status(&["c"])];
    calls.iter().for_each(|call| client.write_all(&call.encode()).unwrap());
    for name in ["a", "b"] {
        let (session, request) = world.asked();
        assert!(matches!(request, Request::Start(order) if order.names == [name]));
        assert!(world.heard.is_empty(), "a call was heard before the one ahead of it was answered");
        world.reply(session, &outcome(name), true);
    }
    let (session, _) = world.asked();
    world.reply(session, &service("c"), true);
    let names: Vec<String> = answers(&mut client, 5)
        .iter()
        .map(|answer| match answer.parameters.get("services") {
            Some(services) => services[0]["name"].as_str().unwrap().to_owned(),
            None => answer.parameters["product"].as_str().unwrap().to_owned(),
        })
        .collect();
    assert_eq!(names, ["a", "supervise", "b", "supervise", "c"]);
}

#[test]
fn a_oneway_call_is_heard_and_never_answered() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&Call { oneway: true, ..start("a") }.encode()).unwrap();
    client.write_all(&Call { oneway: true, method: "x".into(), ..Call::default() }.encode()).unwrap();
    client.write_all(&start("b").encode()).unwrap();
    let (first, _) = world.asked();
    let (second, _) = world.asked();
    assert_eq!(world.reply(first, &outcome("a"), true), Room::Gone);
    assert_eq!(world.reply(second, &outcome("b"), true), Room::Now);
    assert_eq!(answers(&mut client, 1)[0].parameters["services"][0]["name"], "b");
}

#[test]
fn a_client_that_sends_and_leaves_is_still_heard() {
    let mut world = World::new();
    let mut client = world.connect();
    for name in ["a", "b", "c"] {
        client.write_all(&start(name).encode()).unwrap();
    }
    drop(client);
    let names: Vec<String> = (0..3)
        .map(|_| match world.asked() {
            (_, Request::Start(order)) => order.names.concat(),
            (_, other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    world.settle_until(|world| world.clients() == 0);
}

#[test]
fn a_client_that_only_stops_sending_gets_its_answer() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&start("a").encode()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (session, _) = world.asked();
    assert_eq!(world.reply(session, &outcome("a"), true), Room::Now);
    assert_eq!(answers(&mut client, 1).len(), 1);
    world.settle();
    assert!(is_closed(&mut client));
    assert_eq!(world.clients(), 0);
}

#[test]
fn one_who_leaves_while_waiting_is_reported_and_a_late_reply_reaches_nobody() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&start("a").encode()).unwrap();
    let (session, _) = world.asked();
    drop(client);
    world.settle_until(|world| world.clients() == 0);
    assert_eq!(world.heard, [Heard::Gone(session)]);
    let mut next = world.connect();
    next.write_all(&start("b").encode()).unwrap();
    let (fresh, _) = world.asked();
    assert_eq!((fresh.place, session.place), (0, 0), "the place was not used again");
    assert_eq!(world.reply(session, &outcome("a"), true), Room::Gone);
    assert_eq!(world.reply(fresh, &outcome("b"), true), Room::Now);
    assert_eq!(answers(&mut next, 1)[0].parameters["services"][0]["name"], "b");
}

#[test]
fn a_stranger_is_refused_and_nothing_he_says_is_looked_at() {
    let mut world = World::new();
    for said in [&start("web").encode()[..], b"\xff\xfe no JSON at all\0"] {
        let mut client = stranger(&mut world, 1000);
        client.write_all(said).unwrap();
        world.settle();
        assert_eq!(world.heard, []);
        let refusal = Refusal::read(&answers(&mut client, 1)[0]);
        assert_eq!(refusal, Some(Refusal::NotPermitted(Right::Status, None)));
        assert!(is_closed(&mut client));
    }
    let mut client = stranger(&mut world, 1000);
    let flood = vec![b'x'; MOST_CALL + 1];
    let _ = client.write(&flood);
    world.settle();
    let _ = client.write(&flood);
    world.settle();
    assert!(is_closed(&mut client));
    assert_eq!(world.clients(), 0);
}

/// A client as if the kernel had said that it is somebody else's.
fn stranger(world: &mut World, uid: u32) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    if let Some(place) = world.control.place_for(uid, Rights::NONE) {
        let caller = Caller { uid, groups: vec![uid], is_ours: false };
        let client = Client::new(theirs, caller, Rights::NONE, world.now);
        let token = Token(world.control.base + 1 + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        watch(world.poll.registry(), client.stream(), token, interest).unwrap();
        world.control.places[place] = Some(client);
    }
    ours
}

#[test]
fn what_is_no_call_ends_the_connection_after_earlier_answers() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n\0"[..], b"\0", b"{}\0", b"[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]\0"]
    {
        let mut world = World::new();
        let mut client = world.connect();
        client.write_all(&start("a").encode()).unwrap();
        client.write_all(garbage).unwrap();
        client.write_all(&start("b").encode()).unwrap();
        let (session, _) = world.asked();
        world.reply(session, &outcome("a"), true);
        world.settle();
        assert_eq!(answers(&mut client, 1)[0].parameters["services"][0]["name"], "a");
        assert!(is_closed(&mut client));
        assert_eq!((world.clients(), world.heard.len()), (0, 0));
    }
}

#[test]
fn one_who_reads_late_gets_everything() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&status(&[]).encode()).unwrap();
    let (session, _) = world.asked();
    let mut names = (0..3000).map(|number| format!("service-{number}"));
    let mut told = 0;
    let mut frames = Frames::new(MOST_REPLY);
    let mut got = Vec::new();
    client.set_nonblocking(true).unwrap();
    let mut paused = false;
    while got.len() < 3000 {
        if !paused {
            for name in names.by_ref() {
                told += 1;
                if world.reply(session, &service(&name), told == 3000) == Room::Later {
                    paused = true;
                    break;
                }
            }
        }
        let mut bytes = [0; 32 * 1024];
        while let Ok(count) = client.read(&mut bytes) {
            frames.push(&bytes[..count]).unwrap();
            while let Some(frame) = frames.take().unwrap() {
                got.push(Answer::decode(&frame).unwrap());
            }
        }
        world.settle();
        if world.heard.contains(&Heard::Room(session)) {
            world.heard.clear();
            paused = false;
        }
    }
    let in_order = got.iter().enumerate().all(|(number, answer)| {
        answer.parameters["services"][0]["name"] == format!("service-{number}")
            && answer.continues == (number < 2999)
    });
    assert!(in_order);
}

#[test]
fn steps_are_left_out_where_there_is_no_room_and_the_outcome_is_not() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&start("web").encode()).unwrap();
    let (session, _) = world.asked();
    for _ in 0..20_000 {
        assert_ne!(world.reply(session, &step("starting"), false), Room::Gone);
    }
    assert_eq!(world.reply(session, &outcome("web"), true), Room::Now);
    let (mut frames, mut last) = (Frames::new(MOST_REPLY), None);
    client.set_nonblocking(true).unwrap();
    loop {
        let mut bytes = [0; 32 * 1024];
        match client.read(&mut bytes) {
            Ok(count) => frames.push(&bytes[..count]).unwrap(),
            Err(_) if last.as_ref().is_some_and(|answer: &Answer| !answer.continues) => break,
            Err(_) => {}
        }
        while let Some(frame) = frames.take().unwrap() {
            last = Some(Answer::decode(&frame).unwrap());
        }
        world.settle();
    }
    assert_eq!(last.unwrap().parameters["services"][0]["name"], "web");
}

#[test]
fn those_who_waited_before_the_manager_began_are_served_without_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut early = UnixStream::connect(&path).unwrap();
    early.write_all(&start("a").encode()).unwrap();
    let poll = Poll::new().unwrap();
    let mut control = Control::new(listener.into(), peer::own_uid(), poll.registry(), 0).unwrap();
    assert!(control.has_ready());
    let mut heard = Vec::new();
    control.again(poll.registry(), Mono(0), &mut heard);
    assert!(matches!(heard[..], [Heard::Asked { .. }]));
}
