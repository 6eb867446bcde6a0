//! PURE. Values that are one word of a few: what there is to choose, and the word of each. Never says which is the
//! default; `keys.rs` does.

macro_rules! words {
    ($(#[$doc:meta])* $kind:ident { $($(#[$note:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$note])* $variant,)* }
        impl $kind {
            /// The word in the unit file.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            /// What the word means; None for what is not one of them.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// `server`
    Server {
        /// Recognised by the command.
        Auto "auto",
        /// Taken for nothing in particular.
        None "none",
        /// gunicorn
        Gunicorn "gunicorn",
        /// uWSGI
        Uwsgi "uwsgi",
        /// uvicorn
        Uvicorn "uvicorn",
        /// Hypercorn
        Hypercorn "hypercorn",
        /// Daphne
        Daphne "daphne",
        /// Granian
        Granian "granian",
        /// Waitress
        Waitress "waitress",
        /// Celery
        Celery "celery",
        /// Redis
        Redis "redis",
    }
}
words! {
    /// `kind`
    Kind {
        /// Runs until it is stopped.
        Service "service",
        /// Runs until it is done.
        Task "task",
    }
}
words! {
    /// `start`
    Start {
        /// With supervise.
        Boot "boot",
        /// At the first connection.
        OnDemand "on-demand",
        /// When an operator says so.
        Manual "manual",
        /// Not at all.
        Off "off",
    }
}
/// `ready`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As the server allows.
    Auto,
    /// As soon as it runs.
    Started,
    /// When it says so on its notify socket.
    Notify,
    /// When it writes a line to this descriptor, one behind its sockets.
    Fd(u32),
    /// When a probe of `[health]` finds it healthy.
    Health,
}

words! {
    /// `type`
    SocketType {
        /// A stream of bytes: TCP.
        Stream "stream",
        /// Messages: UDP.
        Datagram "datagram",
        /// A stream of messages, on Unix sockets alone.
        Seqpacket "seqpacket",
    }
}
words! {
    /// `strategy`
    Strategy {
        /// New before old.
        StartFirst "start-first",
        /// Old before new.
        StopFirst "stop-first",
    }
}
words! {
    /// `to`
    LogTo {
        /// Files of supervise.
        File "file",
        /// supervise's own standard output and standard error.
        Inherit "inherit",
        /// The journal of systemd.
        Journal "journal",
        /// The syslog socket.
        Syslog "syslog",
        /// Nowhere.
        Null "null",
    }
}
words! {
    /// `when-full`
    WhenFull {
        /// Lines are dropped and counted.
        Drop "drop",
        /// The service waits.
        Block "block",
    }
}
words! {
    /// `profile`
    Profile {
        /// What works everywhere.
        Default "default",
        /// What suits a web application.
        Web "web",
        /// Nothing.
        Off "off",
    }
}

impl Ready {
    /// What the word means; None for what is not one of them.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "started" => Some(Self::Started),
            "notify" => Some(Self::Notify),
            "health" => Some(Self::Health),
            _ => None,
        }
    }
}

words! {
    /// `policy`
    Policy {
        /// However it ended.
        Always "always",
        /// Unless it ended well.
        OnFailure "on-failure",
        /// Not at all.
        Never "never",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::keys::{KEYS, Shape};

    #[test]
    fn every_choice_that_can_be_made_means_something() {
        for key in KEYS {
            let Shape::Choice(words) = key.shape else { continue };
            for (word, _) in words {
                let known = match key.name {
                    "server" => Server::from_word(word).is_some_and(|server| server.word() == *word),
                    "start" => Start::from_word(word).is_some_and(|start| start.word() == *word),
                    "ready" => Ready::from_word(word).is_some() || *word == "{ fd = N }",
                    "policy" => Policy::from_word(word).is_some_and(|policy| policy.word() == *word),
                    "kind" => Kind::from_word(word).is_some_and(|kind| kind.word() == *word),
                    "type" => SocketType::from_word(word).is_some_and(|kind| kind.word() == *word),
                    "strategy" => Strategy::from_word(word).is_some_and(|first| first.word() == *word),
                    "to" => LogTo::from_word(word).is_some_and(|to| to.word() == *word),
                    "when-full" => WhenFull::from_word(word).is_some_and(|full| full.word() == *word),
                    "profile" => Profile::from_word(word).is_some_and(|profile| profile.word() == *word),
                    _ => false,
                };
                assert!(known, "{} = {word}", key.name);
            }
        }
    }
}
