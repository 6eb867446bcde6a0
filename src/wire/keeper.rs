//! PURE. Messages between keeper and manager, the table of kept descriptors, and the exit records.
//!
//! All little-endian and of fixed size, so that the keeper parses nothing: one 32-byte head, and for a batch
//! up to [`BATCH`] entries of 24 bytes behind it, each with one descriptor. `Put` and `Drop` speak of the
//! entry in the head and of those behind it, at most [`BATCH`] in all. A version that the other side
//! does not know ends the conversation, but `Give` is answered whatever the version: descriptors are never
//! lost to a disagreement.

/// Version of everything in this file.
pub const VERSION: u16 = 1;

/// Bytes of a message without entries.
pub const HEAD: usize = 32;

/// The most entries of a batch: far below what the kernel lets be in flight at once.
pub const BATCH: usize = 64;

/// Bytes of an entry.
pub const ENTRY: usize = 24;

/// Room for any message.
pub const MESSAGE: usize = HEAD + BATCH * ENTRY;

/// Slots from 0 that belong to the keeper itself; the manager uses those from here on.
pub const FIRST_FREE_SLOT: u32 = 8;

/// What a kept descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// The memfd of exit records; the keeper's own.
    Exits = 1,
    /// The logger's state; opaque to all but the logger.
    LogState = 2,
    /// What the logger has taken out of a pipe, in a pipe of its own; likewise.
    LogTray = 3,
    /// The lock of the runtime directory.
    Lock = 4,
    /// The state memfd; id 0.
    State = 5,
    /// The control socket.
    Control = 6,
    /// A listening socket; the id is the manager's number of it.
    Listener = 7,
    /// The inputs of a generation; the id is service << 32 | generation.
    Inputs = 8,
    /// A main process; the id is the incarnation. The only kind that registers a pid.
    Process = 9,
    /// Read end of an incarnation's standard output.
    Stdout = 10,
    /// Read end of an incarnation's standard error.
    Stderr = 11,
    /// Read end of an incarnation's launch report.
    Report = 12,
    /// An incarnation's cgroup directory.
    Cgroup = 13,
    /// The lock of a Unix socket's path; the id is that of the listener.
    PathLock = 14,
    /// The socket on which an incarnation says how it is.
    Notify = 15,
    /// Read end of the pipe on which an incarnation says with a line that it is ready.
    ReadyPipe = 16,
    /// The descriptor on which the init above waits for a line that says that we are ready.
    Announce = 17,
    /// A socket that the init above has given; the id is its place among them, from 0.
    Given = 18,
    /// A descriptor that a service has stored; the id is the manager's number of it.
    Stored = 19,
    /// The process that asked for a command; the id is the command's.
    Client = 20,
}

impl Kind {
    /// Every kind, for decoding.
    pub const ALL: [Self; 20] = [
        Self::Exits,
        Self::LogState,
        Self::LogTray,
        Self::Lock,
        Self::State,
        Self::Control,
        Self::Listener,
        Self::Inputs,
        Self::Process,
        Self::Stdout,
        Self::Stderr,
        Self::Report,
        Self::Cgroup,
        Self::PathLock,
        Self::Notify,
        Self::ReadyPipe,
        Self::Announce,
        Self::Given,
        Self::Stored,
        Self::Client,
    ];

    /// Whether its ids are those of incarnations.
    pub const fn is_of_incarnation(self) -> bool {
        matches!(
            self,
            Self::Process
                | Self::Stdout
                | Self::Stderr
                | Self::Report
                | Self::Cgroup
                | Self::Notify
                | Self::ReadyPipe
        )
    }

    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// One kept descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub slot: u32,
    /// What, as a number: the keeper keeps kinds it does not know.
    pub kind: u32,
    /// Which.
    pub id: u64,
    /// For processes the pid, else 0.
    pub pid: u32,
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Verb {
    /// Manager: I am here; brings `Welcome`.
    Hello = 1,
    /// Manager: entries from `slot` on; brings `Batch`.
    Give = 2,
    /// Manager: keep this descriptor in `slot`; likewise for each entry behind the head.
    Put = 3,
    /// Manager: drop what is in `slot`; likewise for each entry behind the head.
    Drop = 4,
    /// Manager: everything works; earlier deaths of managers no longer count.
    Ready = 5,
    /// Manager: all is done, exit with status `value`.
    Finish = 6,
    /// Keeper: `slot` slots in all, `id` the keeper's own id, `pid` its pid, `value` the manager's number
    /// among all managers of this keeper, from 1.
    Welcome = 16,
    /// Keeper: entries follow; `slot` is where to go on, 0 at the end.
    Batch = 17,
    /// Keeper: there are `value` exit records.
    Exited = 18,
    /// Keeper: here is the link to a new zygote.
    Zygote = 19,
    /// Keeper: here is the link to a new logger.
    Logger = 20,
    /// Keeper: signal `value` came for the supervisor.
    Signal = 21,
}

impl Verb {
    const ALL: [Self; 12] = [
        Self::Hello,
        Self::Give,
        Self::Put,
        Self::Drop,
        Self::Ready,
        Self::Finish,
        Self::Welcome,
        Self::Batch,
        Self::Exited,
        Self::Zygote,
        Self::Logger,
        Self::Signal,
    ];
}

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is said.
    pub verb: Verb,
    /// The entry spoken of.
    pub entry: Entry,
    /// A number.
    pub value: u64,
}

