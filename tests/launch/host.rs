//! The keeper's and the manager's part, played by the test: forks a zygote, asks it for processes, reaps them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use supervise::launch::Stage;
use supervise::plan::{ExecPlan, Identity};
use supervise::sys::link::Link;
use supervise::sys::{clone, fds, gate, memfd};
use supervise::wire::zygote::{MESSAGE_BYTES, Piece, REPORT_BYTES, Reply, Report, Spawn, Weight};
use supervise::zygote;

/// Ends the process on any use of the heap in a cloned child, and in a zygote once it serves.
struct Guard;

/// Set in forked zygotes alone.
static SERVING: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static GUARD: Guard = Guard;

fn object() {
    if clone::IN_CHILD.load(Ordering::Relaxed) || SERVING.load(Ordering::Relaxed) {
        let text = b"the heap was used between clone and exec\n";
        // SAFETY: the pointer and length describe `text`; abort does not return.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::abort();
        }
    }
}

// SAFETY: everything is passed on to the system's allocator, or the process ends.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        object();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        object();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(start, layout) }
    }
}

pub fn am_root() -> bool {
    // SAFETY: geteuid touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Tests that change identity say so in their name, and fail where they cannot.
pub fn need_root() {
    assert!(am_root(), "this test has to run as root; an ordinary user runs those that start with `user_`");
}

/// Nobody in particular, for tests that do not care; None where we are an ordinary user ourselves.
pub fn anybody() -> Option<Identity> {
    am_root().then(|| Identity::new(65534, 65534, &[]))
}

pub fn plan(argv: &[&str]) -> ExecPlan {
    ExecPlan {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        candidates: vec![argv[0].to_owned()],
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        pid_variables: vec![],
        directory: "/".to_owned(),
        identity: anybody(),
        umask: 0o022,
        limits: vec![],
        nice: None,
        oom_score_adj: None,
        cpus: vec![],
        sockets: vec![],
        terminal: false,
    }
}

pub fn shell(script: &str) -> ExecPlan {
    plan(&["/bin/sh", "-c", script])
}

/// Forks; the child runs `body` with nothing open above descriptor 3, which is `keep`, and exits with its result.
pub fn forked(keep: OwnedFd, body: impl FnOnce(OwnedFd) -> i32) -> i32 {
    // SAFETY: the child calls nothing that needs a lock another thread could hold: the guard sees to that.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        SERVING.store(true, Ordering::Relaxed);
        // SAFETY: descriptors of a fresh fork, none of which an owner in this process uses again.
        let keep = unsafe {
            libc::dup2(keep.as_raw_fd(), 3);
            libc::syscall(libc::SYS_close_range, 4, libc::c_uint::MAX, 0);
            OwnedFd::from_raw_fd(3)
        };
        clone::end(body(keep));
    }
    pid
}

