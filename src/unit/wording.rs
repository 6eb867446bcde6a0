//! PURE. The words for everything that can be wrong with a unit: message and remedy. Never decides that it is.

use std::fmt;

use super::fault::HealthFault;
use super::fault::{CommandFault, Fault, FileFault, KeyFault, RuleFault, SocketFault, ValueFault};
use super::forms::{duration_text, size_text};
use super::keys::{PLACEHOLDERS, Since};
use super::source::{tick, visible};
use super::{
    COMMAND_BYTES_MAX, DEPTH_MAX, ENVIRONMENT_BYTES_MAX, FILE_BYTES_MAX, LIST_MAX, SOCKET_PATH_BYTES_MAX,
    SOCKETS_MAX, TEXT_BYTES_MAX,
};

impl Fault {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(fault) => fault.hint(),
            Self::Key(fault) => fault.hint(),
            Self::Value(fault) => fault.hint(),
            Self::Command(fault) => fault.hint(),
            Self::Socket(fault) => fault.hint(),
            Self::Health(fault) => fault.hint(),
            Self::Rule(fault) => fault.hint(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(fault) => fault.fmt(out),
            Self::Key(fault) => fault.fmt(out),
            Self::Value(fault) => fault.fmt(out),
            Self::Command(fault) => fault.fmt(out),
            Self::Socket(fault) => fault.fmt(out),
            Self::Health(fault) => fault.fmt(out),
            Self::Rule(fault) => fault.fmt(out),
        }
    }
}

macro_rules! part_of_fault {
    ($($part:ident $fault:ident),*) => {
        $(impl From<$fault> for Fault {
            fn from(fault: $fault) -> Self {
                Self::$part(fault)
            }
        })*
    };
}
part_of_fault!(File FileFault, Key KeyFault, Value ValueFault, Command CommandFault, Socket SocketFault, Health HealthFault, Rule RuleFault);

impl FileFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooBig { .. } => format!("a unit file has at most {} KiB", FILE_BYTES_MAX / 1024),
            Self::NotText => "save the file as UTF-8".to_owned(),
            Self::Unquoted { word } if word.is_empty() => "write the value behind the `=`".to_owned(),
            Self::Unquoted { word } => format!("write `\"{}\"`", visible(word).replace('"', "\\\"")),
            Self::Twice { .. } => "keep one of the two".to_owned(),
            Self::TooDeep => format!("a unit file nests at most {DEPTH_MAX} deep"),
            Self::Name { .. } => {
                "a unit's name starts with `a` to `z` or a digit, goes on with those, `.`, `_` and `-`, \
                                  and has at most 63 characters"
                    .to_owned()
            }
            Self::Syntax { message } if message.starts_with("missing comma between array elements") => {
                "write a `,`, or a `]` where the list ends".to_owned()
            }
            Self::Syntax { message } if message.starts_with("unexpected leading zero") => {
                "an octal number is a text, in quotes: `\"0022\"`".to_owned()
            }
            Self::Syntax { .. } | Self::More { .. } => return None,
        })
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig { bytes } => write!(out, "the file has {bytes} bytes, which is too many"),
            Self::NotText => out.write_str("this is not UTF-8"),
            Self::Syntax { message } => write!(out, "not valid TOML: {}", visible(message)),
            Self::Unquoted { word } if word.is_empty() => out.write_str("there is no value"),
            Self::Unquoted { word } => write!(out, "{} is not quoted", tick(word)),
            Self::Twice { key } => write!(out, "{} is there twice", tick(key)),
            Self::TooDeep => out.write_str("too many tables and lists inside of each other"),
            Self::More { count: 1 } => out.write_str("and 1 more problem"),
            Self::More { count } => write!(out, "and {count} more problems"),
            Self::Name { name } => write!(out, "{} cannot be the name of a unit", tick(name)),
        }
    }
}

impl KeyFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { remedy, .. } => return remedy.clone(),
            Self::UnknownTable { meant, .. } => format!("did you mean `{}`?", meant.as_deref()?),
            Self::NotYet { .. } => "remove it: a unit runs only where all of it can be honoured".to_owned(),
            Self::NotATable { header } => format!("write `{header}` on a line of its own, and its keys below"),
            Self::Missing { key, table, example } => format!("add `{key} = {example}` below `{table}`"),
            Self::SocketName { .. } => {
                "a socket's name starts with `a` to `z` or a digit, goes on with those, `.`, `_` and `-`, and has at most \
                 63 characters"
                    .to_owned()
            }
            Self::SocketReserved => "give the socket another name".to_owned(),
        })
    }
}

