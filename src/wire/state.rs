//! PURE. The state that outlives a manager: a header of words and two halves of checksummed records, in one
//! memfd. Never a map or a descriptor.
//!
//! A record is written whole behind the last one, and only then does the half's length word move on, so a
//! manager that is killed in the middle leaves what was there before. The last record of a (kind, id) counts;
//! an empty body removes it. When a half is full the living records are written to the other half and the
//! header's `ACTIVE` word is flipped, again last.

/// First word of a state.
pub const MAGIC: u64 = u64::from_le_bytes(*b"svstate1");

/// Byte offsets of the header's 64-bit words.
pub mod header {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// Which half counts: 0 or 1.
    pub const ACTIVE: usize = 8;
    /// Bytes of records in half 0; that of half 1 follows.
    pub const LENGTHS: usize = 16;
    /// Exit records that have been taken in.
    pub const EXIT_CURSOR: usize = 32;
    /// 1 when every unit of the first reading has its record.
    pub const BOOTED: usize = 40;
    /// The next number of a listening socket.
    pub const NEXT_LISTENER: usize = 48;
    /// Nanoseconds since 1970 at which the supervisor began.
    pub const SINCE: usize = 56;
    /// 1 when the supervisor is stopping.
    pub const CLOSING: usize = 64;
    /// No incarnation below this one is used.
    pub const NEXT_RUN: usize = 72;
    /// When the first manager of this supervisor began, in clock ticks after boot: what began before is nobody's here.
    pub const BEGAN: usize = 80;
    /// Bytes of the header.
    pub const BYTES: usize = 128;
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A service: its policy state but for its instances, and its name. The id is the service's.
    Service = 1,
    /// An incarnation's process. The id is the incarnation's.
    Process = 2,
    /// A listening socket. The id is its number.
    Listener = 3,
    /// What an incarnation says of itself. The id is the incarnation's.
    Said = 4,
    /// A descriptor that a service has stored. The id is its number.
    Stored = 5,
    /// The inputs of a generation; in the mirror alone. The id is service << 32 | generation.
    Inputs = 6,
    /// What stands in the header; in the mirror alone. The id is 0.
    Words = 7,
    /// One instance of a service: its part of the policy state. The id is of [`instance_id`].
    Instance = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Service,
        Self::Process,
        Self::Listener,
        Self::Said,
        Self::Stored,
        Self::Inputs,
        Self::Words,
        Self::Instance,
    ];

    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// The id of an instance's record.
pub const fn instance_id(service: u32, instance: u16) -> u64 {
    ((service as u64) << 16) | instance as u64
}

/// The service whose instance this is the id of.
pub const fn service_of_instance(id: u64) -> u32 {
    (id >> 16) as u32
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What about.
    pub kind: Kind,
    /// Which.
    pub id: u64,
    /// JSON; empty to remove it.
    pub body: &'a [u8],
}

/// Bytes of a record before its body: length, checksum, kind, id.
pub const FRONT: usize = 24;

/// The most bytes of a body; what a unit can bring is far smaller.
pub const MOST_BODY: usize = 64 * 1024;

impl Record<'_> {
    /// Bytes it takes, a multiple of 8.
    pub const fn size(&self) -> usize {
        (FRONT + self.body.len()).next_multiple_of(8)
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&(self.kind as u32).to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(self.body);
        let sum = bytes.get(8..).map_or(0, crc32fast::hash);
        let front = [(self.body.len() as u32).to_le_bytes(), sum.to_le_bytes()].concat();
        if let Some(place) = bytes.get_mut(..8) {
            place.copy_from_slice(&front);
        }
        bytes.resize(self.size(), 0);
        bytes
    }
}

/// Walks over the records of a half. A record whose checksum is wrong or whose kind is unknown (a newer
/// version's) is passed over; one whose length cannot be right ends the walk.
pub fn records(half: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = half;
    std::iter::from_fn(move || {
        loop {
            let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
            let sum = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?);
            if length > MOST_BODY {
                return None;
            }
            let summed = rest.get(8..FRONT + length)?;
            let number = u32::from_le_bytes(rest.get(8..12)?.try_into().ok()?);
            let id = u64::from_le_bytes(rest.get(16..24)?.try_into().ok()?);
            let body = rest.get(FRONT..FRONT + length)?;
            rest = rest.get((FRONT + length).next_multiple_of(8)..).unwrap_or_default();
            if let Some(kind) = Kind::from_number(number)
                && crc32fast::hash(summed) == sum
            {
                return Some(Record { kind, id, body });
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(list: &[Record<'_>]) -> Vec<u8> {
        list.iter().flat_map(Record::encode).collect()
    }

    #[test]
    fn records_come_back_in_order_whatever_their_length() {
        let bodies: Vec<Vec<u8>> = (0..40).map(|length| vec![7; length]).collect();
        let list: Vec<_> = bodies
            .iter()
            .enumerate()
            .map(|(id, body)| Record { kind: Kind::Process, id: id as u64, body })
            .collect();
        assert_eq!(records(&half(&list)).collect::<Vec<_>>(), list);
    }

    #[test]
    fn a_bad_record_is_passed_over_and_the_next_one_is_found() {
        let list = [1, 2, 3].map(|id| Record { kind: Kind::Service, id, body: b"0123456789" });
        let mut bytes = half(&list);
        let second = list[0].size();
        bytes[second + FRONT] ^= 1;
        assert_eq!(records(&bytes).map(|record| record.id).collect::<Vec<_>>(), [1, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let count = records(&bytes).count();
            proptest::prop_assert!(count <= bytes.len() / FRONT);
        }
    }
}
