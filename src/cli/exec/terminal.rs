//! USER. The client's own terminal, lent to a command: raw while that runs, its window carried over, and put back on
//! every way out. Never shows a byte of its own.
//!
//! What is typed goes to the command's terminal as it is, Ctrl-C and Ctrl-Z too: that one turns them into signals
//! there. So signals that come to this process are meant for it, and each of them is a way out.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::pty::{self, Manner, Window};
use crate::sys::signals;
use crate::wire::exec::Terminal;

/// What ends this process, so that its terminal has to be put back before.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
/// What else is heard.
const HEARD: [i32; 3] = [libc::SIGWINCH, libc::SIGTSTP, libc::SIGCONT];
/// How long nothing may come of a command that has ended before its output counts as read: something else may hold
/// its terminal open.
const QUIET: Duration = Duration::from_millis(300);
/// How long what is left may take in all, for a slow terminal and much of it.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long between looks at a terminal that nobody has open while the command runs: it may open it again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Ends an input that is no terminal, as Ctrl-D does.
const END_OF_INPUT: u8 = 4;
/// The window of one that is not on a terminal at all.
const ORDINARY: Window = Window { rows: 24, columns: 80, pixels: (0, 0) };

/// What has become of this process's terminal.
#[derive(Clone, Copy)]
enum Own {
    /// It is as it was.
    Kept,
    /// It is raw, and was like this.
    Lent(Manner),
    /// It is as it was, and stays so.
    Done,
}

static OWN: Mutex<Own> = Mutex::new(Own::Kept);

/// What the supervisor has to know of this terminal.
pub fn here() -> Terminal {
    let window = own_window().unwrap_or(ORDINARY);
    let name = std::env::var("TERM").unwrap_or_default();
    let term = if Terminal::is_name(&name) { name } else { "dumb".to_owned() };
    Terminal { term, rows: window.rows, columns: window.columns }
}

fn own_window() -> Option<Window> {
    let there = |window: &Window| window.rows > 0 && window.columns > 0;
    let all = [pty::window(io::stdout().as_fd()), pty::window(io::stdin().as_fd())];
    all.into_iter().filter_map(Result::ok).find(there)
}

/// The command's terminal as it is joined to this one.
pub struct Joined {
    ended: Receiver<()>,
    shown: Arc<AtomicU64>,
    /// Whether the command has ended, so that nobody opens its terminal again.
    over: Arc<AtomicBool>,
}

/// Joins them, and makes this one raw. Before any other thread: all of them are to block what one waits for.
pub fn join(master: OwnedFd) -> io::Result<Joined> {
    let heard = block()?;
    // What a panic says is to be read on a terminal that is as it was.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        put_back(Own::Done);
        before(panic);
    }));
    let master = Arc::new(File::from(master));
    lend()?;
    carry_window(&master);
    let for_signals = Arc::clone(&master);
    thread::spawn(move || heed(&heard, &for_signals));
    let for_input = Arc::clone(&master);
    thread::spawn(move || type_in(&for_input));
    let (ending, ended) = mpsc::channel();
    let shown = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let (count, is_over) = (Arc::clone(&shown), Arc::clone(&over));
    thread::spawn(move || {
        show(&master, &count, &is_over);
        let _ = ending.send(());
    });
    Ok(Joined { ended, shown, over })
}

impl Joined {
    /// The command has ended: what it has written comes to its end, and the terminal is this process's again.
    pub fn part(self) {
        self.over.store(true, Ordering::Release);
        let began = Instant::now();
        let mut shown = self.shown.load(Ordering::Relaxed);
        while began.elapsed() < LAST_WORDS {
            match self.ended.recv_timeout(QUIET) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.shown.load(Ordering::Relaxed);
                    if now == shown {
                        break;
                    }
                    shown = now;
                }
            }
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        put_back(Own::Done);
    }
}

