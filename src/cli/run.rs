//! USER. The beginning of `run`: the runtime directory, its lock, what a dead keeper left, and then the
//! keeper in place of this process. Never reads a unit.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use super::exit::Exit;
use super::trouble::{self, Trouble, reason, say, shown_path};
use crate::plan::Resource;
use crate::sys::link::Link;
use crate::sys::{clock, fds, files, limits, lock, memfd, parent, peer, signals, sockets};
use crate::wire::handover::{keeper_arguments, lock_in, socket_in};
use crate::wire::keeper::{BATCH, Carried, ENTRY, Entry, FIRST_FREE_SLOT, HEAD, Head, Kind, MESSAGE, Verb};
use crate::wire::settings::{LogUser, Settings};

/// The keeper's slot of the runtime directory's lock.
const LOCK_SLOT: u32 = 3;
/// The least limit on open files with which a service can be started: what we have open ourselves, and a few.
const LEAST_DESCRIPTORS: u64 = 128;
/// The number of the first socket that an init gives.
const FIRST_GIVEN: RawFd = 3;
/// Milliseconds for which a manager that has lost its keeper is looked for, while the lock is held and its
/// holder is dead.
const HANDOVER_MS: u64 = 5_000;
/// What tells `run` to stop.
const STOPPING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
/// Milliseconds that it has for each answer.
const ANSWER_MS: u64 = 5_000;

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::plain(Exit::Failed, reason(&error))
    }
}

/// Becomes the keeper; only returns where that fails.
pub fn start(settings: &Settings, ready_fd: Option<RawFd>) -> ExitCode {
    match try_start(&Settings { log_user: log_user(settings), ..settings.clone() }, ready_fd) {
        Ok(never) => match never {},
        Err(refused) => trouble::tell(&refused),
    }
}

/// The account that is to write the logs: the system's own for it, where root starts and there is one. A log
/// directory that is root's stays root's, since nothing that is in there would be the account's; that is said.
fn log_user(settings: &Settings) -> Option<LogUser> {
    if files::effective_user() != 0 {
        return None;
    }
    let user = LogUser::in_passwd(&std::fs::read_to_string("/etc/passwd").ok()?)?;
    let owner = std::fs::metadata(&settings.log_dir).map(|data| data.uid());
    if owner.is_ok_and(|owner| owner != user.uid) {
        let (name, path) = (LogUser::NAME, shown_path(&settings.log_dir));
        say(&format!(
            "supervise: {path} does not belong to `{name}`: the logger runs as root without capabilities\n\
             hint: stop supervise, run `chown -R {name}: {path}`, start it again"
        ));
        return None;
    }
    Some(user)
}

fn try_start(settings: &Settings, ready_fd: Option<RawFd>) -> Result<Infallible, Trouble> {
    fds::fill_standard()?;
    let from_above = from_above(ready_fd)?;
    // Whatever a sloppy parent left open is nobody's business below.
    fds::close_on_exec_from(3)?;
    let (soft, hard) = limits::limit(Resource::Nofile)?;
    if hard < LEAST_DESCRIPTORS {
        let text = format!("the limit on open files is {hard}, and a start needs {LEAST_DESCRIPTORS}");
        return Err(Trouble::plain(Exit::Failed, text).hint(
            "raise the hard limit: `ulimit -Hn`, `LimitNOFILE=`, `--ulimit nofile=`; each service takes 7",
        ));
    }
    let binary = parent::own_binary().map_err(|error| {
        Trouble::plain(Exit::Failed, format!("opening /proc/self/exe: {}", reason(&error)))
            .hint("mount /proc; `supervise init -- COMMAND` runs one command without it")
    })?;
    // What claim takes may be all that is left of a dead keeper's: from here on nothing ends this process but itself.
    parent::hold_signals();
    let mut carried = claim(settings)?;
    let used = carried.iter().map(|(entry, _)| entry.slot + 1).max().unwrap_or_default();
    for ((kind, id, fd), slot) in from_above.into_iter().zip(used.max(FIRST_FREE_SLOT)..) {
        carried.push((Entry { slot, kind: kind as u32, id, pid: 0 }, fd));
    }
    let mut table = Vec::new();
    for (entry, fd) in &carried {
        fds::set_cloexec(fd.as_fd(), false)?;
        table.push(Carried { entry: *entry, fd: fd.as_raw_fd() });
    }
    let table = memfd::sealed(c"supervise-carried", &Carried::encode_all(&table))?;
    fds::set_cloexec(table.as_fd(), false)?;
    let arguments = keeper_arguments(table.as_raw_fd(), soft, settings);
    let keeper = parent::Helper::of(arguments, std::env::vars_os())?;
    Err(keeper.replace(binary.as_fd()).into())
}

