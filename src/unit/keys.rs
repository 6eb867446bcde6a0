//! PURE. The one table of everything that can be written in a unit file. Never reads a file itself.
//!
//! The reader refuses what is not here, takes defaults from here, and `units/reference.toml` is printed from
//! here. A key marked `Later` is known and refused: nothing that somebody wrote is ever silently ignored. To
//! support one, change its word to `Now` and let `unit/build.rs` carry its value into the typed unit.

/// A table of the unit file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Above the first header.
    Top,
    /// `[service]`
    Service,
    /// `[restart]`
    Restart,
    /// `[socket.NAME]`, any number of them.
    Socket,
    /// `[health]`
    Health,
    /// `[deploy]`
    Deploy,
    /// `[dependencies]`
    Dependencies,
    /// `[log]`
    Log,
    /// `[limits]`
    Limits,
    /// `[sandbox]`
    Sandbox,
    /// `[access]`
    Access,
    /// `[dev]`
    Dev,
}

impl Table {
    /// Every table, in the order of the reference.
    pub const ALL: [Self; 12] = [
        Self::Top,
        Self::Service,
        Self::Restart,
        Self::Socket,
        Self::Health,
        Self::Deploy,
        Self::Dependencies,
        Self::Log,
        Self::Limits,
        Self::Sandbox,
        Self::Access,
        Self::Dev,
    ];

    /// The word in the header; empty for the top of the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Service => "service",
            Self::Restart => "restart",
            Self::Socket => "socket",
            Self::Health => "health",
            Self::Deploy => "deploy",
            Self::Dependencies => "dependencies",
            Self::Log => "log",
            Self::Limits => "limits",
            Self::Sandbox => "sandbox",
            Self::Access => "access",
            Self::Dev => "dev",
        }
    }

    /// The header as somebody would write it.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Top => "the top of the file",
            Self::Service => "[service]",
            Self::Restart => "[restart]",
            Self::Socket => "[socket.NAME]",
            Self::Health => "[health]",
            Self::Deploy => "[deploy]",
            Self::Dependencies => "[dependencies]",
            Self::Log => "[log]",
            Self::Limits => "[limits]",
            Self::Sandbox => "[sandbox]",
            Self::Access => "[access]",
            Self::Dev => "[dev]",
        }
    }

    /// One paragraph for the reference.
    pub const fn doc(self) -> &'static str {
        match self {
            Self::Top => "About the unit, for people.",
            Self::Service => "The service: what runs, as whom, where, and how it starts and stops.",
            Self::Restart => "What happens when the service ends by itself.",
            Self::Socket => {
                "A listening socket that supervise holds for the service, across crashes and restarts. NAME is \
                 free; the order in the file is the order of the descriptors: 3, 4, and so on."
            }
            Self::Health => "How to see that the service works.",
            Self::Deploy => "How a new release takes the place of the old one.",
            Self::Dependencies => "Which other services this one needs, by unit name.",
            Self::Log => "What becomes of the service's output.",
            Self::Limits => {
                "What the service may use: resource limits of each process, and of each instance."
            }
            Self::Sandbox => "What the service cannot reach.",
            Self::Access => "Who else may see and control the service.",
            Self::Dev => "Changes for `supervise dev`: any table of a unit, laid over it. Not supported yet.",
        }
    }

    /// The table of this name; None for the top and for unknown names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table != Self::Top && table.name() == name)
    }

    /// The table's rows, in the order of the reference.
    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.table == self)
    }

    /// The row of the key `name`.
    pub fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// Whether any key of it can be used yet.
    pub fn usable(self) -> bool {
        self.keys().any(|key| key.since == Since::Now)
    }
}

/// Whether a key, or one value of a key, does something yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It does what it says.
    Now,
    /// It is known, and using it is an error.
    Later,
}

