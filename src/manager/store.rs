//! ROOT. The state, written: a memfd that the keeper keeps and this manager alone writes. Never interprets a
//! body.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::sys::memfd::{self, Map};
use crate::wire::state::{Kind, MAGIC, MOST_BODY, Record, header, records};

/// Bytes of one half at first; it doubles when what lives no longer fits.
const FIRST_HALF: usize = 64 * 1024;

/// Bytes that one half never exceeds. A thousand services take some two megabytes, and so do a thousand instances of
/// one; what no longer fits is refused where it would begin.
const MOST_HALF: usize = 256 * 1024 * 1024;

/// The state.
#[derive(Debug)]
pub struct Store {
    map: Map,
    half: usize,
    active: usize,
    length: usize,
    living: Living,
    most: usize,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the state {what}"))
}

impl Store {
    /// An empty one, and the descriptor to keep.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        Self::sized(FIRST_HALF)
    }

    fn sized(half: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd::fixed(c"supervise-state", header::BYTES + 2 * half)?;
        let map = Map::new(fd.as_fd(), true)?;
        let store = Self { map, half, active: 0, length: 0, living: BTreeMap::new(), most: MOST_HALF };
        store.set(header::MAGIC, MAGIC);
        Ok((store, fd))
    }

    /// One that an earlier manager wrote.
    pub fn open(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let map = Map::new(fd, true)?;
        let half = map.len().saturating_sub(header::BYTES) / 2;
        let mut store = Self { map, half, active: 0, length: 0, living: BTreeMap::new(), most: MOST_HALF };
        if store.get(header::MAGIC) != MAGIC {
            return Err(bad("is of another version"));
        }
        store.active = (store.get(header::ACTIVE) & 1) as usize;
        store.length = (store.get(header::LENGTHS + 8 * store.active) as usize).min(half);
        let bytes = store.bytes();
        let start = bytes.as_ptr() as usize;
        for record in records(&bytes) {
            let size = record.size();
            let offset = (record.body.as_ptr() as usize).saturating_sub(start + 24);
            let key = (record.kind, record.id);
            if record.body.is_empty() {
                store.living.remove(&key);
            } else {
                store.living.insert(key, (offset, size));
            }
        }
        Ok(store)
    }

    fn base(&self, half: usize) -> usize {
        header::BYTES + half * self.half
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.map.load(self.base(self.active), &mut bytes);
        bytes
    }

    /// The bodies of a kind that count, by id.
    pub fn bodies(&self, kind: Kind) -> Vec<(u64, Vec<u8>)> {
        let bytes = self.bytes();
        self.living
            .range((kind, 0)..=(kind, u64::MAX))
            .filter_map(|((_, id), (offset, size))| {
                let record = records(bytes.get(*offset..offset + size)?).next()?;
                Some((*id, record.body.to_vec()))
            })
            .collect()
    }

    /// A word of the header; the offsets are in [`header`].
    pub fn get(&self, word: usize) -> u64 {
        self.map.word64(word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores a word of the header.
    pub fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.map.word64(word) {
            word.store(value, Ordering::Release);
        }
    }

    /// Writes a record (an empty body removes it). When a larger memfd had to be made for it, that is
    /// returned and must be kept in the old one's place before anything else happens.
    pub fn put(&mut self, kind: Kind, id: u64, body: &[u8]) -> io::Result<Option<OwnedFd>> {
        self.put_all(&[Record { kind, id, body }])
    }

    /// Writes several, all of them or none, whenever this manager ends.
    pub fn put_all(&mut self, records: &[Record<'_>]) -> io::Result<Option<OwnedFd>> {
        if records.iter().any(|record| record.body.len() > MOST_BODY) {
            return Err(bad("takes no record of that size"));
        }
        let is_news =
            |one: &&Record<'_>| !one.body.is_empty() || self.living.contains_key(&(one.kind, one.id));
        let records: Vec<Record<'_>> = records.iter().filter(is_news).copied().collect();
        let size: usize = records.iter().map(Record::size).sum();
        if self.length + size <= self.half {
            self.append(&records);
            return Ok(None);
        }
        let living: usize = self.living.values().map(|(_, size)| size).sum();
        if living + size <= self.half / 2 {
            self.compact();
            self.append(&records);
            return Ok(None);
        }
        self.grow(living + size, &records).map(Some)
    }

    fn append(&mut self, records: &[Record<'_>]) {
        let mut at = self.length;
        for record in records {
            self.map.store(self.base(self.active) + at, &record.encode());
            let key = (record.kind, record.id);
            if record.body.is_empty() {
                self.living.remove(&key);
            } else {
                self.living.insert(key, (at, record.size()));
            }
            at += record.size();
        }
        self.length = at;
        // Only now do they exist for whoever comes after us.
        self.set(header::LENGTHS + 8 * self.active, self.length as u64);
    }

    /// Writes what lives to the other half, and then makes that the one that counts.
    fn compact(&mut self) {
        let bytes = self.bytes();
        let other = 1 - self.active;
        let (living, packed) = pack(&self.living, &bytes);
        self.map.store(self.base(other), &packed);
        self.set(header::LENGTHS + 8 * other, packed.len() as u64);
        self.set(header::ACTIVE, other as u64);
        (self.living, self.length, self.active) = (living, packed.len(), other);
    }

    fn grow(&mut self, needed: usize, records: &[Record<'_>]) -> io::Result<OwnedFd> {
        let mut half = self.half * 2;
        while half / 2 < needed {
            half *= 2;
        }
        if half > self.most {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the state is full"));
        }
        let (mut larger, fd) = Self::sized(half)?;
        let mut word = header::EXIT_CURSOR;
        while word < header::BYTES {
            larger.set(word, self.get(word));
            word += 8;
        }
        let (living, packed) = pack(&self.living, &self.bytes());
        larger.map.store(larger.base(0), &packed);
        larger.set(header::LENGTHS, packed.len() as u64);
        (larger.living, larger.length) = (living, packed.len());
        larger.append(records);
        larger.most = self.most;
        *self = larger;
        Ok(fd)
    }
}

/// Where each record that counts is in the active half, and its size.
type Living = BTreeMap<(Kind, u64), (usize, usize)>;

fn pack(living: &Living, bytes: &[u8]) -> (Living, Vec<u8>) {
    let mut packed = Vec::with_capacity(living.values().map(|(_, size)| size).sum());
    let mut places = BTreeMap::new();
    for (key, (offset, size)) in living {
        places.insert(*key, (packed.len(), *size));
        packed.extend_from_slice(bytes.get(*offset..offset + size).unwrap_or_default());
    }
    (places, packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopened(fd: &OwnedFd) -> BTreeMap<u64, Vec<u8>> {
        Store::open(fd.as_fd()).unwrap().bodies(Kind::Service).into_iter().collect()
    }

    #[test]
    fn what_was_put_last_is_found_after_any_number_of_compactions() {
        let (mut store, mut fd) = Store::create().unwrap();
        let mut expected = BTreeMap::new();
        store.set(header::BOOTED, 1);
        for round in 0..20_000u64 {
            let id = round * 7919 % 97;
            let body =
                if round % 11 == 0 { Vec::new() } else { vec![round as u8; (round % 300) as usize + 1] };
            if let Some(larger) = store.put(Kind::Service, id, &body).unwrap() {
                fd = larger;
            }
            if body.is_empty() {
                expected.remove(&id);
            } else {
                expected.insert(id, body);
            }
            if round % 1000 == 0 {
                assert_eq!(reopened(&fd), expected, "round {round}");
            }
        }
        assert_eq!(reopened(&fd), expected);
        assert_eq!(Store::open(fd.as_fd()).unwrap().get(header::BOOTED), 1);
    }

    #[test]
    fn it_grows_when_what_lives_does_not_fit_and_carries_the_words_over() {
        let (mut store, mut fd) = Store::create().unwrap();
        store.set(header::EXIT_CURSOR, 42);
        let mut grown = 0;
        for id in 0..500 {
            if let Some(larger) = store.put(Kind::Process, id, &[1; 1000]).unwrap() {
                fd = larger;
                grown += 1;
            }
        }
        assert!(grown > 1);
        let back = Store::open(fd.as_fd()).unwrap();
        assert_eq!((back.bodies(Kind::Process).len(), back.get(header::EXIT_CURSOR)), (500, 42));
    }

    #[test]
    fn several_are_there_together_or_not_at_all() {
        let (mut store, fd) = Store::create().unwrap();
        store.put(Kind::Service, 1, b"one").unwrap();
        store.most = store.half;
        let large = vec![7; 60_000];
        let both = [1, 2].map(|id| Record { kind: Kind::Service, id, body: &large });
        let refused = store.put_all(&both).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(reopened(&fd), BTreeMap::from([(1, b"one".to_vec())]));
        let both = [1, 2].map(|id| Record { kind: Kind::Service, id, body: b"two" });
        let nobody = Record { kind: Kind::Service, id: 3, body: b"" };
        assert!(store.put_all(&[both[0], nobody, both[1]]).unwrap().is_none());
        assert_eq!(reopened(&fd), BTreeMap::from([(1, b"two".to_vec()), (2, b"two".to_vec())]));
    }

    #[test]
    fn a_record_whose_length_word_was_not_moved_does_not_exist() {
        let (mut store, fd) = Store::create().unwrap();
        store.put(Kind::Service, 1, b"one").unwrap();
        let record = Record { kind: Kind::Service, id: 1, body: b"half-done" }.encode();
        store.map.store(store.base(0) + store.length, &record);
        assert_eq!(reopened(&fd).get(&1).unwrap(), b"one");
    }
}
