//! ROOT. The limits: what one client, or many, can make the server hold, and for how long.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;

#[test]
fn a_gigabyte_without_an_end_is_hung_up_on_and_never_held() {
    let mut world = World::new();
    let mut client = world.connect();
    let chunk = vec![b'x'; 1024 * 1024];
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut most) = (0, 0);
    while sent < 1 << 30 {
        match client.write(&chunk) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
                break;
            }
        }
        world.settle();
        most = most.max(world.control.places.iter().flatten().map(Client::held).sum());
    }
    assert!(sent < 1024 * 1024, "{sent} bytes were taken");
    assert!(most <= MOST_CALL + 1, "{most} bytes were held");
    assert_eq!((world.clients(), world.heard.len()), (0, 0));
}

#[test]
fn one_who_never_reads_is_held_back_and_then_hung_up_on() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&status(&[]).encode()).unwrap();
    let (session, _) = world.asked();
    let mut sent = 0;
    while world.reply(session, &service("a"), false) == Room::Now {
        sent += 1;
        assert!(sent < 100_000, "nobody said that it is enough");
    }
    world.settle();
    assert_eq!(world.heard, [], "room was promised where there is none");
    assert_eq!(world.control.deadline(), Some(world.now.after(WRITE_MS)));
    world.pass(WRITE_MS - 1);
    assert_eq!(world.clients(), 1);
    world.pass(1);
    assert_eq!((world.clients(), &world.heard[..]), (0, &[Heard::Gone(session)][..]));
    assert_eq!(world.control.deadline(), None, "a wake-up is left behind");
    assert!(is_closed(&mut client));
}

#[test]
fn one_who_asks_without_reading_is_not_heard_for_ever() {
    let mut world = World::new();
    let mut client = world.connect();
    client.set_nonblocking(true).unwrap();
    let describe = Call {
        method: format!("{SERVICE}.GetInterfaceDescription"),
        parameters: serde_json::json!({ "interface": SERVICE }).as_object().unwrap().clone(),
        ..Call::default()
    };
    let bytes = describe.encode().repeat(1000);
    for _ in 0..1000 {
        while client.write(&bytes).is_ok() {}
        world.settle();
    }
    let held: usize = world.control.places.iter().flatten().map(Client::held).sum();
    assert!(held <= 2 * MOST_QUEUED, "{held} bytes are held");
    assert_eq!(world.clients(), 1, "he was hung up on instead of held back");
    world.pass(WRITE_MS);
    assert_eq!(world.clients(), 0);
}

#[test]
fn a_stream_that_is_not_held_back_ends_the_connection_before_it_is_too_much() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&status(&[]).encode()).unwrap();
    let (session, _) = world.asked();
    let mut sent = 0;
    while world.reply(session, &service("a"), false) != Room::Gone {
        sent += 1;
        assert!(sent < 100_000, "there is no end to what is queued");
        let held: usize = world.control.places.iter().flatten().map(Client::held).sum();
        assert!(held <= 2 * MOST_QUEUED, "{held} bytes are held");
    }
    assert_eq!(world.clients(), 0);
    assert_eq!(world.reply(session, &service("a"), false), Room::Gone);
}

#[test]
fn descriptors_wait_until_those_before_them_are_taken() {
    let mut world = World::new();
    let mut client = world.connect();
    let logs = Call { more: true, ..Request::Logs { names: vec!["a".into()] }.call() };
    client.write_all(&logs.encode().repeat(3)).unwrap();
    let null = || vec![OwnedFd::from(std::fs::File::open("/dev/null").unwrap())];
    let reply = Reply::Log(Box::default());
    let answer = |world: &mut World| {
        let (session, _) = world.asked();
        let room = world.control.reply_with(session, &reply, null(), true, world.now);
        world.settle();
        room
    };
    assert_eq!(answer(&mut world), Room::Now);
    assert_eq!(answer(&mut world), Room::Later, "more are under way than somebody takes");
    assert_eq!(world.heard, [], "he asks for more than he takes");
    // Each thing that is read makes room for the next.
    let mut bytes = [0; 4096];
    assert!(client.read(&mut bytes).unwrap() > 0);
    world.settle();
    assert!(client.read(&mut bytes).unwrap() > 0);
    world.settle();
    assert_eq!(answer(&mut world), Room::Now);
}

#[test]
fn a_slow_reader_has_time_as_long_as_it_reads() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&start("web").encode()).unwrap();
    let (session, _) = world.asked();
    while world.reply(session, &step("starting"), false) == Room::Now {}
    let outcome = Outcome { name: "x".repeat(63), ..Outcome::default() };
    let last = OperationReply { services: vec![outcome; 1400], progress: None };
    world.reply(session, &Reply::Operation(last), true);
    world.pass(WRITE_MS - 1000);
    client.set_nonblocking(true).unwrap();
    while client.read(&mut [0; 4096]).is_ok() {}
    world.settle();
    assert_eq!(world.control.deadline(), Some(world.now.after(WRITE_MS)), "all of it fitted, or none of it");
    world.pass(WRITE_MS - 1);
    assert_eq!(world.clients(), 1);
    world.pass(1);
    assert_eq!(world.clients(), 0);
}

