//! PURE. The messages between manager and logger, and the size of the logger's memory. Never sends one.
//!
//! Each message is [`MESSAGE_BYTES`] long, numbers little-endian: version, kind, output, length of the name,
//! a time in milliseconds (4 bytes), the stream (8), the name (64, rest zero), and the rule: where to, what
//! when full, whether packed, nothing (a byte each), files kept (4), size (8), age (8). An `Add` travels with
//! one descriptor, the read end of the stream's pipe; nothing else travels with any.
//!
//! A report is at most [`REPORT_BYTES`] long: version, kind, pieces, whether anything came (a byte each), nothing (4),
//! the stream (8), and the pieces of its trail: offset (8), length (4), nothing (4), time (8). That of a trouble:
//! version, kind, whose, length of the name (a byte each), nothing (4), the name (64, rest zero), and the words.

use std::fmt;

use super::cri::Which;

/// The version this side speaks.
pub const VERSION: u8 = 4;

/// Every order has this size.
pub const MESSAGE_BYTES: usize = 104;

/// No report is longer.
pub const REPORT_BYTES: usize = TROUBLE_HEAD + MOST_WORDS;

/// The most bytes of words that are sent of one trouble.
pub const MOST_WORDS: usize = 1200;

const TROUBLE_HEAD: usize = 8 + 64;

/// The most pieces of a trail. Each has at least one entry, so they have the last lines that anybody is shown.
pub const MOST_PIECES: usize = 10;

const PIECE_BYTES: usize = 24;

/// The size of the memfd that the keeper makes for the logger, with `sys::memfd::fixed`, and hands to each
/// new one: what the last one was doing when it died.
pub const STATE_BYTES: usize = 36 * 1024;

/// What the tray holds that the keeper makes for the logger with `sys::pipes::tray` and hands to each, where that can be
/// had: the most bytes that are taken out of a pipe in one step.
pub const TRAY_BYTES: usize = 128 * 1024;

/// The longest name of a service.
pub const LONGEST_NAME: usize = 63;

/// A service's name: `[a-z0-9][a-z0-9._-]{0,62}`, so one that is always safe as a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    length: u8,
    bytes: [u8; LONGEST_NAME],
}

/// No service's.
impl Default for Name {
    fn default() -> Self {
        Self { length: 0, bytes: [0; LONGEST_NAME] }
    }
}

