//! USER. The other processes of the program, which are hidden subcommands of it, and `init`: told apart before
//! anything is parsed. Never decides what they do.

use std::ffi::OsString;
use std::process::ExitCode;

/// What the first argument says; `None` where this is the command line of a user.
pub fn hidden(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let first = args.next()?;
    let main = match first.to_str()? {
        "keeper" => crate::keeper::main,
        "zygote" => crate::zygote::main,
        "manager" => crate::manager::main,
        "logger" => crate::logger::main,
        "init" => return super::init::main(args.collect()),
        "lookup" => crate::lookup::main,
        "probe" => crate::probe::main,
        "read" => crate::lookup::read_main,
        "resolve" => crate::lookup::resolve_main,
        "bind" => crate::binder::main,
        "carry" => crate::courier::main,
        _ => return None,
    };
    Some(main(args.collect()))
}