impl fmt::Display for KeyFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key, table, .. } if table.starts_with('[') => {
                write!(out, "unknown key {} in {}", tick(key), tick(table))
            }
            Self::Unknown { key, table, .. } => write!(out, "unknown key {} at {table}", tick(key)),
            Self::UnknownTable { name, .. } => write!(out, "unknown table {}", tick(&format!("[{name}]"))),
            Self::NotYet { what } => write!(out, "{} is not supported yet", tick(what)),
            Self::NotATable { header } => write!(out, "{} is a table", tick(header)),
            Self::Missing { key, table, .. } => write!(out, "{} has no {}", tick(table), tick(key)),
            Self::SocketName { name } => write!(out, "{} cannot be the name of a socket", tick(name)),
            Self::SocketReserved => out.write_str("the socket name `health` is reserved"),
        }
    }
}

impl ValueFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Type { remedy, .. } => return remedy.clone(),
            Self::Form { remedy, .. } => remedy.clone(),
            Self::Short { off: true, .. } => "write `\"off\"` for no limit".to_owned(),
            Self::Choice { meant: Some(meant), .. } => format!("did you mean `\"{meant}\"`?"),
            Self::Choice { known, .. } => format!("there is {}", either(known)),
            Self::Nul { .. } => "remove it: nothing that is given to a program can hold one".to_owned(),
            Self::Long { .. } => format!("there is room for {TEXT_BYTES_MAX} bytes"),
            Self::Many { .. } => format!("there is room for {LIST_MAX}"),
            Self::EnvironmentSize { .. } => format!("there is room for {} KiB", ENVIRONMENT_BYTES_MAX / 1024),
            Self::EnvironmentName { .. } => {
                "a variable's name has letters, digits and `_`, and starts with no digit".to_owned()
            }
            Self::EnvironmentKey { name } => {
                format!("a key below the wrong table header: move {} up, below `[service]`", tick(name))
            }
            Self::NotYet { .. } => {
                "choose another: a unit runs only where all of it can be honoured".to_owned()
            }
            Self::Endless { .. } => "it leaves the service where it is, for ever".to_owned(),
            Self::AccountNumber { .. } => "a uid or gid is from 0 to 4294967294".to_owned(),
            Self::FewDescriptors { sockets } => {
                format!("the service is given {sockets} of them as sockets; leave it more than that")
            }
            Self::TasksOnly { .. } => "remove it, or add `kind = \"task\"` below `[service]`".to_owned(),
            Self::TaskInstances => "remove it, or write a unit for each".to_owned(),
            Self::Itself { .. } => "remove it".to_owned(),
            Self::SocketThere { free, .. } => format!("the first free one is {free}"),
            Self::DelayOrder { .. } => "write a longer `max-delay`, or none".to_owned(),
            Self::Range { .. }
            | Self::Small { .. }
            | Self::Short { off: false, .. }
            | Self::Control { .. } => return None,
        })
    }
}

impl fmt::Display for ValueFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { key, wants, got, .. } => write!(out, "{} takes {wants}, not {got}", tick(key)),
            Self::Form { key, word, wants, .. } => {
                write!(out, "{} in {} is not {wants}", tick(word), tick(key))
            }
            Self::Range { key, word, least, most: i64::MAX } => {
                write!(out, "{} in {} is below {least}", tick(word), tick(key))
            }
            Self::Range { key, word, least, most } => {
                write!(out, "{} in {} is not from {least} to {most}", tick(word), tick(key))
            }
            Self::Small { key, least_bytes } => {
                write!(out, "{} has to be at least {}", tick(key), tick(&size_text(*least_bytes)))
            }
            Self::Short { key, least_ms, .. } => {
                write!(out, "{} has to be at least {}", tick(key), tick(&duration_text(*least_ms)))
            }
            Self::DelayOrder { delay_ms } => {
                write!(
                    out,
                    "`max-delay` is shorter than `delay`, which is {}",
                    tick(&duration_text(*delay_ms))
                )
            }
            Self::Choice { key, word, .. } => write!(out, "{} cannot be {}", tick(key), tick(word)),
            Self::NotYet { key, word } => {
                write!(out, "{} for {} is not supported yet", tick(word), tick(key))
            }
            Self::Nul { key } => write!(out, "{} holds a NUL", tick(key)),
            Self::Control { key } => write!(out, "{} holds a control character", tick(key)),
            Self::Long { key, bytes } => write!(out, "{} has {bytes} bytes, which is too many", tick(key)),
            Self::Many { key } => write!(out, "{} has too many items", tick(key)),
            Self::EnvironmentSize { bytes } => {
                write!(out, "the environment has {bytes} bytes, which is too many")
            }
            Self::EnvironmentName { name } => write!(out, "{} cannot be the name of a variable", tick(name)),
            Self::EnvironmentKey { name } => {
                write!(out, "{} is a key of `[service]`, and here it would be a variable", tick(name))
            }
            Self::Endless { key, word } => write!(out, "{} for {} ends nothing", tick(word), tick(key)),
            Self::AccountNumber { key, word } => {
                write!(out, "{} in {} is nobody's number", tick(word), tick(key))
            }
            Self::TasksOnly { key } => write!(out, "{} means nothing for a service", tick(key)),
            Self::TaskInstances => out.write_str("a task runs once, in one instance"),
            Self::Itself { key } => write!(out, "{} names this unit itself", tick(key)),
            Self::SocketThere { fd, .. } => write!(out, "descriptor {fd} is one of the sockets"),
            Self::FewDescriptors { .. } => {
                out.write_str("`nofile` leaves the service no descriptors beside its sockets")
            }
        }
    }
}

