//! PURE. What a client can ask for: one table from which the protocol, the rights and the command line come.
//! Never carries anything out.

/// The interface of the control socket.
pub const INTERFACE: &str = "io.supervise.Control";

/// The description of [`INTERFACE`], as `org.varlink.service.GetInterfaceDescription` serves it.
pub const DESCRIPTION: &str = include_str!("io.supervise.Control.varlink");

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// How the services are.
    Status,
    /// Bring services up.
    Start,
    /// Bring services down.
    Stop,
    /// Put new processes in place of old ones.
    Restart,
}

/// What a client may do; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See how services are.
    Status,
    /// Start and stop them.
    Control,
    /// What only root and the supervisor's own user may.
    Everything,
}

impl Right {
    /// The right in the user's words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Control => "control",
            Self::Everything => "everything",
        }
    }
}

/// The rights of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(Option<Right>);

impl Rights {
    /// Those of a stranger.
    pub const NONE: Self = Self(None);
    /// Those of root and of the supervisor's own user.
    pub const EVERYTHING: Self = Self(Some(Right::Everything));

    /// Up to and with `right`.
    pub const fn up_to(right: Right) -> Self {
        Self(Some(right))
    }

    /// Whether `right` is among them.
    pub fn include(self, right: Right) -> bool {
        self.0.is_some_and(|most| most >= right)
    }

    /// Whether there are none at all: then nothing that the peer says is looked at.
    pub const fn is_none(self) -> bool {
        self.0.is_none()
    }
}

impl Verb {
    /// Every verb, in the order in which the help lists them.
    pub const ALL: [Self; 4] = [Self::Status, Self::Start, Self::Stop, Self::Restart];

    /// A new verb does not compile until someone decides who may use it.
    pub const fn needs(self) -> Right {
        match self {
            Self::Status => Right::Status,
            Self::Start | Self::Stop | Self::Restart => Right::Control,
        }
    }

    /// The name of the method in [`INTERFACE`].
    pub const fn method(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Start => "Start",
            Self::Stop => "Stop",
            Self::Restart => "Restart",
        }
    }

    /// The name of the command.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    /// The line the help has for the command.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Status => "Show how services are: a table, or everything about one",
            Self::Start => "Bring services up and wait for the outcome",
            Self::Stop => "Bring services down, close their sockets and wait for the end",
            Self::Restart => "Put new processes in place of the old ones and wait for the outcome",
        }
    }

    /// What the command's own help says below its first line.
    pub const fn details(self) -> &'static str {
        match self {
            Self::Status => {
                "Exits with 0 when every named service is as wanted (running, listening on demand, done), with 3 \
                 when one is not, with 4 when there is none of that name. Without names it shows all and exits \
                 with 0."
            }
            Self::Start => {
                "Exits with 0 when all of them came up, with 1 and the reason when one did not. Ctrl-C stops \
                 waiting and cancels nothing."
            }
            Self::Stop => {
                "Exits with 0 when nothing of them runs any more. They stay down until they are started again. \
                 Ctrl-C stops waiting and cancels nothing."
            }
            Self::Restart => {
                "A service with sockets gets its new processes beside the old ones, which go only when the new \
                 ones have proven good; if they fail, the old ones keep serving and the command exits with 1 and \
                 the reason. Ctrl-C stops waiting and cancels nothing."
            }
        }
    }

    /// The verb whose method that is, the interface's name left off.
    pub fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.method() == method)
    }

    /// The full method name.
    pub fn full_method(self) -> String {
        format!("{INTERFACE}.{}", self.method())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_include_the_ones_before_them() {
        assert!(Rights::EVERYTHING.include(Right::Status));
        assert!(Rights::EVERYTHING.include(Right::Everything));
        assert!(Rights::up_to(Right::Control).include(Right::Status));
        assert!(!Rights::up_to(Right::Control).include(Right::Everything));
        assert!(!Rights::up_to(Right::Status).include(Verb::Stop.needs()));
        assert!(!Rights::NONE.include(Right::Status));
    }

    #[test]
    fn every_verb_is_a_method_of_the_interface_and_every_method_a_verb() {
        let described: Vec<&str> = DESCRIPTION
            .lines()
            .filter_map(|line| line.strip_prefix("method "))
            .filter_map(|line| line.split('(').next())
            .collect();
        let ours: Vec<&str> = Verb::ALL.iter().map(|verb| verb.method()).collect();
        assert_eq!(described, ours);
        for verb in Verb::ALL {
            assert_eq!(Verb::of_method(verb.method()), Some(verb));
            assert_eq!(verb.command(), verb.method().to_lowercase());
        }
        assert_eq!(Verb::of_method("status"), None);
    }
}
