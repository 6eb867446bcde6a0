//! PURE. Messages of the zygote's link and the child's report: bytes and values. Never a descriptor.
//!
//! The manager sends one SPAWN with its descriptors and gets one SPAWNED (with a pidfd) or REFUSED for it, in
//! order. The child, on its own pipe, reports what it left out and where it failed; the end of the pipe
//! without a failure means that the command is being executed. All numbers are little-endian.

/// Bytes of a message on the link, either way.
pub const MESSAGE_BYTES: usize = 16;
/// Bytes of a report on the child's pipe.
pub const REPORT_BYTES: usize = 16;
/// Descriptors in front of the sockets: plan, gate, status, standard input, output and error.
pub const FIXED_FDS: usize = 6;

const SPAWN: u8 = 1;
const SPAWNED: u8 = 2;
const REFUSED: u8 = 3;

const INTO_CGROUP: u8 = 1;
const OLD_CLONE: u8 = 2;

/// What the manager asks for. Descriptors in order: [`FIXED_FDS`], the sockets, the cgroup's directory if said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// A number of the manager's choice that comes back in the reply.
    pub request: u64,
    /// Sockets to pass to the command.
    pub sockets: u16,
    /// Whether the last descriptor is the directory of a version 2 cgroup to clone into.
    pub cgroup: bool,
}

impl Spawn {
    /// Descriptors that belong to the message.
    pub fn fds(&self) -> usize {
        FIXED_FDS + usize::from(self.sockets) + usize::from(self.cgroup)
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let flags = if self.cgroup { INTO_CGROUP } else { 0 };
        message(SPAWN, flags, self.sockets, 0, self.request)
    }

    /// From bytes; None where they are no such message.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match fields(bytes)? {
            (SPAWN, flags, sockets, 0, request) if flags & !INTO_CGROUP == 0 => {
                Some(Self { request, sockets, cgroup: flags & INTO_CGROUP != 0 })
            }
            _ => None,
        }
    }
}

/// What the zygote answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The child waits at its gate; the message carries its pidfd.
    Spawned {
        /// The number of the request.
        request: u64,
        /// The process number.
        pid: u32,
        /// The error number for which the child is not in the cgroup that was asked for; 0 where it is, or
        /// none was asked for.
        cgroup_errno: u16,
        /// Whether clone3(2) is refused here and the older call was used.
        old_clone: bool,
    },
    /// There is no child.
    Refused {
        /// The number of the request.
        request: u64,
        /// Why, as an error number.
        errno: i32,
    },
}

impl Reply {
    /// As bytes.
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        match *self {
            Self::Spawned { request, pid, cgroup_errno, old_clone } => {
                message(SPAWNED, if old_clone { OLD_CLONE } else { 0 }, cgroup_errno, pid, request)
            }
            Self::Refused { request, errno } => message(REFUSED, 0, 0, errno.cast_unsigned(), request),
        }
    }

    /// From bytes; None where they are no such message.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match fields(bytes)? {
            (SPAWNED, flags, cgroup_errno, pid, request) if flags & !OLD_CLONE == 0 => {
                Some(Self::Spawned { request, pid, cgroup_errno, old_clone: flags & OLD_CLONE != 0 })
            }
            (REFUSED, 0, 0, errno, request) => Some(Self::Refused { request, errno: errno.cast_signed() }),
            _ => None,
        }
    }
}

fn message(kind: u8, flags: u8, short: u16, word: u32, request: u64) -> [u8; MESSAGE_BYTES] {
    let wide = u128::from(kind)
        | u128::from(flags) << 8
        | u128::from(short) << 16
        | u128::from(word) << 32
        | u128::from(request) << 64;
    wide.to_le_bytes()
}

fn fields(bytes: &[u8]) -> Option<(u8, u8, u16, u32, u64)> {
    let wide = u128::from_le_bytes(bytes.try_into().ok()?);
    Some((wide as u8, (wide >> 8) as u8, (wide >> 16) as u16, (wide >> 32) as u32, (wide >> 64) as u64))
}

/// Whether the child goes on after what it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Something was left out that the system does not allow here and that no right depends on.
    Warning,
    /// The command is not executed; the child has ended.
    Failure,
}

/// One report of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it goes on.
    pub weight: Weight,
    /// The number of a [`crate::launch::Stage`].
    pub stage: u8,
    /// The error number; 0 where no system call failed.
    pub errno: i32,
    /// More, by stage: which candidate, capability, resource or check.
    pub detail: u32,
}

const REPORT_MARK: u8 = 0x52;

impl Report {
    /// As bytes.
    pub fn encode(&self) -> [u8; REPORT_BYTES] {
        let weight = match self.weight {
            Weight::Warning => 1,
            Weight::Failure => 2,
        };
        let detail = u64::from(self.detail);
        message(REPORT_MARK, weight, u16::from(self.stage), self.errno.cast_unsigned(), detail)
    }

    /// From bytes; None where they are no report.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (REPORT_MARK, weight, stage, errno, detail) = fields(bytes)? else { return None };
        let weight = match weight {
            1 => Weight::Warning,
            2 => Weight::Failure,
            _ => return None,
        };
        let (stage, detail) = (stage.try_into().ok()?, detail.try_into().ok()?);
        Some(Self { weight, stage, errno: errno.cast_signed(), detail })
    }
}