impl CommandFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty | Self::NoProgram => {
                "write the program first: `command = [\"bin/server\", \"--option\"]`".to_owned()
            }
            Self::Shell { .. } => {
                "no shell is run: put it in single quotes, or write `[\"sh\", \"-c\", \"exec …\"]`".to_owned()
            }
            Self::Assignment { word } => {
                format!("no shell is run: write {} below `[service.environment]`", tick(word))
            }
            Self::Unfinished => "end the quote, or write the command as a list".to_owned(),
            Self::Placeholder { .. } => {
                let words = PLACEHOLDERS
                    .iter()
                    .filter(|(word, since)| *since == Since::Now && !word.starts_with("fd:"));
                let words: Vec<String> = words.map(|(word, _)| format!("`{{{word}}}`")).collect();
                match words.split_last() {
                    Some((last, rest)) => format!("there is `{{fd:NAME}}`, {} and {last}", rest.join(", ")),
                    None => "there is `{fd:NAME}`".to_owned(),
                }
            }
            Self::NoSocket { name, known } if known.is_empty() => {
                format!("add a table `[socket.{name}]`")
            }
            Self::NoSockets { .. } => "only `command` of `[service]` is given the sockets".to_owned(),
            Self::NobodyAsks => "add `[health]` with `http`, `uwsgi` or `tcp`".to_owned(),
            Self::NoDirectory { key } => {
                format!("add {} below `[service]`", tick(&format!("{key} = \"NAME\"")))
            }
            Self::NoSocket { known, .. } => format!("there is {}", either(known)),
            Self::Long { .. } => format!("there is room for {} KiB", COMMAND_BYTES_MAX / 1024),
            Self::PlaceholderNotYet { .. } => return None,
        })
    }
}

impl fmt::Display for CommandFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let braced = |word: &str| tick(&format!("{{{word}}}"));
        match self {
            Self::Empty => out.write_str("the command is empty"),
            Self::NoProgram => out.write_str("the command's program is empty"),
            Self::Shell { word } => write!(out, "only a shell understands {}", tick(word)),
            Self::Assignment { word } => {
                write!(out, "only a shell understands {}", tick(&format!("{word}=…")))
            }
            Self::Unfinished => out.write_str("a quote that does not end"),
            Self::Placeholder { word } => write!(out, "unknown placeholder {}", braced(word)),
            Self::PlaceholderNotYet { word } => write!(out, "{} is not supported yet", braced(word)),
            Self::NoSockets { key, name } => {
                write!(out, "{} means nothing in {}", braced(&format!("fd:{name}")), tick(key))
            }
            Self::NobodyAsks => out.write_str("nothing asks the socket of `{fd:health}`"),
            Self::NoDirectory { key } => write!(out, "{} is the path of nothing", braced(key)),
            Self::NoSocket { name, .. } => {
                write!(out, "{} names no socket of this unit", braced(&format!("fd:{name}")))
            }
            Self::Long { bytes } => write!(out, "the command has {bytes} bytes, which is too many"),
        }
    }
}

