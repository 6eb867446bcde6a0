//! USER. `supervise logs`: the lines of services, merged by time. Reads files that the supervisor gives it as open
//! descriptors, and those of a log directory where there is no supervisor. Never holds the supervisor up: whoever
//! reads slowly reads files.

mod lines;
mod reading;
mod show;
mod source;
mod when;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mio::{Events, Poll};

use super::exit::Exit;
use super::text::{Paint, shown};
use super::trouble::{self, Trouble, reason, shown_path};
use lines::{Line, Moment};
use reading::{Reading, Span};
use show::{Form, Show};
use source::{Given, Source};

/// What `-f` begins with, as `tail -f` does.
const LAST_LINES: usize = 10;
/// How often the files are looked at while lines come, and while none do.
const BUSY: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_millis(250);
/// How often files that are not there are asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Of one service so many bytes are taken before the next has its turn.
const MOST_AT_ONCE: usize = 1024 * 1024;
/// So much is put together before it is written.
const WRITE_BYTES: usize = 64 * 1024;

/// What a reader is told whose files go faster than it reads.
const MISSED: &str = "lines are missing here: they were written and removed again before they could be read\n\
                      hint: more `keep` or `max-size` in `[log]` keeps them longer";

/// What the user wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names and globs; all where there is none.
    pub names: Vec<String>,
    /// What is written from now on, too.
    pub follow: bool,
    /// So many at most, the last ones.
    pub last: Option<usize>,
    /// Not before.
    pub since: Option<String>,
    /// Not after.
    pub until: Option<String>,
    /// The bytes alone.
    pub raw: bool,
    /// One JSON object a line.
    pub json: bool,
    /// Times in UTC.
    pub utc: bool,
    /// Where the files are if no supervisor says so.
    pub log_dir: Option<PathBuf>,
}

/// Prints them. `directory` is where they are if there is no supervisor.
pub fn print(control: PathBuf, directory: Result<PathBuf, Trouble>, wanted: &Wanted) -> ExitCode {
    match printed(control, directory, wanted) {
        Ok(exit) => exit.into(),
        Err(troubles) => trouble::tell_all(&troubles),
    }
}