impl Head {
    /// A message with nothing but its verb and a number.
    pub const fn plain(verb: Verb, value: u64) -> Self {
        Self { verb, entry: Entry { slot: 0, kind: 0, id: 0, pid: 0 }, value }
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        put(&mut bytes, 0, &(self.verb as u16).to_le_bytes());
        put(&mut bytes, 2, &VERSION.to_le_bytes());
        put(&mut bytes, 4, &self.entry.slot.to_le_bytes());
        put(&mut bytes, 8, &self.entry.kind.to_le_bytes());
        put(&mut bytes, 12, &self.entry.pid.to_le_bytes());
        put(&mut bytes, 16, &self.entry.id.to_le_bytes());
        put(&mut bytes, 24, &self.value.to_le_bytes());
        bytes
    }

    /// From bytes; None for what is too short, of another version, or an unknown verb. `Give` is understood
    /// in every version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let number = u16::from_le_bytes(get(bytes, 0)?);
        let verb = Verb::ALL.into_iter().find(|verb| *verb as u16 == number)?;
        let version = u16::from_le_bytes(get(bytes, 2)?);
        if version != VERSION && verb != Verb::Give {
            return None;
        }
        let entry = Entry {
            slot: u32::from_le_bytes(get(bytes, 4)?),
            kind: u32::from_le_bytes(get(bytes, 8)?),
            pid: u32::from_le_bytes(get(bytes, 12)?),
            id: u64::from_le_bytes(get(bytes, 16)?),
        };
        Some(Self { verb, entry, value: u64::from_le_bytes(get(bytes, 24)?) })
    }
}

impl Entry {
    /// As bytes.
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        put(&mut bytes, 0, &self.slot.to_le_bytes());
        put(&mut bytes, 4, &self.kind.to_le_bytes());
        put(&mut bytes, 8, &self.id.to_le_bytes());
        put(&mut bytes, 16, &self.pid.to_le_bytes());
        bytes
    }

    /// From bytes; None when there are too few.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            slot: u32::from_le_bytes(get(bytes, 0)?),
            kind: u32::from_le_bytes(get(bytes, 4)?),
            id: u64::from_le_bytes(get(bytes, 8)?),
            pid: u32::from_le_bytes(get(bytes, 16)?),
        })
    }
}

/// All entries of a message that speaks of several: that of its head, and those behind it.
pub fn entries<'a>(head: &Head, bytes: &'a [u8]) -> impl Iterator<Item = Entry> + use<'a> {
    let behind = bytes.get(HEAD..).unwrap_or_default();
    std::iter::once(head.entry).chain(behind.chunks_exact(ENTRY).filter_map(Entry::decode))
}

/// The bytes of a message of this verb that speaks of all of `entries`, at the start of `place`. None where
/// there are none, or more than [`BATCH`].
pub fn several<'a>(verb: Verb, entries: &[Entry], place: &'a mut [u8; MESSAGE]) -> Option<&'a [u8]> {
    let (first, rest) = entries.split_first()?;
    if entries.len() > BATCH {
        return None;
    }
    let head = Head { verb, entry: *first, value: entries.len() as u64 };
    put(place, 0, &head.encode());
    for (index, entry) in rest.iter().enumerate() {
        put(place, HEAD + index * ENTRY, &entry.encode());
    }
    place.get(..HEAD + rest.len() * ENTRY)
}

/// One exit as the keeper writes it down, before it reaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitRecord {
    /// The incarnation it was registered as.
    pub run: u64,
    /// The pid it had.
    pub pid: u32,
    /// `si_code` of waitid(2): CLD_EXITED, CLD_KILLED or CLD_DUMPED.
    pub code: u32,
    /// `si_status`: the exit status or the signal.
    pub status: i32,
    /// Milliseconds of CLOCK_MONOTONIC.
    pub at_ms: u64,
}

/// Where things are in the memfd of exit records.
pub mod exits {
    /// Bytes before the first record.
    pub const HEADER: usize = 64;
    /// Byte offset of the 64-bit count of records ever written; stored last.
    pub const WRITTEN: usize = 0;
    /// Byte offset of the 64-bit number of places.
    pub const PLACES: usize = 8;
    /// Byte offset of the 64-bit count of reaped processes that nobody had registered.
    pub const STRANGERS: usize = 16;
    /// Bytes of a record.
    pub const RECORD: usize = 32;