impl SocketFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotAnAddress { meant: Some(meant), .. } => format!("did you mean {}?", tick(meant)),
            Self::NotAnAddress { meant: None, .. } => {
                "write `:80`, `0.0.0.0:80`, `[::1]:80` or `/path.sock`".to_owned()
            }
            Self::HostName { meant, .. } => format!("write an address, such as {}", tick(meant)),
            Self::NoPort { word } if word.contains(':') => {
                format!("write a port behind it: {}", tick(&format!("[{word}]:80")))
            }
            Self::NoPort { word } => format!("write a port behind it: {}", tick(&format!("{word}:80"))),
            Self::Port { .. } => "a port is from 1 to 65535".to_owned(),
            Self::Mapped { remedy, .. } => format!("write {}", tick(&remedy.to_string())),
            Self::AbstractName { .. } => {
                format!(
                    "write 1 to {SOCKET_PATH_BYTES_MAX} bytes behind the `@`, none of them a control character"
                )
            }
            Self::RelativePath { .. } => {
                "write it from the root on, such as `/run/bagels/http.sock`".to_owned()
            }
            Self::LongPath { .. } => format!("the kernel has room for {SOCKET_PATH_BYTES_MAX}"),
            Self::OddPath { .. } => {
                "write it without `.`, `..`, double slashes and a slash at its end".to_owned()
            }
            Self::TooMany => format!("there is room for {SOCKETS_MAX}"),
            Self::Taken { address, other, .. } if address == other => {
                "give one of the two another port or path".to_owned()
            }
            Self::Taken { .. } => "an address for all of a family takes the port on each of them".to_owned(),
            Self::UnixOnly { .. } => "remove it, or listen on a path".to_owned(),
            Self::Senseless { .. } => "remove it".to_owned(),
            Self::Seqpacket { .. } => "write `\"stream\"` or `\"datagram\"`, or listen on a path".to_owned(),
            Self::Nul => return None,
        })
    }
}

impl fmt::Display for SocketFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnAddress { word, .. } => write!(out, "{} is not an address to listen on", tick(word)),
            Self::HostName { word, .. } => {
                write!(out, "{} names a host, and no name is looked up", tick(word))
            }
            Self::NoPort { word } => write!(out, "{} has no port", tick(word)),
            Self::Port { word } => write!(out, "{} has no port that can be listened on", tick(word)),
            Self::Mapped { word, .. } => write!(out, "{} is an IPv4 address, written as IPv6", tick(word)),
            Self::AbstractName { word } => {
                write!(out, "{} cannot be the name of an abstract socket", tick(word))
            }
            Self::RelativePath { word } => write!(out, "the socket's path {} is relative", tick(word)),
            Self::LongPath { bytes } => write!(out, "the socket's path has {bytes} bytes, which is too many"),
            Self::OddPath { word } => write!(out, "the socket's path {} has a shorter spelling", tick(word)),
            Self::Nul => out.write_str("`listen` holds a NUL"),
            Self::TooMany => out.write_str("too many sockets"),
            Self::Taken { address, by, other } if address == other => {
                write!(out, "{} is already the address of {}", tick(address), tick(&format!("[socket.{by}]")))
            }
            Self::Taken { address, by, other } => {
                let by = tick(&format!("[socket.{by}]"));
                write!(out, "{} overlaps {}, the address of {by}", tick(address), tick(other))
            }
            Self::UnixOnly { key, of } | Self::Senseless { key, of } => {
                write!(out, "{} means nothing for {of}", tick(key))
            }
            Self::Seqpacket { address } => {
                write!(out, "`seqpacket` is for Unix sockets, and {} is none", tick(address))
            }
        }
    }
}

impl RuleFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoUser => {
                "nothing runs as root by accident: add `user = \"NAME\"` below `[service]`, or write out `user = \"root\"`"
                    .to_owned()
            }
            Self::RootByNumber => {
                "nothing runs as root by accident: name a user of its own, or write out `user = \"root\"`".to_owned()
            }
            Self::Root => "give the service a user of its own: its sockets are bound for it, also below port 1024".to_owned(),
            Self::OtherUser { runner, .. } => format!("remove `user`, write {}, or let root run supervise", tick(runner)),
            Self::OtherGroup { .. } | Self::NotInGroup { .. } => "remove it, or let root run supervise".to_owned(),
            Self::Capabilities { .. } => "remove `capabilities`, or let root run supervise".to_owned(),
            Self::OtherOwner { .. } => "remove `user` from the socket, or let root run supervise".to_owned(),
            Self::Taken { address, other, .. } if address == other => "give one of the two another port or path".to_owned(),
            Self::Taken { .. } => "an address for all of a family takes the port on each of them".to_owned(),
            Self::NoUnit { meant: Some(meant), .. } => format!("did you mean {}?", tick(meant)),
            Self::NoUnit { key: "requires", .. } => "add the unit, or write it below `wants`".to_owned(),
            Self::NoUnit { .. } => "add the unit, or remove its name".to_owned(),
            Self::Cycle { .. } => "take one of them out".to_owned(),
            Self::Server { hint, .. } => visible(hint),
            Self::SameName { .. } => "give one of the two files another name".to_owned(),
        })
    }
}

