//! Restarts under load: what clients of real servers notice of restarts, good ones and broken ones.
//!
//! `cargo bench --bench overlap [-- WORD…]` runs each server from PyPI behind held sockets, an application that
//! takes a second to import, and an open-loop load; then it restarts it again and again, first as it is and
//! then broken in every way there is. Words choose servers by a part of their name; `keep` and `close` choose
//! clients that keep their connections or do not, `tcp` and `unix` sockets, a way to be broken (`answers-500`,
//! `wrong-port`, `hang`, `import-error`, `exits`) that way, `good` no broken ones; `nginx` puts that proxy between.
//! `rounds=N` and `rate=N` say how many restarts of each sort and how many requests a second. What is chosen is loaded at
//! the same time, and shares the rate. One line a phase: requests, failed ones, resets of idle connections that were used
//! again, and the times. Slow requests (two seconds each, one a second) are always under way, and have a row of their own.
//!
//! Times are compared with the phase without a restart in the same run, on the same machine: in the end a line for each
//! row says whether it is met that nothing failed, that 99 % were answered within 5 ms more, and the slowest within
//! 100 ms more. The exit status is 1 where a request failed, or a restart came to something else than it should.

// It shares the fetching of servers with the tests, which fail where something is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/it/accounts.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod accounts;
#[path = "../../tests/it/gunicorn.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod gunicorn;
mod load;
mod nginx;
#[allow(dead_code, reason = "the tests use more of it")]
mod ours;
#[path = "../../tests/it/pypi.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod pypi;
mod servers;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use load::{Load, Phase, Plan, Target};
use nginx::Nginx;
use ours::Ours;
use servers::{BROKEN, SERVERS, Server};

/// Requests a second where nothing else is said.
const RATE: u32 = 300;
/// Restarts of each sort where nothing else is said.
const ROUNDS: u32 = 20;
/// Requests that can be under way at once.
const CLIENTS: u32 = 96;
/// Seconds without a restart, to compare with.
const QUIET_S: u64 = 10;
/// What one that hangs costs.
const START_TIMEOUT: &str = "8s";
/// What a restart may cost: milliseconds that 99 % and the slowest take longer than without.
const BAR_MS: (f64, f64) = (5.0, 100.0);
/// Requests of a phase from which on its 99th of 100 is something else than its slowest.
const FEWEST: usize = 100;

struct Choice {
    servers: Vec<&'static Server>,
    keep_alive: Vec<bool>,
    unix: Vec<bool>,
    broken: Vec<&'static str>,
    nginx: bool,
    rounds: u32,
    rate: u32,
}

fn choice() -> Choice {
    const OTHERS: [&str; 6] = ["keep", "close", "tcp", "unix", "good", "nginx"];
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |key: &str, preset: u32| {
        let value = words.iter().find_map(|word| word.strip_prefix(key));
        value.and_then(|text| text.parse().ok()).unwrap_or(preset)
    };
    let has = |word: &str| words.iter().any(|one| one == word);
    let is_server = |word: &&String| {
        !word.contains('=') && !OTHERS.contains(&word.as_str()) && !BROKEN.contains(&word.as_str())
    };
    let named: Vec<&String> = words.iter().filter(is_server).collect();
    let chosen = |server: &&Server| named.is_empty() || named.iter().any(|word| server.name.contains(*word));
    let either = |yes: &str, no: &str| match (has(yes), has(no)) {
        (true, false) => vec![true],
        (false, true) => vec![false],
        _ => vec![false, true],
    };
    let some = has("good") || BROKEN.iter().any(|broken| has(broken));
    Choice {
        servers: SERVERS.iter().filter(chosen).collect(),
        keep_alive: either("keep", "close"),
        unix: either("unix", "tcp"),
        broken: BROKEN.into_iter().filter(|broken| !some || has(broken)).collect(),
        nginx: has("nginx"),
        rounds: number("rounds=", ROUNDS),
        rate: number("rate=", RATE),
    }
}

