//! USER. The lines of one service across its files: forward from a time, the last ones, and what is written from now
//! on, however often the file gives way meanwhile. Never a line twice.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::lines::{Line, Lines, Moment, start_of_last, start_of_time};
use super::source::Given;
use crate::sys::dirs::{Dir, Identity};
use crate::wire::shelf::{Form, Old};

/// From when to when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Not before.
    pub since: Option<Moment>,
    /// Not after.
    pub until: Option<Moment>,
}

impl Span {
    fn begins_after(&self, at: Moment) -> bool {
        self.since.is_some_and(|since| at < since)
    }

    fn ends_before(&self, at: Moment) -> bool {
        self.until.is_some_and(|until| at > until)
    }
}

/// The lines of one service.
#[derive(Debug)]
pub struct Reading {
    dir: Option<Dir>,
    old: VecDeque<(Old, File)>,
    open: Option<Lines>,
    current: Option<(Lines, Identity)>,
    span: Span,
    /// The newest file that had given way when the files were last looked at.
    known: Option<Old>,
    /// When the last line was written that came out of here.
    last: Moment,
    /// The moment of the first entry that has to come next, where that may have gone.
    due: Option<Moment>,
    missed: bool,
    over: bool,
}

fn identity(file: &File) -> Identity {
    let data = file.metadata();
    data.map_or(Identity::default(), |data| Identity { device: data.dev(), inode: data.ino() })
}

fn lines_of(old: &Old, file: File) -> Lines {
    match old.form {
        Form::Packed => Lines::packed(file),
        Form::Plain | Form::Part => Lines::plain(file, 0),
    }
}

fn size(file: &File) -> io::Result<u64> {
    file.metadata().map(|data| data.len())
}

impl Reading {
    /// Of these files, from the first line that the span allows.
    pub fn new(given: Given, span: Span) -> io::Result<Self> {
        let known = given.old.last().map(|(old, _)| *old);
        let mut old: VecDeque<(Old, File)> = given.old.into();
        // One whose moment is before the span has nothing in it.
        old.retain(|(old, _)| old.time().is_none_or(|at| !span.begins_after(at)));
        let current = match given.current {
            None => None,
            Some(file) => {
                let which = identity(&file);
                old.retain(|(_, file)| identity(file) != which);
                let start = match span.since {
                    Some(since) if old.is_empty() => start_of_time(&file, size(&file)?, since)?,
                    Some(_) | None => 0,
                };
                Some((Lines::plain(file, start), which))
            }
        };
        let mut open = None;
        if let (Some(since), Some((first, _))) = (span.since, old.front())
            && first.form == Form::Plain
            && let Some((_, file)) = old.pop_front()
        {
            let start = start_of_time(&file, size(&file)?, since)?;
            open = Some(Lines::plain(file, start));
        }
        Ok(Self {
            dir: given.dir,
            old,
            open,
            current,
            span,
            known,
            last: (0, 0),
            due: None,
            missed: false,
            over: false,
        })
    }

    /// Of the last lines of these files, and whatever comes after them.
    pub fn last(given: Given, count: usize, span: Span) -> io::Result<(Self, VecDeque<Line>)> {
        let mut ring = VecDeque::new();
        let known = given.old.last().map(|(old, _)| *old);
        let mut this = Self {
            dir: given.dir,
            old: VecDeque::new(),
            open: None,
            current: None,
            span,
            known,
            last: (0, 0),
            due: None,
            missed: false,
            over: false,
        };
        if let Some(file) = given.current {
            let which = identity(&file);
            let start = if span.until.is_some() { 0 } else { start_of_last(&file, size(&file)?, count)? };
            let start = match span.since {
                Some(since) => start.max(start_of_time(&file, size(&file)?, since)?),
                None => start,
            };
            let mut lines = Lines::plain(file, start);
            this.fill(&mut ring, &mut lines, count, false)?;
            this.current = Some((lines, which));
        }
        for (old, file) in given.old.into_iter().rev() {
            if ring.len() >= count || old.time().is_some_and(|at| span.begins_after(at)) {
                break;
            }
            if this.current.as_ref().is_some_and(|(_, which)| *which == identity(&file)) {
                continue;
            }
            let mut more = VecDeque::new();
            let mut lines = match old.form {
                Form::Plain if span.until.is_none() => {
                    let start = start_of_last(&file, size(&file)?, count - ring.len())?;
                    Lines::plain(file, start)
                }
                Form::Plain | Form::Packed | Form::Part => lines_of(&old, file),
            };
            this.fill(&mut more, &mut lines, count - ring.len(), true)?;
            more.append(&mut ring);
            ring = more;
        }
        this.last = ring.back().map_or((0, 0), |line| line.at);
        Ok((this, ring))
    }

    /// The last `count` lines of a file, as far as the span allows.
    fn fill(
        &self,
        ring: &mut VecDeque<Line>,
        lines: &mut Lines,
        count: usize,
        finished: bool,
    ) -> io::Result<()> {
        loop {
            let line = match lines.next()? {
                Some(line) => line,
                None if finished => match lines.leftover() {
                    Some(line) => line,
                    None => return Ok(()),
                },
                None => return Ok(()),
            };
            if count > 0 && !self.span.begins_after(line.at) && !self.span.ends_before(line.at) {
                if ring.len() == count {
                    ring.pop_front();
                }
                ring.push_back(line);
            }
        }
    }

