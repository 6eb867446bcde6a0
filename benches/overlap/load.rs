//! An open-loop load: requests begin when they are due, whatever became of those before, and every failure is
//! kept with its reason. Never waits for one to begin the next, as long as a client is free.
//!
//! A latency counts from the moment when the request was due, so that a client that was held up does not hide
//! what held it up. With keep-alive a client uses its connection again; one that the server closed while it
//! was idle lets HTTP ask once more on a new connection (RFC 9112, section 9.3.1): such resets are counted
//! apart, and the request's latency still counts from when it was due.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of stack for a client.
const STACK: usize = 128 * 1024;
/// The largest answer that makes sense here.
const MOST_BODY: usize = 64 * 1024;

/// Where to.
#[derive(Clone, Debug)]
pub enum Target {
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What to ask for, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to; each client stays with one, and they take turns.
    pub targets: Vec<Target>,
    /// The path that is asked for.
    pub path: &'static str,
    /// Requests a second, over all clients.
    pub per_second: u32,
    /// How many requests can be under way at once.
    pub clients: u32,
    /// Whether a client keeps its connection.
    pub keep_alive: bool,
}

/// What came of the requests of one phase.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Microseconds from when each was due to the end of its answer.
    pub latencies_us: Vec<u64>,
    /// Why the others were not answered with 200.
    pub failures: Vec<String>,
    /// Idle connections that turned out to be closed when they were used again.
    pub stale: usize,
}

impl Phase {
    /// The microseconds within which so many of a thousand were answered.
    pub fn quantile_us(&self, thousandths: usize) -> u64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * thousandths / 1_000).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn asked(&self) -> usize {
        self.latencies_us.len() + self.failures.len()
    }
}

struct Shared {
    plan: Plan,
    began: Instant,
    tickets: AtomicU64,
    phase: AtomicU32,
    stop: AtomicBool,
    phases: Mutex<Vec<Phase>>,
}

/// A load that goes on until it is ended.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins; what follows is the first phase.
    pub fn start(plan: Plan) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            tickets: AtomicU64::new(0),
            phase: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            phases: Mutex::new(vec![Phase::default()]),
            plan,
        });
        let mut clients = Vec::new();
        for number in 0..shared.plan.clients {
            let shared = Arc::clone(&shared);
            clients.push(Builder::new().stack_size(STACK).spawn(move || client(&shared, number as usize))?);
        }
        Ok(Self { shared, clients })
    }

    /// What is due from here on belongs to a new phase.
    pub fn next_phase(&self) {
        if let Ok(mut phases) = self.shared.phases.lock() {
            phases.push(Phase::default());
        }
        self.shared.phase.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins no more, waits for those under way, and tells of each phase.
    pub fn end(self) -> Vec<Phase> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            let _ = client.join();
        }
        self.shared.phases.lock().map(|mut phases| std::mem::take(&mut *phases)).unwrap_or_default()
    }
}

/// Lets time pass until `at`, to the fraction of a millisecond that poll(2) allows.
pub fn reach(at: Instant) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left < Duration::from_millis(1) {
            std::thread::yield_now();
            continue;
        }
        let _ = poll(&mut [], PollTimeout::from(u16::try_from(left.as_millis()).unwrap_or(u16::MAX)));
    }
}

fn client(shared: &Shared, number: usize) {
    let Some(target) = shared.plan.targets.get(number % shared.plan.targets.len()) else { return };
    let mut kept: Option<Connection> = None;
    loop {
        let ticket = shared.tickets.fetch_add(1, Ordering::SeqCst);
        let due = shared.began + Duration::from_secs(1) * ticket as u32 / shared.plan.per_second;
        reach(due);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let phase = shared.phase.load(Ordering::SeqCst) as usize;
        let (result, stale) = ask(target, &shared.plan, &mut kept);
        let took = due.elapsed().as_micros() as u64;
        let Ok(mut phases) = shared.phases.lock() else { return };
        let Some(phase) = phases.get_mut(phase) else { continue };
        phase.stale += usize::from(stale);
        match result {
            Ok(()) => phase.latencies_us.push(took),
            Err(why) => {
                let at = shared.began.elapsed().as_millis();
                phase.failures.push(format!("after {at} ms, {target:?}: {why}"));
            }
        }
    }
}

/// One request; whether a kept connection turned out to be closed.
fn ask(target: &Target, plan: &Plan, kept: &mut Option<Connection>) -> (Result<(), String>, bool) {
    let mut stale = false;
    if let Some(mut connection) = kept.take() {
        match connection.ask(plan) {
            Ok(again) => {
                *kept = again.then_some(connection);
                return (Ok(()), false);
            }
            // Not a byte of an answer has come: the server had closed it before.
            Err(Broken { begun: false, .. }) => stale = true,
            Err(broken) => return (Err(broken.why), false),
        }
    }
    let fresh = Connection::open(target).map_err(|error| format!("connecting: {error}"));
    let result = fresh.and_then(|mut connection| {
        let again = connection.ask(plan).map_err(|broken| broken.why)?;
        *kept = again.then_some(connection);
        Ok(())
    });
    (result, stale)
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

struct Broken {
    /// Part of an answer had come.
    begun: bool,
    why: String,
}

impl Connection {
    fn open(target: &Target) -> io::Result<Self> {
        let stream: Box<dyn Stream> = match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks once; whether the connection may be used again.
    fn ask(&mut self, plan: &Plan) -> Result<bool, Broken> {
        let close = if plan.keep_alive { "" } else { "Connection: close\r\n" };
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n", plan.path);
        let before = |error: io::Error| Broken { begun: false, why: format!("asking: {error}") };
        self.stream.get_mut().write_all(request.as_bytes()).map_err(before)?;
        let mut status = String::new();
        match self.stream.read_line(&mut status) {
            Ok(0) => return Err(Broken { begun: false, why: "closed without an answer".to_owned() }),
            Ok(_) => {}
            Err(error) => {
                return Err(Broken { begun: !status.is_empty(), why: format!("reading: {error}") });
            }
        }
        let broken = |why: String| Broken { begun: true, why };
        if status.split(' ').nth(1) != Some("200") {
            return Err(broken(format!("answered {:?}", status.trim_end())));
        }
        self.rest(plan).map_err(|error| broken(format!("cut off: {error}")))
    }

    /// The head's other lines, and the body.
    fn rest(&mut self, plan: &Plan) -> io::Result<bool> {
        let (mut length, mut again, mut chunked) = (None, plan.keep_alive, false);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", number)) => length = number.parse::<usize>().ok(),
                Some(("connection", "close")) => again = false,
                Some(("transfer-encoding", "chunked")) => chunked = true,
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let length = match (chunked, length) {
            (false, Some(length)) if length <= MOST_BODY => length,
            _ => return Err(io::Error::other("an answer without a usable length")),
        };
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(again)
    }
}
