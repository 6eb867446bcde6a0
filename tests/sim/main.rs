//! PURE. Policy and recovery in a made-up kernel: processes, keeper, zygote and manager without a thread, a
//! clock or a sleep. After every event the whole is asked whether it still keeps its promises, above all
//! whether anything waits that nothing will wake. Never touches the real system.
//!
//! - `walk`: long random lives of a few services, with every fault there is. A failing one names its seed;
//!   `SIM_SEED=n` plays that one again, `SIM_WALKS=n` and `SIM_EVENTS=n` say how many and how long.
//! - `paths`: every short sequence of inputs from every phase; `SIM_DEPTH=n` says how short.
//! - `death`: scripted lives, told once without and then with the manager's death at every point; `commanded` has more
//!   of them.
//! - `rehearsal`: new generations that are tried where no client hears them.
//! - `ends`: how a server ends, and what that means.
//! - `flood`: what the walks are too gentle for; `turns`: what they cannot tell.
//!
//! A failure ends with the trace of everything that was fed and done.

#![allow(missing_docs, clippy::panic)]

mod behaviour;
mod checks;
mod commanded;
mod death;
mod ends;
mod flood;
mod kernel;
mod oracle;
mod paths;
mod rehearsal;
mod shell;
mod sim;
mod turns;
mod waiting;
mod walk;
