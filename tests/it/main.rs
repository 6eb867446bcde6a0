//! Real processes: the built program, real services, real accounts, and the promises that are made of them.
//!
//! One file for each promise. Tests of `root_` need root, fail for anybody else, and say so; those of `user_` run
//! the supervisor as an ordinary user, which root becomes for them. Each test has a [`place::Place`] of its own
//! and fails when anything of it is left behind: a process, an account, a cgroup, a file.
// All of it is test code; clippy knows that of functions marked as tests alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod cri;
mod gunicorn;
mod load;
mod place;
mod processes;
mod pypi;
mod sockets;
mod supervisor;
mod varlink_judged;
mod wait;

mod above;
mod access;
mod boot;
mod both_die;
mod check;
mod check_odd;
mod crash_loop;
mod dependencies;
mod engine;
mod exec;
mod exec_tty;
mod exits;
mod explain;
mod failed_restart;
mod full;
mod health;
mod hostile;
mod identity;
mod in_files;
mod inputs;
mod kills;
mod launches;
mod liveness;
mod log_troubles;
mod logs_command;
mod logs_container;
mod logs_judged;
mod logs_output;
mod lookups;
mod many;
mod neighbours;
mod notify_files;
mod notify_main;
mod notify_reload;
mod notify_store;
mod on_the_way;
mod one_answer;
mod overlap;
mod queues;
mod refusals;
mod rehearsal;
mod restart;
mod rights;
mod servers;
mod sockets_bind;
mod sockets_given;
mod sockets_heal;
mod sockets_kinds;
mod sockets_nginx;
mod sockets_rights;
mod status_fields;
mod stopping;
mod takeover;
mod traps;
mod whole_tree;
mod wrappers;