impl fmt::Display for RuleFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser => out.write_str("`[service]` has no `user`, and supervise runs as root"),
            Self::Root => out.write_str("the service runs as root"),
            Self::RootByNumber => out.write_str("uid 0 is root"),
            Self::OtherUser { user, runner } => {
                write!(out, "{} cannot run a service as {}", tick(runner), tick(user))
            }
            Self::OtherGroup { group, runner } => {
                write!(out, "{} cannot run a service in the group {}", tick(runner), tick(group))
            }
            Self::NotInGroup { group, runner } => {
                write!(out, "{} is not in the group {}", tick(runner), tick(group))
            }
            Self::Capabilities { runner } => write!(out, "{} has no capabilities to grant", tick(runner)),
            Self::OtherOwner { socket, user, runner } => {
                let socket = tick(&format!("[socket.{socket}]"));
                write!(out, "{} cannot give {socket} to {}", tick(runner), tick(user))
            }
            Self::Taken { address, unit, other, place } if address == other => {
                write!(
                    out,
                    "{} is already the address of unit {} at {}",
                    tick(address),
                    tick(unit),
                    visible(place)
                )
            }
            Self::Taken { address, unit, other, place } => {
                let by = format!("the address of unit {} at {}", tick(unit), visible(place));
                write!(out, "{} overlaps {}, {by}", tick(address), tick(other))
            }
            Self::NoUnit { key, name, .. } => write!(out, "{} in {} is no unit", tick(name), tick(key)),
            Self::Cycle { path } => {
                let name = |name: &Option<String>| name.as_deref().map_or("…".to_owned(), tick);
                let path: Vec<String> = path.iter().map(name).collect();
                write!(out, "these units wait for each other: {}", path.join(" → "))
            }
            Self::Server { what, .. } => out.write_str(&visible(what)),
            Self::SameName { name, place } => {
                write!(out, "there is already a unit {}, at {}", tick(name), visible(place))
            }
        }
    }
}

impl HealthFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProbe => {
                "add one of `http = \"/healthz\"`, `uwsgi`, `tcp = true` and `command` below it".to_owned()
            }
            Self::TwoProbes { .. } => "keep one of the two".to_owned(),
            Self::Missing => "add `[health]` with what to ask, or write another `ready`".to_owned(),
            Self::NoSocket { .. } => {
                "add a table `[socket.NAME]`, or give the command `{fd:health}`".to_owned()
            }
            Self::UnknownSocket { known, .. } if known.is_empty() => "add a table `[socket.NAME]`".to_owned(),
            Self::UnknownSocket { known, .. } => format!("there is {}", either(known)),
            Self::NotStream { .. } => "name another with `socket`, or use `command`".to_owned(),
            Self::Private { .. } => "remove one of the two".to_owned(),
            Self::Senseless { .. } => "remove it".to_owned(),
            Self::Task => "remove it: a task is ready when it has succeeded".to_owned(),
        })
    }
}

impl fmt::Display for HealthFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProbe => out.write_str("`[health]` does not say what to ask"),
            Self::TwoProbes { key, other } => {
                write!(out, "{} and {} cannot both be asked", tick(other), tick(key))
            }
            Self::Missing => out.write_str("`ready` waits for `[health]`, which is not there"),
            Self::NoSocket { key } => write!(out, "the unit has no socket for {} to ask", tick(key)),
            Self::UnknownSocket { name, .. } => write!(out, "{} is no socket of this unit", tick(name)),
            Self::NotStream { name } => {
                write!(
                    out,
                    "{} takes no connections, so it cannot be asked",
                    tick(&format!("[socket.{name}]"))
                )
            }
            Self::Private { name } => {
                write!(out, "{} is not asked where the command takes `{{fd:health}}`", tick(name))
            }
            Self::Senseless { key, probe } => {
                write!(out, "{} means nothing beside {}", tick(key), tick(probe))
            }
            Self::Task => out.write_str("a task is not asked whether it is healthy"),
        }
    }
}

/// `a`, `b` or `c`
fn either(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| tick(word)).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
