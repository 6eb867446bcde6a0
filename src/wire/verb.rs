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
    /// Have services read their configuration again.
    Reload,
    /// Run another number of instances.
    Scale,
    /// Send services a signal.
    Kill,
    /// What happens to services, from now on.
    Events,
    /// What services are made of.
    Show,
    /// Run a command in a service's context.
    Exec,
    /// The files that hold what services have written.
    Logs,
}

/// What a client may do; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See how services are.
    Status,
    /// Read what they write, and what they are made of.
    Logs,
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
            Self::Logs => "logs",
            Self::Control => "control",
            Self::Everything => "everything",
        }
    }

    /// The right of that word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Status, Self::Logs, Self::Control, Self::Everything].into_iter().find(|one| one.word() == word)
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
    pub const ALL: [Self; 11] = [
        Self::Status,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Reload,
        Self::Scale,
        Self::Kill,
        Self::Events,
        Self::Show,
        Self::Logs,
        Self::Exec,
    ];

    /// A new verb does not compile until someone decides who may use it.
    pub const fn needs(self) -> Right {
        match self {
            Self::Status | Self::Events => Right::Status,
            // The service's own user has the second right on it, and only that user, root and ours are let through to exec.
            Self::Show | Self::Logs | Self::Exec => Right::Logs,
            Self::Start | Self::Stop | Self::Restart | Self::Reload | Self::Scale | Self::Kill => {
                Right::Control
            }
        }
    }

    /// The name of the method in [`INTERFACE`].
    pub const fn method(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Start => "Start",
            Self::Stop => "Stop",
            Self::Restart => "Restart",
            Self::Reload => "Reload",
            Self::Scale => "Scale",
            Self::Kill => "Kill",
            Self::Events => "Events",
            Self::Show => "Show",
            Self::Exec => "Exec",
            Self::Logs => "Logs",
        }
    }

    /// The name of the command.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Scale => "scale",
            Self::Kill => "kill",
            Self::Events => "events",
            Self::Show => "show",
            Self::Exec => "exec",
            Self::Logs => "logs",
        }
    }

    /// The line the help has for the command.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Status => "Show how services are: a table, or everything about one",
            Self::Start => "Bring services up and wait for the outcome",
            Self::Stop => "Bring services down, close their sockets and wait for the end",
            Self::Restart => "Put new processes in place of the old ones and wait for the outcome",
            Self::Reload => "Have services read their configuration again",
            Self::Scale => "Run another number of instances of a service",
            Self::Kill => "Send a signal to the main processes of services",
            Self::Events => "Show what happens to services from now on",
            Self::Show => "Show the effective unit, each value with where it was written",
            Self::Exec => "Run a command in a service's context",
            Self::Logs => "Show what services have written, merged by time",
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
                 With `--hold` their sockets stay open: clients wait until the service is started again, as far \
                 as the backlog has room. Ctrl-C stops waiting and cancels nothing."
            }
            Self::Restart => {
                "A service with sockets gets its new processes beside the old ones, which go only when the new \
                 ones have proven good; if they fail, the old ones keep serving and the command exits with 1 and \
                 the reason. Where `[health]` asks for answers, the new generation is rehearsed first: started \
                 once on private sockets, where no client hears it, and ended when it has answered well. With `--stop-first` the old ones end before the new ones start, and nothing is \
                 proven: for a service that cannot run twice at once. Ctrl-C stops waiting and cancels nothing."
            }
            Self::Reload => {
                "What that means is `reload` of the unit: a signal, or a command. A service whose unit does not \
                 say it is restarted instead. Ctrl-C stops waiting and cancels nothing."
            }
            Self::Scale => {
                "The number holds until the unit is applied again. More instances start and have to prove \
                 themselves; of fewer the last ones are stopped. Ctrl-C stops waiting and cancels nothing."
            }
            Self::Kill => {
                "The signal goes to the main process of every instance, with `--all` to every process of the \
                 service. That a process ends by it is an end like any other: the service starts again as its \
                 `[restart]` says. Exits with 1 when a service has no process. To end a service, use `stop`."
            }
            Self::Events => {
                "One line for each change until Ctrl-C. A reader that is too slow is told how many changes it \
                 has missed, and nobody waits for it."
            }
            Self::Show => {
                "Values of environment variables are not shown. With `--exec` the plan of the next start: the \
                 command, who it runs as, where, with which variables, limits and descriptors. With `--schema`, and \
                 without a supervisor, the JSON Schema of unit files for editors."
            }
            Self::Exec => {
                "The command runs as the service does: its user, groups, variables, directory, limits and \
                 capabilities, in a cgroup of its own; it gets no sockets. Root and the supervisor's own user may run \
                 one, as in `supervise exec shop -- bin/manage.py migrate`; so may the service's user, where the service \
                 has no capabilities and no groups that whoever asks lacks. Exits as the command does: its status, 128 \
                 and the number of its signal, 127 when there is no such program, 126 when it cannot be \
                 executed, 125 when it did not come to that.\n\n\
                 Where standard input and output are a terminal, the command gets a terminal of its own, as in \
                 `supervise exec shop -- bash`: what is typed goes to it as it is, Ctrl-C and Ctrl-Z too, with the \
                 window's size and TERM; INT, QUIT, TERM or HUP to this client end it. Otherwise, and with `-T`, it gets \
                 pipes, and INT, QUIT and TERM are passed on to it. With `-t` it gets a terminal in any case. Where this \
                 client ends before it, it gets HUP and after 5 seconds KILL."
            }
            Self::Logs => {
                "Times are local. T is `02:10`, `2026-11-23 02:10`, `10min ago`, `yesterday` or RFC 3339. On a \
                 terminal everything that could act on it is escaped; a file or a program gets the bytes as the \
                 service wrote them. With `-f` the last 10 lines come first unless `-n` or `--since` says \
                 otherwise, and the files are followed across their rotation. Without a supervisor the files in \
                 the log directory are read."
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
        assert!(Rights::up_to(Right::Control).include(Right::Logs));
        assert!(!Rights::up_to(Right::Status).include(Verb::Show.needs()));
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
