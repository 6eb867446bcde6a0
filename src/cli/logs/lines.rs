//! USER. One log file as lines, from any place on: plain or compressed, finished or still growing. Never more in
//! memory than one line.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use flate2::bufread::MultiGzDecoder;
use memchr::memchr;

use crate::wire::cri::{self, Which};
use crate::wire::shelf::Old;

const READ_BYTES: usize = 64 * 1024;
/// A longer line is shown in pieces; so much of each output is held at most.
const MOST_HELD: usize = 1024 * 1024;
/// The first guess at how far from the end the last lines begin.
const FIRST_WINDOW: u64 = 64 * 1024;

/// When: seconds and nanoseconds since 1970.
pub type Moment = (u64, u32);

/// A line of a service, put together from its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its first part was written.
    pub at: Moment,
    /// Which output.
    pub which: Which,
    /// The bytes as they came.
    pub content: Vec<u8>,
}

#[derive(Debug)]
enum Bytes {
    Plain(File, u64),
    Packed(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file, offset) => {
                let count = file.read_at(buffer, *offset)?;
                *offset += count as u64;
                Ok(count)
            }
            Self::Packed(decoder) => decoder.read(buffer),
        }
    }
}

/// The lines of one file.
#[derive(Debug)]
pub struct Lines {
    bytes: Bytes,
    buffer: Vec<u8>,
    start: usize,
    /// The beginning of a line of either output, and when it came.
    begun: [Option<(Moment, Vec<u8>)>; 2],
    first: Option<Moment>,
    last: Moment,
}

impl Lines {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, buffer: Vec::new(), start: 0, begun: [None, None], first: None, last: (0, 0) }
    }

    /// Those of a plain file from the beginning of a line on.
    pub fn plain(file: File, offset: u64) -> Self {
        Self::new(Bytes::Plain(file, offset))
    }

    /// Those of a compressed one.
    pub fn packed(file: File) -> Self {
        Self::new(Bytes::Packed(Box::new(MultiGzDecoder::new(BufReader::new(file)))))
    }

    /// When the first entry was written that was read.
    pub fn first(&self) -> Option<Moment> {
        self.first
    }

    /// Where it is an older file by now: the moment at which it gave way, which is that of the first entry of the next
    /// one. Its name is known while it is open, also when it has been removed (proc_pid_fd(5)).
    pub fn gave_way(&self) -> Option<Moment> {
        let Bytes::Plain(file, _) = &self.bytes else { return None };
        let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let name = link.file_name()?.as_bytes();
        Old::parse(name.strip_suffix(b" (deleted)").unwrap_or(name))?.time()
    }

    /// When the last entry was written that was read.
    pub fn last(&self) -> Moment {
        self.last
    }

    /// Whether the file is shorter than what was read of it: somebody emptied it.
    pub fn was_cut(&self) -> bool {
        match &self.bytes {
            Bytes::Plain(file, offset) => file.metadata().is_ok_and(|data| data.len() < *offset),
            Bytes::Packed(_) => false,
        }
    }

    /// Begins anew.
    pub fn rewind(&mut self) {
        if let Bytes::Plain(_, offset) = &mut self.bytes {
            *offset = 0;
        }
        self.buffer.clear();
        (self.start, self.begun) = (0, [None, None]);
    }

    /// The next whole line. None where there is none now; of a file that grows there may be one later.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            if let Some(length) = memchr(b'\n', rest) {
                let entry = rest.get(..length).unwrap_or_default().to_vec();
                self.start += length + 1;
                if let Some(line) = self.take(&entry) {
                    return Ok(Some(line));
                }
            } else if rest.len() >= MOST_HELD {
                let torn = self.buffer.split_off(self.start);
                self.buffer.clear();
                self.start = 0;
                return Ok(Some(Line { at: self.last, which: Which::Stdout, content: torn }));
            } else if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// What a finished file ends with that is no whole line: a part that nothing follows, an entry cut off.
    pub fn leftover(&mut self) -> Option<Line> {
        let torn = self.buffer.split_off(self.start);
        if !torn.is_empty() {
            return self.take(&torn).or_else(|| self.leftover());
        }
        let begun = self.begun.iter_mut().zip([Which::Stdout, Which::Stderr]);
        let (part, which) = begun
            .filter(|(part, _)| part.is_some())
            .min_by_key(|(part, _)| part.as_ref().map(|one| one.0))?;
        part.take().map(|(at, content)| Line { at, which, content })
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let end = self.buffer.len();
        self.buffer.resize(end + READ_BYTES, 0);
        let count = self.bytes.read(self.buffer.get_mut(end..).unwrap_or_default());
        self.buffer.truncate(end + *count.as_ref().unwrap_or(&0));
        Ok(count? > 0)
    }

    fn take(&mut self, bytes: &[u8]) -> Option<Line> {
        let Some(entry) = cri::parse(bytes) else {
            // Torn by a full disk, or written by hand: shown as it is.
            return Some(Line { at: self.last, which: Which::Stdout, content: bytes.to_vec() });
        };
        self.last = (entry.seconds, entry.nanos);
        self.first.get_or_insert(self.last);
        let [stdout, stderr] = &mut self.begun;
        let begun = if entry.which == Which::Stdout { stdout } else { stderr };
        let (at, mut content) = begun.take().unwrap_or((self.last, Vec::new()));
        content.extend_from_slice(entry.content);
        if entry.ends || content.len() >= MOST_HELD {
            return Some(Line { at, which: entry.which, content });
        }
        *begun = Some((at, content));
        None
    }
}