fn printed(
    control: PathBuf,
    directory: Result<PathBuf, Trouble>,
    wanted: &Wanted,
) -> Result<Exit, Vec<Trouble>> {
    let zone = if wanted.utc { TimeZone::UTC } else { TimeZone::system() };
    let span = span(wanted, &zone).map_err(|trouble| vec![trouble])?;
    let (source, given) = found(control, directory, &wanted.names)?;
    for one in &given {
        if let Some(elsewhere) = elsewhere(one) {
            trouble::say(&elsewhere);
        }
        if let Some(note) = &one.note {
            trouble::say(&format!("{}: {}", shown(&one.service), shown(note)));
        }
        for words in &one.troubles {
            let mut lines = words.lines().map(shown);
            trouble::say(&format!(
                "{}: its output: {}",
                shown(&one.service),
                lines.next().unwrap_or_default()
            ));
            lines.for_each(|line| trouble::say(&line));
        }
    }
    let names: Vec<String> = given.iter().map(|one| one.service.clone()).collect();
    let (terminal, paint) = (io::stdout().is_terminal(), Paint::for_stdout());
    let width = names.iter().map(String::len).max().filter(|_| names.len() > 1).unwrap_or(0);
    let form = match (wanted.raw, wanted.json) {
        (true, _) => Form::Raw,
        (false, true) => Form::Json,
        (false, false) => Form::Text,
    };
    let mut out = Out { show: Show::new(form, terminal, paint, zone, width), bytes: Vec::new(), names };
    let trouble = |error: io::Error| {
        vec![Trouble::plain(Exit::Failed, format!("reading the logs: {}", reason(&error)))]
    };
    match show_all(given, wanted, span, &source, &mut out) {
        Ok(()) => Ok(Exit::Done),
        // A reader that has gone (`| head`) is no trouble.
        Err(Failed::Out(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(Failed::Out(error)) => Err(vec![trouble::not_printed(&error)]),
        Err(Failed::Files(error)) => Err(trouble(error)),
    }
}

/// The times that the user gave.
fn span(wanted: &Wanted, zone: &TimeZone) -> Result<Span, Trouble> {
    let read = |option: &str, text: &Option<String>| -> Result<Option<Moment>, Trouble> {
        let Some(text) = text else { return Ok(None) };
        let stamp = when::parse(text, Timestamp::now(), zone)
            .map_err(|why| Trouble::plain(Exit::Usage, format!("`{option} {}`: {why}", shown(text))))?;
        let nanos = u32::try_from(stamp.subsec_nanosecond()).unwrap_or(0);
        Ok(Some((u64::try_from(stamp.as_second()).unwrap_or(0), nanos)))
    };
    let span = Span { since: read("--since", &wanted.since)?, until: read("--until", &wanted.until)? };
    if span.since.zip(span.until).is_some_and(|(since, until)| until < since) {
        let text = "`--until` is before `--since`: nothing is between them";
        return Err(Trouble::plain(Exit::Usage, text)
            .hint("a time of day such as `02:10` is the last one that the clock has shown"));
    }
    Ok(span)
}

/// The files, and where they came from: the supervisor, or the log directory where there is none.
fn found(
    control: PathBuf,
    directory: Result<PathBuf, Trouble>,
    names: &[String],
) -> Result<(Source, Vec<Given>), Vec<Trouble>> {
    let supervisor = Source::Supervisor(control.clone());
    let absent = match supervisor.files(names) {
        Ok(given) => return Ok((supervisor, given)),
        Err(troubles) if troubles.iter().all(|one| one.exit == Exit::NoSupervisor) => troubles,
        Err(troubles) => return Err(troubles),
    };
    let Ok(directory) = directory else { return Err(absent) };
    if !directory.is_dir() {
        return Err(absent);
    }
    trouble::say(&format!(
        "supervise: no supervisor at `{}`; reading the files in `{}`",
        shown_path(&control),
        shown_path(&directory)
    ));
    let source = Source::Directory(directory);
    let given = source.files(names)?;
    Ok((source, given))
}

/// Where the lines of a service are to be looked for that do not go to files.
fn elsewhere(given: &Given) -> Option<String> {
    let name = shown(&given.service);
    let place = match given.to.as_str() {
        "file" | "" => return None,
        "journal" => format!("to the journal: `journalctl -t {name}` shows it"),
        "syslog" => format!("to the system's log, where its lines begin with `{name}: `"),
        "inherit" => "to where supervise's own output goes".to_owned(),
        "null" => "nowhere, as its unit says".to_owned(),
        other => format!("to `{}`", shown(other)),
    };
    // What goes wrong with that is said next.
    let goes = if given.troubles.is_empty() { "goes" } else { "is to go" };
    Some(format!("{name}: its output {goes} {place}"))
}

enum Failed {
    Files(io::Error),
    Out(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Files(error)
    }
}

struct Out {
    show: Show,
    bytes: Vec<u8>,
    names: Vec<String>,
}

impl Out {
    fn line(&mut self, service: usize, line: &Line) -> Result<(), Failed> {
        let name = self.names.get(service).map_or("", String::as_str);
        self.show.line(&mut self.bytes, name, line);
        if self.bytes.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failed> {
        let outcome = trouble::write(&self.bytes);
        self.bytes.clear();
        outcome.map_err(Failed::Out)
    }
}

fn show_all(
    given: Vec<Given>,
    wanted: &Wanted,
    span: Span,
    source: &Source,
    out: &mut Out,
) -> Result<(), Failed> {
    let anything = given.iter().any(|one| one.to == "file" || one.current.is_some());
    let last = wanted.last.or((wanted.follow && wanted.since.is_none()).then_some(LAST_LINES));
    let mut readings = Vec::new();
    match last {
        Some(count) => {
            let mut merged = Vec::new();
            for (number, one) in given.into_iter().enumerate() {
                let (reading, ring) = Reading::last(one, count, span)?;
                merged.extend(ring.into_iter().map(|line| (number, line)));
                readings.push(reading);
            }
            merged.sort_by_key(|(_, line)| line.at);
            let surplus = merged.len().saturating_sub(count);
            for (number, line) in merged.iter().skip(surplus) {
                out.line(*number, line)?;
            }
        }
        None => {
            readings = given.into_iter().map(|one| Reading::new(one, span)).collect::<io::Result<_>>()?;
            merge(&mut readings, out)?;
        }
    }
    out.flush()?;
    if wanted.follow && anything { follow(&mut readings, source, out) } else { Ok(()) }
}

/// Every line that is there now, by time.
fn merge(readings: &mut [Reading], out: &mut Out) -> Result<(), Failed> {
    let mut heads: Vec<Option<Line>> = readings.iter_mut().map(Reading::next).collect::<io::Result<_>>()?;
    loop {
        let times = heads.iter().enumerate().filter_map(|(number, line)| Some((line.as_ref()?.at, number)));
        let Some((_, number)) = times.min() else { return Ok(()) };
        let (Some(head), Some(reading)) = (heads.get_mut(number), readings.get_mut(number)) else {
            return Ok(());
        };
        if let Some(line) = std::mem::replace(head, reading.next()?) {
            out.line(number, &line)?;
        }
    }
}

/// What is written from now on, until Ctrl-C or the end of the span.
fn follow(readings: &mut [Reading], source: &Source, out: &mut Out) -> Result<(), Failed> {
    let mut pause = Pause::new()?;
    let mut asked: VecDeque<Option<Instant>> = readings.iter().map(|_| None).collect();
    while !readings.iter().all(Reading::is_over) {
        let (mut came, mut more) = (Vec::new(), false);
        for (number, (reading, asked)) in readings.iter_mut().zip(&mut asked).enumerate() {
            if !drain(number, reading, &mut came)? {
                more = true;
                continue;
            }
            if !reading.has_given_way() || asked.is_some_and(|at| at.elapsed() < ASK_EVERY) {
                continue;
            }
            // Whatever was written before it gave way is in the file that is open here.
            if !drain(number, reading, &mut came)? {
                more = true;
                continue;
            }
            let name = out.names.get(number).cloned().unwrap_or_default();
            // A supervisor that is away is asked again; the open file is not.
            let given = source.files(&[name]).ok().and_then(|given| given.into_iter().next());
            let goes_on = given.is_some_and(|given| reading.renew(given));
            more |= goes_on && !drain(number, reading, &mut came)?;
            // A file that is replaced all the time is asked for all the time; one that is missing is not.
            *asked = (!goes_on).then(Instant::now);
        }
        came.sort_by_key(|(_, line): &(usize, Line)| line.at);
        for (number, line) in &came {
            out.line(*number, line)?;
        }
        out.flush()?;
        for (name, reading) in out.names.iter().zip(readings.iter_mut()) {
            if reading.has_missed() {
                trouble::say(&format!("{}: {MISSED}", shown(name)));
            }
        }
        if !more {
            pause.wait(if came.is_empty() { QUIET } else { BUSY })?;
        }
    }
    Ok(())
}

/// What there is now, up to a limit: a reader that is slow holds no more. Whether that was all.
fn drain(number: usize, reading: &mut Reading, came: &mut Vec<(usize, Line)>) -> io::Result<bool> {
    let mut bytes = 0;
    while bytes < MOST_AT_ONCE {
        let Some(line) = reading.next()? else { return Ok(true) };
        bytes += line.content.len() + 64;
        came.push((number, line));
    }
    Ok(false)
}

/// Waiting for time to pass.
struct Pause {
    poll: Poll,
    events: Events,
}

impl Pause {
    fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1) })
    }

    fn wait(&mut self, long: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(long)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
