//! PURE. Unit files: text in, typed units or every problem with its place out. Never touches a file.
//!
//! ```text
//! text -> toml -> read (against the key table) -> settings, layer over layer -> build -> Unit
//!                   |                                                            |
//!                   +---------------- every problem, in file order --------------+
//! ```
//!
//! [`keys`] is the one list of what can be written; the reader, the defaults and `units/reference.toml` come
//! from it. [`rules`] holds what one file alone cannot tell: who runs it, and which other units there are.

mod account;
mod address;
mod between;
mod build;
mod capability;
mod choices;
mod command;
mod effective;
mod environment_file;
mod fault;
mod forms;
pub mod keys;
mod lists;
pub mod manual;
mod model;
mod nearest;
mod parse;
mod problem;
mod read;
mod reference;
pub mod rules;
mod schema;
mod serve;
mod settings;
mod signal;
mod source;
mod value;
mod wording;
mod words;

pub use account::Account;
pub use address::Listen;
pub use capability::{
    Capability, HIGHEST_CAPABILITY, KNOWN_CAPABILITIES, capability_name, capability_number,
};
pub use choices::{Kind, LogTo, Policy, Profile, Ready, Server, SocketType, Start, Strategy, WhenFull};
pub use command::{Command, Context, Directory, Piece, Word};
pub use effective::{Effective, NOT_SHOWN};
pub use environment_file::{ENVIRONMENT_FILE_BYTES_MAX, environment_file};
pub use fault::{CommandFault, Fault, FileFault, HealthFault, KeyFault, RuleFault, SocketFault, ValueFault};
pub use forms::{duration_text, size_text};
pub use model::{
    Access, Dependencies, Deploy, Environment, Health, Limits, Log, NameFault, Places, Probe, Reload,
    Restart, Sandbox, Service, Socket, Unit, Who, check_name,
};
pub use parse::{Layer, text};
pub use problem::{Problem, Severity, in_order};
pub use reference::reference;
pub use schema::schema;
pub use serve::{Gate, check_server};
pub use signal::Signal;
pub use source::{Place, visible_lines};

/// Most bytes of one unit file.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of tables and lists in a unit file; a key of `[dev.socket.NAME]` is at depth 4.
pub const DEPTH_MAX: usize = 8;
/// Most sockets of one unit: they become descriptors 3, 4, … of the service.
pub const SOCKETS_MAX: usize = 64;
/// Most bytes of a unit's environment, counted as execve(2) does: name, `=`, value and a NUL each.
pub const ENVIRONMENT_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of a command, each word with its NUL.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of a text for people, such as `description`.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most items of a list, such as `groups`.
pub const LIST_MAX: usize = 64;
/// Longest path of a Unix socket, in bytes without its NUL (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Most problems told of one unit; what is beyond is counted.
pub const PROBLEMS_MAX: usize = 100;
