//! PURE. The lines of a log file: bytes of output to CRI lines and back. Never a clock, never a file.
//!
//! The format is the Container Runtime Interface's, which every log shipper reads:
//! `2026-11-23T03:12:45.123456789Z stdout F the line`. The tag is `F` for the end of a line, or for all of
//! one, and `P` for a part that the next entry of the same stream goes on with. Content is stored as it came.

use std::collections::VecDeque;

use memchr::{memchr, memchr_iter};

/// The most bytes of content in one entry; a longer line is cut into parts.
pub const LONGEST_PART: usize = 16 * 1024;

/// Bytes of a time stamp: RFC 3339 in UTC with nine digits of fraction.
pub const STAMP_BYTES: usize = 30;

/// Bytes before the content: the stamp, the stream and the tag, each followed by one space.
pub const HEADER_BYTES: usize = STAMP_BYTES + 10;

/// The longest entry with its newline. An output buffer smaller than this may never take anything.
pub const LONGEST_ENTRY: usize = HEADER_BYTES + LONGEST_PART + 1;

/// Which of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Which {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Which::Stdout => "stdout",
            Which::Stderr => "stderr",
        }
    }
}

/// A time as it stands at the start of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u8; STAMP_BYTES]);

const DAY_SECONDS: u64 = 86_400;
/// The last second of the year 9999, the last that four digits of a year can write.
const LAST_SECOND: u64 = 253_402_300_799;

impl Stamp {
    /// The stamp of `seconds` and `nanos` since 1970 in UTC. A later time than the year 9999, or more than
    /// 999,999,999 `nanos`, is written as the last that fits.
    pub fn new(seconds: u64, nanos: u32) -> Self {
        let seconds = seconds.min(LAST_SECOND);
        let (year, month, day) = civil(seconds / DAY_SECONDS);
        let of_day = seconds % DAY_SECONDS;
        let mut out = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut out, 0, 4, year);
        digits(&mut out, 5, 2, month);
        digits(&mut out, 8, 2, day);
        digits(&mut out, 11, 2, of_day / 3600);
        digits(&mut out, 14, 2, of_day / 60 % 60);
        digits(&mut out, 17, 2, of_day % 60);
        digits(&mut out, 20, 9, u64::from(nanos.min(999_999_999)));
        Self(out)
    }

    /// The 30 characters.
    pub fn as_bytes(&self) -> &[u8; STAMP_BYTES] {
        &self.0
    }
}

/// Writes `value` in decimal, with leading zeros, over `width` bytes at `start`.
fn digits(out: &mut [u8], start: usize, width: usize, mut value: u64) {
    for place in out.iter_mut().skip(start).take(width).rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days since 1970-01-01 to year, month (1 to 12) and day (1 to 31), Gregorian.
///
/// Counted in eras of 400 years (146,097 days) that begin on 1 March, so that the leap day is the last of
/// its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01 to 1970-01-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; None for a day that does not exist.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let from_march = if month > 2 { month.checked_sub(3)? } else { month + 9 };
    let year_from_march = year.checked_sub(u64::from(month <= 2))?;
    let of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let of_era = year_from_march % 400;
    let days = year_from_march / 400 * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    (civil(days) == (year, month, day)).then_some(days)
}

/// What to do with bytes after the last newline, up to [`LONGEST_PART`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Leave them: more may come.
    Hold,
    /// The pipe is full, so no more can come: a part of all but the last byte. The byte that stays makes
    /// sure that an entry with `F` follows.
    Squeeze,
    /// As `Squeeze`, where the byte left behind would keep the pipe full: a part of all of them.
    Empty,
    /// Nothing can follow: they are a line without a newline.
    End,
}

/// What [`frame`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// Bytes of the input that are now in the output.
    pub taken: usize,
    /// Bytes of the output used.
    pub written: usize,
    /// Entries written, parts included.
    pub entries: u64,
}

/// Writes as many entries for `input` as are whole, or as fit into `out`.
///
/// A part is only cut from an over-long line when at least one byte of that line is left after it.
pub fn frame(input: &[u8], which: Which, stamp: &Stamp, tail: Tail, out: &mut [u8]) -> Framed {
    let mut header = [b' '; HEADER_BYTES];
    let fields = stamp.0.iter().chain(b" ").chain(which.word().as_bytes()).chain(b" F ");
    header.iter_mut().zip(fields).for_each(|(place, byte)| *place = *byte);
    let mut done = Framed::default();
    for at in memchr_iter(b'\n', input) {
        while at - done.taken > LONGEST_PART {
            if !entry(input, LONGEST_PART, 0, b'P', &mut header, out, &mut done) {
                return done;
            }
        }
        if !entry(input, at - done.taken, 1, b'F', &mut header, out, &mut done) {
            return done;
        }
    }
    while input.len() - done.taken > LONGEST_PART {
        if !entry(input, LONGEST_PART, 0, b'P', &mut header, out, &mut done) {
            return done;
        }
    }
    let rest = input.len() - done.taken;
    let (length, tag) = match tail {
        Tail::Hold => (0, b'P'),
        Tail::Squeeze => (rest.saturating_sub(1), b'P'),
        Tail::Empty => (rest, b'P'),
        Tail::End => (rest, b'F'),
    };
    if length > 0 {
        entry(input, length, 0, tag, &mut header, out, &mut done);
    }
    done
}

