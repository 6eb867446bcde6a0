//! LOG. The log files: `DIR/NAME/current` of each service and the older ones beside it. Never follows a link,
//! never writes where another user could, never decides which bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::sys::dirs::{self, Dir, Facts, Identity};
use crate::sys::{confine, fds};
use crate::wire::cri::{STAMP_BYTES, Stamp, parse_stamp};
use crate::wire::logger::{Name, Place, Rule, To, WhenFull};
use crate::wire::shelf::{Form, Old};

use super::press::{self, Press};
use super::say::{reason, say};
use super::troubles::Troubles;

/// The file that grows.
const CURRENT: &CStr = c"current";
/// Owner and group read; nobody else.
pub const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o755;
/// How often a written file is looked up by its name, to see whether it still has it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a log directory that could not be opened is done without before a successor tries.
const ABSENT_FOR: Duration = Duration::from_secs(30);
/// How often one service's trouble is told again.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What failed, on which file, and what to do about it.
#[derive(Debug)]
pub struct Trouble {
    doing: &'static str,
    file: &'static str,
    error: io::Error,
    hint: Option<String>,
}

impl Trouble {
    fn new(doing: &'static str, file: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self { doing, file, error, hint: None }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.doing, reason(&self.error))
    }
}

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    looked_up: Instant,
    used: u64,
    /// Seconds since 1970 of its first entry.
    began: u64,
}

#[derive(Debug, Default)]
struct Service {
    streams: usize,
    open: Option<Open>,
    dropped: u64,
    said: Option<Instant>,
    rotate_after: Option<Instant>,
    rule: Rule,
    /// What a predecessor left to compress was looked for.
    tidied: bool,
}

/// Where the next bytes of a service go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which file.
    pub identity: Identity,
    /// Its size now.
    pub size: u64,
}

/// How a file looks to someone who knows what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it is there.
    All,
    /// A part was, and has been cut off.
    Nothing,
}

/// All of them.
#[derive(Debug)]
pub struct Shelf {
    /// What the manager is to know of.
    pub troubles: Troubles,
    path: PathBuf,
    root: Option<Dir>,
    services: BTreeMap<Name, Box<Service>>,
    /// Those with lines that were dropped and not reported yet.
    dropping: BTreeSet<Name>,
    press: Press,
    /// The log directory cannot be opened by its path any more: another one in its place takes another process.
    confined: bool,
    absent_since: Option<Instant>,
    lost: bool,
    most_open: usize,
    open: usize,
    uses: u64,
}

impl Shelf {
    /// The files below `path`, at most `most_open` of them open at a time. Opens nothing yet.
    pub fn new(path: PathBuf, most_open: usize) -> Self {
        let (most_open, press) = (most_open.max(1), Press::default());
        Self {
            troubles: Troubles::default(),
            path,
            root: None,
            services: BTreeMap::new(),
            dropping: BTreeSet::new(),
            press,
            confined: false,
            absent_since: None,
            lost: false,
            most_open,
            open: 0,
            uses: 0,
        }
    }