/// The most bytes of a clue's text: with the failure behind it, it goes into a pipe whole or not at all.
pub const MOST_CLUE: usize = 1024;
/// Bytes of a clue's text in one record.
const PART: usize = REPORT_BYTES - 3;
/// The most bytes of all records of a clue.
pub const MOST_CLUE_BYTES: usize = (MOST_CLUE / PART + 1) * REPORT_BYTES;

/// PIPE_BUF: a pipe takes no more at once.
const _: () = assert!(MOST_CLUE_BYTES + REPORT_BYTES <= 4096);

const CLUE_MARK: u8 = 0x43;

/// A piece of what a child has found out about the failure that it reports next. A clue has at least one; its
/// text is that of its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of a [`crate::launch::Clue`].
    pub clue: u8,
    length: u8,
    text: [u8; PART],
}

impl Piece {
    /// All of a clue, one after the other.
    pub fn all(clue: u8, text: &[u8]) -> impl Iterator<Item = Self> {
        let count = text.len().div_ceil(PART).max(1);
        (0..count).map(move |index| {
            let start = index * PART;
            let part = text.get(start..text.len().min(start + PART)).unwrap_or_default();
            let mut piece = Self { clue, length: part.len() as u8, text: [0; PART] };
            piece.text.iter_mut().zip(part).for_each(|(place, byte)| *place = *byte);
            piece
        })
    }

    /// Its part of the text.
    pub fn text(&self) -> &[u8] {
        self.text.get(..self.length.into()).unwrap_or_default()
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        let [mark, clue, length, text @ ..] = &mut bytes;
        (*mark, *clue, *length, *text) = (CLUE_MARK, self.clue, self.length, self.text);
        bytes
    }

    /// From bytes; None where they are no such record.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; REPORT_BYTES] = bytes.try_into().ok()?;
        let [CLUE_MARK, clue, length, text @ ..] = bytes else { return None };
        (usize::from(length) <= PART).then_some(Self { clue, length, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(request: u64, sockets: u16, cgroup: bool, pid: u32, errno: i32, flag: bool) {
            let spawn = Spawn { request, sockets, cgroup };
            prop_assert_eq!(Spawn::decode(&spawn.encode()), Some(spawn));
            let spawned = Reply::Spawned { request, pid, cgroup_errno: sockets, old_clone: flag };
            prop_assert_eq!(Reply::decode(&spawned.encode()), Some(spawned));
            let refused = Reply::Refused { request, errno };
            prop_assert_eq!(Reply::decode(&refused.encode()), Some(refused));
            let weight = if flag { Weight::Failure } else { Weight::Warning };
            let report = Report { weight, stage: sockets as u8, errno, detail: pid };
            prop_assert_eq!(Report::decode(&report.encode()), Some(report));
        }

        #[test]
        fn bytes_mean_one_thing_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 14..18), kind in proptest::sample::select(vec![0, SPAWN, SPAWNED, REFUSED, REPORT_MARK])) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = kind; }
            if let Some(spawn) = Spawn::decode(&bytes) {
                prop_assert_eq!(&spawn.encode()[..], &bytes[..]);
            }
            if let Some(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(&reply.encode()[..], &bytes[..]);
            }
            if let Some(report) = Report::decode(&bytes) {
                prop_assert_eq!(&report.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn a_clue_comes_in_pieces_and_is_read_as_it_was() {
        for text in [&b""[..], b"/usr/bin/x", b"/thirteen/now", b"/opt/python3.9/bin/python"] {
            let bytes: Vec<u8> = Piece::all(4, text).flat_map(|piece| piece.encode()).collect();
            let pieces: Vec<Piece> = bytes.chunks(REPORT_BYTES).filter_map(Piece::decode).collect();
            let read: Vec<u8> = pieces.iter().flat_map(|piece| piece.text().to_vec()).collect();
            assert_eq!(read, text);
            assert!(!pieces.is_empty() && pieces.iter().all(|piece| piece.clue == 4));
            assert!(bytes.chunks(REPORT_BYTES).all(|record| Report::decode(record).is_none()));
        }
        assert_eq!(Piece::decode(&[CLUE_MARK, 1, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn what_a_later_version_might_add_is_not_understood() {
        assert_eq!(Spawn::decode(&message(SPAWN, 2, 0, 0, 1)), None);
        assert_eq!(Spawn::decode(&message(SPAWN, 0, 0, 1, 1)), None);
        assert_eq!(Reply::decode(&message(SPAWNED, 1, 0, 9, 1)), None);
        assert_eq!(Reply::decode(&message(REFUSED, 0, 1, 9, 1)), None);
        assert_eq!(Report::decode(&message(REPORT_MARK, 3, 1, 0, 0)), None);
        assert_eq!(Report::decode(&message(REPORT_MARK, 1, 256, 0, 0)), None);
        assert_eq!(Spawn::decode(&[SPAWN; MESSAGE_BYTES - 1]), None);
    }

    #[test]
    fn a_message_counts_its_descriptors() {
        assert_eq!(Spawn { request: 1, sockets: 3, cgroup: true }.fds(), 10);
        assert_eq!(Spawn { request: 1, sockets: 0, cgroup: false }.fds(), 6);
    }
}