/// One entry of the next `length` bytes of `input`, of which `newline` (0 or 1) more are passed over.
/// False, and nothing done, where it does not fit.
fn entry(
    input: &[u8],
    length: usize,
    newline: usize,
    tag: u8,
    header: &mut [u8; HEADER_BYTES],
    out: &mut [u8],
    done: &mut Framed,
) -> bool {
    let end = done.written + HEADER_BYTES + length + 1;
    let Some(content) = input.get(done.taken..done.taken + length) else { return false };
    let Some(place) = out.get_mut(done.written..end) else { return false };
    header[HEADER_BYTES - 2] = tag;
    let (start, rest) = place.split_at_mut(HEADER_BYTES);
    start.copy_from_slice(header);
    let (middle, last) = rest.split_at_mut(length);
    middle.copy_from_slice(content);
    last.fill(b'\n');
    done.taken += length + newline;
    done.written = end;
    done.entries += 1;
    true
}

/// What one entry is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The bytes as they came.
    pub content: &'a [u8],
    /// Whether the line ends here.
    pub ends: bool,
    /// Bytes of the input up to the end of it, its newline among them.
    pub taken: usize,
}

/// The pieces that [`frame`] makes entries of, for those who put them elsewhere than into a file.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    input: &'a [u8],
    taken: usize,
    tail: Option<Tail>,
}

/// The pieces of `input`, in order.
pub fn pieces(input: &[u8], tail: Tail) -> Pieces<'_> {
    Pieces { input, taken: 0, tail: Some(tail) }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.input.get(self.taken..).filter(|rest| !rest.is_empty())?;
        let newline = memchr(b'\n', rest.get(..=LONGEST_PART).unwrap_or(rest));
        let (length, ends, more) = match newline {
            Some(at) => (at, true, 1),
            None if rest.len() > LONGEST_PART => (LONGEST_PART, false, 0),
            None => match self.tail.take()? {
                Tail::Hold => return None,
                Tail::Squeeze => (rest.len() - 1, false, 0),
                Tail::Empty => (rest.len(), false, 0),
                Tail::End => (rest.len(), true, 0),
            },
        };
        self.taken += length + more;
        let content = rest.get(..length).filter(|content| more > 0 || !content.is_empty())?;
        Some(Piece { content, ends, taken: self.taken })
    }
}

/// One entry of a file, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whole seconds since 1970, UTC.
    pub seconds: u64,
    /// The rest of the time, 0 to 999,999,999.
    pub nanos: u32,
    /// Which output it came from.
    pub which: Which,
    /// `F`: the line ends here; else the next entry of this stream goes on with it.
    pub ends: bool,
    /// The bytes as they came.
    pub content: &'a [u8],
}

/// Reads one line of a log file (without its newline). None for anything but an entry as [`frame`] writes
/// it: files can be torn by a full disk or edited by hand, so the caller shows such a line as it is.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let (stamp, rest) = line.split_at_checked(STAMP_BYTES)?;
    let (seconds, nanos) = parse_stamp(stamp)?;
    let (which, rest) = match (rest.strip_prefix(b" stdout "), rest.strip_prefix(b" stderr ")) {
        (Some(rest), _) => (Which::Stdout, rest),
        (None, Some(rest)) => (Which::Stderr, rest),
        (None, None) => return None,
    };
    let (ends, content) = match (rest.strip_prefix(b"F "), rest.strip_prefix(b"P ")) {
        (Some(content), _) => (true, content),
        (None, Some(content)) => (false, content),
        (None, None) => return None,
    };
    match memchr(b'\n', content) {
        Some(_) => None,
        None => Some(Entry { seconds, nanos, which, ends, content }),
    }
}

/// Seconds and nanoseconds since 1970, of a stamp as `Stamp` writes it.
pub fn parse_stamp(stamp: &[u8]) -> Option<(u64, u32)> {
    let shape = b"dddd-dd-ddTdd:dd:dd.dddddddddZ";
    let fits = |(byte, want): (&u8, &u8)| if *want == b'd' { byte.is_ascii_digit() } else { byte == want };
    if stamp.len() != STAMP_BYTES || !stamp.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |start: usize, width: usize| {
        stamp.iter().skip(start).take(width).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
    };
    let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_of(number(0, 4), number(5, 2), number(8, 2))?;
    let seconds = days * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    Some((seconds, u32::try_from(number(20, 9)).ok()?))
}