    /// Byte offset of the `index`-th record ever among so many places.
    pub const fn offset(index: u64, places: u64) -> usize {
        HEADER + (index % if places == 0 { 1 } else { places }) as usize * RECORD
    }

    /// Bytes of a memfd with so many places.
    pub const fn bytes(places: usize) -> usize {
        HEADER + places * RECORD
    }
}

impl ExitRecord {
    /// As bytes.
    pub fn encode(&self) -> [u8; exits::RECORD] {
        let mut bytes = [0; exits::RECORD];
        put(&mut bytes, 0, &self.run.to_le_bytes());
        put(&mut bytes, 8, &self.pid.to_le_bytes());
        put(&mut bytes, 12, &self.code.to_le_bytes());
        put(&mut bytes, 16, &self.status.to_le_bytes());
        put(&mut bytes, 24, &self.at_ms.to_le_bytes());
        bytes
    }

    /// From bytes; None when there are too few.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            run: u64::from_le_bytes(get(bytes, 0)?),
            pid: u32::from_le_bytes(get(bytes, 8)?),
            code: u32::from_le_bytes(get(bytes, 12)?),
            status: i32::from_le_bytes(get(bytes, 16)?),
            at_ms: u64::from_le_bytes(get(bytes, 24)?),
        })
    }
}

/// A descriptor carried across an execve, in the table a new keeper starts from: an entry and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// What it is.
    pub entry: Entry,
    /// Its number in this process.
    pub fd: i32,
}

impl Carried {
    /// The table as bytes.
    pub fn encode_all(table: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(table.len() * (ENTRY + 4));
        for carried in table {
            bytes.extend_from_slice(&carried.entry.encode());
            bytes.extend_from_slice(&carried.fd.to_le_bytes());
        }
        bytes
    }

    /// The table from bytes; a last piece that is too short is left out.
    pub fn decode_all(bytes: &[u8]) -> Vec<Self> {
        bytes
            .chunks_exact(ENTRY + 4)
            .filter_map(|piece| {
                Some(Self { entry: Entry::decode(piece)?, fd: i32::from_le_bytes(get(piece, ENTRY)?) })
            })
            .collect()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_went() {
        for verb in Verb::ALL {
            let entry = Entry { slot: 1, kind: 9, id: u64::MAX - 3, pid: 77 };
            let head = Head { verb, entry, value: 0x0102_0304_0506_0708 };
            assert_eq!(Head::decode(&head.encode()), Some(head));
            assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
        let record = ExitRecord { run: 5, pid: 6, code: 2, status: -9, at_ms: 1 << 40 };
        assert_eq!(ExitRecord::decode(&record.encode()), Some(record));
        let carried = [Carried { entry: Entry { slot: 9, kind: 1, id: 2, pid: 3 }, fd: 44 }; 3];
        assert_eq!(Carried::decode_all(&Carried::encode_all(&carried)), carried);
    }

    #[test]
    fn a_message_of_several_entries_comes_back_in_order() {
        let all: Vec<Entry> = (0..BATCH as u32 + 1)
            .map(|slot| Entry { slot, kind: slot + 1, id: u64::from(slot) + 2, pid: slot + 3 })
            .collect();
        let mut place = [0; MESSAGE];
        for count in 1..=BATCH {
            let bytes = several(Verb::Put, &all[..count], &mut place).unwrap();
            let head = Head::decode(bytes).unwrap();
            assert_eq!((head.verb, head.value), (Verb::Put, count as u64));
            assert_eq!(entries(&head, bytes).collect::<Vec<_>>(), all[..count]);
        }
        assert_eq!(several(Verb::Put, &all, &mut place), None);
        assert_eq!(several(Verb::Put, &[], &mut place), None);
        let plain = Head::plain(Verb::Drop, 0);
        assert_eq!(entries(&plain, &plain.encode()).collect::<Vec<_>>(), [plain.entry]);
    }

    #[test]
    fn what_is_short_unknown_or_of_another_version_is_refused() {
        let mut bytes = Head::plain(Verb::Put, 0).encode();
        assert_eq!(Head::decode(&bytes[..HEAD - 1]), None);
        bytes[2] = 99;
        assert_eq!(Head::decode(&bytes), None);
        bytes[0] = Verb::Give as u8;
        assert!(Head::decode(&bytes).is_some(), "descriptors are given whatever the version");
        bytes[0] = 200;
        assert_eq!(Head::decode(&bytes), None);
    }

    #[test]
    fn exit_records_lie_apart_and_wrap() {
        assert_eq!(exits::offset(0, 4), 64);
        assert_eq!(exits::offset(5, 4), 96);
        assert_eq!(exits::bytes(4), exits::offset(3, 4) + exits::RECORD);
    }
}