/// The offset in a plain file of the beginning of the line at or after `offset`.
fn line_start(file: &File, offset: u64) -> io::Result<u64> {
    if offset == 0 {
        return Ok(0);
    }
    let (mut at, mut bytes) = (offset - 1, vec![0; 4096]);
    loop {
        let count = file.read_at(&mut bytes, at)?;
        match memchr(b'\n', bytes.get(..count).unwrap_or_default()) {
            Some(found) => return Ok(at + found as u64 + 1),
            None if count == 0 => return Ok(at),
            None => at += count as u64,
        }
    }
}

/// From where on a plain file of this size has at least its last `count` lines: found from the end, so that a
/// huge one is not read whole.
pub fn start_of_last(file: &File, size: u64, count: usize) -> io::Result<u64> {
    let mut window = FIRST_WINDOW;
    while window < size {
        let start = line_start(file, size - window)?;
        let mut lines = Lines::plain(file.try_clone()?, start);
        let mut found = 0;
        // One more than wanted: of a line in parts the window may have cut off the first.
        while found <= count && lines.next()?.is_some() {
            found += 1;
        }
        if found > count {
            return Ok(start);
        }
        window = window.saturating_mul(4);
    }
    Ok(0)
}

/// From where on a plain file of this size has the lines since `moment`. Lines are in the order of their times,
/// as long as nobody sets the clock back; then it may be later than it should.
pub fn start_of_time(file: &File, size: u64, moment: Moment) -> io::Result<u64> {
    let (mut low, mut high) = (0, size);
    while high - low > FIRST_WINDOW {
        let middle = low + (high - low) / 2;
        let start = line_start(file, middle)?;
        let mut stamp = [0; cri::STAMP_BYTES];
        let count = file.read_at(&mut stamp, start)?;
        match cri::parse_stamp(stamp.get(..count).unwrap_or_default()) {
            Some(at) if at < moment && start < high => low = start,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::wire::cri::{Stamp, Tail, frame};

    fn entry(second: u64, text: &[u8], tail: Tail) -> Vec<u8> {
        let mut out = vec![0; 40_000];
        let framed = frame(text, Which::Stdout, &Stamp::new(second, 0), tail, &mut out);
        out.truncate(framed.written);
        out
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn texts(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next().unwrap())
            .map(|line| String::from_utf8(line.content).unwrap())
            .collect()
    }

    #[test]
    fn parts_become_a_line_and_what_is_none_is_shown_as_it_is() {
        let bytes = [
            entry(1, b"ab", Tail::Empty),
            entry(2, b"c\n", Tail::Hold),
            b"torn\n".to_vec(),
            entry(3, b"d", Tail::Empty),
        ];
        let mut lines = Lines::plain(file(&bytes.concat()), 0);
        let first = lines.next().unwrap().unwrap();
        assert_eq!((first.at, first.content.as_slice()), ((1, 0), b"abc".as_slice()));
        assert_eq!(lines.next().unwrap().unwrap().content, b"torn");
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.leftover().unwrap().content, b"d");
        assert_eq!(lines.leftover(), None);
    }

    #[test]
    fn a_file_that_grows_goes_on_where_it_was() {
        let mut growing = file(b"");
        let mut lines = Lines::plain(growing.try_clone().unwrap(), 0);
        let whole = entry(1, b"one\n", Tail::Hold);
        growing.write_all(&whole[..10]).unwrap();
        assert_eq!(lines.next().unwrap(), None);
        growing.write_all(&whole[10..]).unwrap();
        assert_eq!(texts(&mut lines), ["one"]);
        growing.set_len(0).unwrap();
        assert!(lines.was_cut());
        lines.rewind();
        std::os::unix::fs::FileExt::write_all_at(&growing, &entry(2, b"two\n", Tail::Hold), 0).unwrap();
        assert_eq!(texts(&mut lines), ["two"]);
    }

    #[test]
    fn the_last_lines_and_those_since_a_time_are_found_without_reading_the_rest() {
        let text: Vec<u8> = (0..20_000)
            .flat_map(|second| entry(second, format!("{second}\n").as_bytes(), Tail::Hold))
            .collect();
        let (size, file) = (text.len() as u64, file(&text));
        for count in [0, 1, 10, 5_000, 19_999, 20_000, 30_000] {
            let start = start_of_last(&file, size, count).unwrap();
            let found = texts(&mut Lines::plain(file.try_clone().unwrap(), start));
            assert!(found.len() >= count.min(20_000) && found.last().unwrap() == "19999");
            assert!(count > 1000 || size - start <= FIRST_WINDOW, "{count}: {start} of {size}");
        }
        for second in [0, 1, 9_999, 19_999, 20_001] {
            let start = start_of_time(&file, size, (second, 0)).unwrap();
            let first = texts(&mut Lines::plain(file.try_clone().unwrap(), start))
                .first()
                .map(|text| text.parse::<u64>().unwrap());
            assert!(
                first.is_none_or(|first| first <= second && second - first < 3_000),
                "{second}: {first:?}"
            );
        }
    }

    #[test]
    fn a_compressed_file_reads_like_a_plain_one() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&entry(1, b"one\ntwo\n", Tail::Hold)).unwrap();
        let packed = packer.finish().unwrap();
        let mut file = file(&packed);
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(texts(&mut Lines::packed(file)), ["one", "two"]);
    }
}
