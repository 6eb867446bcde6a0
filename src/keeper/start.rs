//! ROOT. The keeper's beginning: signals, tables, and what was carried here from before. The last place of
//! the keeper that allocates.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use super::children::{Child, Role};
use super::serve::Keeper;
use crate::sys::parent::Helper;
use crate::sys::slots::Slots;
use crate::sys::{clock, fds, memfd, parent, pipes};
use crate::wire::keeper::{Carried, Entry, Kind, exits};
use crate::wire::logger::{STATE_BYTES, TRAY_BYTES};
use crate::wire::settings::LogUser;

/// The keeper's own slots.
pub const EXITS_SLOT: u32 = 0;
const LOG_STATE_SLOT: u32 = 1;
const LOG_TRAY_SLOT: u32 = 2;

/// The most slots, whatever the limit on descriptors: the tables stay small.
const MOST_SLOTS: u64 = 65_536;
/// Descriptors below the limit that are not slots: our own, and a reserve.
const SPARE: u64 = 32;
/// Slots for each exit record that can be waiting: every registered process has several descriptors.
const SLOTS_PER_EXIT: usize = 4;

/// The arguments, understood.
pub struct Given {
    carried: Vec<Carried>,
    soft_nofile: Option<String>,
    log_dir: OsString,
    log_user: Option<LogUser>,
    manager: Vec<OsString>,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

impl Given {
    /// Reads the arguments and takes the carried table out of its memfd.
    pub fn from_arguments(arguments: Vec<OsString>) -> io::Result<Self> {
        let mut given = Self {
            carried: Vec::new(),
            soft_nofile: None,
            log_dir: OsString::new(),
            log_user: None,
            manager: Vec::new(),
        };
        let mut rest = arguments.into_iter();
        while let Some(option) = rest.next() {
            if option == "--" {
                given.manager = rest.collect();
                return Ok(given);
            }
            let value = rest.next().ok_or_else(|| wrong("an option without a value"))?;
            match option.to_str() {
                Some("--carried") => {
                    let number: RawFd = value
                        .to_str()
                        .and_then(|text| text.parse().ok())
                        .ok_or_else(|| wrong("--carried"))?;
                    let table = fds::inherited(number)?;
                    given.carried = Carried::decode_all(&memfd::content(table.as_fd())?);
                }
                Some("--soft-nofile") => given.soft_nofile = value.into_string().ok(),
                Some("--log-dir") => given.log_dir = value,
                Some("--log-user") => {
                    let user = value.to_str().and_then(LogUser::parse);
                    given.log_user = Some(user.ok_or_else(|| wrong("--log-user"))?);
                }
                _ => return Err(wrong("an unknown option")),
            }
        }
        Ok(given)
    }
}

/// Makes the tables and the three children's programs. Starts nothing yet.
pub fn start(given: Given) -> io::Result<Keeper> {
    fds::fill_standard()?;
    let (soft, hard) = parent::raise_descriptor_limit()?;
    let soft = given.soft_nofile.unwrap_or_else(|| soft.to_string());
    let mut slots = Slots::new(hard.saturating_sub(SPARE).min(MOST_SLOTS) as usize);
    // Own every carried descriptor before anything else can take its number.
    for carried in given.carried {
        let fd = fds::inherited(carried.fd)?;
        fds::set_cloexec(fd.as_fd(), true)?;
        slots.put(carried.entry, fd);
    }
    fds::close_on_exec_from(3)?;
    let signals = parent::take_signals()?;
    parent::become_subreaper()?;
    protect_from_oom();
    let places = slots.len() / SLOTS_PER_EXIT;
    own(&mut slots, EXITS_SLOT, Kind::Exits, || memfd::fixed(c"supervise-exits", exits::bytes(places)))?;
    own(&mut slots, LOG_STATE_SLOT, Kind::LogState, || memfd::fixed(c"supervise-log", STATE_BYTES))?;
    own(&mut slots, LOG_TRAY_SLOT, Kind::LogTray, || pipes::tray(TRAY_BYTES))?;
    let exits = map_exits(&slots)?;
    let me = std::process::id().to_string();
    let strings = |list: &[&str]| list.iter().map(|one| OsString::from(*one)).collect::<Vec<_>>();
    let mut logger = strings(&["supervise", "logger", "--parent", &me, "--log-dir"]);
    logger.push(given.log_dir);
    if let Some(user) = given.log_user {
        logger.extend(strings(&["--uid", &user.uid.to_string(), "--gid", &user.gid.to_string()]));
    }
    let mut manager = strings(&["supervise", "manager", "--soft-nofile", &soft]);
    manager.extend(given.manager);
    Ok(Keeper::new(
        slots,
        exits,
        signals,
        parent::own_binary()?,
        clock::monotonic_ns() ^ u64::from(std::process::id()),
        [
            Child::new(
                Role::Zygote,
                Helper::of(strings(&["supervise", "zygote", "--parent", &me]), std::iter::empty())?,
            ),
            Child::new(Role::Logger, Helper::of(logger, std::iter::empty())?),
            Child::new(Role::Manager, Helper::of(manager, std::env::vars_os())?),
        ],
    ))
}

/// Makes a descriptor of the keeper's own unless one was carried here.
fn own(
    slots: &mut Slots,
    slot: u32,
    kind: Kind,
    make: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<()> {
    if slots.get(slot).is_none() {
        slots.put(Entry { slot, kind: kind as u32, id: 0, pid: 0 }, make()?);
    }
    Ok(())
}

fn map_exits(slots: &Slots) -> io::Result<memfd::Map> {
    let (_, fd) = slots.get(EXITS_SLOT).ok_or_else(|| wrong("no memfd of exits"))?;
    let map = memfd::Map::new(fd, true)?;
    if let Some(places) = map.word64(exits::PLACES) {
        let count = (map.len().saturating_sub(exits::HEADER) / exits::RECORD) as u64;
        places.store(count, Ordering::Release);
    }
    Ok(map)
}

/// As long as one process of this machine survives a shortage of memory, it should be this one. An ordinary
/// user may not ask for that, and then does without.
fn protect_from_oom() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}
