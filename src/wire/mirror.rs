//! PURE. The mirror of the state in the runtime directory: what a supervisor that was killed with all its processes had
//! written down. Never believes a half-written end.
//!
//! A head that says in which boot and among which processes its numbers mean something, and behind it the records of
//! [`super::state`], appended; the last of a (kind, id) counts. A process that is killed while it writes leaves a
//! record that is too short at the end: what stands before it is what a moment earlier was so. Anything else that is
//! wrong means that somebody else has written there, and then nothing of it counts.

use std::fmt;

use super::state::{FRONT, Kind, Record};

/// First bytes of a mirror; the number is its version.
const MAGIC: [u8; 8] = *b"svmirror";
const VERSION: u32 = 1;
/// Bytes of the head: magic, version, sum of all that follows, pid namespace, boot.
pub const HEAD: usize = 64;
const BOOT_AT: usize = 24;
const BOOT_BYTES: usize = HEAD - BOOT_AT;
/// The most bytes of one record; the inputs of a generation have the texts of all its files.
const MOST_BODY: usize = 64 << 20;

/// Where the numbers of processes in it mean something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The kernel's name for this boot.
    pub boot: String,
    /// The number of the pid namespace.
    pub namespace: u64,
}

/// Numbers that stand in the header of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The next number of a listening socket.
    pub next_listener: u64,
    /// The next incarnation.
    pub next_run: u64,
    /// The supervisor was stopping.
    pub closing: bool,
}

/// Why a mirror is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is none, or one of another version.
    Unknown,
    /// Its bytes are not what was written.
    Damaged,
    /// It is of another boot of this machine.
    Boot,
    /// Its processes are those of another container.
    Namespace,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unknown => "it is of another version",
            Self::Damaged => "it is damaged",
            Self::Boot => "it is from before the machine was started",
            Self::Namespace => "it is about the processes of another container",
        })
    }
}

impl Head {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = self.namespace.to_le_bytes().to_vec();
        rest.extend(self.boot.bytes().take(BOOT_BYTES));
        rest.resize(8 + BOOT_BYTES, 0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&rest).to_le_bytes());
        bytes.extend_from_slice(&rest);
        bytes
    }
}

impl Words {
    /// The body of their record.
    pub fn encode(&self) -> Vec<u8> {
        [self.next_listener, self.next_run, self.closing.into()].map(u64::to_le_bytes).concat()
    }

    /// From the body of their record; what is missing is 0.
    pub fn decode(body: &[u8]) -> Self {
        let word = |at: usize| body.get(at * 8..at * 8 + 8).and_then(|word| word.try_into().ok());
        let word = |at: usize| word(at).map_or(0, u64::from_le_bytes);
        Self { next_listener: word(0), next_run: word(1), closing: word(2) != 0 }
    }
}

/// Its records, in order.
pub fn read<'a>(bytes: &'a [u8], here: &Head) -> Result<Vec<Record<'a>>, Refused> {
    let expected = here.encode();
    let front = MAGIC.len() + 4;
    if bytes.get(..front) != expected.get(..front) {
        return Err(Refused::Unknown);
    }
    let (head, mut rest) = bytes.split_at_checked(HEAD).ok_or(Refused::Damaged)?;
    let sum = head.get(front..front + 4).and_then(|sum| sum.try_into().ok()).map(u32::from_le_bytes);
    if sum != head.get(front + 4..).map(crc32fast::hash) {
        return Err(Refused::Damaged);
    }
    if head.get(BOOT_AT..) != expected.get(BOOT_AT..) {
        return Err(Refused::Boot);
    }
    if head != expected {
        return Err(Refused::Namespace);
    }
    let mut found = Vec::new();
    while let Some(front) = rest.get(..FRONT) {
        let word = |at: usize| front.get(at..at + 4).and_then(|word| word.try_into().ok());
        let word = |at: usize| word(at).map_or(0, u32::from_le_bytes);
        let length = word(0) as usize;
        if length > MOST_BODY {
            return Err(Refused::Damaged);
        }
        let Some(summed) = rest.get(8..FRONT + length) else { break };
        if crc32fast::hash(summed) != word(4) {
            return Err(Refused::Damaged);
        }
        let id = front.get(16..24).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes);
        // A kind that is not known is a newer version's.
        if let (Some(kind), Some(body)) = (Kind::from_number(word(8)), rest.get(FRONT..FRONT + length)) {
            found.push(Record { kind, id, body });
        }
        rest = rest.get((FRONT + length).next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Head {
        Head { boot: "7a1c4f7e-2f6e-4a53-9f5e-0d4d7a2a6f01".to_owned(), namespace: 4_026_531_836 }
    }

    fn written() -> Vec<u8> {
        let bodies: [&[u8]; 3] = [b"one", b"", b"the third is longer than the others"];
        let records = bodies.iter().enumerate();
        let records = records.map(|(id, body)| Record { kind: Kind::Inputs, id: id as u64, body }.encode());
        std::iter::once(here().encode()).chain(records).flatten().collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = written();
        let all = read(&bytes, &here()).unwrap();
        assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(all[0].body, b"one");
        let words = Words { next_listener: 3, next_run: 1 << 40, closing: true };
        assert_eq!(Words::decode(&words.encode()), words);
    }

    #[test]
    fn a_torn_end_is_left_out_and_nothing_before_it() {
        let bytes = written();
        // Where each record is whole; the last bytes of the others only fill them up.
        let (first, third) = (HEAD + FRONT + 3, bytes.len() - 5);
        let ends = [first, HEAD + 32 + FRONT, third];
        for length in HEAD..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(read(&bytes[..length], &here()).map(|all| all.len()), Ok(whole), "{length}");
        }
    }

    #[test]
    fn what_is_damaged_or_of_elsewhere_is_not_believed() {
        let bytes = written();
        for at in [20, HEAD + 4, HEAD + 9, HEAD + FRONT] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad, &here()), Err(Refused::Damaged), "{at}");
        }
        let boot = Head { boot: "another".to_owned(), ..here() };
        assert_eq!(read(&bytes, &boot), Err(Refused::Boot));
        assert_eq!(read(&bytes, &Head { namespace: 1, ..here() }), Err(Refused::Namespace));
        assert_eq!(read(b"", &here()), Err(Refused::Unknown));
        assert_eq!(read(b"svmirror\x02\0\0\0", &here()), Err(Refused::Unknown));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_behind_a_head_are_walked_to_an_end(rest in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let bytes = [here().encode(), rest].concat();
            let _ = read(&bytes, &here());
        }
    }
}