fn main() -> ExitCode {
    let choice = choice();
    println!(
        "{:<34} {:<14} {:>8} {:>6} {:>6} {:>8} {:>8} {:>8}  command",
        "server, socket, connections", "phase", "requests", "failed", "stale", "p50 ms", "p99 ms", "worst"
    );
    let (mut failed, mut verdicts) = (0, Vec::new());
    for server in &choice.servers {
        match measure(server, &choice, &mut verdicts) {
            Ok(count) => failed += count,
            Err(error) => {
                eprintln!("overlap: {}: {error}", server.name);
                return ExitCode::FAILURE;
            }
        }
    }
    println!();
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What happened in a phase beside the requests.
struct Orders {
    name: String,
    took: Vec<Duration>,
    wrong: Vec<String>,
}

/// Clients of one sort.
struct Row {
    name: String,
    load: Load,
    /// Their requests take two seconds, whatever happens.
    slow: bool,
}

fn rows(server: &Server, ours: &Ours, nginx: Option<&Nginx>, choice: &Choice) -> io::Result<Vec<Row>> {
    let targets = nginx.map_or(&ours.targets, |nginx| &nginx.targets);
    // What is behind it decides, also where nginx itself is asked over TCP.
    let sorts = ours.targets.iter().zip(targets).map(|(own, asked)| (matches!(own, Target::Unix(_)), asked));
    let sorts: Vec<(bool, &Target)> = sorts.filter(|(unix, _)| choice.unix.contains(unix)).collect();
    let count = (sorts.len() * choice.keep_alive.len()).max(1) as u32;
    let front = if nginx.is_some() { "nginx " } else { "" };
    let targets: Vec<Target> = sorts.iter().map(|(_, target)| (*target).clone()).collect();
    let slow = Plan { targets, path: "/slow", per_second: 1, clients: 4, keep_alive: false };
    let mut all = Vec::new();
    for (unix, target) in sorts {
        for keep_alive in choice.keep_alive.iter().copied() {
            let plan = Plan {
                targets: vec![target.clone()],
                path: "/",
                per_second: choice.rate.div_ceil(count),
                clients: CLIENTS.div_ceil(count),
                keep_alive,
            };
            let (socket, kept) =
                (if unix { "unix" } else { "tcp" }, if keep_alive { "keep" } else { "close" });
            let name = format!("{} {front}{socket} {kept}", server.name);
            all.push(Row { name, load: Load::start(plan)?, slow: false });
        }
    }
    all.push(Row { name: format!("{} {front}slow", server.name), load: Load::start(slow)?, slow: true });
    Ok(all)
}

fn measure(server: &Server, choice: &Choice, verdicts: &mut Vec<String>) -> io::Result<usize> {
    let ours = Ours::start(server, START_TIMEOUT)?;
    let nginx =
        if choice.nginx { Some(Nginx::start(&ours.directory("nginx")?, &ours.targets)?) } else { None };
    let rows = rows(server, &ours, nginx.as_ref(), choice)?;
    load::reach(Instant::now() + Duration::from_secs(3)); // caches fill, connections open
    let mut phases = vec![Orders { name: "warm-up".to_owned(), took: Vec::new(), wrong: Vec::new() }];
    let begin = |name: &str| {
        for row in &rows {
            row.load.next_phase();
        }
        Orders { name: name.to_owned(), took: Vec::new(), wrong: Vec::new() }
    };
    phases.push(begin("quiet"));
    load::reach(Instant::now() + Duration::from_secs(QUIET_S));
    let mut good = begin("restarts");
    for _ in 0..choice.rounds {
        restart(&ours, 0, &mut good)?;
    }
    phases.push(good);
    let broken: Vec<&str> = choice.broken.iter().copied().filter(|broken| server.can_be(broken)).collect();
    for broken in &broken {
        let mut orders = begin(broken);
        ours.mode(broken)?;
        // The ways share the rounds; one that hangs costs its whole time.
        for _ in 0..choice.rounds.div_ceil(broken_ways(&choice.broken)) {
            restart(&ours, 1, &mut orders)?;
        }
        ours.mode("good")?;
        phases.push(orders);
    }
    phases.push(begin("end"));
    let mut failed = phases.iter().map(|orders| orders.wrong.len()).sum();
    for Row { name, load, slow } in rows {
        let asked = load.end();
        for (orders, asked) in phases.iter().zip(&asked) {
            print(&name, orders, asked);
            failed += asked.failures.len();
        }
        verdicts.push(verdict(&name, &phases, &asked, slow));
    }
    drop(nginx);
    ours.stop()?;
    Ok(failed)
}

fn broken_ways(chosen: &[&str]) -> u32 {
    chosen.len().max(1) as u32
}

/// Whether a row is as good with restarts as without; of slow requests, whether all were answered.
fn verdict(name: &str, phases: &[Orders], asked: &[Phase], slow: bool) -> String {
    let ms = |phase: &Phase, thousandths| phase.quantile_us(thousandths) as f64 / 1e3;
    let quiet = phases.iter().zip(asked).find(|(orders, _)| orders.name == "quiet");
    let (mut lost, mut p99, mut worst) = (0, 0.0_f64, 0.0_f64);
    for (orders, asked) in phases.iter().zip(asked) {
        lost += asked.failures.len() + orders.wrong.len();
        if let Some((_, quiet)) = quiet.filter(|_| !orders.took.is_empty()) {
            // Of fewer than that, 99 % are all: the slowest says it.
            if asked.asked() >= FEWEST {
                p99 = p99.max(ms(asked, 990) - ms(quiet, 990));
            }
            worst = worst.max(ms(asked, 1_000) - ms(quiet, 1_000));
        }
    }
    let met = lost == 0 && (slow || p99 <= BAR_MS.0 && worst <= BAR_MS.1);
    let word = if met { "met" } else { "missed" };
    format!(
        "{name:<34} {word:<6} failed {lost}, p99 {p99:+.1} ms, worst {worst:+.1} ms against the quiet phase"
    )
}

fn restart(ours: &Ours, wanted: i32, orders: &mut Orders) -> io::Result<()> {
    let said = ours.order(&["restart", "web"])?;
    orders.took.push(said.took);
    if said.code != Some(wanted) {
        orders.wrong.push(format!("restart: exit {:?} instead of {wanted}: {}", said.code, said.err));
    }
    Ok(())
}

fn print(name: &str, orders: &Orders, asked: &Phase) {
    let ms = |us: u64| us as f64 / 1e3;
    let mut took = orders.took.clone();
    took.sort_unstable();
    let took = took
        .get(took.len() / 2)
        .map_or(String::new(), |median| format!("{} × {:.2} s", orders.took.len(), median.as_secs_f64()));
    println!(
        "{name:<34} {:<14} {:>8} {:>6} {:>6} {:>8.2} {:>8.2} {:>8.1}  {took}",
        orders.name,
        asked.asked(),
        asked.failures.len(),
        asked.stale,
        ms(asked.quantile_us(500)),
        ms(asked.quantile_us(990)),
        ms(asked.quantile_us(1_000)),
    );
    for why in asked.failures.iter().chain(&orders.wrong).take(5) {
        println!("    {why}");
    }
}
