//! PURE. The bytes and values of every protocol. Never a file, a socket or a global.

pub mod accounts;
pub mod binder;
pub mod control;
pub mod courier;
pub mod cri;
pub mod exec;
pub mod handover;
pub mod keeper;
pub mod logger;
pub mod mirror;
pub mod names;
pub mod notify;
pub mod probe;
pub mod request;
pub mod settings;
pub mod shelf;
pub mod state;
pub mod upward;
pub mod varlink;
pub mod verb;
pub mod zygote;
