//! Restarts under load: what clients of real servers notice of restarts, good ones and broken ones.
//!
//! `cargo bench --bench overlap [-- WORD…]` runs each server from PyPI behind held sockets, an application that
//! takes a second to import, and an open-loop load; then it restarts it again and again, first as it is and
//! then broken in every way there is. Words choose servers by a part of their name; `keep` and `close` choose
//! clients that keep their connections or do not; `rounds=N` and `rate=N` say how many restarts of each sort
//! and how many requests a second. One line a phase: requests, failed ones, resets of idle connections that were used
//! again, failures among the slow requests (two seconds each) that are always under way, and the times.
//!
//! The exit status is 1 where a request failed of a server whose graceful stop drains. Times are compared with
//! the phase without a restart in the same run, on the same machine.

// It shares the fetching of servers with the tests, which fail where something is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/it/accounts.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod accounts;
#[path = "../../tests/it/gunicorn.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod gunicorn;
mod load;
#[allow(dead_code, reason = "the tests use more of it")]
mod ours;
#[path = "../../tests/it/pypi.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod pypi;
mod servers;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use load::{Load, Phase, Plan};
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

struct Choice {
    servers: Vec<&'static Server>,
    keep_alive: Vec<bool>,
    rounds: u32,
    rate: u32,
}

fn choice() -> Choice {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |key: &str, preset: u32| {
        let value = words.iter().find_map(|word| word.strip_prefix(key));
        value.and_then(|text| text.parse().ok()).unwrap_or(preset)
    };
    let has = |word: &str| words.iter().any(|one| one == word);
    let named: Vec<&String> =
        words.iter().filter(|word| !word.contains('=') && *word != "keep" && *word != "close").collect();
    let chosen = |server: &&Server| named.is_empty() || named.iter().any(|word| server.name.contains(*word));
    let keep_alive = match (has("keep"), has("close")) {
        (true, false) => vec![true],
        (false, true) => vec![false],
        _ => vec![false, true],
    };
    Choice {
        servers: SERVERS.iter().filter(chosen).collect(),
        keep_alive,
        rounds: number("rounds=", ROUNDS),
        rate: number("rate=", RATE),
    }
}

fn main() -> ExitCode {
    let choice = choice();
    println!(
        "{:<18} {:<5} {:<14} {:>8} {:>6} {:>6} {:>9} {:>8} {:>8} {:>8}  command",
        "server", "conn", "phase", "requests", "failed", "stale", "slow lost", "p50 ms", "p99 ms", "worst"
    );
    let mut failed = 0;
    for server in &choice.servers {
        for keep_alive in &choice.keep_alive {
            match measure(server, *keep_alive, &choice) {
                Ok(count) => failed += count,
                Err(error) => {
                    eprintln!("overlap: {}: {error}", server.name);
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What happened in a phase beside the requests.
struct Orders {
    name: String,
    took: Vec<Duration>,
    wrong: Vec<String>,
}

fn measure(server: &Server, keep_alive: bool, choice: &Choice) -> io::Result<usize> {
    let ours = Ours::start(server)?;
    let plan = Plan {
        targets: ours.targets.clone(),
        path: "/",
        per_second: choice.rate,
        clients: CLIENTS,
        keep_alive,
    };
    let slow = Plan { path: "/slow", per_second: 1, clients: 4, keep_alive: false, ..plan.clone() };
    let (load, slow) = (Load::start(plan)?, Load::start(slow)?);
    load::reach(Instant::now() + Duration::from_secs(3)); // caches fill, connections open
    let mut phases = vec![Orders { name: "warm-up".to_owned(), took: Vec::new(), wrong: Vec::new() }];
    let begin = |name: &str| {
        load.next_phase();
        slow.next_phase();
        Orders { name: name.to_owned(), took: Vec::new(), wrong: Vec::new() }
    };
    phases.push(begin("quiet"));
    load::reach(Instant::now() + Duration::from_secs(QUIET_S));
    let mut good = begin("restarts");
    for _ in 0..choice.rounds {
        restart(&ours, 0, &mut good)?;
    }
    phases.push(good);
    for broken in BROKEN {
        if broken == "port" && !server.is_python {
            continue; // nothing of ours runs early enough to listen elsewhere
        }
        let mut orders = begin(broken);
        ours.mode(broken)?;
        // The ways share the rounds; one that hangs costs its whole time.
        for _ in 0..choice.rounds.div_ceil(BROKEN.len() as u32) {
            restart(&ours, 1, &mut orders)?;
        }
        ours.mode("good")?;
        phases.push(orders);
    }
    phases.push(begin("end"));
    let (fast, slow) = (load.end(), slow.end());
    ours.stop()?;
    let mut failed = 0;
    for ((orders, fast), slow) in phases.iter().zip(&fast).zip(&slow) {
        print(server, keep_alive, orders, fast, slow);
        failed += fast.failures.len() + slow.failures.len() + orders.wrong.len();
    }
    Ok(failed)
}

fn restart(ours: &Ours, wanted: i32, orders: &mut Orders) -> io::Result<()> {
    let said = ours.order(&["restart", "web"])?;
    orders.took.push(said.took);
    if said.code != Some(wanted) {
        orders.wrong.push(format!("restart: exit {:?} instead of {wanted}: {}", said.code, said.err));
    }
    Ok(())
}

fn print(server: &Server, keep_alive: bool, orders: &Orders, fast: &Phase, slow: &Phase) {
    let ms = |us: u64| us as f64 / 1e3;
    let mut took = orders.took.clone();
    took.sort_unstable();
    let took = took
        .get(took.len() / 2)
        .map_or(String::new(), |median| format!("{} × {:.2} s", orders.took.len(), median.as_secs_f64()));
    println!(
        "{:<18} {:<5} {:<14} {:>8} {:>6} {:>6} {:>9} {:>8.2} {:>8.2} {:>8.1}  {took}",
        server.name,
        if keep_alive { "keep" } else { "close" },
        orders.name,
        fast.asked(),
        fast.failures.len(),
        fast.stale,
        format!("{}/{}", slow.failures.len(), slow.asked()),
        ms(fast.quantile_us(500)),
        ms(fast.quantile_us(990)),
        ms(fast.quantile_us(1_000)),
    );
    for why in fast.failures.iter().chain(&slow.failures).chain(&orders.wrong).take(5) {
        println!("    {why}");
    }
}
