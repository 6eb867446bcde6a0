//! PURE. Whether a plan can be carried out at all, by its own numbers and sizes. Never looks at the system.

use std::fmt;

use super::{
    ExecPlan, Identity, MOST_ARGUMENT_BYTES, MOST_CANDIDATES, MOST_CPUS, MOST_ENVIRONMENT_BYTES, MOST_GROUPS,
    MOST_PATH_BYTES, MOST_PID_VARIABLES, MOST_SOCKETS, MOST_STRING_BYTES,
};

/// Why a plan is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is no program to execute or no name for it.
    NoCommand,
    /// A text has a NUL byte in it, which would end it early.
    Nul(&'static str),
    /// More bytes, or more of a thing, than the limit.
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much there is.
        have: usize,
        /// How much there may be.
        most: usize,
    },
    /// A path that has to start with a slash does not.
    NotAbsolute(String),
    /// A variable without a name, or whose name is given twice.
    Variable(String),
    /// A number is outside its range.
    Range {
        /// Of what.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// The soft limit is above the hard one, or a resource is there twice.
    Limit(&'static str),
    /// User or group is the number that means "leave it" to the system.
    Nobody,
    /// Groups are not ascending, or capabilities are kept that are not granted.
    Identity(&'static str),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCommand => write!(f, "there is no command to execute"),
            Self::Nul(what) => write!(f, "a NUL byte in the {what}"),
            Self::TooMuch { what, have, most } => write!(f, "{have} {what}, and {most} is the most"),
            Self::NotAbsolute(path) => write!(f, "the path `{path}` does not start with a slash"),
            Self::Variable(name) => write!(f, "the environment variable `{name}` is unusable or there twice"),
            Self::Range { what, value } => write!(f, "{what} {value} is out of range"),
            Self::Limit(name) => write!(f, "the limit `{name}` is above its hard limit or there twice"),
            Self::Nobody => write!(f, "4294967295 is no user and no group"),
            Self::Identity(what) => write!(f, "{what}"),
        }
    }
}

impl std::error::Error for Unfit {}

impl ExecPlan {
    /// Whether the plan can be carried out, by its own numbers and sizes.
    pub fn check(&self) -> Result<(), Unfit> {
        if self.argv.is_empty() || self.candidates.iter().all(String::is_empty) {
            return Err(Unfit::NoCommand);
        }
        self.check_paths()?;
        self.check_strings()?;
        self.check_variables()?;
        self.check_numbers()?;
        self.identity.as_ref().map_or(Ok(()), check_identity)
    }

    fn check_paths(&self) -> Result<(), Unfit> {
        at_most("places to look for the program", self.candidates.len(), MOST_CANDIDATES)?;
        if !self.directory.starts_with('/') {
            return Err(Unfit::NotAbsolute(self.directory.clone()));
        }
        for path in self.candidates.iter().chain([&self.directory]) {
            without_nul("path", path)?;
            at_most("bytes in a path", path.len() + 1, MOST_PATH_BYTES)?;
        }
        for path in &self.candidates {
            if !path.contains('/') {
                return Err(Unfit::NotAbsolute(path.clone()));
            }
        }
        Ok(())
    }

    fn check_strings(&self) -> Result<(), Unfit> {
        for word in &self.argv {
            without_nul("command", word)?;
            at_most("bytes in one argument", word.len() + 1, MOST_STRING_BYTES)?;
        }
        for pair in &self.env {
            without_nul("environment", pair)?;
            at_most("bytes in one environment variable", pair.len() + 1, MOST_STRING_BYTES)?;
        }
        let environment: usize = self.env.iter().map(|pair| pair.len() + 1).sum();
        at_most("bytes of environment", environment, MOST_ENVIRONMENT_BYTES)?;
        let arguments: usize = self.argv.iter().map(|word| word.len() + 1).sum();
        at_most("bytes of arguments and environment", arguments + environment, MOST_ARGUMENT_BYTES)?;
        at_most("sockets", self.sockets.len(), MOST_SOCKETS)
    }

    fn check_variables(&self) -> Result<(), Unfit> {
        at_most("variables with the process number", self.pid_variables.len(), MOST_PID_VARIABLES)?;
        let mut names = Vec::with_capacity(self.env.len() + self.pid_variables.len());
        for pair in &self.env {
            match pair.split_once('=') {
                Some((name, _)) if !name.is_empty() => names.push(name),
                Some(_) | None => {
                    return Err(Unfit::Variable(pair.split('=').next().unwrap_or("").to_owned()));
                }
            }
        }
        for name in &self.pid_variables {
            if name.is_empty() || name.len() > 255 || name.contains(['=', '\0']) {
                return Err(Unfit::Variable(name.clone()));
            }
            names.push(name);
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(Unfit::Variable(pair.first().copied().unwrap_or("").to_owned())),
            None => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), Unfit> {
        in_range("umask", i64::from(self.umask), 0, 0o777)?;
        in_range("nice", self.nice.unwrap_or(0).into(), -20, 19)?;
        in_range("oom-score-adjust", self.oom_score_adj.unwrap_or(0).into(), -1000, 1000)?;
        for cpu in &self.cpus {
            in_range("processor", i64::from(*cpu), 0, MOST_CPUS as i64 - 1)?;
        }
        let mut seen = Vec::new();
        for limit in &self.limits {
            if limit.soft > limit.hard || seen.contains(&limit.resource) {
                return Err(Unfit::Limit(limit.resource.name()));
            }
            seen.push(limit.resource);
        }
        Ok(())
    }
}

fn check_identity(identity: &Identity) -> Result<(), Unfit> {
    if [identity.uid, identity.gid].iter().chain(&identity.groups).any(|id| *id == u32::MAX) {
        return Err(Unfit::Nobody);
    }
    at_most("groups", identity.groups.len(), MOST_GROUPS)?;
    if !identity.groups.is_sorted_by(|one, next| one < next) {
        return Err(Unfit::Identity("the groups are not ascending"));
    }
    let kept_beyond = identity.bounding & !identity.ambient;
    if identity.ambient & !identity.bounding != 0 || (identity.uid != 0 && kept_beyond != 0) {
        return Err(Unfit::Identity("capabilities are kept that the user is not granted"));
    }
    Ok(())
}

fn without_nul(what: &'static str, text: &str) -> Result<(), Unfit> {
    if text.contains('\0') { Err(Unfit::Nul(what)) } else { Ok(()) }
}

fn at_most(what: &'static str, have: usize, most: usize) -> Result<(), Unfit> {
    if have > most { Err(Unfit::TooMuch { what, have, most }) } else { Ok(()) }
}

fn in_range(what: &'static str, value: i64, least: i64, most: i64) -> Result<(), Unfit> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(Unfit::Range { what, value }) }
}
