//! The rows: each takes ours and the floor by turns.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, geteuid};
use supervise::sys::clock::monotonic_ns;

use crate::one;
use crate::ours::{self, Ours, service, shares};
use crate::peers;
use crate::probe::{self, Probe, Record};

/// A floor that keeps probes running.
struct Floor {
    _directory: tempfile::TempDir,
    process: Child,
    probe: Probe,
    first: Vec<Record>,
    boot_ns: u64,
}

fn this_binary(verb: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(verb).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

impl Floor {
    fn boot(count: u32) -> io::Result<Self> {
        let directory = ours::directory()?;
        let mut probe = Probe::new(directory.path(), "fifo")?;
        let mut command = this_binary("floor-keep")?;
        let process = command.arg(count.to_string()).arg(&probe.program).arg(&probe.fifo).spawn()?;
        let mut first = probe.take(count as usize + 1)?;
        let last = first.iter().map(|record| record.at_ns).max().unwrap_or(0);
        let beginning = first.pop().filter(|record| record.number == probe::BEGINNING);
        let beginning = beginning.ok_or_else(|| io::Error::other("the floor did not say when it began"))?;
        Ok(Self { _directory: directory, process, probe, first, boot_ns: last - beginning.at_ns })
    }

    fn stop(mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        // Its children are init's now.
        for record in self.first {
            let _ = signal::kill(Pid::from_raw(record.pid), Signal::SIGKILL);
        }
        Ok(())
    }
}

/// Times of one row, in nanoseconds.
#[derive(Default)]
struct Pairs {
    ours: Vec<u64>,
    floor: Vec<u64>,
}

/// The time in milliseconds below which so many of ten rounds are.
fn tenths(times: &[u64], tenths: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * tenths / 10).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

/// The median in milliseconds.
pub fn median(times: &[u64]) -> f64 {
    tenths(times, 5)
}

/// Processes that want a processor, as the average of the last minute (proc_loadavg(5)).
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// Whether something else had the processors: a floor whose median is far above its own lowest tenth, or
/// more processes than processors. Then both sides mostly wait, and the ratio drifts to 1.
fn is_busy(median: f64, lowest: f64) -> bool {
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    median > 1.5 * lowest || load().parse::<f64>().is_ok_and(|load| load > processors)
}

impl Pairs {
    fn print(&self, name: &str, bar: f64) -> io::Result<()> {
        let (ours, floor) = (median(&self.ours), median(&self.floor));
        let ratio = ours / floor;
        let quiet = tenths(&self.ours, 1) / tenths(&self.floor, 1);
        let verdict = match (ratio <= bar, is_busy(floor, tenths(&self.floor, 1))) {
            (true, false) => " met",
            (true, true) => " not proven: busy",
            (false, false) => " over",
            (false, true) => " over, busy",
        };
        println!(
            "{name:<42} {ours:>9.3} {floor:>9.3} {ratio:>7.2} {quiet:>7.2} {:>6}  <= {bar}{verdict}",
            load()
        );
        Ok(())
    }
}

/// Kills the process of each record and waits for its successor; nanoseconds until the last one's first
/// instruction. The records are those of the successors afterwards.
fn crash(probe: &mut Probe, records: &mut [Record]) -> io::Result<u64> {
    let before = monotonic_ns();
    for record in records.iter() {
        signal::kill(Pid::from_raw(record.pid), Signal::SIGKILL)?;
    }
    let mut last = before;
    for _ in 0..records.len() {
        let back = probe.next()?;
        last = last.max(back.at_ns);
        let place = records.iter_mut().find(|record| record.number == back.number);
        *place.ok_or_else(|| io::Error::other("a stranger came back"))? = back;
    }
    Ok(last - before)
}

/// Waits without doing anything.
pub fn rest(ms: u16) -> io::Result<()> {
    poll(&mut [], PollTimeout::from(ms))?;
    Ok(())
}

fn rounds(plain: usize) -> usize {
    let per_cent = std::env::var("SUPERVISE_BENCH_ROUNDS").ok().and_then(|text| text.parse::<usize>().ok());
    (plain * per_cent.unwrap_or(100) / 100).max(3)
}

fn crashes(count: u32, at_once: usize, most: usize) -> io::Result<Pairs> {
    let mut pairs = Pairs::default();
    let (mut ours, mut floor) = (Ours::boot(count)?, Floor::boot(count)?);
    rest(300)?;
    for round in 0..rounds(most) {
        let from = (round * 37 * at_once) % (count as usize - at_once + 1);
        let mine = ours.first.get_mut(from..from + at_once).unwrap_or_default();
        pairs.ours.push(crash(&mut ours.probe, mine)?);
        rest(2)?;
        let its = floor.first.get_mut(from..from + at_once).unwrap_or_default();
        pairs.floor.push(crash(&mut floor.probe, its)?);
        rest(2)?;
    }
    floor.stop()?;
    ours.stop()?;
    Ok(pairs)
}

/// Processor time instead of time: of the supervisor and of the child until its first instruction. What else
/// the machine does changes this least, so it is what to compare two builds by.
fn efforts(count: u32, most: usize) -> io::Result<Pairs> {
    let mut pairs = Pairs::default();
    let (mut ours, mut floor) = (Ours::boot(count)?, Floor::boot(count)?);
    rest(300)?;
    for round in 0..rounds(most) {
        let at = round * 37 % count as usize;
        let before = ours.used_ns();
        crash(&mut ours.probe, ours.first.get_mut(at..=at).unwrap_or_default())?;
        rest(5)?; // what comes after the first instruction is work too
        let child = ours.first.get(at).map_or(0, |record| record.used_ns);
        pairs.ours.push(ours.used_ns() - before + child);
        let before = ours::used_ns(floor.process.id());
        crash(&mut floor.probe, floor.first.get_mut(at..=at).unwrap_or_default())?;
        rest(5)?;
        let child = floor.first.get(at).map_or(0, |record| record.used_ns);
        pairs.floor.push(ours::used_ns(floor.process.id()) - before + child);
    }
    floor.stop()?;
    ours.stop()?;
    Ok(pairs)
}

fn boots(count: u32, most: usize) -> io::Result<Pairs> {
    let mut pairs = Pairs::default();
    for _ in 0..rounds(most) {
        let ours = Ours::boot(count)?;
        pairs.ours.push(ours.boot_ns);
        ours.stop()?;
        let floor = Floor::boot(count)?;
        pairs.floor.push(floor.boot_ns);
        floor.stop()?;
    }
    Ok(pairs)
}

/// A floor that answers on a socket.
struct Served {
    directory: tempfile::TempDir,
    process: Child,
    probe: Probe,
    last: i32,
}

impl Served {
    fn start() -> io::Result<Self> {
        let directory = ours::directory()?;
        let mut probe = Probe::new(directory.path(), "fifo")?;
        let socket = directory.path().join("socket");
        let mut command = this_binary("floor-serve")?;
        let process = command.arg(socket).arg(&probe.program).arg(&probe.fifo).spawn()?;
        let last = probe.next()?.pid;
        Ok(Self { directory, process, probe, last })
    }

    fn ask(&self, verb: &str) -> io::Result<Command> {
        let mut command = this_binary("floor-ask")?;
        let socket: PathBuf = self.directory.path().join("socket");
        command.arg(socket).arg(verb);
        Ok(command)
    }

    fn stop(mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        signal::kill(Pid::from_raw(self.last), Signal::SIGKILL)?;
        Ok(())
    }
}

/// Nanoseconds that a command takes as a whole process; one that fails is an error.
pub fn whole(mut command: Command) -> io::Result<u64> {
    let before = monotonic_ns();
    let status = command.status()?;
    let took = monotonic_ns() - before;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?}: {status}")));
    }
    Ok(took)
}

