//! A logger as a process, and what keeper and manager hold for it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use supervise::sys::link::Link;
use supervise::sys::poller::{Interest, Poller};
use supervise::sys::{fds, memfd, pipes};
use supervise::wire::cri::{self, Which};
use supervise::wire::logger::{Name, Order, Place, REPORT_BYTES, Report, Rule, STATE_BYTES, TRAY_BYTES};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// What keeper and manager hold: everything but the logger itself.
pub struct Keeper {
    pub dir: tempfile::TempDir,
    pub logs: PathBuf,
    pub manager: Option<Link>,
    pub link: OwnedFd,
    state: OwnedFd,
    tray: OwnedFd,
    pub streams: BTreeMap<u64, (Order, OwnedFd)>,
    pub poller: Poller,
    pub limit: &'static str,
    pub parent: u32,
    pub through: &'static [&'static str],
    pub user: &'static [&'static str],
    pub rule: Rule,
    pub stdout: PathBuf,
    /// What is wrong with whose log, as it was told last.
    pub troubles: BTreeMap<(String, Place), String>,
}

impl Keeper {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (manager, link) = Link::pair().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(manager.as_fd(), 0, Interest::Read).unwrap();
        Self {
            logs: dir.path().join("log"),
            dir,
            manager: Some(manager),
            link: link.into_fd(),
            state: memfd::fixed(c"log state", STATE_BYTES).unwrap(),
            tray: pipes::tray(TRAY_BYTES).unwrap(),
            streams: BTreeMap::new(),
            poller,
            limit: "",
            parent: std::process::id(),
            through: &[],
            user: &[],
            rule: Rule::default(),
            stdout: PathBuf::from("/dev/null"),
            troubles: BTreeMap::new(),
        }
    }

    /// Starts a logger with the same descriptors as the last one and sends it all streams.
    pub fn start(&self) -> Child {
        let as_stdio = |fd: &OwnedFd| Stdio::from(fds::duplicate(fd.as_fd()).unwrap());
        // The shell moves its three standard descriptors to the places the logger expects, and becomes it.
        let script = format!("{} exec \"$@\" 3<&0 4<&1 5<&2 0</dev/null 1>>\"$OUT\" 2>>\"$0\"", self.limit);
        let child = Command::new("sh")
            .env("OUT", &self.stdout)
            .args(["-c", &script])
            .arg(self.dir.path().join("stderr"))
            .args(self.through)
            .args([env!("CARGO_BIN_EXE_supervise"), "logger", "--log-dir"])
            .arg(&self.logs)
            .args(["--parent", &self.parent.to_string()])
            .args(self.user)
            .arg("--journal")
            .arg(self.dir.path().join("journal"))
            .arg("--syslog")
            .arg(self.dir.path().join("syslog"))
            .stdin(as_stdio(&self.link))
            .stdout(as_stdio(&self.state))
            .stderr(as_stdio(&self.tray))
            .spawn()
            .unwrap();
        self.streams.keys().for_each(|id| self.send(*id));
        child
    }

    pub fn send(&self, id: u64) {
        let (order, pipe) = &self.streams[&id];
        // A full queue holds the same orders already, from the last time.
        match self.manager.as_ref().unwrap().send(&order.encode(), &[pipe.as_fd()]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            outcome => outcome.unwrap(),
        }
    }

    /// A new stream; its write end.
    pub fn add(&mut self, stream: u64, service: &str, which: Which) -> File {
        let (read, write) = fds::pipe(0).unwrap();
        let service = Name::new(service.as_bytes()).unwrap();
        self.streams.insert(stream, (Order::Add { stream, service, which, rule: self.rule }, read));
        self.send(stream);
        File::from(write)
    }

    pub fn order(&self, order: Order) {
        self.manager.as_ref().unwrap().send(&order.encode(), &[]).unwrap();
    }

    /// Reports that are there now; closed streams are forgotten.
    pub fn reports(&mut self) {
        while self.report() {}
    }

    pub fn report(&mut self) -> bool {
        let mut bytes = [0; REPORT_BYTES];
        if let Ok(Some(got)) = self.manager.as_ref().unwrap().receive(&mut bytes, &mut []) {
            match Report::decode(&bytes[..got.bytes]).unwrap() {
                Report::Closed { stream, .. } => drop(self.streams.remove(&stream)),
                Report::Lost { stream } => panic!("stream {stream} was lost"),
                Report::Trouble { service, place, words } => {
                    self.troubles.insert((service.as_str().to_owned(), place), words);
                }
            }
            return true;
        }
        false
    }

    pub fn wait_closed(&mut self, stream: u64) {
        while self.streams.contains_key(&stream) {
            self.poller.wait(Some(PATIENCE)).unwrap();
            assert!(self.poller.ready().next().is_some(), "no report of stream {stream}: {}", self.stderr());
            self.report();
        }
    }

    /// Writes all of it as one stream that ends, and waits until the logger is through with it.
    pub fn through(&mut self, stream: u64, service: &str, text: &[u8]) {
        let mut pipe = self.add(stream, service, Which::Stdout);
        pipe.write_all(text).unwrap();
        drop(pipe);
        self.wait_closed(stream);
    }

    /// Closes the manager's end for good.
    pub fn end(&mut self, mut child: Child) -> ExitStatus {
        self.manager = None;
        child.wait().unwrap()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// All entries of a service, oldest file first; a torn line is a failure.
    pub fn entries(&self, service: &str) -> Vec<(Which, bool, Vec<u8>)> {
        let directory = self.logs.join(service);
        let entries = fs::read_dir(&directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort(); // `2026…` sorts before `current`
        let all = names.clone();
        // Half a compressed file is none, and a plain one beside a whole one says the same.
        names.retain(|name| !name.ends_with(".part") && !all.contains(&format!("{name}.gz")));
        names.iter().flat_map(|name| entries_of(&directory.join(name))).collect()
    }

    /// The lines of one output of a service, put together from their parts.
    pub fn lines(&self, service: &str, which: Which) -> Vec<Vec<u8>> {
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        for (_, ends, content) in self.entries(service).into_iter().filter(|entry| entry.0 == which) {
            line.extend(content);
            if ends {
                lines.push(std::mem::take(&mut line));
            }
        }
        assert_eq!(line, b"", "a part that nothing follows");
        lines
    }
}

pub fn entries_of(file: &Path) -> Vec<(Which, bool, Vec<u8>)> {
    let mut bytes = fs::read(file).unwrap();
    if file.extension().is_some_and(|end| end == "gz") {
        let packed = std::mem::take(&mut bytes);
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    }
    let parse = |line: &[u8]| {
        let entry = line.strip_suffix(b"\n").and_then(cri::parse);
        let entry = entry.unwrap_or_else(|| panic!("torn: {}", String::from_utf8_lossy(line)));
        (entry.which, entry.ends, entry.content.to_vec())
    };
    bytes.split_inclusive(|byte| *byte == b'\n').map(parse).collect()
}