    /// Opens the log directory while that can be done, and takes note that it cannot be done again.
    pub fn confine(&mut self) -> Option<BorrowedFd<'_>> {
        // What is wrong with it is told when there is something to write.
        let _ = self.root();
        self.confined = true;
        self.root.as_ref().map(Dir::as_fd)
    }

    /// Whether only a successor can get further: one that makes the log directory while it may.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// One more stream of this service; `dropped` lines of it are known to be unreported.
    pub fn join(&mut self, name: Name, dropped: u64, rule: Rule) {
        let service = self.services.entry(name).or_insert_with(|| {
            if dropped > 0 {
                self.dropping.insert(name);
            }
            Box::new(Service { dropped, ..Service::default() })
        });
        service.streams += 1;
        service.rule = rule;
    }

    /// Whether nothing is being compressed.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.press.is_idle()
    }

    /// What is to happen with this service's lines from now on.
    pub fn set_rule(&mut self, name: &Name, rule: Rule) {
        if let Some(service) = self.services.get_mut(name) {
            service.rule = rule;
        }
        if rule.to == To::File {
            self.troubles.is_well(name, Place::Away);
        }
    }

    /// What happens with this service's lines.
    pub fn rule(&self, name: &Name) -> Rule {
        self.services.get(name).map_or_else(Rule::default, |service| service.rule)
    }

    /// One stream less. With the last one the file is closed; the count of dropped lines stays until it is
    /// reported.
    pub fn leave(&mut self, name: &Name) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.streams = service.streams.saturating_sub(1);
        if service.streams == 0 {
            let silent = service.dropped == 0;
            self.close(name);
            if silent {
                self.services.remove(name);
                self.troubles.is_well(name, Place::Files);
            }
            self.troubles.is_well(name, Place::Away);
        }
    }

    /// Lines dropped and not reported yet.
    pub fn dropped(&self, name: &Name) -> u64 {
        self.services.get(name).map_or(0, |service| service.dropped)
    }

    /// Sets that count. None means as well that the last lines got somewhere.
    pub fn set_dropped(&mut self, name: &Name, count: u64) {
        if count == 0 {
            self.troubles.is_well(name, Place::Files);
        }
        if let Some(service) = self.services.get_mut(name) {
            service.dropped = count;
            if count == 0 {
                self.dropping.remove(name);
            } else {
                self.dropping.insert(*name);
            }
            if count == 0 && service.streams == 0 {
                self.close(name);
                self.services.remove(name);
            }
        }
    }

    /// Whether any service has such a count.
    pub fn has_dropped(&self) -> bool {
        !self.dropping.is_empty()
    }

    /// The services that have such a count.
    pub fn with_dropped(&self) -> Vec<Name> {
        self.dropping.iter().copied().collect()
    }

    /// Tells the operator, once a minute for each service, and the manager.
    pub fn complain(&mut self, name: &Name, trouble: &Trouble, now: Instant) {
        let path = self.path.join(name.as_str()).join(trouble.file);
        let when_full = self.rule(name).when_full;
        let hint = match (trouble.hint.as_deref(), trouble.error.raw_os_error(), when_full) {
            (Some(hint), ..) => hint.to_owned(),
            // ENOSPC, EDQUOT
            (None, Some(28 | 122), when_full) => {
                let what = match when_full {
                    WhenFull::Drop => "lines are dropped and counted until there is some",
                    WhenFull::Block => "the service waits with its next lines until there is some",
                };
                format!("make room for {}; {what}", self.path.display())
            }
            (None, _, WhenFull::Drop) => "lines are dropped and counted until this works again".to_owned(),
            (None, _, WhenFull::Block) => {
                "the service waits with its next lines until this works again".to_owned()
            }
        };
        let text = format!("{}: {trouble}\nhint: {hint}", path.display());
        self.tell(name, &text, now);
        self.troubles.is_wrong(name, Place::Files, text);
    }

    /// Tells that lines go to a file instead of `place`.
    pub fn complain_of_absence(
        &mut self,
        name: &Name,
        (to, place): (To, &str),
        error: &io::Error,
        now: Instant,
    ) {
        let (path, reason) = (self.path.join(name.as_str()).join("current"), reason(error));
        let remedy = match to {
            To::Journal => "start systemd-journald, or have its unit say `to = \"file\"`; ",
            To::Syslog => {
                "start what takes the system's log (rsyslog), or have its unit say `to = \"file\"`; "
            }
            To::Inherit | To::File => "",
        };
        let hint = format!("{remedy}its lines go to {} until somebody takes them there", path.display());
        let text = format!("sending to {place}: {reason}\nhint: {hint}");
        self.tell(name, &text, now);
        self.troubles.is_wrong(name, Place::Away, text);
    }

    /// Tells that who takes lines has had no room for some.
    pub fn complain_of_fullness(&mut self, name: &Name, place: &str, now: Instant) {
        let hint = "lines are dropped and counted until whoever reads them there goes on";
        let text = format!("sending to {place}: there is no room\nhint: {hint}");
        self.tell(name, &text, now);
        self.troubles.is_wrong(name, Place::Away, text);
    }

    fn tell(&mut self, name: &Name, text: &str, now: Instant) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY) {
            service.said = Some(now);
            say(&format!("log of `{name}`: {text}"));
        }
    }

    fn close(&mut self, name: &Name) {
        if self.services.get_mut(name).and_then(|service| service.open.take()).is_some() {
            self.open -= 1;
        }
    }

    fn close_oldest(&mut self) {
        let open =
            self.services.iter().filter_map(|(name, service)| Some((service.open.as_ref()?.used, *name)));
        if let Some((_, oldest)) = open.min() {
            self.close(&oldest);
        }
    }

    /// The file for `length` more bytes: opened, made again where it was removed, changed for a new one where
    /// it would grow too long.
    pub fn target(
        &mut self,
        name: &Name,
        length: u64,
        stamp: &Stamp,
        now: Instant,
    ) -> Result<Target, Trouble> {
        if self.confined && self.root.is_none() {
            let since = *self.absent_since.get_or_insert(now);
            self.lost |= now.duration_since(since) >= ABSENT_FOR;
        }
        let mut facts = match self.still_there(name, now) {
            Some(facts) => facts,
            None => self.open(name, stamp, now)?,
        };
        let due = facts.size > 0 && self.is_due(name, facts.size.saturating_add(length), stamp);
        let service = self.services.get_mut(name).filter(|_| due);
        if let Some(service) = service.filter(|service| service.rotate_after.is_none_or(|after| now >= after))
        {
            service.rotate_after = now.checked_add(SAY_EVERY);
            match self.rotate(name, stamp) {
                Ok(()) => self.services.entry(*name).or_default().rotate_after = None,
                // A file that is too long is better than none.
                Err(trouble) => say(&format!("log of `{name}`: {trouble}")),
            }
            facts = match self.still_there(name, now) {
                Some(facts) => facts,
                None => self.open(name, stamp, now)?,
            };
        }
        Ok(Target { identity: facts.identity, size: facts.size })
    }

    /// Whether the file gives way to a new one before it is this large.
    fn is_due(&self, name: &Name, size: u64, stamp: &Stamp) -> bool {
        let Some(service) = self.services.get(name) else { return false };
        let began = service.open.as_ref().map(|open| open.began);
        let now = parse_stamp(stamp.as_bytes()).map(|(seconds, _)| seconds);
        let age_s = began.zip(now).map_or(0, |(began, now)| now.saturating_sub(began));
        let old = service.rule.max_age_ms > 0 && age_s.saturating_mul(1000) >= service.rule.max_age_ms;
        size > service.rule.max_size || old
    }

    /// The open file, unless it has lost its name.
    fn still_there(&mut self, name: &Name, now: Instant) -> Option<Facts> {
        self.uses += 1;
        let uses = self.uses;
        let open = self.services.get_mut(name)?.open.as_mut()?;
        open.used = uses;
        let mut facts = dirs::facts(open.fd.as_fd()).ok().filter(|facts| facts.links > 0);
        if facts.is_some() && now.duration_since(open.looked_up) >= LOOK_EVERY {
            open.looked_up = now;
            let path = CString::new(format!("{name}/current")).ok()?;
            let named = self.root.as_ref()?.facts_of(&path);
            facts = facts.filter(|facts| named.is_ok_and(|named| named.identity == facts.identity));
        }
        if facts.is_none() {
            self.close(name);
        }
        facts
    }

    fn open(&mut self, name: &Name, stamp: &Stamp, now: Instant) -> Result<Facts, Trouble> {
        self.close(name);
        while self.open >= self.most_open {
            self.close_oldest();
        }
        let (fd, facts, began) = match self.open_below(name) {
            Err(trouble) if self.makes_room(&trouble.error) => self.open_below(name)?,
            outcome => outcome?,
        };
        if let Some(service) = self.services.get_mut(name) {
            let began = began.or_else(|| parse_stamp(stamp.as_bytes()).map(|(seconds, _)| seconds));
            service.open = Some(Open { fd, looked_up: now, used: self.uses, began: began.unwrap_or(0) });
            self.open += 1;
        }
        Ok(facts)
    }

    /// Whether something was done about this error, so that another try is worth it.
    fn makes_room(&mut self, error: &io::Error) -> bool {
        match error.kind() {
            // The whole log directory is gone: it is looked up by its path again.
            io::ErrorKind::NotFound if self.confined => {
                self.lost |= self.root.is_some();
                false
            }
            io::ErrorKind::NotFound => self.root.take().is_some(),
            // EMFILE and ENFILE: a few descriptors of our own are less needed.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => {
                (0..4).for_each(|_| self.close_oldest());
                true
            }
            _ => false,
        }
    }

    fn root(&mut self) -> Result<&Dir, Trouble> {
        let trouble = Trouble::new("opening the log directory", "");
        if self.root.is_none() {
            make_root(&self.path).map_err(&trouble)?;
            let path =
                CString::new(self.path.as_os_str().as_bytes()).map_err(|error| trouble(error.into()))?;
            self.root = Some(Dir::open(&path).map_err(&trouble)?);
        }
        self.root.as_ref().ok_or_else(|| trouble(io::ErrorKind::NotFound.into()))
    }

    fn enter(&mut self, name: &Name, make: bool) -> Result<Dir, Trouble> {
        let below = CString::new(name.as_str()).map_err(|error| Trouble::new("opening", "")(error.into()))?;
        let root = self.root()?;
        if make {
            root.make(&below, DIR_MODE).map_err(Trouble::new("making the directory", ""))?;
        }
        let dir = root.enter(&below).map_err(Trouble::new("opening the directory", ""))?;
        let facts = dir.facts().map_err(Trouble::new("opening the directory", ""))?;
        let us = confine::effective_uid();
        if facts.owner != us || facts.mode & 0o022 != 0 {
            let path = self.path.join(name.as_str());
            let path = path.display();
            let hint = format!("run `chown -R {us} {path} && chmod go-w {path}`");
            let error = io::Error::other("another user can write there");
            return Err(Trouble { doing: "opening the directory", file: "", error, hint: Some(hint) });
        }
        Ok(dir)
    }

    fn open_below(&mut self, name: &Name) -> Result<(OwnedFd, Facts, Option<u64>), Trouble> {
        let trouble = Trouble::new("opening", "current");
        let dir = self.enter(name, true)?;
        let fd = dir.append(CURRENT, FILE_MODE).map_err(&trouble)?;
        let facts = dirs::facts(fd.as_fd()).map_err(&trouble)?;
        if !facts.regular || facts.links != 1 {
            return Err(trouble(io::Error::other("not an ordinary file with one name")));
        }
        let began = if facts.size > 0 { first_second(&dir) } else { None };
        self.tidy(name, dir);
        Ok((fd, facts, began))
    }

    /// Has compressed what a predecessor left, once.
    fn tidy(&mut self, name: &Name, dir: Dir) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.tidied || !service.rule.compress {
            return;
        }
        service.tidied = true;
        if press::list(&dir).is_ok_and(|old| old.iter().any(|one| one.form != Form::Packed)) {
            self.press.ask(*name, dir);
        }
    }

    fn rotate(&mut self, name: &Name, stamp: &Stamp) -> Result<(), Trouble> {
        let trouble = Trouble::new("renaming `current`", "current");
        let dir = self.enter(name, false)?;
        dir.rename(CURRENT, &press::path(&Old::at(stamp), Form::Plain)).map_err(&trouble)?;
        self.close(name);
        let rule = self.rule(name);
        let old = press::list(&dir).map_err(Trouble::new("listing", ""))?;
        let mut kept: Option<Old> = None;
        let mut files = 0;
        for one in old.iter().rev().filter(|one| one.form != Form::Part) {
            files += u64::from(kept.is_none_or(|kept| !kept.is_same(one)));
            kept = Some(*one);
            if files > u64::from(rule.keep) {
                // Of two forms of one file the other may be gone already.
                match dir.remove(&press::path(one, one.form)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Trouble::new("removing an old file", "")(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        if rule.compress && rule.keep > 0 {
            self.press.ask(*name, dir);
        }
        Ok(())
    }

    /// Appends to the file that [`Shelf::target`] gave last for this service. On failure: how many bytes got
    /// there all the same, and why not all.
    pub fn append(&mut self, name: &Name, mut bytes: &[u8]) -> Result<(), (u64, Trouble)> {
        let trouble = Trouble::new("writing", "current");
        let mut done = 0;
        let Some(open) = self.services.get(name).and_then(|service| service.open.as_ref()) else {
            return Err((0, trouble(io::ErrorKind::NotFound.into())));
        };
        while !bytes.is_empty() {
            match fds::write(open.fd.as_fd(), bytes) {
                Ok(0) => return Err((done, trouble(io::ErrorKind::WriteZero.into()))),
                Ok(count) => {
                    done += count as u64;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(error) => return Err((done, trouble(error))),
            }
        }
        Ok(())
    }

    /// Cuts that file off at `size`.
    pub fn cut(&mut self, name: &Name, size: u64) -> Result<(), Trouble> {
        let trouble = Trouble::new("cutting off half a line", "current");
        match self.services.get(name).and_then(|service| service.open.as_ref()) {
            Some(open) => dirs::truncate(open.fd.as_fd(), size).map_err(trouble),
            None => Ok(()),
        }
    }

    /// Whether a predecessor's write of `length` bytes to the file `identity`, of the size `before`, came
    /// through. What is there of half a write is cut off.
    pub fn settle(
        &mut self,
        name: &Name,
        identity: Identity,
        before: u64,
        length: u64,
    ) -> Result<Written, Trouble> {
        let trouble = Trouble::new("looking at the last write", "current");
        let Ok(dir) = self.enter(name, false) else { return Ok(Written::Nothing) };
        let file = match dir.append_existing(CURRENT) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::Nothing),
            Err(error) => return Err(trouble(error)),
        };
        let facts = dirs::facts(file.as_fd()).map_err(&trouble)?;
        if facts.identity != identity || facts.size <= before {
            return Ok(Written::Nothing);
        }
        if facts.size >= before.saturating_add(length) {
            return Ok(Written::All);
        }
        dirs::truncate(file.as_fd(), before).map_err(&trouble)?;
        Ok(Written::Nothing)
    }
}

/// When the first entry of `current` was written.
fn first_second(dir: &Dir) -> Option<u64> {
    let (mut stamp, file) = ([0; STAMP_BYTES], dir.read(CURRENT).ok()?);
    let count = dirs::read_at(file.as_fd(), &mut stamp, 0).ok()?;
    parse_stamp(stamp.get(..count)?).map(|(seconds, _)| seconds)
}

/// Makes the log directory where there is none; true if it did.
pub fn make_root(path: &std::path::Path) -> io::Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    std::fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map(|()| true)
}