fn until_first_instruction(mut command: Command, probe: &mut Probe) -> io::Result<(u64, i32)> {
    let before = monotonic_ns();
    let mut client = command.spawn()?;
    let record = probe.next()?;
    client.wait()?;
    Ok((record.at_ns - before, record.pid))
}

fn statuses(count: u32, most: usize) -> io::Result<Pairs> {
    let mut pairs = Pairs::default();
    let (ours, floor) = (Ours::boot(count)?, Served::start()?);
    let name = service(count / 2);
    rest(200)?;
    for _ in 0..rounds(most) {
        pairs.ours.push(whole(ours.client(&["status", &name]))?);
        pairs.floor.push(whole(floor.ask("s")?)?);
    }
    floor.stop()?;
    ours.stop()?;
    Ok(pairs)
}

fn restarts(count: u32, most: usize) -> io::Result<Pairs> {
    let mut pairs = Pairs::default();
    let (mut ours, mut floor) = (Ours::boot(count)?, Served::start()?);
    let name = service(count / 2);
    rest(200)?;
    for _ in 0..rounds(most) {
        let command = ours.client(&["restart", &name]);
        pairs.ours.push(until_first_instruction(command, &mut ours.probe)?.0);
        let (took, pid) = until_first_instruction(floor.ask("r")?, &mut floor.probe)?;
        (floor.last, _) = (pid, pairs.floor.push(took));
        rest(2)?;
    }
    floor.stop()?;
    ours.stop()?;
    Ok(pairs)
}