/// What stands for a key that nobody wrote; TOML text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This value.
    Is(&'static str),
    /// Nothing; the text is an example.
    Unset(&'static str),
    /// Somebody has to write it; the text is an example.
    Required(&'static str),
}

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A text for people, at most [`super::TEXT_BYTES_MAX`] bytes, without control characters.
    Text,
    /// One such text, or a list of them.
    Texts,
    /// A list of texts.
    Names,
    /// A list of unit names.
    Units,
    /// A list of variables' names.
    Variables,
    /// A list of capabilities' names.
    Capabilities,
    /// A list of `user:NAME`, `group:NAME` and `*`.
    Whos,
    /// A list of processors: numbers, and ranges such as `"4-7"`.
    Processors,
    /// An absolute path.
    Path,
    /// A list of such.
    Paths,
    /// A directory's name without a slash.
    Directory,
    /// The name of one of the unit's sockets.
    SocketName,
    /// The name of a descriptor that an init gives (sd_listen_fds(3)).
    GivenName,
    /// The host name of a request.
    Host,
    /// The path of a request.
    UrlPath,
    /// Processor time such as `"50%"` of one processor.
    Percent,
    /// `{ signal = "HUP" }` or `{ command = [...] }`.
    Reload,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// A whole number of at least 1, or `"off"`.
    Count,
    /// A duration of at least that many milliseconds.
    Duration(u64),
    /// The same, or `"off"` for no limit.
    DurationOrOff(u64),
    /// A size of at least that many bytes, or `"unlimited"`.
    Size(u64),
    /// Permission bits as an octal string.
    Mode,
    /// A signal's name.
    Signal,
    /// One of these words; one in braces stands for a table of that form.
    Choice(&'static [(&'static str, Since)]),
    /// A list of words, or one string to split.
    Command,
    /// A list of such commands.
    Commands,
    /// A list of exit codes, 0 to 255.
    Codes,
    /// A table of variables.
    Environment,
    /// A name, or a number that needs no account.
    Account,
    /// A list of such.
    Accounts,
    /// Where a socket listens.
    Address,
}

/// One row: one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The table it belongs in.
    pub table: Table,
    /// Its name, in kebab-case.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// Whether it can be used.
    pub since: Since,
    /// What stands for it when nobody wrote it.
    pub preset: Preset,
    /// One paragraph of documentation.
    pub doc: &'static str,
}

const BOOT: Shape = Shape::Choice(&[
    ("boot", Since::Now),
    ("on-demand", Since::Later),
    ("manual", Since::Now),
    ("off", Since::Now),
]);
const SERVERS: Shape = Shape::Choice(&[
    ("auto", Since::Now),
    ("none", Since::Now),
    ("gunicorn", Since::Now),
    ("uwsgi", Since::Now),
    ("uvicorn", Since::Now),
    ("hypercorn", Since::Now),
    ("daphne", Since::Now),
    ("granian", Since::Now),
    ("waitress", Since::Now),
    ("celery", Since::Now),
    ("redis", Since::Now),
]);
const KINDS: Shape = Shape::Choice(&[("service", Since::Now), ("task", Since::Now)]);
const GATES: Shape = Shape::Choice(&[
    ("auto", Since::Now),
    ("started", Since::Now),
    ("notify", Since::Now),
    ("{ fd = N }", Since::Now),
    ("health", Since::Now),
]);
const POLICIES: Shape =
    Shape::Choice(&[("always", Since::Now), ("on-failure", Since::Now), ("never", Since::Now)]);
const SOCKET_TYPES: Shape =
    Shape::Choice(&[("stream", Since::Now), ("datagram", Since::Now), ("seqpacket", Since::Now)]);
const STRATEGIES: Shape = Shape::Choice(&[("start-first", Since::Now), ("stop-first", Since::Now)]);
const LOGS: Shape = Shape::Choice(&[
    ("file", Since::Now),
    ("inherit", Since::Now),
    ("journal", Since::Now),
    ("syslog", Since::Now),
    ("null", Since::Now),
]);
const FULL: Shape = Shape::Choice(&[("drop", Since::Now), ("block", Since::Now)]);
const PROFILES: Shape =
    Shape::Choice(&[("default", Since::Later), ("web", Since::Later), ("off", Since::Later)]);

