//! Who may use whom: the table of the house, and what is added to it with a reason.

/// A module directly below `src`.
pub struct House {
    /// Its name.
    pub name: &'static str,
    /// The first word of the doc comment of each of its files.
    pub kind: &'static str,
    /// Modules it may use, and crates.
    pub uses: &'static [&'static str],
    /// Crates whose code it may call. The standard library is everybody's, but see `PURE_NEVER`.
    pub crates: &'static [&'static str],
}

/// What no PURE module calls: files, sockets, clocks, processes, threads, what others left in the environment.
pub const PURE_NEVER: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::os::fd",
    "std::io",
    "std::time",
    "std::process",
    "std::thread",
    "std::env",
    "std::sync",
    "println!",
    "eprintln!",
];

/// The table.
pub const HOUSES: &[House] = &[
    House { name: "policy", kind: "PURE", uses: &[], crates: &["serde"] },
    House { name: "unit", kind: "PURE", uses: &["servers"], crates: &["toml", "shlex", "memchr", "libc"] },
    House { name: "servers", kind: "PURE", uses: &[], crates: &["shlex"] },
    House { name: "plan", kind: "PURE", uses: &["unit", "servers"], crates: &["crc32fast"] },
    House {
        name: "wire",
        kind: "PURE",
        uses: &["policy::snapshot"],
        crates: &["serde", "serde_json", "memchr", "crc32fast", "jiff"],
    },
    House { name: "sys", kind: "ROOT", uses: &["plan"], crates: &["libc", "nix", "memchr"] },
    House { name: "keeper", kind: "ROOT", uses: &["sys", "wire"], crates: &["libc"] },
    House { name: "zygote", kind: "ROOT", uses: &["sys", "wire"], crates: &[] },
    House { name: "init", kind: "ROOT", uses: &["sys", "unit"], crates: &["libc"] },
    House { name: "launch", kind: "CHILD", uses: &["sys", "plan"], crates: &[] },
    House { name: "lookup", kind: "CHILD", uses: &["sys", "wire"], crates: &[] },
    House { name: "binder", kind: "CHILD", uses: &["sys", "wire"], crates: &[] },
    House { name: "courier", kind: "CHILD", uses: &["sys", "wire"], crates: &[] },
    House { name: "probe", kind: "CHILD", uses: &["sys", "wire"], crates: &[] },
    House {
        name: "manager",
        kind: "ROOT",
        uses: &["policy", "unit", "servers", "plan", "wire", "sys", "launch"],
        crates: &["libc", "nix", "log", "mio", "serde", "serde_json", "jiff", "crc32fast"],
    },
    House { name: "logger", kind: "LOG", uses: &["sys", "wire"], crates: &["memchr", "flate2"] },
    House {
        name: "cli",
        kind: "USER",
        uses: &["unit", "wire", "sys::files"],
        crates: &[
            "flate2",
            "memchr",
            "clap",
            "clap_complete",
            "jiff",
            "libc",
            "mio",
            "serde_json",
            "signal_hook",
        ],
    },
];

/// A use beyond the table.
pub struct Beyond {
    /// The file.
    pub file: &'static str,
    /// What it uses.
    pub uses: &'static str,
    /// Why that is right.
    pub why: &'static str,
}