    /// The next line that is there now.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        while !self.over {
            let (finished, line) = match (&mut self.open, &mut self.current) {
                (Some(lines), _) => match lines.next()? {
                    Some(line) => (false, Some(line)),
                    None => match lines.leftover() {
                        Some(line) => (false, Some(line)),
                        None => (true, None),
                    },
                },
                (None, _) if !self.old.is_empty() => (true, None),
                (None, Some((lines, _))) => (false, lines.next()?),
                (None, None) => (false, None),
            };
            if finished {
                self.open = self.old.pop_front().map(|(old, file)| lines_of(&old, file));
                continue;
            }
            let Some(line) = line else { return Ok(None) };
            let read = self.open.as_ref().or(self.current.as_ref().map(|(lines, _)| lines));
            if let (Some(due), Some(first)) = (self.due, read.and_then(Lines::first)) {
                self.due = None;
                self.missed |= first > due;
            }
            if self.span.begins_after(line.at) {
                continue;
            }
            if self.span.ends_before(line.at) {
                self.over = true;
                return Ok(None);
            }
            self.last = self.last.max(line.at);
            return Ok(Some(line));
        }
        Ok(None)
    }

    /// Whether nothing can come any more, since it would be after the span.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether files have gone, since this was last asked, before they could be read.
    pub fn has_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// Whether the file that grows is another one by now, or there has been none.
    pub fn has_given_way(&mut self) -> bool {
        let Some((lines, which)) = &mut self.current else { return true };
        if lines.was_cut() {
            lines.rewind();
        }
        let named = self.dir.as_ref().and_then(|dir| dir.facts_of(c"current").ok());
        named.is_none_or(|named| named.identity != *which)
    }

    /// Goes on with the files as they are now; what was in the one before has to be read out. Whether another one grows.
    pub fn renew(&mut self, given: Given) -> bool {
        let newest = given.old.last().map(|(old, _)| *old).max(self.known);
        let read = self.current.as_ref().map_or((0, 0), |(lines, _)| lines.last());
        let (known, last) = (self.known, self.last.max(read));
        let same = |file: &File| self.current.as_ref().is_some_and(|(_, which)| *which == identity(file));
        if given.current.as_ref().is_some_and(same) {
            return false;
        }
        let left = self.current.as_ref().and_then(|(lines, _)| lines.gave_way());
        let is_there = |moment: Moment| given.old.iter().any(|(old, _)| old.time() == Some(moment));
        self.due = left.filter(|moment| !is_there(*moment));
        // The first of those that are new is the one that was read out; where it is compressed by now nothing
        // but its times tell. Lines of one step have one time, and a file gives way between two steps.
        let fresh = given.old.into_iter().filter(|(old, file)| {
            let is_new = known.is_none_or(|known| *old > known && !old.is_same(&known));
            is_new && !same(file)
        });
        self.old = fresh.collect();
        self.open = None;
        if let Some(dir) = given.dir {
            self.dir = Some(dir);
        }
        self.current = given.current.map(|file| {
            let which = identity(&file);
            (Lines::plain(file, 0), which)
        });
        self.known = newest;
        if last > (0, 0) {
            let after = (last.0, last.1.saturating_add(1));
            self.span.since = Some(self.span.since.map_or(after, |since| since.max(after)));
        }
        self.current.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::wire::shelf::CURRENT;

    const GAVE_WAY: &str = "20261123T031245.000000000Z.log";

    fn given(place: &Path, old: &[&str]) -> Given {
        let open = |name: &str| File::open(place.join(name)).unwrap();
        let old = old.iter().map(|name| (Old::parse(name.as_bytes()).unwrap(), open(name))).collect();
        let (service, to) = ("web".to_owned(), "file".to_owned());
        Given { service, to, note: None, troubles: Vec::new(), dir: None, old, current: Some(open(CURRENT)) }
    }

    fn put(place: &Path, second: u32, text: &str) {
        fs::write(place.join(CURRENT), format!("2026-11-23T03:12:{second}.000000000Z stdout F {text}\n"))
            .unwrap();
    }

    /// Whether lines are said to be missing when the file that was read has given way at 03:12:45, is kept or not, and the
    /// next begins at this second.
    fn misses(kept: bool, second: u32) -> bool {
        let place = tempfile::tempdir().unwrap();
        put(place.path(), 44, "one");
        let mut reading = Reading::new(given(place.path(), &[]), Span::default()).unwrap();
        assert_eq!(reading.next().unwrap().unwrap().content, b"one");
        let old = place.path().join(GAVE_WAY);
        fs::rename(place.path().join(CURRENT), &old).unwrap();
        put(place.path(), second, "two");
        if !kept {
            fs::remove_file(old).unwrap();
        }
        assert!(reading.renew(given(place.path(), if kept { &[GAVE_WAY] } else { &[] })));
        assert_eq!(reading.next().unwrap().unwrap().content, b"two");
        let missed = reading.has_missed();
        assert!(!reading.has_missed(), "it is told once");
        missed
    }

    #[test]
    fn lines_are_missing_where_the_next_file_does_not_begin_when_the_one_before_gave_way() {
        assert!(misses(false, 46));
        assert!(!misses(false, 45), "it was removed, and is followed by the next one");
        assert!(!misses(true, 46), "what is kept has nothing removed behind it");
    }
}
