//! USER. What this machine says of a process: its memory, its time and its command line. Never more than anybody may read.

use std::fs;

/// Bytes of a command line that are read.
const MOST_COMMAND: usize = 200;

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Memory that it has in RAM.
    pub memory_bytes: u64,
    /// Processor time that it has used.
    pub cpu_seconds: f64,
    /// How it calls itself.
    pub command: String,
}

/// Looks at one; None where it has gone, or may not be looked at.
pub fn look(pid: i32) -> Option<Process> {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    // The name in parentheses may hold anything (proc_pid_stat(5)).
    let (before, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let mut words = read("cmdline").unwrap_or_default();
    words.truncate(MOST_COMMAND);
    while words.last() == Some(&0) {
        words.pop();
    }
    let command = match words.is_empty() {
        true => format!("[{}]", before.split_once('(').map_or("", |(_, name)| name)),
        false => String::from_utf8_lossy(&words).replace('\0', " "),
    };
    Some(Process {
        memory_bytes: kilobytes.unwrap_or(0) * 1024,
        // USER_HZ is 100 wherever Linux runs.
        cpu_seconds: (ticks(11) + ticks(12)) as f64 / 100.0,
        command,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_and_none_that_is_not_there() {
        let own = look(std::process::id() as i32).unwrap();
        assert!(own.memory_bytes > 100_000 && own.memory_bytes < 1 << 40, "{own:?}");
        assert!(!own.command.is_empty() && !own.command.contains('\0'), "{own:?}");
        assert_eq!(look(-1), None);
    }
}
