//! ROOT. The last lines of a service or of one run of it, for the reasons of failures. Never those of another run for
//! those of one that failed: where they cannot be told apart there are none.
//!
//! Where a run's lines stand in the file the logger has said when its output ended (`logs`), with a time in each piece
//! that tells the file. Without that, the lines since its start are its own if nothing else of its service lives.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Manager;
use super::log_files::Shelf;
use super::logs::Trail;
use crate::policy::service::{Ended, Incarnation, Service};
use crate::policy::{End, Run, ServiceId};
use crate::sys::dirs::{self, Facts};
use crate::sys::{objects, pipes};
use crate::wire::cri::{self, LONGEST_ENTRY, Which};
use crate::wire::keeper::Kind;
use crate::wire::logger::Piece;
use crate::wire::shelf::{CURRENT, Form};

/// Lines of a service's output in the reason of its failure.
const MOST_LINES: usize = 10;
/// Bytes at the end of a file in which its last lines are looked for.
const TAIL_BYTES: u64 = 16 * 1024;
/// Bytes at the end of a piece that are read: two entries at the least.
const PIECE_BYTES: u64 = 2 * LONGEST_ENTRY as u64;
/// Files that have given way to others in which a piece is looked for.
const MOST_FORMER: usize = 2;

/// What somebody said last.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    /// The lines.
    pub lines: Vec<String>,
    /// It is known that there are none.
    pub nothing: bool,
    /// Whose they are, where that is not what runs.
    pub of: Option<String>,
}

impl Manager {
    /// What one run said last.
    pub(super) fn last_words_of(&self, id: ServiceId, run: Run) -> LastWords {
        let trails = [Which::Stdout, Which::Stderr].map(|which| self.logs.trail(run, which));
        if trails.contains(&None) && self.is_alone(id, run) {
            return LastWords { lines: self.lines_since_start(id), ..LastWords::default() };
        }
        let nothing = trails.iter().all(|trail| trail.is_some_and(|trail| trail.silent));
        let pieces = trails.into_iter().flatten().flat_map(|trail: &Trail| trail.pieces.iter().copied());
        let mut pieces: Vec<Piece> = pieces.collect();
        pieces.sort_unstable_by_key(|piece| (piece.time_ns, piece.at));
        let lines = self.lines_of(id, &pieces).map(as_text).unwrap_or_default();
        LastWords { lines, nothing, of: None }
    }

    /// What there is to tell of a service: the words of what failed last, unless something newer has begun since; else
    /// what the service has written since it last started.
    pub(super) fn last_words(&self, id: ServiceId) -> LastWords {
        let Some(service) = self.world.get(id) else { return LastWords::default() };
        let Some(ended) = told_end(service).filter(|ended| has_words(ended.end)) else {
            return LastWords { lines: self.lines_since_start(id), ..LastWords::default() };
        };
        let serves = service.incarnations().any(|(_, _, one)| one.is_proven());
        let what = if ended.rehearsal { "which failed its rehearsal" } else { "which failed" };
        let of = serves.then(|| format!("generation {}, {what}", ended.generation));
        LastWords { of, ..self.last_words_of(id, ended.run) }
    }

    /// Whether nothing but this run can have written since its start.
    fn is_alone(&self, id: ServiceId, run: Run) -> bool {
        let Some(service) = self.world.get(id) else { return false };
        service.last_run == run && service.incarnations().all(|(_, _, one)| one.run == run)
    }

    /// The lines that a service has written to its file since its last start. Cheap: one read of a bounded part of a
    /// file, of two where the first has just begun.
    fn lines_since_start(&self, id: ServiceId) -> Vec<String> {
        let since = self.logs.began(id);
        let lines = self.shelf(id).and_then(|shelf| {
            let Some(shelf) = shelf else { return Ok(VecDeque::new()) };
            let mut lines = tail(&shelf, CURRENT, since, MOST_LINES).unwrap_or_default();
            let before = shelf.old()?.last().copied().filter(|old| old.form == Form::Plain);
            if let (true, Some(before)) = (lines.len() < MOST_LINES, before) {
                let mut earlier = tail(&shelf, &before.name(before.form), since, MOST_LINES - lines.len())?;
                earlier.append(&mut lines);
                lines = earlier;
            }
            Ok(lines)
        });
        lines.map(as_text).unwrap_or_default()
    }

