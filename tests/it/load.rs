//! Requests at a steady rate, whatever becomes of them: each begins when it is due, on a connection of its own,
//! and every failure is kept with its reason. Never waits for one before it begins the next, unless very many wait.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::wait;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that may be under way: on a machine that cannot answer as many as are due, no more are begun until some have
/// been answered, or the last would wait for all before it.
const MOST: usize = 400;
/// Bytes of stack for one request.
const STACK: usize = 128 * 1024;

/// Where to.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What came of all requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many were answered with 200.
    pub answered: usize,
    /// Why the others were not, with the milliseconds since the beginning.
    pub failures: Vec<(u64, String)>,
    /// Different bodies.
    pub bodies: std::collections::BTreeSet<String>,
}

/// The requests under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    clock: Option<JoinHandle<()>>,
}

/// One request and the body of its answer.
pub fn get(target: &Target) -> Result<String, String> {
    fn speak(mut stream: impl Read + Write) -> Result<String, String> {
        let asked = stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
        asked.map_err(|error| format!("asking: {error}"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| format!("reading: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(format!("cut off: {answer:?}"))?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(format!("answered {head:?}")),
        }
    }
    let connecting = |error: std::io::Error| format!("connecting: {error}");
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE).map_err(connecting)?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            speak(stream)
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(connecting)?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            speak(stream)
        }
    }
}

impl Load {
    /// Begins with `per_second` requests in a second, at each target in turn.
    pub fn start(targets: Vec<Target>, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (stop_there, outcome_there) = (Arc::clone(&stop), Arc::clone(&outcome));
        let clock = Builder::new().spawn(move || {
            let began = Instant::now();
            let mut running: Vec<JoinHandle<()>> = Vec::new();
            for (number, target) in (0u32..).zip(targets.iter().cycle()) {
                let due = began + Duration::from_secs(1) * number / per_second;
                wait::reach(due);
                if stop_there.load(Ordering::Relaxed) {
                    break;
                }
                let (target, outcome) = (target.clone(), Arc::clone(&outcome_there));
                let request = Builder::new().stack_size(STACK).spawn(move || {
                    let result = get(&target);
                    let mut outcome = outcome.lock().unwrap();
                    match result {
                        Ok(body) => {
                            outcome.answered += 1;
                            outcome.bodies.insert(body);
                        }
                        Err(why) => {
                            let at = began.elapsed().as_millis() as u64;
                            outcome.failures.push((at, format!("{target:?}: {why}")));
                        }
                    }
                });
                running.push(request.unwrap());
                running.retain(|request| !request.is_finished());
                while running.len() >= MOST {
                    wait::a_moment();
                    running.retain(|request| !request.is_finished());
                }
            }
            for request in running {
                request.join().unwrap();
            }
        });
        Self { stop, outcome, clock: Some(clock.unwrap()) }
    }

    /// How many have been answered so far.
    pub fn answered(&self) -> usize {
        self.outcome.lock().unwrap().answered
    }

    /// Waits until so many more have been answered.
    #[track_caller]
    pub fn goes_on(&self, more: usize) {
        let before = self.answered();
        wait::until(wait::LONG, "requests to be answered", || {
            (self.answered() >= before + more).then_some(())
        });
    }

    /// Begins no more, and waits for those under way.
    pub fn end(mut self) -> Outcome {
        self.finish();
        std::mem::take(&mut *self.outcome.lock().unwrap())
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(clock) = self.clock.take() {
            let _ = clock.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Outcome {
    /// Fails where any request did, with the reasons.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        let few: Vec<_> = self.failures.iter().take(10).collect();
        assert!(
            few.is_empty(),
            "{} of {} requests failed: {few:#?}",
            self.failures.len(),
            self.answered + self.failures.len()
        );
        assert!(self.answered > 0, "nothing was ever asked");
    }
}
