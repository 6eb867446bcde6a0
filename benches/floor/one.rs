//! `supervise init` beside tini and dumb-init, where they are installed: a whole run of one command that does
//! nothing, and the memory of the process that waits for one.

use std::io;
use std::process::{Command, Stdio};

use supervise::sys::process;

use crate::ours;
use crate::rows::{median, rest, whole};

/// Rounds of each by turns.
const ROUNDS: usize = 200;

/// A program of this kind, with what comes before the command.
fn before(name: &str) -> Command {
    let mut command = match name {
        "supervise init" => {
            let mut command = Command::new(ours::binary());
            command.arg("init");
            command
        }
        name => Command::new(name),
    };
    // What tini has to say of not being the first process, it says each time.
    command.arg("--").stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// The proportional share of a waiting one, in KiB (proc_pid_smaps(5)).
fn share(name: &str) -> io::Result<u64> {
    let mut running = before(name).args(["sleep", "1000"]).spawn()?;
    let pid = running.id();
    // It has executed its command when that is another program than itself.
    let exe = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let child = loop {
        let children = process::children(pid)?;
        match children.first() {
            Some(child) if exe(*child) != exe(pid) => break *child,
            Some(_) | None => rest(1)?,
        }
    };
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child as i32), nix::sys::signal::Signal::SIGKILL)?;
    running.wait()?;
    kib.ok_or_else(|| io::Error::other("no proportional share"))
}

/// The row.
pub fn row(name: &str) -> io::Result<()> {
    let is_there = |name: &&str| before(name).arg("true").status().is_ok_and(|status| status.success());
    let all = ["supervise init", "tini", "dumb-init"];
    for missing in all.iter().filter(|one| !is_there(one)) {
        println!("{name}: no {missing}: `apt-get install {missing}`");
    }
    let there: Vec<&str> = all.into_iter().filter(is_there).collect();
    let mut times = vec![Vec::new(); there.len()];
    for _ in 0..ROUNDS {
        for (one, times) in there.iter().zip(&mut times) {
            let mut command = before(one);
            command.arg("/bin/true");
            times.push(whole(command)?);
        }
    }
    for (one, times) in there.iter().zip(&times) {
        println!("{:<42} {:>9.3} ms, PSS {} KiB", format!("{name}: {one}"), median(times), share(one)?);
    }
    Ok(())
}