    fn lines_of(&self, id: ServiceId, pieces: &[Piece]) -> io::Result<VecDeque<Vec<u8>>> {
        let Some(shelf) = self.shelf(id)?.filter(|_| !pieces.is_empty()) else { return Ok(VecDeque::new()) };
        let former = shelf.old()?;
        let former = former.iter().rev().filter(|old| old.form == Form::Plain).take(MOST_FORMER);
        let names = std::iter::once(CURRENT.to_owned()).chain(former.map(|old| old.name(old.form)));
        let files: Vec<(OwnedFd, Facts)> = names.filter_map(|name| shelf.open(&name).ok()).collect();
        let bytes: Vec<u8> = pieces
            .iter()
            .filter_map(|piece| files.iter().find_map(|file| read(file, piece)))
            .flatten()
            .collect();
        Ok(cri::last_lines(&bytes, true, (0, 0), MOST_LINES))
    }

    /// Whether output of a run that has ended is on its way to the file: some is in a pipe, or the logger has not said
    /// that it is through with one that nobody writes to any more.
    pub(super) fn has_unread_output(&self, run: Run) -> bool {
        let kept = [Kind::Stdout, Kind::Stderr].into_iter().filter_map(|kind| self.kept.fd(kind, run.0));
        let is_read = |fd: &std::os::fd::BorrowedFd<'_>| {
            !objects::has_lost_other_end(fd) && pipes::available(*fd).is_ok_and(|bytes| bytes == 0)
        };
        self.logs.raw_link().is_some() && !kept.into_iter().all(|fd| is_read(&fd))
    }
}

/// Whether what has ended like this had a command that could say something.
pub(super) const fn has_words(end: End) -> bool {
    match end {
        End::Exited(_) | End::NotReady | End::Unhealthy | End::Watchdog => true,
        End::Launch { .. }
        | End::TimedOut
        | End::Unprepared
        | End::Unbound
        | End::Unanswered
        | End::NoProcess(_) => false,
    }
}

/// The last end that was somebody's failure, if nothing of its generation or a newer one has begun since, and nothing that
/// began since has ended: who goes back to an older one does so because of it, and what ends later is another story.
fn told_end(service: &Service) -> Option<&Ended> {
    let told = service.ends.iter().rev().find(|ended| !ended.dismissed && !ended.passed)?;
    let is_newer = |run: Run, generation: u32| run > told.run && generation >= told.generation;
    let lives = |one: &Incarnation| is_newer(one.run, one.generation);
    let newer = service.incarnations().any(|(_, _, one)| lives(one))
        || service.ends.iter().any(|ended| is_newer(ended.run, ended.generation))
        || service.ends.iter().any(|ended| ended.run > told.run && !ended.rehearsal);
    Some(told).filter(|_| !newer)
}

fn as_text(lines: VecDeque<Vec<u8>>) -> Vec<String> {
    lines.into_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
}

fn tail(shelf: &Shelf, name: &str, since: (u64, u32), most: usize) -> io::Result<VecDeque<Vec<u8>>> {
    let (fd, facts) = shelf.open(name)?;
    let offset = facts.size.saturating_sub(TAIL_BYTES);
    let mut bytes = vec![0; TAIL_BYTES as usize];
    let count = dirs::read_at(fd.as_fd(), &mut bytes, offset)?;
    Ok(cri::last_lines(bytes.get(..count).unwrap_or_default(), offset == 0, since, most))
}

/// The whole entries at the end of a piece, if it is one of this file.
fn read((fd, facts): &(OwnedFd, Facts), piece: &Piece) -> Option<Vec<u8>> {
    let length = u64::from(piece.bytes).min(PIECE_BYTES);
    let end = piece.at.checked_add(piece.bytes.into()).filter(|end| *end <= facts.size)?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    let count = dirs::read_at(fd.as_fd(), &mut bytes, end - length).ok()?;
    bytes.truncate(count);
    if length < piece.bytes.into() {
        let half = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..half);
    }
    let last = bytes.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next().and_then(cri::parse)?;
    let time_ns = last.seconds.saturating_mul(1_000_000_000).saturating_add(last.nanos.into());
    (time_ns == piece.time_ns).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_piece_is_read_from_the_file_that_it_is_of_and_from_no_other() {
        let text =
            b"1970-01-01T00:00:01.000000000Z stdout F one\n1970-01-01T00:00:02.000000005Z stdout F two\n";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let fd = OwnedFd::from(file);
        let facts = dirs::facts(fd.as_fd()).unwrap();
        let file = (fd, facts);
        let half = text.len() / 2;
        let piece = Piece { at: half as u64, bytes: half as u32, time_ns: 2_000_000_005 };
        assert_eq!(read(&file, &piece).as_deref(), Some(&text[half..]));
        // Another entry stands there by now, it has been cut, or the place is within an entry.
        for wrong in [
            Piece { time_ns: 2_000_000_004, ..piece },
            Piece { at: 1, ..piece },
            Piece { at: text.len() as u64, ..piece },
            Piece { at: u64::MAX, ..piece },
        ] {
            assert_eq!(read(&file, &wrong), None, "{wrong:?}");
        }
    }
}
