//! CHILD. The steps from a clone to a command, in order, and what each reports. Never carries one out.

/// A step. The order is the security property: each needs a right that a later one gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Copies and checks the plan; nothing has happened yet.
    Plan = 1,
    /// A session without a terminal, before anything could open one.
    Session,
    /// Standard input, output and error.
    Stdio,
    /// Standard input, where it is a terminal of the command's own, becomes the one that controls the session.
    Terminal,
    /// The score of the out-of-memory killer; not writable any more once the user has changed.
    Oom,
    /// Resource limits, priority, processors: raising needs rights that go away below.
    Limits,
    /// Permission bits of new files.
    Umask,
    /// A keyring of its own, so that root's is not inherited.
    Keyring,
    /// Supplementary groups; not allowed any more once the user has changed.
    Groups,
    /// The group; not allowed any more once the user has changed.
    Group,
    /// Capabilities that no file can ever give back; needs CAP_SETPCAP.
    Bounding,
    /// Waits until the manager has written the child down. What came before ends with the child, nobody but root
    /// could reach it, and a failure of it is told only now.
    Gate,
    /// The user.
    User,
    /// What is left of capabilities: those granted, usually none.
    Capabilities,
    /// Proof that there is no way back.
    Verify,
    /// Passed sockets at 3 and up, everything else closed at the exec; then lower descriptor limits.
    Descriptors,
    /// The working directory, entered as the user.
    Directory,
    /// No exec gives more rights from here on.
    NoNewPrivs,
    /// No signal blocked any more; the zygote has them all blocked, and at their default, for its children.
    Signals,
    /// The command.
    Exec,
}

impl Stage {
    /// Every step, in order.
    pub const ALL: [Self; 20] = [
        Self::Plan,
        Self::Session,
        Self::Stdio,
        Self::Terminal,
        Self::Oom,
        Self::Limits,
        Self::Umask,
        Self::Keyring,
        Self::Groups,
        Self::Group,
        Self::Bounding,
        Self::Gate,
        Self::User,
        Self::Capabilities,
        Self::Verify,
        Self::Descriptors,
        Self::Directory,
        Self::NoNewPrivs,
        Self::Signals,
        Self::Exec,
    ];

    /// What was being done, as the start of a sentence.
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Plan => "reading the execution plan",
            Self::Gate => "waiting to be let through",
            Self::Signals => "unblocking signals",
            Self::Session => "starting a session",
            Self::Stdio => "arranging standard input and output",
            Self::Terminal => "making a terminal the controlling one",
            Self::Oom => "setting the out-of-memory score",
            Self::Limits => "setting resource limits",
            Self::Umask => "setting the umask",
            Self::Keyring => "making a keyring",
            Self::Groups => "setting supplementary groups",
            Self::Group => "setting the group",
            Self::Bounding => "limiting capabilities",
            Self::User => "setting the user",
            Self::Capabilities => "setting capabilities",
            Self::Verify => "verifying that privileges are gone",
            Self::Descriptors => "arranging file descriptors",
            Self::Directory => "changing to the working directory",
            Self::NoNewPrivs => "giving up new privileges",
            Self::Exec => "executing the command",
        }
    }

    /// The step with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage as u8 == number)
    }

    /// The exit status of a child that fails here: 200 and the step's number.
    pub const fn exit_code(self) -> i32 {
        200 + self as i32
    }
}

/// What [`Stage::Verify`] looks at; its number is the detail of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Check {
    /// Real, effective and saved user.
    Users = 1,
    /// Real, effective and saved group.
    Groups,
    /// Supplementary groups.
    Supplementary,
    /// Becoming user 0 again has to fail.
    WayBackToUser,
    /// Becoming group 0 again has to fail.
    WayBackToGroup,
    /// The effective capabilities.
    Effective,
    /// The permitted capabilities.
    Permitted,
    /// The inheritable capabilities.
    Inheritable,
    /// The bounding set.
    Bounding,
    /// The ambient capabilities.
    Ambient,
    /// Without a user to become, it may not be root.
    NotRoot,
}

impl Check {
    /// Every check, in order.
    pub const ALL: [Self; 11] = [
        Self::Users,
        Self::Groups,
        Self::Supplementary,
        Self::WayBackToUser,
        Self::WayBackToGroup,
        Self::Effective,
        Self::Permitted,
        Self::Inheritable,
        Self::Bounding,
        Self::Ambient,
        Self::NotRoot,
    ];

    /// The check with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|check| *check as u32 == number)
    }

    /// What was found.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Users => "the user is not the one asked for",
            Self::Groups => "the group is not the one asked for",
            Self::Supplementary => "the supplementary groups are not those asked for",
            Self::WayBackToUser => "the process could become root again",
            Self::WayBackToGroup => "the process could join the root group again",
            Self::Effective => "the effective capabilities are not those granted",
            Self::Permitted => "the permitted capabilities are not those granted",
            Self::Inheritable => "the inheritable capabilities are not those granted",
            Self::Bounding => "the bounding set has capabilities that are not granted",
            Self::Ambient => "the ambient capabilities are not those granted",
            Self::NotRoot => "the process is root and no user was asked for",
        }
    }
}

/// The detail of a failed [`Stage::Exec`] where the program was in none of the places.
pub const NOWHERE: u32 = u32::MAX;

/// The detail of [`Stage::Limits`] for the priority; resources have their own codes.
pub const NICE: u32 = 100;
/// The detail of [`Stage::Limits`] for the processors.
pub const CPUS: u32 = 101;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_own_number_and_exit_code() {
        for (index, stage) in (1_u8..).zip(Stage::ALL) {
            assert_eq!((stage as u8, Stage::from_number(index)), (index, Some(stage)));
            assert!((201..=255).contains(&stage.exit_code()));
        }
        assert_eq!((Stage::from_number(0), Stage::from_number(21)), (None, None));
        for (index, check) in (1_u32..).zip(Check::ALL) {
            assert_eq!(Check::from_number(index), Some(check));
        }
    }
}
