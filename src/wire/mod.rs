//! PURE. The bytes and values of every protocol. Never a file, a socket or a global.
pub mod accounts;
pub mod keeper;
pub mod state;
pub mod zygote;