impl Name {
    /// The name, if it is one.
    pub fn new(name: &[u8]) -> Option<Self> {
        let first = name.first()?;
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !plain(first) || !name.iter().all(|byte| plain(byte) || b"._-".contains(byte)) {
            return None;
        }
        let mut bytes = [0; LONGEST_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { length: u8::try_from(name.len()).ok()?, bytes })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{self}`")
    }
}

/// Where lines go that come through the logger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum To {
    /// The service's own files.
    #[default]
    File,
    /// The logger's own standard output and error, with the service's name in front.
    Inherit,
    /// The journal of systemd.
    Journal,
    /// The system's log.
    Syslog,
}

impl To {
    /// The word for it, as in unit files.
    pub const fn word(self) -> &'static str {
        match self {
            To::File => "file",
            To::Inherit => "inherit",
            To::Journal => "journal",
            To::Syslog => "syslog",
        }
    }
}

/// What becomes of lines for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// They are dropped and counted.
    #[default]
    Drop,
    /// They stay in the pipe, and the service waits.
    Block,
}

/// How the lines of a service are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where to.
    pub to: To,
    /// What to do where there is no room.
    pub when_full: WhenFull,
    /// Whether old files are compressed.
    pub compress: bool,
    /// Old files that stay.
    pub keep: u32,
    /// The size in bytes that `current` does not pass, a single write apart.
    pub max_size: u64,
    /// The age in milliseconds from which on `current` gives way; 0: at any.
    pub max_age_ms: u64,
}

impl Default for Rule {
    fn default() -> Self {
        let (to, when_full) = (To::File, WhenFull::Drop);
        Self { to, when_full, compress: true, keep: 10, max_size: 10 * 1024 * 1024, max_age_ms: 0 }
    }
}

/// What the manager tells the logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the pipe that comes with this. A stream that is known already goes on as it is, so that all of
    /// them can be sent again after a restart of either side. The last rule counts, for the whole service.
    Add {
        /// Never used again for another pipe, across restarts of the manager.
        stream: u64,
        /// Whose log it goes to; many streams may share one.
        service: Name,
        /// Which word stands in the entries.
        which: Which,
        /// What happens to them.
        rule: Rule,
    },
    /// Forget the stream. What is still in its pipe stays there.
    Remove {
        /// As in `Add`.
        stream: u64,
    },
    /// Read every stream to its end, then exit; after this many milliseconds write what is there and exit.
    Drain {
        /// Milliseconds from now.
        within_ms: u32,
    },
}

/// Where some entries of a stream stand in its service's file, one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where in the file the first of them begins.
    pub at: u64,
    /// How long they are.
    pub bytes: u32,
    /// The time that the last of them has, in nanoseconds since 1970: it tells the file, which has given way to others
    /// or was cut since where no entry with this time ends there.
    pub time_ns: u64,
}

/// What is known of the last entries of a stream: other streams of its service write to the same file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Whether this logger has had anything of it at all, wherever it went.
    pub wrote: bool,
    /// Where they stand, the newest last; of more than [`MOST_PIECES`] those are told.
    pub pieces: Vec<Piece>,
}

/// What the logger tells the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The pipe has ended and everything that was in it is written. The logger has forgotten the stream.
    Closed {
        /// As in `Add`.
        stream: u64,
        /// Where its last entries are.
        trail: Trail,
    },
    /// An `Add` arrived without its descriptor (a full table), or the stream could not be watched: send it
    /// again later.
    Lost {
        /// As in `Add`.
        stream: u64,
    },
    /// The lines of a service do not get to where they are to go, or do so again.
    Trouble {
        /// Whose.
        service: Name,
        /// Where they do not get to.
        place: Place,
        /// What is wrong, and the remedy; nothing where it is over.
        words: String,
    },
}

/// Where lines may not get to. Each has its own troubles: where nobody takes them elsewhere they go to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The service's files.
    Files,
    /// The journal, the system's log, our own output.
    Away,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not [`MESSAGE_BYTES`] long.
    Length,
    /// Of another version.
    Version,
    /// A kind, an output or a name that does not exist.
    Content,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Refused::Length => "a message of the wrong length",
            Refused::Version => "a message of another version",
            Refused::Content => "a message with unknown content",
        })
    }
}

const ADD: u8 = 1;
const REMOVE: u8 = 2;
const DRAIN: u8 = 3;
const CLOSED: u8 = 129;
const LOST: u8 = 130;
const TROUBLE: u8 = 131;

/// The fields every message has, before anyone asks what they mean.
struct Frame {
    kind: u8,
    which: u8,
    name_length: u8,
    time_ms: u32,
    stream: u64,
    name: [u8; 64],
    rule: [u8; RULE_BYTES],
}

const RULE_BYTES: usize = 24;

impl Rule {
    fn encode(&self) -> [u8; RULE_BYTES] {
        let to = match self.to {
            To::File => 1,
            To::Inherit => 2,
            To::Journal => 3,
            To::Syslog => 4,
        };
        let when_full = match self.when_full {
            WhenFull::Drop => 1,
            WhenFull::Block => 2,
        };
        let mut out = [0; RULE_BYTES];
        let fields = [to, when_full, u8::from(self.compress), 0].into_iter().chain(self.keep.to_le_bytes());
        let fields = fields.chain(self.max_size.to_le_bytes()).chain(self.max_age_ms.to_le_bytes());
        out.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        out
    }

    fn decode(bytes: &[u8; RULE_BYTES]) -> Option<Self> {
        let [to, when_full, compress, _, rest @ ..] = bytes;
        let to = match to {
            1 => To::File,
            2 => To::Inherit,
            3 => To::Journal,
            4 => To::Syslog,
            _ => return None,
        };
        let when_full = match when_full {
            1 => WhenFull::Drop,
            2 => WhenFull::Block,
            _ => return None,
        };
        let (keep, rest) = rest.split_first_chunk()?;
        let (max_size, rest) = rest.split_first_chunk()?;
        let max_age = *rest.first_chunk()?;
        Some(Self {
            to,
            when_full,
            compress: *compress != 0,
            keep: u32::from_le_bytes(*keep),
            max_size: u64::from_le_bytes(*max_size),
            max_age_ms: u64::from_le_bytes(max_age),
        })
    }
}

impl Frame {
    const fn new(kind: u8) -> Self {
        Self { kind, which: 0, name_length: 0, time_ms: 0, stream: 0, name: [0; 64], rule: [0; RULE_BYTES] }
    }

    fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut out = [0; MESSAGE_BYTES];
        let head = [VERSION, self.kind, self.which, self.name_length];
        let fields = head.into_iter().chain(self.time_ms.to_le_bytes()).chain(self.stream.to_le_bytes());
        out.iter_mut().zip(fields.chain(self.name).chain(self.rule)).for_each(|(place, byte)| *place = byte);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let bytes: &[u8; MESSAGE_BYTES] = bytes.try_into().map_err(|_| Refused::Length)?;
        let [version, kind, which, name_length, rest @ ..] = bytes;
        if *version != VERSION {
            return Err(Refused::Version);
        }
        let (time_ms, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let (stream, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let (name, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let (name, rule) = (*name, *rest.first_chunk().ok_or(Refused::Length)?);
        Ok(Self {
            kind: *kind,
            which: *which,
            name_length: *name_length,
            time_ms: u32::from_le_bytes(*time_ms),
            stream: u64::from_le_bytes(*stream),
            name,
            rule,
        })
    }
}

impl Order {
    /// The bytes of the message.
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        match *self {
            Order::Add { stream, service, which, rule } => {
                let mut frame = Frame { stream, rule: rule.encode(), ..Frame::new(ADD) };
                frame.which = match which {
                    Which::Stdout => 1,
                    Which::Stderr => 2,
                };
                frame.name_length = service.length;
                frame.name.iter_mut().zip(service.bytes).for_each(|(place, byte)| *place = byte);
                frame
            }
            Order::Remove { stream } => Frame { stream, ..Frame::new(REMOVE) },
            Order::Drain { within_ms } => Frame { time_ms: within_ms, ..Frame::new(DRAIN) },
        }
        .encode()
    }

    /// The message in `bytes`, which may come from anyone.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let frame = Frame::decode(bytes)?;
        let stream = frame.stream;
        match frame.kind {
            ADD => {
                let which = match frame.which {
                    1 => Which::Stdout,
                    2 => Which::Stderr,
                    _ => return Err(Refused::Content),
                };
                let name = frame.name.get(..usize::from(frame.name_length)).ok_or(Refused::Content)?;
                let service = Name::new(name).ok_or(Refused::Content)?;
                let rule = Rule::decode(&frame.rule).ok_or(Refused::Content)?;
                Ok(Order::Add { stream, service, which, rule })
            }
            REMOVE => Ok(Order::Remove { stream }),
            DRAIN => Ok(Order::Drain { within_ms: frame.time_ms }),
            _ => Err(Refused::Content),
        }
    }
}

impl Report {
    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, stream, trail) = match self {
            Report::Closed { stream, trail } => (CLOSED, *stream, trail),
            Report::Lost { stream } => (LOST, *stream, &Trail::default()),
            Report::Trouble { service, place, words } => return trouble(service, *place, words),
        };
        let surplus = trail.pieces.len().saturating_sub(MOST_PIECES);
        let pieces = trail.pieces.get(surplus..).unwrap_or_default();
        let head = [VERSION, kind, pieces.len() as u8, u8::from(trail.wrote), 0, 0, 0, 0];
        let pieces = pieces.iter().flat_map(|piece| {
            let fields = piece.at.to_le_bytes().into_iter().chain(u64::from(piece.bytes).to_le_bytes());
            fields.chain(piece.time_ns.to_le_bytes())
        });
        head.into_iter().chain(stream.to_le_bytes()).chain(pieces).collect()
    }

    /// The message in `bytes`, which may come from anyone.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let (head, rest) = bytes.split_first_chunk().ok_or(Refused::Length)?;
        let [version, kind, third, fourth, _, _, _, _]: &[u8; 8] = head;
        if *version != VERSION {
            return Err(Refused::Version);
        }
        if *kind == TROUBLE {
            return read_trouble(*third, *fourth, rest);
        }
        let (stream, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let stream = u64::from_le_bytes(*stream);
        if usize::from(*third) > MOST_PIECES {
            return Err(Refused::Content);
        }
        if rest.len() != usize::from(*third) * PIECE_BYTES {
            return Err(Refused::Length);
        }
        let piece = |bytes: &[u8]| {
            let (at, rest) = bytes.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let bytes = u32::try_from(u64::from_le_bytes(*length)).ok()?;
            Some(Piece {
                at: u64::from_le_bytes(*at),
                bytes,
                time_ns: u64::from_le_bytes(*rest.first_chunk()?),
            })
        };
        let pieces: Option<Vec<Piece>> = rest.chunks_exact(PIECE_BYTES).map(piece).collect();
        let trail = Trail { wrote: *fourth != 0, pieces: pieces.ok_or(Refused::Content)? };
        match *kind {
            CLOSED => Ok(Report::Closed { stream, trail }),
            LOST => Ok(Report::Lost { stream }),
            _ => Err(Refused::Content),
        }
    }
}

fn trouble(service: &Name, place: Place, words: &str) -> Vec<u8> {
    let place = match place {
        Place::Files => 1,
        Place::Away => 2,
    };
    let mut out = vec![VERSION, TROUBLE, place, service.length, 0, 0, 0, 0];
    out.extend(service.bytes);
    out.push(0);
    let end = (0..=words.len().min(MOST_WORDS)).rev().find(|end| words.is_char_boundary(*end));
    out.extend(words.get(..end.unwrap_or(0)).unwrap_or_default().as_bytes());
    out
}

fn read_trouble(place: u8, name_length: u8, rest: &[u8]) -> Result<Report, Refused> {
    let (name, words): (&[u8; 64], &[u8]) = rest.split_first_chunk().ok_or(Refused::Length)?;
    if words.len() > MOST_WORDS {
        return Err(Refused::Length);
    }
    let place = match place {
        1 => Place::Files,
        2 => Place::Away,
        _ => return Err(Refused::Content),
    };
    let service = name.get(..usize::from(name_length)).and_then(Name::new).ok_or(Refused::Content)?;
    let words = std::str::from_utf8(words).map_err(|_| Refused::Content)?.to_owned();
    Ok(Report::Trouble { service, place, words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn add(name: &str) -> Order {
        let rule = Rule {
            to: To::Syslog,
            when_full: WhenFull::Block,
            compress: false,
            keep: 3,
            max_size: u64::MAX,
            max_age_ms: 5,
        };
        Order::Add { stream: 7, service: Name::new(name.as_bytes()).unwrap(), which: Which::Stderr, rule }
    }

    #[test]
    fn orders_and_reports_come_back_as_they_were() {
        let longest = "a".repeat(LONGEST_NAME);
        let orders =
            [add("web"), add(&longest), Order::Remove { stream: 3 }, Order::Drain { within_ms: 900 }];
        for order in orders {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
            assert!(Report::decode(&order.encode()).is_err());
        }
        let piece = |number: u64| Piece { at: number << 33, bytes: u32::MAX, time_ns: u64::MAX - number };
        let trail = |pieces: std::ops::Range<u64>| Trail { wrote: true, pieces: pieces.map(piece).collect() };
        let most = MOST_PIECES as u64;
        let closed = |trail| Report::Closed { stream: u64::MAX, trail };
        for report in [closed(Trail::default()), closed(trail(0..most)), Report::Lost { stream: 1 }] {
            assert_eq!(Report::decode(&report.encode()), Ok(report.clone()));
            assert_eq!(Order::decode(&report.encode()), Err(Refused::Length));
            assert_eq!(Report::decode(&report.encode()[..15]), Err(Refused::Length));
        }
        let trouble = |place, words: &str| Report::Trouble {
            service: Name::new(longest.as_bytes()).unwrap(),
            place,
            words: words.into(),
        };
        for report in [trouble(Place::Files, ""), trouble(Place::Away, "no room\nhint: make some")] {
            assert_eq!(Report::decode(&report.encode()), Ok(report.clone()));
        }
        let long = "ä".repeat(MOST_WORDS / 2);
        let longer = trouble(Place::Files, &format!("{long}ä")).encode();
        assert!(longer.len() <= REPORT_BYTES);
        assert_eq!(Report::decode(&longer), Ok(trouble(Place::Files, &long)), "as much as there is room for");
        let mut bytes = closed(trail(0..most + 2)).encode();
        assert_eq!(Report::decode(&bytes), Ok(closed(trail(2..most + 2))), "the newest are told");
        bytes[2] = MOST_PIECES as u8 + 1;
        assert_eq!(Report::decode(&bytes), Err(Refused::Content));
    }

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in ["", ".", "..", "a/b", "/", "-a", ".a", "A", "a b", "a\0", "ä", &"a".repeat(64)] {
            assert_eq!(Name::new(bad.as_bytes()), None, "{bad}");
        }
        let mut bytes = add("web").encode();
        bytes[17] = b'/';
        assert_eq!(Order::decode(&bytes), Err(Refused::Content));
        bytes[3] = 200;
        assert_eq!(Order::decode(&bytes), Err(Refused::Content));
        let mut bytes = add("web").encode();
        bytes[80] = 5;
        assert_eq!(Order::decode(&bytes), Err(Refused::Content), "nowhere to go");
    }

    #[test]
    fn another_length_or_version_is_refused() {
        let mut bytes = add("web").encode();
        assert_eq!(Order::decode(&bytes[..MESSAGE_BYTES - 1]), Err(Refused::Length));
        bytes[0] = 9;
        assert_eq!(Order::decode(&bytes), Err(Refused::Version));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Order::decode(&bytes), Report::decode(&bytes));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_meaning(mut bytes in proptest::array::uniform32(any::<u8>()), kind in 1..4u8) {
            bytes[0] = VERSION;
            bytes[1] = kind;
            let mut message = [0; MESSAGE_BYTES];
            message[..32].copy_from_slice(&bytes);
            message[80..104].copy_from_slice(&bytes[8..]);
            if let Ok(order) = Order::decode(&message) {
                prop_assert_eq!(Order::decode(&order.encode()), Ok(order));
            }
        }
    }
}