/// What the init above has left open for us: the descriptor on which it waits, and the sockets that it names
/// (sd_listen_fds(3)), where it is us that it means.
fn from_above(ready_fd: Option<RawFd>) -> Result<Vec<(Kind, u64, OwnedFd)>, Trouble> {
    let mut found = Vec::new();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or_default(),
        Some(_) | None => 0,
    };
    for place in 0..count {
        let fd = FIRST_GIVEN.saturating_add_unsigned(place);
        let socket = fds::inherited(fd).map_err(|error| {
            let text = format!("LISTEN_FDS={count}: descriptor {fd}: {}", reason(&error));
            Trouble::plain(Exit::Failed, text)
                .hint("what starts supervise promises sockets that it does not give")
        })?;
        if Some(fd) == ready_fd {
            return Err(Trouble::plain(
                Exit::Failed,
                format!("`--ready-fd {fd}`: that is one of the {count} sockets of LISTEN_FDS"),
            ));
        }
        found.push((Kind::Given, place.into(), socket));
    }
    // Server::Starter gives no names: its sockets are told by their addresses. A variable may be left over, and what it
    // says then is no mistake of ours.
    let ports = std::env::var("SERVER_STARTER_PORT").unwrap_or_default();
    let ports = ports.split(';').filter_map(|one| one.rsplit_once('=')?.1.parse::<RawFd>().ok());
    for fd in ports.filter(|fd| *fd >= FIRST_GIVEN && Some(*fd) != ready_fd) {
        let is_new = found.iter().all(|(_, _, one)| one.as_raw_fd() != fd);
        if is_new && let Ok(socket) = fds::inherited(fd) {
            found.push((Kind::Given, found.len() as u64, socket));
        }
    }
    if let Some(fd) = ready_fd {
        let announce = fds::inherited(fd).map_err(|error| {
            Trouble::plain(Exit::Failed, format!("`--ready-fd {fd}`: {}", reason(&error)))
                .hint("the number is that in the file `notification-fd` of an s6 service directory")
        })?;
        found.push((Kind::Announce, 0, announce));
    }
    Ok(found)
}

/// The lock, or everything that a dead keeper's manager still has. Nothing at all where there can be no
/// runtime directory: then there is no control socket either, and that is said once.
fn claim(settings: &Settings) -> Result<Vec<(Entry, OwnedFd)>, Trouble> {
    let directory = &settings.runtime_dir;
    let mode = if files::effective_user() == 0 { 0o755 } else { 0o700 };
    let without = |error: &io::Error| {
        let (shown, reason) = (directory.display(), reason(error));
        say(&format!(
            "supervise: no runtime directory at {shown}: {reason}; running without a control socket"
        ));
        Ok(Vec::new())
    };
    if let Err(error) = files::make_directory(directory, mode) {
        return without(&error);
    }
    let path = lock_in(directory);
    match files::try_lock(&path) {
        Ok(Some(file)) => Ok(claimed(file, &path)),
        Ok(None) => take_over(directory, &path),
        Err(error) if can_write_nothing(&error, &path) => without(&error),
        Err(error) => {
            let text = format!("taking the lock {}: {}", path.display(), reason(&error));
            Err(Trouble::plain(Exit::Failed, text)
                .hint("another user's supervisor? give this one its own `--runtime-dir`"))
        }
    }
}

/// Whether nobody could have taken the lock, rather than somebody has it who is not us.
fn can_write_nothing(error: &io::Error, lock: &Path) -> bool {
    match error.raw_os_error() {
        Some(libc::EROFS | libc::ENOSPC | libc::EDQUOT) => true,
        Some(libc::EACCES | libc::EPERM) => std::fs::symlink_metadata(lock)
            .is_err_and(|error| matches!(error.kind(), io::ErrorKind::NotFound)),
        _ => false,
    }
}

/// The lock that is ours now. A manager that waits for a keeper holds it, so what lies there for one is left by a dead one.
fn claimed(file: File, path: &Path) -> Vec<(Entry, OwnedFd)> {
    claim_lock(file.as_fd(), path);
    let stale = socket_in(path.parent().unwrap_or(Path::new("/")));
    let gone = match std::fs::symlink_metadata(&stale) {
        Ok(data) if data.file_type().is_socket() => std::fs::remove_file(&stale),
        Ok(_) | Err(_) => Ok(()),
    };
    if let Err(error) = gone {
        say(&format!("supervise: removing {}: {}", stale.display(), reason(&error)));
    }
    let entry = Entry { slot: LOCK_SLOT, kind: Kind::Lock as u32, id: 0, pid: 0 };
    vec![(entry, file.into())]
}