#[test]
fn silence_and_half_a_call_end_after_their_time() {
    let mut world = World::new();
    let (mut silent, mut half, mut whole) = (world.connect(), world.connect(), world.connect());
    half.write_all(b"{\"method\":").unwrap();
    whole.write_all(&start("a").encode()).unwrap();
    let (session, _) = world.asked();
    world.pass(FIRST_BYTE_MS.min(CALL_MS) - 1);
    assert_eq!(world.clients(), 3);
    world.pass(1);
    assert!(is_closed(&mut silent) && is_closed(&mut half));
    assert_eq!((world.clients(), world.heard.len()), (1, 0));
    world.pass(1_000_000);
    assert_eq!(world.reply(session, &outcome("a"), true), Room::Now, "one who waits was hung up on");
    assert_eq!(answers(&mut whole, 1).len(), 1);
    world.pass(1_000_000);
    assert_eq!(world.clients(), 1, "an idle connection that had spoken was closed");
    assert_eq!(world.control.deadline(), None, "an idle connection wakes the loop");
}

#[test]
fn three_hundred_clients_get_what_places_there_are_and_the_next_ones_when_those_leave() {
    let mut world = World::new();
    let mut clients: Vec<UnixStream> = Vec::new();
    for _ in 0..300 {
        clients.push(world.connect());
        world.settle();
    }
    assert_eq!(world.clients(), MOST_CLIENTS);
    assert!(clients[MOST_CLIENTS..].iter_mut().all(is_closed));
    clients.clear();
    world.settle_until(|world| world.clients() == 0);
    let mut client = world.connect();
    client.write_all(&start("a").encode()).unwrap();
    world.asked();
}

#[test]
fn a_burst_in_the_queue_is_taken_whole_though_each_turn_takes_some() {
    let mut world = World::new();
    let clients: Vec<UnixStream> = (0..120).map(|_| world.connect()).collect();
    world.settle();
    assert_eq!(world.clients(), clients.len());
}

#[test]
fn strangers_take_few_places_each_and_never_the_last_ones() {
    let mut world = World::new();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(stranger(&mut world, 1000));
    }
    assert_eq!(world.clients(), MOST_PER_UID);
    for uid in 1001..1030 {
        for _ in 0..40 {
            clients.push(stranger(&mut world, uid));
        }
    }
    assert_eq!(world.clients(), MOST_CLIENTS - RESERVED);
    let mut ours = world.connect();
    ours.write_all(&start("a").encode()).unwrap();
    world.asked();
    assert_eq!(world.clients(), MOST_CLIENTS - RESERVED + 1);
}

#[test]
fn with_few_descriptors_there_are_few_clients_and_root_is_among_them() {
    let mut world = World::new();
    world.control = world.control.within(Budget::of(256));
    let mut clients: Vec<_> = (1000..1020)
        .flat_map(|uid| [uid; 8])
        .collect::<Vec<u32>>()
        .into_iter()
        .map(|uid| stranger(&mut world, uid))
        .collect();
    assert_eq!(world.clients(), 28);
    for _ in 0..4 {
        let mut ours = world.connect();
        ours.write_all(&start("a").encode()).unwrap();
        world.asked();
        clients.push(ours);
    }
    assert_eq!(world.clients(), 32);
}

#[test]
fn who_does_not_take_what_is_passed_makes_nobody_else_lack_descriptors() {
    let mut world = World::new();
    world.control = world.control.within(Budget::of(256));
    let logs = Call { more: true, ..Request::Logs { names: vec!["a".into()] }.call() };
    let (reply, null) = (Reply::Log(Box::default()), std::fs::File::open("/dev/null").unwrap());
    let asks = |world: &mut World, uid: u32, rights: Rights| {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let place = world.control.place_for(uid, rights).unwrap();
        let caller = Caller { uid, groups: vec![uid], is_ours: rights == Rights::EVERYTHING };
        let client = Client::new(ours, caller, rights, world.now);
        watch(world.poll.registry(), client.stream(), Token(8 + place), Interest::READABLE).unwrap();
        world.control.places[place] = Some(client);
        theirs.write_all(&logs.encode().repeat(2)).unwrap();
        let room = [(); 2].map(|()| {
            let (session, _) = world.asked();
            let passed = (0..12).map(|_| null.try_clone().unwrap().into()).collect();
            world.control.reply_with(session, &reply, passed, true, world.now)
        });
        (room, theirs)
    };
    let others = Rights::up_to(Right::Logs);
    let (room, _first) = asks(&mut world, 1000, others);
    assert_eq!(room, [Room::Now, Room::Later]);
    let (room, _second) = asks(&mut world, 1001, others);
    assert_eq!(room, [Room::Now, Room::Gone]);
    world.settle();
    assert_eq!(world.clients(), 1);
    let (room, _ours) = asks(&mut world, 0, Rights::EVERYTHING);
    assert_eq!(room, [Room::Now, Room::Later]);
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![0]),
        Just(start("web").encode()),
        Just(Call { more: false, ..status(&[]) }.encode()),
        Just(Call { oneway: true, ..status(&["x"]) }.encode()),
        Just(Call { method: format!("{SERVICE}.GetInfo"), ..Call::default() }.encode()),
        proptest::collection::vec(any::<u8>(), 0..50),
        Just(b"{\"method\":\"".to_vec()),
        Just(vec![b'['; 3000]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_client_makes_the_server_panic_spin_or_keep_it(
        pieces in proptest::collection::vec((piece(), any::<bool>()), 0..30),
        leaves: bool,
    ) {
        let mut world = World::new();
        let mut client = world.connect();
        client.set_nonblocking(true).unwrap();
        for (bytes, answered) in pieces {
            let _ = client.write(&bytes);
            world.settle();
            for heard in std::mem::take(&mut world.heard) {
                if let Heard::Asked { session, .. } = heard && answered {
                    world.reply(session, &outcome("web"), true);
                }
            }
            world.settle();
        }
        if leaves {
            drop(client);
            world.settle_until(|world| world.clients() == 0);
        }
    }
}
