//! A supervisor as far as its control socket goes: the real server in a thread, answering from a script.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use mio::{Events, Poll, Token, Waker};
use supervise::manager::control::{Control, Heard};
use supervise::policy::Mono;
use supervise::sys::peer;
use supervise::wire::control::{
    OperationReply, Outcome, Progress, Reply, Service, State, StatusReply, Supervisor,
};
use supervise::wire::request::Request;

/// The running server; ends when dropped.
pub struct Server {
    dir: tempfile::TempDir,
    heard: Receiver<Request>,
    over: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each request with what `script` gives, the last of it as the last reply; nothing means silence.
    pub fn start(script: impl Fn(&Request) -> Vec<Reply> + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut control = Control::new(listener.into(), peer::own_uid(), poll.registry(), 1).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (tell, heard) = channel();
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (mut events, mut out) = (Events::with_capacity(64), Vec::new());
            while !ended.load(Ordering::SeqCst) {
                if control.has_ready() {
                    control.again(poll.registry(), Mono(0), &mut out);
                } else {
                    let _ = poll.poll(&mut events, None);
                    for event in events.iter().filter(|event| event.token() != Token(0)) {
                        control.on_event(poll.registry(), event, Mono(0), &mut out);
                    }
                }
                for asked in std::mem::take(&mut out) {
                    let Heard::Asked { session, request, .. } = asked else { continue };
                    let replies = script(&request);
                    let last = replies.len();
                    for (index, reply) in replies.iter().enumerate() {
                        control.reply(session, reply, index + 1 == last, Mono(0));
                    }
                    let _ = tell.send(request);
                }
            }
        });
        Self { dir, heard, over, waker, thread: Some(thread) }
    }

    /// The runtime directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits for the next request.
    pub fn heard(&self) -> Request {
        self.heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap()
    }

    /// How many requests have come that nobody took.
    pub fn requests_left(&self) -> usize {
        self.heard.try_iter().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.waker.wake();
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The names in a request.
pub fn asked_names(request: &Request) -> Vec<String> {
    match request {
        Request::Status { names, .. } | Request::Events { names } | Request::Kill { names, .. } => {
            names.clone()
        }
        Request::Show { name, .. } | Request::Exec { name, .. } => vec![name.clone()],
        Request::Logs { names } => names.clone(),
        Request::Start(order)
        | Request::Stop { order, .. }
        | Request::Restart { order, .. }
        | Request::Reload(order)
        | Request::Scale { order, .. } => order.names.clone(),
    }
}

/// The first part of a status.
pub fn supervisor() -> Reply {
    let supervisor =
        Supervisor { version: "9.9.9".into(), pid: 7, keeper_pid: Some(6), since: String::new() };
    Reply::Status(StatusReply { supervisor: Some(supervisor), services: vec![] })
}

/// A service of which little is known.
pub fn service(name: &str, state: State) -> Service {
    Service { name: name.into(), state, ..Service::default() }
}

/// A step of an operation.
pub fn step(service: &str, step: &str) -> Reply {
    let progress = Progress { service: service.into(), step: step.into() };
    Reply::Operation(OperationReply { services: vec![], progress: Some(progress) })
}

/// The good end of an operation.
pub fn outcome(name: &str) -> Reply {
    let outcome = Outcome { name: name.into(), state: State::Running, pid: Some(42), note: None };
    Reply::Operation(OperationReply { services: vec![outcome], progress: None })
}