/// Blocks what is waited for; which of it. What this process was started to ignore, as `nohup` has it, stays so.
fn block() -> io::Result<Vec<i32>> {
    let mut heard = Vec::new();
    signals::block(&[&ENDING[..], &HEARD[..], &[libc::SIGTTOU]].concat())?;
    for number in ENDING.into_iter().chain(HEARD) {
        match signals::default_one(number)? {
            true => signals::ignore(number)?,
            false => heard.push(number),
        }
    }
    Ok(heard)
}

/// Makes this terminal raw, where standard input is one.
fn lend() -> io::Result<()> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Ok(());
    }
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*own, Own::Kept) && pty::is_in_front(input.as_fd()) {
        let manner = Manner::of(input.as_fd())?;
        *own = Own::Lent(manner);
        manner.raw().set(input.as_fd())?;
    }
    Ok(())
}

/// Puts the terminal back as it was. One that is no longer ours by then has been put back by its shell.
fn put_back(then: Own) {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let input = io::stdin();
    if let Own::Lent(manner) = std::mem::replace(&mut *own, then)
        && pty::is_in_front(input.as_fd())
    {
        let _ = manner.set(input.as_fd());
    }
}

fn leave(signal: i32) -> ! {
    put_back(Own::Done);
    std::process::exit(128 + signal)
}

fn carry_window(master: &File) {
    if let Some(window) = own_window() {
        let _ = pty::set_window(master.as_fd(), window);
    }
}

/// Heeds signals for as long as this process lives.
fn heed(heard: &[i32], master: &File) {
    while let Ok(got) = signals::wait_for(heard) {
        match got.signal {
            libc::SIGWINCH => carry_window(master),
            libc::SIGTSTP => {
                put_back(Own::Kept);
                let _ = signals::deliver(libc::SIGTSTP);
                let _ = lend(); // at once where nothing stops us, as without a shell above
                carry_window(master);
            }
            libc::SIGCONT => {
                let _ = lend();
                carry_window(master);
            }
            signal => leave(signal),
        }
    }
}

/// Input to the command's terminal, until the end of either.
fn type_in(master: &File) {
    let mut bytes = [0; 4 * 1024];
    let mut input = io::stdin();
    let is_terminal = input.is_terminal();
    let (mut master, mut last) = (master, b'\n');
    while let Ok(count @ 1..) = input.read(&mut bytes) {
        let part = bytes.get(..count).unwrap_or_default();
        last = part.last().copied().unwrap_or(last);
        if master.write_all(part).is_err() {
            return; // the command has ended, and that is told elsewhere
        }
    }
    // A terminal that ends has gone, and its session goes with it; anything else has just been read to its end.
    if is_terminal {
        leave(libc::SIGHUP);
    }
    let begun_line = if last == b'\n' { &[][..] } else { &[END_OF_INPUT][..] };
    let _ = master.write_all(begun_line).and_then(|()| master.write_all(&[END_OF_INPUT]));
}

/// Output of the command's terminal as it is, until nobody has that open any more and the command has ended.
fn show(master: &File, shown: &AtomicU64, over: &AtomicBool) {
    let mut bytes = [0; 16 * 1024];
    let mut master = master;
    let mut output = io::stdout().lock();
    loop {
        // Before the look: what it has written until its end is then there.
        let was_over = over.load(Ordering::Acquire);
        let count = match master.read(&mut bytes) {
            Ok(count @ 1..) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) if was_over => return,
            Ok(_) | Err(_) => {
                thread::park_timeout(LOOK_AGAIN);
                continue;
            }
        };
        let part = bytes.get(..count).unwrap_or_default();
        match output.write_all(part).and_then(|()| output.flush()) {
            Ok(()) => {}
            // Who was to see it has gone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => {
                leave(libc::SIGHUP)
            }
            Err(error) => {
                put_back(Own::Done);
                crate::cli::trouble::say(&format!("supervise: {}", super::not_written(&error)));
                std::process::exit(super::OURS.into());
            }
        }
        shown.fetch_add(count as u64, Ordering::Relaxed);
    }
}
