//! LOG. The services' pipes to files. Never holds a capability.
//!
//! `supervise logger --log-dir DIR --parent PID [--uid N --gid N]`, started by the keeper with these descriptors: 3 the
//! link to the manager (`wire::logger`), 4 the state memfd, 5 the tray (`state`). It may be killed at any
//! moment: its successor, with the same descriptors and pipes, writes every line once. `--journal` and `--syslog`
//! say where those two listen, if not in their usual places.
//!
//! The pipes are the buffer. While no logger runs services write into them, and wait when they are full.

mod away;
mod glass;
mod intake;
mod press;
mod say;
mod shelf;
mod state;
mod stream;
mod trail;
mod troubles;
mod turn;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::sys::link::Link;
use crate::sys::pipes::Void;
use crate::sys::{clock, confine, dirs, fds};

use away::Away;
use glass::Glass;
use intake::{Intake, LOOK_BYTES};
use shelf::Shelf;
use state::State;
use turn::Logger;

const LINK_FD: i32 = 3;
const STATE_FD: i32 = 4;
const TRAY_FD: i32 = 5;

/// Files open at once; the least used is closed for the next one.
const MOST_OPEN: u64 = 512;

/// Why there is no logger.
enum Failed {
    Usage(&'static str),
    Step(&'static str, io::Error),
    Orphan,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Usage(what) => {
                write!(
                    out,
                    "{what}\nhint: this command is for `supervise run` alone; it starts its own logger"
                )
            }
            Failed::Step(doing, error) => write!(out, "{doing}: {}", say::reason(error)),
            Failed::Orphan => out.write_str("started by a process that is gone"),
        }
    }
}

fn step(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed::Step(doing, error)
}

/// The process. Exit status: 0 when the manager's end of the link closed or a drain was over, 2 for wrong
/// arguments, else 1.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            say::say(&failed.to_string());
            ExitCode::from(match failed {
                Failed::Usage(_) => 2,
                Failed::Step(..) | Failed::Orphan => 1,
            })
        }
    }
}

fn run(args: Vec<OsString>) -> Result<(), Failed> {
    let arguments = Arguments::parse(args)?;
    let inherited = |number| fds::inherited(number).map_err(step("taking the descriptors from the keeper"));
    let (link, state, tray) = (inherited(LINK_FD)?, inherited(STATE_FD)?, inherited(TRAY_FD)?);
    confine::ignore_group_signals();
    dirs::set_umask(0o022);
    let descriptors = confine::raise_descriptor_limit().map_err(step("raising the limit of open files"))?;
    let away = Away::new(&arguments.journal, &arguments.syslog);
    let void = Void::open();
    let glass = Glass::new(LOOK_BYTES).map_err(step("making the pipes of our own"))?;
    arguments.give_up_rights()?;
    let state = State::take(state, tray, void).map_err(step("taking over the state of the last logger"))?;
    let mut shelf = Shelf::new(arguments.log_dir, (descriptors / 4).min(MOST_OPEN) as usize);
    clock::local(0); // reads where we are while that can be read
    if let Some(root) = shelf.confine()
        && let Err(error) = confine::only_below(root)
    {
        // A container's filter may refuse it; it is a second wall behind the first.
        say::say(&format!("giving up all other files: {}", say::reason(&error)));
    }
    let mut intake = Intake::new(state, shelf, away, glass);
    if let Some(trouble) = intake.recover().map_err(step("reading the state of the last logger"))? {
        say::say(&format!("the last write may be there twice: {trouble}"));
    }
    let link = Link::from_fd(link);
    fds::set_nonblocking(std::os::fd::AsFd::as_fd(&link), true).map_err(step("setting up the link"))?;
    let mut logger = Logger::new(intake, link).map_err(step("setting up the loop"))?;
    logger.run().map_err(step("waiting for output"))
}

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    log_dir: PathBuf,
    parent: u32,
    user: Option<(u32, u32)>,
    journal: PathBuf,
    syslog: PathBuf,
}

impl Arguments {
    fn parse(args: Vec<OsString>) -> Result<Self, Failed> {
        let (mut log_dir, mut parent, mut uid, mut gid) = (None, None, None, None);
        let (mut journal, mut syslog) = (PathBuf::from(away::JOURNAL), PathBuf::from(away::SYSLOG));
        let mut args = args.into_iter();
        while let Some(option) = args.next() {
            let value = args.next().ok_or(Failed::Usage("an option without its value"))?;
            let number = value.to_str().and_then(|value| value.parse::<u32>().ok());
            match option.to_str() {
                Some("--log-dir") => log_dir = Some(PathBuf::from(value)),
                Some("--journal") => journal = PathBuf::from(value),
                Some("--syslog") => syslog = PathBuf::from(value),
                Some("--parent") => parent = number,
                Some("--uid") => uid = Some(number.ok_or(Failed::Usage("`--uid` takes a number"))?),
                Some("--gid") => gid = Some(number.ok_or(Failed::Usage("`--gid` takes a number"))?),
                _ => return Err(Failed::Usage("an option that does not exist")),
            }
        }
        let user = match (uid, gid) {
            (None, None) => None,
            // -1 means "leave it as it is" to the kernel.
            (Some(uid), Some(gid)) if uid != u32::MAX && gid != u32::MAX => Some((uid, gid)),
            _ => return Err(Failed::Usage("`--uid` and `--gid` go together and are below 4294967295")),
        };
        Ok(Self {
            log_dir: log_dir.ok_or(Failed::Usage("`--log-dir` is missing"))?,
            parent: parent.ok_or(Failed::Usage("`--parent` is missing or no number"))?,
            user,
            journal,
            syslog,
        })
    }

    /// From here on: the own user, no capability, and no life without the parent.
    fn give_up_rights(&self) -> Result<(), Failed> {
        let made = shelf::make_root(&self.log_dir);
        confine::empty_bounding_set().map_err(step("emptying the capability bounding set"))?;
        if let Some((uid, gid)) = self.user {
            if matches!(made, Ok(true)) {
                chown(&self.log_dir, Some(uid), Some(gid))
                    .map_err(step("giving the log directory to the logger"))?;
            }
            confine::become_user(uid, gid).map_err(step("changing to the logger's user"))?;
        }
        confine::drop_capabilities().map_err(step("giving up capabilities"))?;
        match confine::die_with(self.parent).map_err(step("asking to end with the keeper"))? {
            true => Ok(()),
            false => Err(Failed::Orphan),
        }
    }
}
