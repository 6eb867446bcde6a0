//! PURE. What is known of gunicorn, uWSGI, uvicorn and others: how to tell them by their command, how they end, what
//! their exit codes mean, how they show that they are ready, and what does not work with them. Never runs one.
//!
//! Each fact was seen on the server itself, in the version that `tests/it` installs.

mod advice;
mod known;
mod options;
mod recognise;
mod traps;
mod variables;

pub use advice::{Advice, Facts, Reach, Socket, Weight, advice};
pub use known::{Ended, Proof, Protocol, Stop};
pub use recognise::{Recognised, Wrapper, recognise};
pub use variables::{Variable, variables};

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// gunicorn
    Gunicorn,
    /// uWSGI
    Uwsgi,
    /// uvicorn
    Uvicorn,
    /// hypercorn
    Hypercorn,
    /// daphne
    Daphne,
    /// granian
    Granian,
    /// waitress
    Waitress,
    /// celery, whichever part of it
    Celery,
    /// redis
    Redis,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Gunicorn,
        Self::Uwsgi,
        Self::Uvicorn,
        Self::Hypercorn,
        Self::Daphne,
        Self::Granian,
        Self::Waitress,
        Self::Celery,
        Self::Redis,
    ];

    /// The word in the unit file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gunicorn => "gunicorn",
            Self::Uwsgi => "uwsgi",
            Self::Uvicorn => "uvicorn",
            Self::Hypercorn => "hypercorn",
            Self::Daphne => "daphne",
            Self::Granian => "granian",
            Self::Waitress => "waitress",
            Self::Celery => "celery",
            Self::Redis => "redis",
        }
    }

    /// The name as its makers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uwsgi => "uWSGI",
            _ => self.word(),
        }
    }

    /// What the word means; None for what is not one of them.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|server| server.word() == word)
    }

    /// The server whose program has this name.
    fn of_program(name: &str) -> Option<Self> {
        // Debian's uwsgi-core and the likes of uwsgi_python3 are the same program.
        if name == "uwsgi" || name.starts_with("uwsgi-") || name.starts_with("uwsgi_") {
            return Some(Self::Uwsgi);
        }
        match name {
            "gunicorn" | "gunicorn3" => Some(Self::Gunicorn),
            "waitress-serve" => Some(Self::Waitress),
            "redis-server" => Some(Self::Redis),
            "uvicorn" | "hypercorn" | "daphne" | "granian" | "celery" => Self::from_word(name),
            _ => None,
        }
    }

    /// The server that Python runs as this module.
    fn of_module(name: &str) -> Option<Self> {
        match name.split('.').next()? {
            "redis" | "uwsgi" => None,
            first => Self::from_word(first),
        }
    }
}