fn memory(count: u32, bar_mib: f64) -> io::Result<()> {
    let ours = Ours::boot(count)?;
    rest(500)?;
    let shares_kib = ours.memory();
    let mib = shares_kib.iter().map(|(_, kib)| *kib).sum::<u64>() as f64 / 1024.0;
    let verdict = if mib <= bar_mib { " met" } else { " over" };
    println!(
        "{:<42} {mib:>9.2}                    <= {bar_mib}{verdict}  (KiB: {})",
        format!("memory of all our processes, {count}, MiB"),
        shares(&shares_kib)
    );
    ours.stop()
}

fn idle(count: u32) -> io::Result<()> {
    let ours = Ours::boot(count)?;
    rest(2_000)?;
    let before = ours.wake_ups();
    rest(10_000)?;
    let woken = (ours.wake_ups() - before) as f64 / 10.0;
    let verdict = if woken == 0.0 { " met" } else { " over" };
    println!(
        "{:<42} {woken:>9.1}                    <= 0{verdict}",
        format!("idle wake-ups a second, {count}")
    );
    ours.stop()
}

/// Bytes of log for one round, in lines of 100.
const LOGGED: u64 = 200_000_000;

fn log(most: usize) -> io::Result<()> {
    let line = "x".repeat(99);
    let talk = |probe: &Probe| {
        let (program, fifo) = (probe.program.display(), probe.fifo.display());
        let script = format!(
            "{program} {fifo} 0000000 x; yes {line} | head -c {LOGGED}; exec {program} {fifo} 0000001"
        );
        format!("[\"/bin/sh\", \"-c\", {script:?}]")
    };
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..rounds(most) {
        let mut one = Ours::boot_with(1, |probe| Some(talk(probe)))?;
        let took = one.probe.next()?.at_ns - one.first.first().map_or(0, |record| record.at_ns);
        ours.push(took);
        one.stop()?;
        let directory = ours::directory()?;
        let mut command = Command::new("/bin/sh");
        let file = directory.path().join("log");
        command.arg("-c").arg(format!("yes {line} | head -c {LOGGED} | cat > {}", file.display()));
        floor.push(whole(command)?);
    }
    let speed = |times: &[u64]| LOGGED as f64 / 1e3 / median(times); // bytes a microsecond
    let (ours, floor) = (speed(&ours), speed(&floor));
    let ratio = ours / floor;
    let verdict = if ratio >= 0.6 { " met" } else { " under" };
    println!(
        "{:<42} {ours:>9.0} {floor:>9.0} {ratio:>7.2}  >= 0.6{verdict}",
        "log, lines of 100 bytes, MB/s"
    );
    Ok(())
}

type Row = (&'static str, fn(&str) -> io::Result<()>);

const ROWS: [Row; 18] = [
    ("processor time of a start, alone", |name| efforts(1, 200)?.print(name, 1.5)),
    ("processor time of a start, among 1000", |name| efforts(1_000, 200)?.print(name, 1.5)),
    ("crash to first instruction, alone", |name| crashes(1, 1, 300)?.print(name, 1.5)),
    ("crash to first instruction, among 1000", |name| crashes(1_000, 1, 300)?.print(name, 1.5)),
    ("100 of 100 killed at once, all back", |name| crashes(100, 100, 30)?.print(name, 1.5)),
    ("100 of 1000 killed at once, all back", |name| crashes(1_000, 100, 20)?.print(name, 1.5)),
    ("boot of 1", |name| boots(1, 20)?.print(name, 1.5)),
    ("boot of 100", |name| boots(100, 8)?.print(name, 1.5)),
    ("boot of 1000", |name| boots(1_000, 5)?.print(name, 1.5)),
    ("status as a whole process, alone", |name| statuses(1, 100)?.print(name, 1.5)),
    ("status as a whole process, among 1000", |name| statuses(1_000, 100)?.print(name, 1.5)),
    ("restart to first instruction, alone", |name| restarts(1, 100)?.print(name, 1.5)),
    ("restart to first instruction, among 1000", |name| restarts(1_000, 100)?.print(name, 1.5)),
    ("memory", |_| memory(1, 2.1).and_then(|()| memory(1_000, 4.0))),
    ("idle", |_| idle(1_000)),
    ("log", |_| log(3)),
    ("init", one::row),
    ("peers", |_| peers::all()),
];

/// Prints those rows of which a part of the name is chosen; all where nothing is.
pub fn all(chosen: &[String]) -> io::Result<()> {
    let identity = if geteuid().is_root() { "each service changes its identity" } else { "as one user" };
    println!("{} ({identity})", ours::binary().display());
    println!(
        "{:<42} {:>9} {:>9} {:>7} {:>7} {:>6}  bar",
        "median, ms", "ours", "floor", "ratio", "p10", "load"
    );
    for (name, row) in ROWS {
        if chosen.is_empty() || chosen.iter().any(|part| name.contains(part.as_str())) {
            row(name)?;
        }
    }
    Ok(())
}