/// Every use beyond the table. One that is not needed any more fails the test.
pub const BEYOND: &[Beyond] = &[
    Beyond {
        file: "src/zygote/mod.rs",
        uses: "launch",
        why: "the clone of the zygote is the child that carries out the plan",
    },
    Beyond { file: "src/zygote/mod.rs", uses: "plan", why: "the bound on sockets is the plan's" },
    Beyond {
        file: "src/launch/mod.rs",
        uses: "wire::zygote",
        why: "the child reports its failed step in the form that the manager reads",
    },
    Beyond {
        file: "src/launch/clue.rs",
        uses: "wire::zygote",
        why: "what the child found goes with its report",
    },
    Beyond { file: "src/launch/words.rs", uses: "wire::zygote", why: "the same reports, told to people" },
    Beyond {
        file: "src/sys/accounts.rs",
        uses: "wire::accounts",
        why: "answers are filled in where the library call is, so that no half-typed value leaves it",
    },
    Beyond {
        file: "src/sys/lock.rs",
        uses: "wire::handover",
        why: "the lock file's name is part of the handover",
    },
    Beyond {
        file: "src/sys/slots.rs",
        uses: "wire::keeper",
        why: "a slot holds an entry of the keeper's messages",
    },
    Beyond {
        file: "src/cli/entry.rs",
        uses: "keeper",
        why: "one binary: here a hidden subcommand becomes its process, before anything is parsed",
    },
    Beyond { file: "src/cli/entry.rs", uses: "zygote", why: "as above" },
    Beyond { file: "src/cli/entry.rs", uses: "manager", why: "as above" },
    Beyond { file: "src/cli/entry.rs", uses: "logger", why: "as above" },
    Beyond { file: "src/cli/entry.rs", uses: "lookup", why: "as above" },
    Beyond { file: "src/cli/entry.rs", uses: "probe", why: "as above" },
    Beyond { file: "src/cli/entry.rs", uses: "binder", why: "as above" },
    Beyond { file: "src/cli/entry.rs", uses: "courier", why: "as above" },
    Beyond {
        file: "src/cli/init.rs",
        uses: "init",
        why: "the options are a user's, what they begin is one small process",
    },
    Beyond {
        file: "src/cli/run.rs",
        uses: "sys",
        why: "`run` takes the lock and what a dead keeper left, and then becomes the keeper",
    },
    Beyond { file: "src/cli/run.rs", uses: "plan", why: "the limit it reads is named there" },
    Beyond {
        file: "src/cli/ask.rs",
        uses: "sys::peer",
        why: "a control socket is believed by the uid behind it",
    },
    Beyond { file: "src/cli/connection.rs", uses: "sys::peer", why: "as above" },
    Beyond { file: "src/cli/exec.rs", uses: "sys::peer", why: "as above" },
    Beyond {
        file: "src/cli/trouble.rs",
        uses: "sys::fds",
        why: "what is printed where stdout was closed is lost, and only what runs before us can tell",
    },
    Beyond {
        file: "src/cli/exec.rs",
        uses: "sys::signals",
        why: "signals to the client are meant for the command that it runs",
    },
    Beyond { file: "src/cli/exec.rs", uses: "sys::process", why: "as above" },
    Beyond {
        file: "src/cli/exec/terminal.rs",
        uses: "sys::pty",
        why: "the client's own terminal is made raw for the command's, and put back",
    },
    Beyond {
        file: "src/cli/exec/terminal.rs",
        uses: "sys::signals",
        why: "as above, before a signal ends it",
    },
    Beyond { file: "src/cli/connection.rs", uses: "sys::link", why: "log files come as descriptors" },
    Beyond {
        file: "src/cli/logs/source.rs",
        uses: "sys::dirs",
        why: "log files are opened below their directory, never through a link",
    },
    Beyond { file: "src/cli/logs/reading.rs", uses: "sys::dirs", why: "as above" },
    Beyond {
        file: "src/cli/place.rs",
        uses: "sys::peer",
        why: "whose supervisor is meant depends on one's own uid",
    },
    Beyond {
        file: "src/cli/check/mod.rs",
        uses: "manager::read_units",
        why: "`check` reads units as `run` does, and not in a way of its own",
    },
    Beyond {
        file: "src/cli/check/mod.rs",
        uses: "plan",
        why: "a program is looked for where the plan of a start would",
    },
    Beyond { file: "src/cli/check/program.rs", uses: "plan", why: "as above" },
    Beyond {
        file: "src/cli/check/rights.rs",
        uses: "launch",
        why: "what a start would fail with is told before in the same words",
    },
    Beyond { file: "src/cli/check/rights.rs", uses: "plan", why: "they are words about a plan" },
    Beyond { file: "src/cli/check/rights.rs", uses: "sys::errno", why: "and about a number of the system" },
    Beyond {
        file: "src/cli/check/sockets.rs",
        uses: "manager::listeners",
        why: "an address that cannot be had is told in the words of `run`",
    },
    Beyond { file: "src/cli/check/socket_file.rs", uses: "manager::listeners", why: "as above" },
    Beyond { file: "src/cli/check/holders.rs", uses: "manager::listeners", why: "as above" },
    Beyond {
        file: "src/cli/check/holders.rs",
        uses: "sys::sockets",
        why: "who has an address is looked up as `run` does",
    },
    Beyond { file: "src/cli/check/holders.rs", uses: "sys::process", why: "as above" },
    Beyond {
        file: "src/cli/check/walk.rs",
        uses: "sys::walk",
        why: "whether others can write a directory is judged once",
    },
    Beyond {
        file: "src/cli/check/people.rs",
        uses: "sys::accounts",
        why: "names are looked up in the client itself: one that hangs is ended with Ctrl-C",
    },
    Beyond {
        file: "src/cli/manual/admin.rs",
        uses: "manager::control",
        why: "the limits that the page states are those that are in force",
    },
    Beyond { file: "src/cli/manual/admin.rs", uses: "manager::exec", why: "as above" },
];
