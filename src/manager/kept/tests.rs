//! ROOT. The keeper's part, played: what it is told, and what is waited for. Never in the program.

use super::*;
use crate::wire::keeper::entries;

fn kept(link: Link, capacity: u32) -> Kept {
    Kept { capacity, manager: 1, keeper: 1, keeper_pid: 1, ..Kept::new(link) }
}

fn two() -> Vec<(Kind, u32, OwnedFd)> {
    let (read, write) = fds::pipe(0).unwrap();
    vec![(Kind::Stdout, 0, read), (Kind::Process, 77, write)]
}

/// What the next message says, with the number of its descriptors; None where there is none.
fn next(keeper: &Link) -> Option<(Verb, Vec<Entry>, usize)> {
    let (mut bytes, mut fds) = ([0; MESSAGE], [const { None }; BATCH]);
    let got = keeper.receive(&mut bytes, &mut fds).ok()??;
    let head = Head::decode(&bytes[..got.bytes]).unwrap();
    Some((head.verb, entries(&head, &bytes[..got.bytes]).collect(), got.fds))
}

#[test]
fn what_belongs_together_is_kept_and_dropped_by_one_message() {
    let (ours, keeper) = Link::pair().unwrap();
    let mut kept = kept(ours, 64);
    kept.put_all(5, two()).unwrap();
    let (verb, said, fds) = next(&keeper).unwrap();
    let slots: Vec<u32> = said.iter().map(|entry| entry.slot).collect();
    assert_eq!((verb, fds), (Verb::Put, 2));
    assert_eq!((said[1].kind, said[1].id, said[1].pid), (Kind::Process as u32, 5, 77));
    kept.drop_all(&[Kind::Stdout, Kind::Report, Kind::Process], 5);
    assert!(next(&keeper).is_none(), "it was told before there was time");
    kept.give_up();
    let (verb, said, fds) = next(&keeper).unwrap();
    assert_eq!((verb, fds), (Verb::Drop, 0));
    assert_eq!(said.iter().map(|entry| entry.slot).collect::<Vec<_>>(), slots);
    assert!(next(&keeper).is_none() && kept.fd(Kind::Process, 5).is_none());
    assert_eq!(kept.room(), 64 - FIRST_FREE_SLOT as usize);
}

#[test]
fn what_takes_the_place_of_another_is_one_message_and_the_rest_is_given_up() {
    let (ours, keeper) = Link::pair().unwrap();
    let mut kept = kept(ours, 64);
    kept.put_all(5, two()).unwrap();
    let (_, before, _) = next(&keeper).unwrap();
    kept.drop_all(&[Kind::Stdout, Kind::Process], 5);
    kept.put(Kind::Stdout, 6, 0, two().remove(0).2).unwrap();
    let (verb, said, _) = next(&keeper).unwrap();
    assert_eq!((verb, said[0].slot), (Verb::Put, before[1].slot));
    kept.give_up();
    let (verb, said, _) = next(&keeper).unwrap();
    assert_eq!((verb, said[0].slot), (Verb::Drop, before[0].slot));
    // A listener's address is free as soon as it is dropped.
    kept.put(Kind::Listener, 1, 0, two().remove(0).2).unwrap();
    kept.drop(Kind::Listener, 1);
    let verbs: Vec<Verb> = std::iter::from_fn(|| next(&keeper)).map(|(verb, ..)| verb).collect();
    assert_eq!(verbs, [Verb::Put, Verb::Drop]);
}

#[test]
fn a_gate_waits_behind_what_found_the_queue_full() {
    let (ours, keeper) = Link::pair().unwrap();
    let mut kept = kept(ours, 64);
    let filler = Head::plain(Verb::Ready, 0).encode();
    let mut fillers = 0;
    while kept.link.as_ref().unwrap().send(&filler, &[]).is_ok() {
        fillers += 1;
    }
    kept.put_all(5, two()).unwrap();
    let (read, gate) = fds::pipe(libc::O_NONBLOCK).unwrap();
    kept.open_gate(gate);
    assert!(fds::read(read.as_fd(), &mut [0]).is_err(), "the gate opened before its registration was sent");
    for _ in 0..fillers {
        assert_eq!(next(&keeper).unwrap().0, Verb::Ready);
    }
    assert!(kept.flush());
    let said: Vec<u32> = std::iter::from_fn(|| next(&keeper)).map(|(_, said, _)| said[0].kind).collect();
    assert_eq!(said, [Kind::Stdout as u32, Kind::Process as u32]);
    assert_eq!(fds::read(read.as_fd(), &mut [0]).unwrap(), 1);
}

#[test]
fn where_there_is_no_room_for_all_none_is_kept() {
    let (ours, keeper) = Link::pair().unwrap();
    let mut kept = kept(ours, FIRST_FREE_SLOT + 1);
    assert_eq!(kept.put_all(5, two()).unwrap_err().raw_os_error(), Some(libc::EMFILE));
    assert!(next(&keeper).is_none() && kept.fd(Kind::Stdout, 5).is_none());
    assert_eq!(kept.room(), 1);
}

#[test]
fn what_is_closed_is_closing_until_the_keeper_has_answered() {
    let (ours, keeper) = Link::pair().unwrap();
    let mut kept = kept(ours, 64);
    kept.put(Kind::Listener, 1, 0, two().remove(0).2).unwrap();
    kept.put(Kind::Listener, 2, 0, two().remove(0).2).unwrap();
    kept.close(Kind::Listener, 1);
    kept.close(Kind::Listener, 2);
    assert!(kept.is_closing());
    let verbs = || std::iter::from_fn(|| next(&keeper)).map(|(verb, ..)| verb).collect::<Vec<Verb>>();
    assert_eq!(verbs(), [Verb::Put, Verb::Put, Verb::Drop, Verb::Give, Verb::Drop]);
    let answer = Head::plain(Verb::Batch, 0).encode();
    keeper.send(&answer, &[]).unwrap();
    kept.listen(&mut Vec::new());
    // The first answer may be from before the second was closed.
    assert!(kept.is_closing());
    assert_eq!(verbs(), [Verb::Give]);
    keeper.send(&answer, &[]).unwrap();
    kept.listen(&mut Vec::new());
    assert!(!kept.is_closing());
    // One that has ended has nothing any more.
    kept.put(Kind::Listener, 3, 0, two().remove(0).2).unwrap();
    kept.close(Kind::Listener, 3);
    assert!(kept.is_closing());
    drop(keeper);
    kept.listen(&mut Vec::new());
    assert!(!kept.is_closing());
}