/// The content of the last lines in a piece of a file that were written since a time, at most `most` of them. Where
/// the piece is not the beginning, what stands before its first newline is half an entry.
pub fn last_lines(bytes: &[u8], is_beginning: bool, since: (u64, u32), most: usize) -> VecDeque<Vec<u8>> {
    let half = if is_beginning { 0 } else { memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1) };
    let mut lines = VecDeque::new();
    let mut begun: [Vec<u8>; 2] = [const { Vec::new() }; 2];
    let whole = bytes.get(half..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    for entry in whole.filter_map(|line| parse(line.strip_suffix(b"\n")?)) {
        let [stdout, stderr] = &mut begun;
        let line = if entry.which == Which::Stdout { stdout } else { stderr };
        line.extend_from_slice(entry.content);
        if !entry.ends {
            continue;
        }
        let line = std::mem::take(line);
        if (entry.seconds, entry.nanos) >= since {
            lines.push_back(line);
        }
        if lines.len() > most {
            lines.pop_front();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(input: &[u8], tail: Tail, room: usize) -> (Framed, Vec<u8>) {
        let mut out = vec![0; room];
        let done = frame(input, Which::Stdout, &Stamp::new(0, 0), tail, &mut out);
        out.truncate(done.written);
        (done, out)
    }

    #[test]
    fn a_line_stands_as_the_interface_says() {
        let mut out = [0; 200];
        let stamp = Stamp::new(1_795_403_565, 123_456_789);
        let done = frame(b"the line\npart", Which::Stdout, &stamp, Tail::Hold, &mut out);
        assert_eq!(&out[..done.written], b"2026-11-23T03:12:45.123456789Z stdout F the line\n".as_slice());
        assert_eq!((done.taken, done.entries), (9, 1));
        let done = frame(b"x", Which::Stderr, &stamp, Tail::End, &mut out);
        assert_eq!(&out[..done.written], b"2026-11-23T03:12:45.123456789Z stderr F x\n".as_slice());
    }

    #[test]
    fn a_line_of_exactly_the_longest_part_is_one_entry_and_one_byte_more_makes_two() {
        let mut line = vec![b'a'; LONGEST_PART];
        assert_eq!(framed(&line, Tail::Hold, 99_999).0, Framed::default(), "it may end with the next byte");
        line.push(b'\n');
        let (done, out) = framed(&line, Tail::Hold, 99_999);
        assert_eq!((done.taken, done.entries, out[38]), (LONGEST_PART + 1, 1, b'F'));
        line.insert(0, b'b');
        let (done, out) = framed(&line, Tail::Hold, 99_999);
        assert_eq!((done.taken, done.entries, out[38]), (LONGEST_PART + 2, 2, b'P'));
        assert_eq!(&out[out.len() - 4..], b"F a\n");
    }

    #[test]
    fn a_full_pipe_gives_a_part_and_keeps_a_byte_for_the_end_of_the_line() {
        let (done, out) = framed(b"abc", Tail::Squeeze, 100);
        assert_eq!((done.taken, out.ends_with(b"P ab\n")), (2, true));
        assert_eq!(framed(b"a", Tail::Squeeze, 100).0.taken, 0);
        let (done, out) = framed(b"abc", Tail::Empty, 100);
        assert_eq!((done.taken, out.ends_with(b"P abc\n")), (3, true));
    }

    #[test]
    fn what_does_not_fit_waits() {
        let (done, out) = framed(b"one\ntwo\n", Tail::Hold, 2 * HEADER_BYTES + 7);
        assert_eq!((done.taken, done.entries, out.ends_with(b"F one\n")), (4, 1, true));
        let (done, _) = framed(b"one\ntwo\n", Tail::Hold, 2 * HEADER_BYTES + 8);
        assert_eq!((done.taken, done.entries), (8, 2));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = b"2026-11-23T03:12:45.123456789Z stdout F x".as_slice();
        assert!(parse(good).is_some());
        for (place, byte) in
            [(4, b'x'), (5, b'2'), (11, b'3'), (14, b'6'), (19, b','), (31, b'S'), (38, b'G')]
        {
            let mut bad = good.to_vec();
            bad[place] = byte;
            assert_eq!(parse(&bad), None, "{}", String::from_utf8_lossy(&bad));
        }
        assert_eq!(parse(&good[..39]), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"2026-02-29T03:12:45.123456789Z stdout F x"), None, "not a leap year");
        assert_eq!(parse(b"1969-12-31T23:59:59.999999999Z stdout F x"), None);
    }

    #[test]
    fn the_days_around_each_turn_of_a_century_are_right() {
        for year in [1972, 2000, 2100, 2200, 2300, 2400, 9998] {
            let start = days_of(year - 1, 12, 1).unwrap();
            for day in start..start + 430 {
                let theirs = jiff::Timestamp::from_second((day * DAY_SECONDS) as i64).unwrap();
                assert_eq!(format!("{theirs:.9}").as_bytes(), Stamp::new(day * DAY_SECONDS, 0).as_bytes());
            }
        }
    }

    #[test]
    fn the_last_lines_of_a_piece_are_whole_and_not_too_old() {
        let entry = |second: u64, text: &[u8], tail: Tail| {
            let mut out = vec![0; 200];
            let done = frame(text, Which::Stdout, &Stamp::new(second, 0), tail, &mut out);
            out.truncate(done.written);
            out
        };
        let piece = [
            entry(1, b"one\n", Tail::Hold),
            entry(2, b"t", Tail::Empty),
            entry(2, b"wo\nthree\n", Tail::Hold),
            entry(3, b"four\n", Tail::Hold)[..20].to_vec(),
        ]
        .concat();
        let last = |piece: &[u8], is_beginning, since, most| -> Vec<String> {
            let lines = last_lines(piece, is_beginning, (since, 0), most);
            lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
        };
        assert_eq!(last(&piece, true, 0, 9), ["one", "two", "three"]);
        assert_eq!(last(&piece, false, 0, 9), ["two", "three"]);
        assert_eq!(last(&piece[10..], false, 0, 1), ["three"]);
        assert_eq!(last(&piece, true, 2, 9), ["two", "three"]);
        assert_eq!(last(&piece, true, 3, 9), [""; 0]);
        assert_eq!(last(b"", false, 0, 9), [""; 0]);
    }

    proptest! {
        #[test]
        fn pieces_are_what_entries_are_made_of(
            line in 0..40_000usize,
            more in "[a\n]{0,40}",
            which in 0..4usize,
        ) {
            let input = [vec![b'x'; line], more.into_bytes()].concat();
            let tail = [Tail::Hold, Tail::Squeeze, Tail::Empty, Tail::End][which];
            let mut out = vec![0; 100_000];
            let framed = frame(&input, Which::Stdout, &Stamp::new(0, 0), tail, &mut out);
            let entries: Vec<(&[u8], bool)> = out[..framed.written]
                .split_inclusive(|byte| *byte == b'\n')
                .map(|entry| parse(&entry[..entry.len() - 1]).unwrap())
                .map(|entry| (entry.content, entry.ends))
                .collect();
            let cut: Vec<Piece<'_>> = pieces(&input, tail).collect();
            prop_assert_eq!(cut.last().map_or(0, |piece| piece.taken), framed.taken);
            let cut: Vec<(&[u8], bool)> = cut.iter().map(|piece| (piece.content, piece.ends)).collect();
            prop_assert_eq!(cut, entries);
        }

        #[test]
        fn stamps_agree_with_a_library_of_dates(seconds in 0..=LAST_SECOND, nanos in 0..1_000_000_000u32) {
            let theirs = jiff::Timestamp::new(seconds as i64, nanos as i32).unwrap();
            let ours = Stamp::new(seconds, nanos);
            let text = format!("{theirs:.9}");
            prop_assert_eq!(text.as_bytes(), ours.as_bytes());
            prop_assert_eq!(parse_stamp(ours.as_bytes()), Some((seconds, nanos)));
        }

        #[test]
        fn whatever_came_can_be_put_together_again(
            input in proptest::collection::vec(prop_oneof![3 => Just(b'\n'), 1 => Just(0), 9 => any::<u8>()], 0..300),
            long in 0..40_000usize,
            at in 0..300usize,
            room in LONGEST_ENTRY..3 * LONGEST_ENTRY,
        ) {
            let mut input = input;
            let at = at.min(input.len());
            input.splice(at..at, std::iter::repeat_n(b'z', long));
            let stamp = Stamp::new(1, 2);
            let (mut file, mut taken, mut out) = (Vec::new(), 0, vec![0; room]);
            while taken < input.len() {
                let done = frame(&input[taken..], Which::Stderr, &stamp, Tail::End, &mut out);
                prop_assert!(done.taken > 0);
                taken += done.taken;
                file.extend_from_slice(&out[..done.written]);
            }
            let mut back = Vec::new();
            for line in file.split_inclusive(|byte| *byte == b'\n') {
                let entry = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                prop_assert!(entry.content.len() <= LONGEST_PART);
                back.extend_from_slice(entry.content);
                if entry.ends {
                    back.push(b'\n');
                }
            }
            if !input.is_empty() && !input.ends_with(b"\n") {
                input.push(b'\n');
            }
            prop_assert_eq!(back, input);
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }
    }
}