/// Says in the lock who holds it. Where that cannot be written it is held all the same.
fn claim_lock(lock: BorrowedFd<'_>, path: &Path) {
    if let Err(error) = lock::claim(lock) {
        say(&format!("supervise: writing into the lock {}: {}", path.display(), reason(&error)));
    }
}

/// Somebody holds the lock: a living keeper is not to be disturbed; a manager that has lost its keeper hands
/// everything over. Told to stop meanwhile, there is nothing to stop.
fn take_over(directory: &Path, path: &Path) -> Result<Vec<(Entry, OwnedFd)>, Trouble> {
    let deadline = clock::monotonic_ms() + HANDOVER_MS;
    loop {
        if let Ok(Some(_)) = signals::take_pending(&STOPPING) {
            return Err(Trouble::plain(Exit::Done, "stopping: nothing has been started yet"));
        }
        if let Some(pid) = lock::living_holder(path) {
            let text = format!("a supervisor (pid {pid}) already runs in {}", directory.display());
            return Err(Trouble::plain(Exit::Failed, text)
                .hint("`supervise status` shows what it does; another one needs its own `--runtime-dir`"));
        }
        // Of one that was killed whole the last process may have been about to end.
        if let Ok(Some(file)) = files::try_lock(path) {
            return Ok(claimed(file, path));
        }
        match take_from(&socket_in(directory)) {
            Ok(taken) => {
                for (entry, fd) in &taken {
                    if entry.kind == Kind::Lock as u32 {
                        claim_lock(fd.as_fd(), path);
                    }
                }
                return Ok(taken);
            }
            Err(error) if clock::monotonic_ms() >= deadline => {
                let text = format!(
                    "the lock {} is held, and nobody hands over what a dead supervisor left: {}",
                    path.display(),
                    reason(&error)
                );
                return Err(Trouble::plain(Exit::Failed, text).hint("`fuser` on the lock names who holds it"));
            }
            Err(_) => parent::wait(&[], 20, &mut [])?,
        }
    }
}

fn take_from(path: &Path) -> io::Result<Vec<(Entry, OwnedFd)>> {
    let directory = files::open_directory(path.parent().unwrap_or(Path::new("/")))?;
    let path = sockets::within_reach(directory.as_fd(), path);
    let connection = sockets::connect_unix(&path, libc::SOCK_SEQPACKET)?;
    let who = peer::credentials(&connection)?;
    if who.uid != 0 && who.uid != files::effective_user() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let link = Link::from_fd(connection);
    let mut taken = Vec::new();
    let mut from = Some(0);
    while let Some(slot) = from {
        let mut head = Head::plain(Verb::Give, 0);
        head.entry.slot = slot;
        link.send(&head.encode(), &[])?;
        let next = take_batch(&link, &mut taken)?;
        from = (next != 0).then_some(next);
    }
    link.send(&Head::plain(Verb::Ready, 0).encode(), &[])?;
    // The other side ends now; what it had is ours alone when its end is seen.
    wait_for(link.as_fd(), ANSWER_MS)?;
    Ok(taken)
}

fn take_batch(link: &Link, taken: &mut Vec<(Entry, OwnedFd)>) -> io::Result<u32> {
    let wrong = || io::Error::other("it said something that makes no sense");
    wait_for(link.as_fd(), ANSWER_MS)?;
    let mut bytes = [0; MESSAGE];
    let mut places: [Option<OwnedFd>; BATCH] = [const { None }; BATCH];
    let got = link.receive(&mut bytes, &mut places)?.ok_or_else(|| io::Error::other("it has ended"))?;
    let head = bytes.get(..got.bytes).and_then(Head::decode).ok_or_else(wrong)?;
    if head.verb != Verb::Batch {
        return Err(wrong());
    }
    let entries = bytes.get(HEAD..got.bytes).unwrap_or_default();
    for (piece, place) in entries.chunks_exact(ENTRY).zip(&mut places) {
        let entry = Entry::decode(piece).ok_or_else(wrong)?;
        taken.push((entry, place.take().ok_or_else(wrong)?));
    }
    Ok(head.entry.slot)
}

fn wait_for(fd: BorrowedFd<'_>, most_ms: u64) -> io::Result<()> {
    let mut ready = [false];
    parent::wait(&[fd], most_ms as i32, &mut ready)?;
    if ready == [true] { Ok(()) } else { Err(io::Error::from(io::ErrorKind::TimedOut)) }
}
