//! PURE. The bytes and values of every protocol. Never a file, a socket or a global.
pub mod accounts;
pub mod keeper;
pub mod state;
pub mod zygote;

pub mod control;
pub mod names;
pub mod request;
pub mod settings;
pub mod varlink;
pub mod verb;
pub mod zygote;
pub mod cri;
pub mod logger;
