//! Against the floor: what `supervise` does beside a program that vforks, executes and waits.
//!
//! `cargo bench --bench floor [-- ROW…]` prints one line a row: ours and the floor's median in
//! milliseconds, and how many times the floor ours is. Each pair is taken by turns in this one run, so both
//! see the same machine. Run by root, every service changes its identity to `nobody`; run by another user it
//! stays that user's. Words after `--` choose rows by a part of their name.
//!
//! A machine that does other work meanwhile falsifies medians, mostly in our favour: where both sides wait for
//! a processor, the ratio drifts to 1. So each line has the ratio of the lowest tenths too, and the load, and
//! a bar is called met only on a machine that was quiet. What the load changes least is processor time: those
//! rows are the ones to compare two builds by.
//!
//! The floor of a boot begins with its first start, without its own; those of `status` and `restart` are
//! whole processes that ask a process with one child.
//!
//! The row `peers` measures runit, s6, dinit and supervisord, as far as they are installed, with the same probes.
//!
//! There is no row for the first byte from a service that sleeps behind its socket: starting on demand is not there yet.
//!
//! The row `init` is `supervise init` beside tini and dumb-init, by turns and without a floor.
//!
//! SUPERVISE_BENCH_BINARY names another build to measure; SUPERVISE_BENCH_ROUNDS multiplies the rounds by a
//! number of per cent.

mod bare;
mod one;
mod ours;
mod peers;
mod probe;
mod rows;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("this bench has a probe for x86_64 alone: nothing was measured");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match arguments.iter().map(|word| word.to_str()).collect::<Vec<_>>().as_slice() {
        [Some("floor-keep"), Some(count), ..] => keep(count, &arguments),
        [Some("floor-serve"), ..] => serve(&arguments),
        [Some("floor-ask"), ..] => ask(&arguments),
        words => {
            // Cargo adds a word of its own.
            let chosen = words.iter().flatten().filter(|word| !word.starts_with("--"));
            rows::all(&chosen.map(|word| (*word).to_owned()).collect::<Vec<_>>())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "an argument is missing")
}

fn keep(count: &str, arguments: &[OsString]) -> io::Result<()> {
    let count = count.parse().map_err(io::Error::other)?;
    let [_, _, program, fifo] = arguments else { return Err(missing()) };
    bare::keep(count, program, fifo)
}

fn serve(arguments: &[OsString]) -> io::Result<()> {
    let [_, socket, program, fifo] = arguments else { return Err(missing()) };
    bare::serve(Path::new(socket), program, fifo)
}

fn ask(arguments: &[OsString]) -> io::Result<()> {
    let [_, socket, verb] = arguments else { return Err(missing()) };
    bare::ask(Path::new(socket), verb)
}