/// How a process ended: its exit code, or minus the signal's number.
pub fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` has room for what waitpid writes.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waiting for {pid}: {error}");
    }
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

pub struct Host {
    pub link: Option<Link>,
    pub zygote: i32,
}

pub struct Started {
    pub reply: Reply,
    pub pidfd: Option<OwnedFd>,
    pub gate: OwnedFd,
    pub status: OwnedFd,
    pub output: OwnedFd,
}

#[derive(Debug)]
pub struct Outcome {
    pub failure: Option<(Stage, i32, u32)>,
    pub warnings: Vec<(Stage, i32)>,
    pub output: String,
    pub end: i32,
}

impl Host {
    pub fn start() -> Self {
        Self::start_after(|| ())
    }

    /// With something done in the zygote before it serves.
    pub fn start_after(first: impl FnOnce()) -> Self {
        let keeper = std::process::id();
        let (ours, theirs) = Link::pair().unwrap();
        let zygote = forked(theirs.into_fd(), |link| {
            first();
            zygote::serve(Link::from_fd(link), keeper).malformed as i32
        });
        Self { link: Some(ours), zygote }
    }

    pub fn link(&self) -> &Link {
        self.link.as_ref().unwrap()
    }

    pub fn ask(&self, image: &[u8], sockets: &[BorrowedFd<'_>], cgroup: Option<BorrowedFd<'_>>) -> Started {
        let [gate, status, output] = self.begin(image, sockets, cgroup);
        let (reply, pidfd) = self.reply();
        Started { reply, pidfd, gate, status, output }
    }

    /// Asks without waiting for the answer: the child's gate, its report, its output.
    pub fn begin(
        &self,
        image: &[u8],
        sockets: &[BorrowedFd<'_>],
        cgroup: Option<BorrowedFd<'_>>,
    ) -> [OwnedFd; 3] {
        let image = memfd::sealed(c"plan", image).unwrap();
        let (gate_read, gate) = fds::pipe(0).unwrap();
        let (status, status_write) = fds::pipe(0).unwrap();
        let (output, output_write) = fds::pipe(0).unwrap();
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        let fixed = [&image, &gate_read, &status_write, &null, &output_write, &output_write];
        let mut all: Vec<_> = fixed.iter().map(|fd| fd.as_fd()).collect();
        all.extend(sockets);
        all.extend(cgroup);
        let spawn = Spawn { request: 42, sockets: sockets.len() as u16, cgroup: cgroup.is_some() };
        self.link().send(&spawn.encode(), &all).unwrap();
        [gate, status, output]
    }

    pub fn reply(&self) -> (Reply, Option<OwnedFd>) {
        let mut bytes = [0; MESSAGE_BYTES];
        let mut places = [None];
        gate::wait_readable(self.link().as_fd()).unwrap();
        let got = self.link().receive(&mut bytes, &mut places).unwrap().expect("the zygote ended");
        assert_eq!(got.bytes, MESSAGE_BYTES);
        (Reply::decode(&bytes).unwrap(), places[0].take())
    }

    pub fn run(&self, plan: &ExecPlan) -> Outcome {
        self.ask(&plan.encode().unwrap(), &[], None).go()
    }

    /// Ends the zygote in the ordinary way: how many messages it did not understand.
    pub fn end(mut self) -> i32 {
        self.link = None;
        let pid = std::mem::replace(&mut self.zygote, 0);
        wait(pid)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.link = None;
        if self.zygote != 0 {
            wait(self.zygote);
        }
    }
}

impl Started {
    pub fn pid(&self) -> i32 {
        match self.reply {
            Reply::Spawned { request: 42, pid, .. } => pid as i32,
            Reply::Spawned { .. } | Reply::Refused { .. } => panic!("no process: {:?}", self.reply),
        }
    }

    /// Opens the gate and waits for the end.
    pub fn go(self) -> Outcome {
        match fds::write(self.gate.as_fd(), b"x") {
            // It may have failed before it came to its gate.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => (),
            written => assert_eq!(written.unwrap(), 1),
        }
        self.rest()
    }

    /// Closes the gate unopened, as the end of the manager would, and waits for the end.
    pub fn rest(self) -> Outcome {
        let pid = self.pid();
        drop(self.gate);
        let mut bytes = Vec::new();
        File::from(self.status).read_to_end(&mut bytes).unwrap();
        let mut output = Vec::new();
        File::from(self.output).read_to_end(&mut output).unwrap();
        let mut outcome = Outcome {
            failure: None,
            warnings: vec![],
            output: String::from_utf8_lossy(&output).into_owned(),
            end: wait(pid),
        };
        for record in bytes.chunks(REPORT_BYTES) {
            assert!(outcome.failure.is_none(), "a report behind a failure");
            if Piece::decode(record).is_some() {
                continue; // words about it are compared in tests/it
            }
            let report = Report::decode(record).unwrap();
            let stage = Stage::from_number(report.stage).unwrap();
            match report.weight {
                Weight::Failure => outcome.failure = Some((stage, report.errno, report.detail)),
                Weight::Warning => outcome.warnings.push((stage, report.errno)),
            }
        }
        if let Some((stage, ..)) = outcome.failure {
            assert_eq!(outcome.end, stage.exit_code(), "{outcome:?}");
        }
        outcome
    }
}

/// Makes a system call fail with `errno`, or do nothing and succeed where that is 0; only where its first
/// argument is `first`, if given. For this process and all below it.
pub fn refuse(call: libc::c_long, first: Option<u32>, errno: i32) {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let wanted = first.unwrap_or(0);
    let miss = if first.is_some() { 0 } else { 1 };
    let mut filter = [
        step(load, 0, 0, 0),
        step(equal, call as u32, 0, 3),
        step(load, 16, 0, 0),
        step(equal, wanted, 0, 1 - miss),
        step(give, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(give, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` describes `filter`, and both are alive across the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}
