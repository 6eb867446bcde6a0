//! `supervise`: a process supervisor that holds sockets, drops privileges, and survives its own death.
//!
//! The map of the house. Each module's first doc line says which part of the system it belongs to and so
//! what it may use; `tests/tidy.rs` checks that it keeps to it.
//!
//! ```text
//! kernel -> manager/turn -> Event -> policy -> Action -> manager/carry_out -> plan -> sys -> zygote -> launch -> execve
//! ```
//!
//! | module | kind | owns |
//! |---|---|---|
//! | [`policy`] | PURE | what should happen to each service |
//! | [`unit`] | PURE | unit files: text to typed units, or every problem with its place |
//! | [`servers`] | PURE | what is known of gunicorn, uWSGI and others |
//! | [`plan`] | PURE | unit + sockets + identity to an execution plan |
//! | [`wire`] | PURE | bytes and values of every protocol |
//! | [`sys`] | ROOT | system calls; the only `unsafe` |
//! | [`keeper`] | ROOT | the parent of everything; descriptors, exits |
//! | [`zygote`] | ROOT | clones |
//! | [`manager`] | ROOT | the loop |
//! | [`init`] | ROOT | one command under PID 1, and nothing else |
//! | [`launch`] | CHILD | a plan to a running command |
//! | [`lookup`] | CHILD | account names to numbers |
//! | [`binder`] | CHILD | sockets bound with a service's own rights |
//! | [`courier`] | CHILD | messages of services that have descriptors with them |
//! | [`probe`] | CHILD | whether a service answers, with its own rights |
//! | [`logger`] | LOG | bytes to files |
//! | [`cli`] | USER | arguments, text, exit codes |
//!
//! [`unit`]: mod@unit

pub mod binder;
pub mod cli;
pub mod courier;
pub mod init;
pub mod keeper;
pub mod launch;
pub mod logger;
pub mod lookup;
pub mod manager;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod servers;
pub mod sys;
pub mod unit;
pub mod wire;
pub mod zygote;
