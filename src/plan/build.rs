//! PURE. Inputs as a unit has them to a plan: the environment from nothing, the places to look for the program.
//!
//! Variables of the protocols are as sd_listen_fds(3), systemd.exec(5) and Server::Starter describe them.

use std::collections::HashMap;

use super::{ExecPlan, FIRST_SOCKET, Identity, Limit, Passed, Unfit};

/// `PATH` of a service whose unit sets none.
pub const FIXED_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the account database says of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `USER` and `LOGNAME`.
    pub name: String,
    /// `HOME`.
    pub home: String,
    /// `SHELL`.
    pub shell: String,
}

impl Account {
    /// What stands in for an account where a unit gives a number that has none.
    pub fn of_number(uid: u32) -> Self {
        Self { name: uid.to_string(), home: "/".to_owned(), shell: "/bin/sh".to_owned() }
    }
}

/// The name of the listener that an incarnation alone has; no socket of a unit can have it.
pub const PRIVATE: &str = "health";

/// A socket to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the unit.
    pub name: String,
    /// Its address as `SERVER_STARTER_PORT` writes it: `0.0.0.0:80`, `[::1]:80`, a path; `u53` for a datagram port.
    pub address: String,
}

/// Which start this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The service's name.
    pub service: String,
    /// The generation of its inputs, from 1.
    pub generation: u64,
    /// Which of its instances, from 1.
    pub instance: u32,
    /// How many times it was started, this time included.
    pub starts: u64,
    /// 128 random bits as 32 hexadecimal digits.
    pub invocation: String,
}

/// Everything a plan is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The command, its placeholders filled in.
    pub command: Vec<String>,
    /// The working directory, resolved.
    pub directory: String,
    /// The user's account.
    pub account: Account,
    /// Who to become; None where an ordinary user runs its own services.
    pub identity: Option<Identity>,
    /// The unit's variables: passed on, `environment`, `environment-files`, in this order; later ones win.
    pub environment: Vec<(String, String)>,
    /// Variables of protocols that this module does not know: `NOTIFY_SOCKET`, `WATCHDOG_USEC`,
    /// `RUNTIME_DIRECTORY` and the like. They win over the unit's.
    pub protocols: Vec<(String, String)>,
    /// Whether `WATCHDOG_PID` is to name the process.
    pub watchdog_pid: bool,
    /// The sockets, in order.
    pub listeners: Vec<Listener>,
    /// Names of what the service has stored, at the descriptors behind the sockets.
    pub stored: Vec<String>,
    /// What else is passed, at the descriptors behind the sockets; no variable speaks of it.
    pub beside: Vec<Passed>,
    /// Which start this is.
    pub start: Start,
    /// 0 to 0o777.
    pub umask: u32,
    /// Limits to set.
    pub limits: Vec<Limit>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Processors to run on; empty for all.
    pub cpus: Vec<u32>,
}

/// The plan, or why there is none.
pub fn build(inputs: &Inputs) -> Result<ExecPlan, Unfit> {
    let env = environment(inputs);
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(FIXED_PATH);
    let program = inputs.command.first().ok_or(Unfit::NoCommand)?;
    let mut pid_variables = Vec::new();
    if !inputs.listeners.is_empty() || !inputs.stored.is_empty() {
        pid_variables.push("LISTEN_PID".to_owned());
    }
    if inputs.watchdog_pid {
        pid_variables.push("WATCHDOG_PID".to_owned());
    }
    let passed =
        |listener: &Listener| Passed { name: listener.name.clone(), address: listener.address.clone() };
    let stored = |name: &String| Passed { name: name.clone(), address: "stored".to_owned() };
    let sockets = inputs.listeners.iter().map(passed).chain(inputs.stored.iter().map(stored));
    let plan = ExecPlan {
        argv: inputs.command.clone(),
        candidates: candidates(program, path),
        env,
        pid_variables,
        directory: inputs.directory.clone(),
        identity: inputs.identity.clone(),
        umask: inputs.umask,
        limits: inputs.limits.clone(),
        nice: inputs.nice,
        oom_score_adj: inputs.oom_score_adj,
        cpus: inputs.cpus.clone(),
        sockets: sockets.chain(inputs.beside.iter().cloned()).collect(),
        terminal: false,
    };
    plan.check()?;
    Ok(plan)
}

/// Where a program is looked for: in each directory of `path`, or, with a slash in it, in its own place alone.
///
/// Directories of `path` that are not absolute mean the working directory to a shell; here they are left out.
pub fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let mut found: Vec<String> = Vec::new();
    for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
        let candidate = format!("{}/{program}", directory.trim_end_matches('/'));
        if !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

/// Variables that say something about this very start. A unit's own are left out: a stale one makes
/// a server believe that it has, or has not, been given sockets.
const OURS: [&str; 15] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
    "NOTIFY_SOCKET",
    "FDSTORE",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "INVOCATION_ID",
    "SUPERVISE_SERVICE",
    "SUPERVISE_GENERATION",
    "SUPERVISE_INSTANCE",
    "PWD",
];

/// The environment as `NAME=value`, from nothing; each name once. `LISTEN_PID` and `WATCHDOG_PID` are not in
/// it: only the child knows their value.
pub fn environment(inputs: &Inputs) -> Vec<String> {
    let account = &inputs.account;
    let mut all = Variables::default();
    all.put("PATH", FIXED_PATH);
    all.put("HOME", &account.home);
    all.put("USER", &account.name);
    all.put("LOGNAME", &account.name);
    all.put("SHELL", &account.shell);
    all.put("LANG", "C.UTF-8");
    for (name, value) in &inputs.environment {
        if !OURS.contains(&name.as_str()) {
            all.put(name, value);
        }
    }
    for (name, value) in &inputs.protocols {
        all.put(name, value);
    }
    all.put("PWD", &inputs.directory);
    if !inputs.listeners.is_empty() || !inputs.stored.is_empty() {
        let names = inputs.listeners.iter().map(|listener| listener.name.as_str());
        let names: Vec<_> = names.chain(inputs.stored.iter().map(String::as_str)).collect();
        // What only probes ask is no port of the service's.
        let ports = (FIRST_SOCKET..).zip(&inputs.listeners).filter(|(_, listener)| listener.name != PRIVATE);
        let ports: Vec<_> = ports.map(|(fd, listener)| format!("{}={fd}", listener.address)).collect();
        all.put("LISTEN_FDS", &names.len().to_string());
        all.put("LISTEN_FDNAMES", &names.join(":"));
        if !inputs.listeners.is_empty() {
            all.put("SERVER_STARTER_PORT", &ports.join(";"));
        }
    }
    all.put("SERVER_STARTER_GENERATION", &inputs.start.starts.to_string());
    all.put("INVOCATION_ID", &inputs.start.invocation);
    all.put("SUPERVISE_SERVICE", &inputs.start.service);
    all.put("SUPERVISE_GENERATION", &inputs.start.generation.to_string());
    all.put("SUPERVISE_INSTANCE", &inputs.start.instance.to_string());
    all.pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Each name once, in the order of first mention; the index keeps thousands of variables cheap.
#[derive(Default)]
struct Variables<'a> {
    pairs: Vec<(&'a str, String)>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Variables<'a> {
    fn put(&mut self, name: &'a str, value: &str) {
        let place = *self.places.entry(name).or_insert(self.pairs.len());
        match self.pairs.get_mut(place) {
            Some((_, old)) => value.clone_into(old),
            None => self.pairs.push((name, value.to_owned())),
        }
    }
}