/// Smallest file that is worth rotating: four of the longest lines.
const LOG_BYTES_LEAST: u64 = 64 * 1024;
/// Least memory in which a program can start at all.
const MEMORY_BYTES_LEAST: u64 = 1 << 20;
/// Largest value that the kernel takes for a descriptor limit (`fs.nr_open` at its highest).
const NOFILE_MAX: i64 = 0x7fff_ffc0;
/// Largest backlog that listen(2) takes; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG_MAX: i64 = i32::MAX as i64;

/// Words in braces that the commands of a unit can hold beside `{fd:NAME}`.
pub const PLACEHOLDERS: &[(&str, Since)] = &[
    ("name", Since::Now),
    ("instance", Since::Now),
    ("generation", Since::Now),
    ("runtime-directory", Since::Now),
    ("state-directory", Since::Now),
    ("cache-directory", Since::Now),
    ("fd:health", Since::Now),
];

macro_rules! rows {
    ($($table:ident { $($name:literal $shape:expr, $since:ident, $preset:ident $value:literal, $doc:literal;)* })*) => {
        &[$($(Key {
            table: Table::$table, name: $name, shape: $shape, since: Since::$since, preset: Preset::$preset($value),
            doc: $doc,
        },)*)*]
    };
}

/// Every key there is.
pub const KEYS: &[Key] = rows! {
    Top {
        "description" Shape::Text, Now, Unset r#""the bagel shop's web application""#,
            "What this is, in a line.";
        "documentation" Shape::Texts, Now, Unset r#"["https://bagels.example/runbook", "man:gunicorn(1)"]"#,
            "Where to read more: one address, or a list of them.";
    }
    Service {
        "command" Shape::Command, Now, Required r#"["bin/gunicorn", "bagels.wsgi", "--workers", "2"]"#,
            "The program and its arguments: a list, or one string, which is split like a shell would; no shell is run. \
             A program without a slash is looked up in the service's own PATH; with one it is relative to `directory`. \
             `{fd:NAME}` becomes the descriptor of that socket; `{name}`, `{instance}` and `{generation}` what they say.";
        "server" SERVERS, Now, Is r#""auto""#,
            "Which server the command is, so that its signals, exit codes, readiness and traps are known: `auto` recognises \
             it by the command; a name helps where it is started by a script; `none` says that it is nothing in particular.";
        "kind" KINDS, Now, Is r#""service""#,
            "A service runs until it is stopped; a task runs until it is done.";
        "start" BOOT, Now, Is r#""boot""#,
            "When it starts: with supervise, at the first connection, by hand, or not at all.";
        "user" Shape::Account, Now, Unset r#""bagels""#,
            "Who the service runs as: an account's name, or a number, which needs no account. Required where supervise \
             runs as root; `root` has to be written out.";
        "group" Shape::Account, Now, Unset r#""bagels""#,
            "The service's group. Unset: the account's own.";
        "groups" Shape::Accounts, Now, Unset r#"["media"]"#,
            "Its supplementary groups, in place of the account's.";
        "capabilities" Shape::Capabilities, Now, Is "[]",
            "Capabilities that the service keeps, such as `net-raw`.";
        "directory" Shape::Path, Now, Unset r#""/srv/bagels/current""#,
            "Where it runs; entered as the service's user, with links resolved, so that a link that moves later changes \
             nothing that runs.";
        "environment" Shape::Environment, Now, Is "{}",
            "Variables, in quotes, on top of a clean environment.";
        "environment-files" Shape::Paths, Now, Is "[]",
            "Files with one `NAME=value` in a line, laid over `environment`; quotes and comments are those of systemd.exec(5). \
             They are read when an operator starts or restarts it, with root's rights only where root alone can write \
             the whole path, and otherwise with the service's.";
        "pass-environment" Shape::Variables, Now, Is "[]",
            "Variables that are passed on from supervise's own environment.";
        "umask" Shape::Mode, Now, Is r#""0027""#,
            "The permissions that files made by the service do not get.";
        "instances" Shape::Number(0, 1024), Now, Is "1",
            "How many of it run; a task runs once. While a restart with `start-first` proves and drains, as many of an older \
             generation may run beside them, each with the same limits.";
        "before-start" Shape::Commands, Now, Is "[]",
            "Commands that run before the first instance of a generation, such as a migration: one after the other, as the \
             service's user, without sockets and without a time limit. Where one fails, the start fails.";
        "ready" GATES, Now, Is r#""auto""#,
            "When it counts as ready: as its server allows (`auto`: at its first answer where it is given one more listener to \
             be asked on, when it waits for connections, or by its own word; else as soon as it runs), as soon as it runs, when it says so with sd_notify(3), or when it \
             writes a line to descriptor N, which is the first one behind its sockets or a later one. Of sd_notify(3), `MAINPID` is \
             followed to a process of the service's own that runs as its user, and `FDSTORE` keeps sockets, pipes, terminals, memory files \
             and what has no name, as many as `$FDSTORE` says, until an operator stops the service.";
        "settle" Shape::Duration(0), Now, Is r#""1s""#,
            "How long it has to stay alive after that to be proven good.";
        "start-timeout" Shape::DurationOrOff(1), Now, Is r#""60s""#,
            "How long it may take to be ready and, with `[health]`, healthy; `settle` does not count.";
        "stop-signal" Shape::Signal, Now, Is r#""TERM""#,
            "The signal that asks its main process to end. Unset: what its server ends best with, which is INT for uWSGI and \
             waitress unless their options say otherwise.";
        "stop-timeout" Shape::DurationOrOff(0), Now, Is r#""10s""#,
            "How long it may take to end before everything of it is killed. Unset: 35s for gunicorn and uWSGI, 5min for celery \
             and redis.";
        "reload" Shape::Reload, Now, Unset r#"{ signal = "HUP" }"#,
            "How it reads its configuration anew. Unset: by a restart.";
        "watchdog" Shape::DurationOrOff(1), Now, Is r#""off""#,
            "How long it may go without a sign of life, `WATCHDOG=1`. Then another is started beside it where it has sockets \
             (`strategy`): when that one has proven itself, the first gets ABRT, and KILL after `stop-timeout`, at least 5 s. \
             Else it gets ABRT at once, KILL after 5 s, and is started again.";
        "idle-stop" Shape::DurationOrOff(1), Later, Is r#""off""#,
            "How long it may go without a connection before it is put to sleep.";
        "essential" Shape::Flag, Now, Is "false",
            "When it ends, supervise ends.";
        "success-codes" Shape::Codes, Now, Is "[0]",
            "Exit codes that mean that all went well.";
        "schedule" Shape::Text, Later, Unset r#""daily 02:10""#,
            "When a task runs.";
        "tty" Shape::Flag, Later, Is "false",
            "Gives it a terminal of its own, for `supervise attach`.";
        "runtime-directory" Shape::Directory, Now, Unset r#""bagels""#,
            "A directory of its own below /run, as `RUNTIME_DIRECTORY` and `{runtime-directory}` say; removed when it is stopped.";
        "state-directory" Shape::Directory, Now, Unset r#""bagels""#,
            "A directory of its own below /var/lib, as `STATE_DIRECTORY` and `{state-directory}` say. It stays.";
        "cache-directory" Shape::Directory, Now, Unset r#""bagels""#,
            "A directory of its own below /var/cache, as `CACHE_DIRECTORY` and `{cache-directory}` say. It stays.";
    }
    Restart {
        "policy" POLICIES, Now, Is r#""always""#,
            "When it is started again: always, when it failed, or never.";
        "delay" Shape::Duration(0), Now, Is r#""250ms""#,
            "How long to wait before the first time; doubled for each failure after that, give or take a fifth.";
        "max-delay" Shape::Duration(1), Now, Is r#""30s""#,
            "How far that grows. Where only `delay` is written and is longer, this grows with it.";
        "reset-after" Shape::DurationOrOff(1), Now, Is r#""30s""#,
            "How long it has to run for the count of failures to start anew.";
        "give-up-after" Shape::Count, Now, Is r#""off""#,
            "After how many failures in a row it is left alone. Off: never.";
    }
    Socket {
        "listen" Shape::Address, Now, Required r#""0.0.0.0:80""#,
            "`:80` is one socket for IPv4 and IPv6; `0.0.0.0:80` and `[::1]:80` are one address each; `/path.sock` is a \
             Unix socket.";
        "type" SOCKET_TYPES, Now, Is r#""stream""#,
            "The type of the socket.";
        "mode" Shape::Mode, Now, Is r#""0660""#,
            "Permissions of a Unix socket.";
        "user" Shape::Account, Now, Unset r#""root""#,
            "Owner of a Unix socket. Unset: whom supervise runs as.";
        "group" Shape::Account, Now, Unset r#""www-data""#,
            "Group of a Unix socket. Unset: that of whom supervise runs as.";
        "backlog" Shape::Number(1, BACKLOG_MAX), Now, Is "4096",
            "How many connections may wait; the kernel's `net.core.somaxconn` caps it.";
        "nodelay" Shape::Flag, Now, Is "true",
            "Sends small packets at once on TCP.";
        "keepalive" Shape::Flag, Now, Is "false",
            "Looks now and then whether the other side of a TCP connection is still there.";
        "freebind" Shape::Flag, Now, Is "false",
            "Binds an address that the machine does not have yet.";
        "inherit" Shape::GivenName, Now, Unset r#""http""#,
            "Takes the socket of this name from the init that started supervise.";
    }
    Health {
        "http" Shape::UrlPath, Now, Unset r#""/healthz""#,
            "A path that answers 200 to 399 while it is healthy. A restart beside the old generation asks it of the new one on \
             private sockets first, in one start more. Their addresses are others than this unit and `SERVER_STARTER_PORT` say.";
        "uwsgi" Shape::UrlPath, Now, Unset r#""/healthz""#,
            "The same, asked in the uwsgi protocol.";
        "tcp" Shape::Flag, Now, Is "false",
            "A connection is enough.";
        "command" Shape::Command, Now, Unset r#"["bin/check"]"#,
            "A command that succeeds while it is healthy.";
        "host" Shape::Host, Now, Is r#""localhost""#,
            "The host name that a request asks for.";
        "socket" Shape::SocketName, Now, Unset r#""http""#,
            "Which socket to ask. Unset: the one that each incarnation of gunicorn and uWSGI, or of a command with `{fd:health}`, \
             is given for this alone; else the first.";
        "interval" Shape::DurationOrOff(1), Now, Is r#""10s""#,
            "How often. Off: only before a new generation takes over.";
        "timeout" Shape::Duration(1), Now, Is r#""5s""#,
            "How long an answer may take.";
        "failures" Shape::Number(1, 1000), Now, Is "3",
            "How many failures in a row are one too many.";
    }
    Deploy {
        "strategy" STRATEGIES, Now, Unset r#""start-first""#,
            "New before old, or the other way round. Unset: new before old where there are sockets.";
        "release" Shape::Path, Later, Unset r#""/srv/bagels/current""#,
            "The link that `supervise deploy` moves.";
    }
    Dependencies {
        "requires" Shape::Units, Now, Is "[]",
            "Starts after these are ready, and not without them.";
        "wants" Shape::Units, Now, Is "[]",
            "Starts after these are ready or have failed.";
        "after" Shape::Units, Now, Is "[]",
            "Starts after these where both start.";
    }
    Log {
        "to" LOGS, Now, Is r#""file""#,
            "Where output goes. As the first process of a container `inherit` is the default: one service has supervise's own \
             output then, of several whole lines are passed on with their names in front.";
        "max-size" Shape::Size(LOG_BYTES_LEAST), Now, Is r#""10M""#,
            "How large `current` grows before it gives way to a new file.";
        "max-age" Shape::DurationOrOff(1), Now, Is r#""off""#,
            "How old its first line may be when the next one comes; then it gives way too.";
        "keep" Shape::Number(0, 100_000), Now, Is "10",
            "How many older files stay.";
        "compress" Shape::Flag, Now, Is "true",
            "Whether older files are compressed, as `….log.gz`.";
        "when-full" FULL, Now, Is r#""drop""#,
            "On a full disk: lines are dropped and counted, or the service waits.";
    }
    Limits {
        "nofile" Shape::Number(16, NOFILE_MAX), Now, Unset "4096",
            "Open descriptors of each process. Unset: as supervise was given them.";
        "nproc" Shape::Number(1, i64::MAX), Now, Unset "512",
            "Processes and threads of the user.";
        "core" Shape::Size(0), Now, Is "0",
            "Size of a core dump.";
        "nice" Shape::Number(-20, 19), Now, Unset "5",
            "Priority: -20 first, 19 last.";
        "oom-score-adjust" Shape::Number(-1000, 1000), Now, Unset "100",
            "How early it is killed when memory runs out: -1000 never, 1000 first.";
        "cpu-affinity" Shape::Processors, Now, Unset "[0, 1]",
            "Processors that it runs on.";
        "memory-max" Shape::Size(MEMORY_BYTES_LEAST), Now, Unset r#""512M""#,
            "Memory that one incarnation of an instance cannot pass; needs cgroup v2. While two overlap, as in a restart, each has \
             all of it: the machine needs room for twice `instances` times as much.";
        "memory-high" Shape::Size(MEMORY_BYTES_LEAST), Now, Unset r#""400M""#,
            "Memory from which on it is slowed down; needs cgroup v2.";
        "cpu-max" Shape::Percent, Now, Unset r#""50%""#,
            "Processor time; needs cgroup v2.";
        "cpu-weight" Shape::Number(1, 10_000), Now, Unset "100",
            "Its share of the processors; needs cgroup v2.";
        "io-weight" Shape::Number(1, 10_000), Now, Unset "100",
            "Its share of the disks; needs cgroup v2.";
        "pids-max" Shape::Number(1, 4_194_304), Now, Is "4096",
            "Processes and threads of an instance; needs cgroup v2.";
    }
    Sandbox {
        "profile" PROFILES, Later, Is r#""default""#,
            "What works everywhere, what suits a web application, or nothing.";
    }
    Access {
        "status" Shape::Whos, Now, Is "[]",
            "Who may see how it does: `user:NAME`, `group:NAME`, `*`.";
        "logs" Shape::Whos, Now, Is "[]",
            "Who may also read its output.";
        "control" Shape::Whos, Now, Is "[]",
            "Who may also start, stop, restart, reload and scale it, and send it signals.";
    }
    Dev {
        "watch" Shape::Names, Later, Is "[]",
            "Paths whose changes restart it.";
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_in_their_table_and_in_kebab_case() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(key.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", key.name);
            assert!(!key.doc.is_empty() && key.doc.ends_with('.'), "{}", key.name);
            let twin =
                KEYS.iter().skip(index + 1).find(|other| (other.table, other.name) == (key.table, key.name));
            assert!(twin.is_none(), "{} is there twice", key.name);
        }
    }

    #[test]
    fn every_table_has_keys_and_is_found_by_its_name() {
        for table in Table::ALL {
            assert!(table.keys().next().is_some(), "{}", table.header());
            assert_eq!(Table::named(table.name()), (table != Table::Top).then_some(table));
        }
    }
}
