//! What supervision promises beyond a process that lives: readiness, tasks, steps before the start, order, and
//! what is essential. The built program with real processes, as root and as an ordinary user alike.
//!
//! Nothing here sleeps: everything is waited for, with a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

mod before;
mod ready;
mod tasks;
