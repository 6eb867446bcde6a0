//! PURE. Everything that can be wrong with a unit. `wording.rs` has the words; neither decides that it is so.

use std::net::SocketAddr;

/// What is wrong. Shown, it is the message, without a place and without the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With the file as such.
    File(FileFault),
    /// With a key or a table's name.
    Key(KeyFault),
    /// With a value.
    Value(ValueFault),
    /// With a command.
    Command(CommandFault),
    /// With a socket.
    Socket(SocketFault),
    /// With how it is seen whether the service works.
    Health(HealthFault),
    /// With the unit beside others, or for who runs it.
    Rule(RuleFault),
}

impl Fault {
    /// Whether all that is wrong is that something known does nothing yet.
    pub(super) fn is_not_yet(&self) -> bool {
        matches!(
            self,
            Self::Key(KeyFault::NotYet { .. })
                | Self::Value(ValueFault::NotYet { .. })
                | Self::Command(CommandFault::PlaceholderNotYet { .. })
        )
    }
}

/// What is wrong with a file as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// Larger than [`super::FILE_BYTES_MAX`].
    TooBig {
        /// Its bytes.
        bytes: usize,
    },
    /// Not UTF-8.
    NotText,
    /// Not TOML, with the parser's words.
    Syntax {
        /// What the TOML parser says.
        message: String,
    },
    /// A value without quotes.
    Unquoted {
        /// The value.
        word: String,
    },
    /// The same key or table again.
    Twice {
        /// Its name.
        key: String,
    },
    /// Nested deeper than [`super::DEPTH_MAX`].
    TooDeep,
    /// There is more than is told.
    More {
        /// How many problems.
        count: usize,
    },
    /// The file's name is no unit's name.
    Name {
        /// The name.
        name: String,
    },
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// No such key in this table.
    Unknown {
        /// The key.
        key: String,
        /// The table's header.
        table: String,
        /// What was probably meant, as a whole sentence.
        remedy: Option<String>,
    },
    /// No such table.
    UnknownTable {
        /// The name.
        name: String,
        /// The nearest header.
        meant: Option<String>,
    },
    /// Known, and does nothing yet.
    NotYet {
        /// The key or header.
        what: String,
    },
    /// A table's name with something else behind it.
    NotATable {
        /// The header it should be.
        header: String,
    },
    /// Required and not there.
    Missing {
        /// The key.
        key: String,
        /// The table's header.
        table: String,
        /// A line to write.
        example: String,
    },
    /// A name that is no socket's name.
    SocketName {
        /// The name.
        name: String,
    },
    /// The name that supervise keeps for itself.
    SocketReserved,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueFault {
    /// Another type of TOML value.
    Type {
        /// The key.
        key: String,
        /// What it takes.
        wants: String,
        /// What it got.
        got: &'static str,
        /// What to write.
        remedy: Option<String>,
    },
    /// The right type, and not of the form.
    Form {
        /// The key.
        key: String,
        /// The value.
        word: String,
        /// What it should be.
        wants: String,
        /// What to write.
        remedy: String,
    },
    /// A number outside of its range.
    Range {
        /// The key.
        key: String,
        /// The number as it was written.
        word: String,
        /// The least.
        least: i64,
        /// The most.
        most: i64,
    },
    /// A duration that is too short.
    Short {
        /// The key.
        key: String,
        /// The least, in milliseconds.
        least_ms: u64,
        /// Whether `"off"` can be written.
        off: bool,
    },
    /// A size that is too small.
    Small {
        /// The key.
        key: String,
        /// The least, in bytes.
        least_bytes: u64,
    },
    /// `max-delay` below `delay`.
    DelayOrder {
        /// `delay` in milliseconds.
        delay_ms: u64,
    },
    /// A word that is none of the choices.
    Choice {
        /// The key.
        key: String,
        /// The word.
        word: String,
        /// What there is to choose.
        known: Vec<String>,
        /// Which one was probably meant.
        meant: Option<String>,
    },
    /// A value that does nothing yet.
    NotYet {
        /// The key.
        key: String,
        /// The value.
        word: String,
    },
    /// A signal that ends nothing.
    Endless {
        /// The key.
        key: String,
        /// The signal.
        word: String,
    },
    /// A NUL, which nothing that is given to a program can hold.
    Nul {
        /// The key.
        key: String,
    },
    /// A control character in a text for people.
    Control {
        /// The key.
        key: String,
    },
    /// More bytes than there is room for.
    Long {
        /// The key.
        key: String,
        /// Its bytes.
        bytes: usize,
    },
    /// More items than there is room for.
    Many {
        /// The key.
        key: String,
    },
    /// A larger environment than there is room for.
    EnvironmentSize {
        /// Its bytes.
        bytes: usize,
    },
    /// No name for a variable.
    EnvironmentName {
        /// The name.
        name: String,
    },
    /// A key of `[service]` where a variable should be.
    EnvironmentKey {
        /// The key.
        name: String,
    },
    /// A uid or gid that means "no change".
    AccountNumber {
        /// The key.
        key: String,
        /// The number as it was written.
        word: String,
    },
    /// A descriptor that a socket has.
    SocketThere {
        /// The descriptor.
        fd: u32,
        /// The first that is free.
        free: usize,
    },
    /// A key that only tasks have.
    TasksOnly {
        /// The key.
        key: String,
    },
    /// A task of more than one instance.
    TaskInstances,
    /// The unit's own name among those that it needs.
    Itself {
        /// The key.
        key: String,
    },
    /// Too few descriptors for the sockets.
    FewDescriptors {
        /// How many sockets there are.
        sockets: usize,
    },
}

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// No words at all.
    Empty,
    /// An empty program.
    NoProgram,
    /// Something that only a shell understands.
    Shell {
        /// What.
        word: String,
    },
    /// A variable's assignment in the place of the program.
    Assignment {
        /// The variable.
        word: String,
    },
    /// A quote or an escape that does not end.
    Unfinished,
    /// A placeholder that there is not.
    Placeholder {
        /// What stands between the braces.
        word: String,
    },
    /// One that does nothing yet.
    PlaceholderNotYet {
        /// What stands between the braces.
        word: String,
    },
    /// A descriptor of a socket that the unit does not have.
    NoSocket {
        /// The name.
        name: String,
        /// Names of the sockets it has.
        known: Vec<String>,
    },
    /// A descriptor of a socket for a command that is given none.
    NoSockets {
        /// The key of the command.
        key: String,
        /// The socket's name.
        name: String,
    },
    /// `{fd:health}` where no probe would ask it.
    NobodyAsks,
    /// The path of a directory that the unit does not have made.
    NoDirectory {
        /// The directory's key.
        key: String,
    },
    /// More bytes than execve(2) would take.
    Long {
        /// Its bytes.
        bytes: usize,
    },
}

/// What is wrong with a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketFault {
    /// Not an address.
    NotAnAddress {
        /// What was written.
        word: String,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// A host's name.
    HostName {
        /// What was written.
        word: String,
        /// An address to write instead.
        meant: String,
    },
    /// An address alone.
    NoPort {
        /// What was written.
        word: String,
    },
    /// No port from 1 to 65535.
    Port {
        /// What was written.
        word: String,
    },
    /// An IPv4 address in the clothes of IPv6.
    Mapped {
        /// What was written.
        word: String,
        /// The same in IPv4.
        remedy: SocketAddr,
    },
    /// Not the name of an abstract Unix socket.
    AbstractName {
        /// What was written.
        word: String,
    },
    /// A path that does not start at the root.
    RelativePath {
        /// What was written.
        word: String,
    },
    /// A path longer than the kernel has room for.
    LongPath {
        /// Its bytes.
        bytes: usize,
    },
    /// A path with `.`, `..` or empty parts.
    OddPath {
        /// What was written.
        word: String,
    },
    /// A NUL in it.
    Nul,
    /// More sockets than [`super::SOCKETS_MAX`].
    TooMany,
    /// An address that another socket of the unit has.
    Taken {
        /// This address.
        address: String,
        /// The other socket.
        by: String,
        /// The other's address.
        other: String,
    },
    /// A key that only Unix sockets with a path have.
    UnixOnly {
        /// The key.
        key: String,
        /// What this socket is.
        of: &'static str,
    },
    /// A key that this socket does not have.
    Senseless {
        /// The key.
        key: String,
        /// What this socket is.
        of: &'static str,
    },
    /// A type that the network does not have.
    Seqpacket {
        /// The socket's address.
        address: String,
    },
}

/// What is wrong with `[health]`, or with what asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthFault {
    /// It says nothing to ask.
    NoProbe,
    /// It says two things to ask.
    TwoProbes {
        /// This key.
        key: String,
        /// The other.
        other: String,
    },
    /// There is no such table, and `ready = "health"`.
    Missing,
    /// The unit has no socket to ask.
    NoSocket {
        /// The key of what is asked.
        key: String,
    },
    /// It names a socket that the unit does not have.
    UnknownSocket {
        /// The name.
        name: String,
        /// Names of the sockets it has.
        known: Vec<String>,
    },
    /// Its socket takes no connections.
    NotStream {
        /// The socket's name.
        name: String,
    },
    /// It names a socket, and the command takes `{fd:health}`.
    Private {
        /// The socket's name.
        name: String,
    },
    /// A key that means nothing for what is asked.
    Senseless {
        /// The key.
        key: String,
        /// The key of what is asked.
        probe: String,
    },
    /// A task is not asked.
    Task,
}

/// What is wrong with a unit beside others, or for who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleFault {
    /// It does not suit the server that it runs.
    Server {
        /// In which way.
        what: String,
        /// What to do.
        hint: String,
    },
    /// Root would run it as root because nobody said otherwise.
    NoUser,
    /// It says that it runs as root.
    Root,
    /// It would run as root, and does not say so by name.
    RootByNumber,
    /// An ordinary user cannot run it as another.
    OtherUser {
        /// Whom the unit names.
        user: String,
        /// Who runs it.
        runner: String,
    },
    /// An ordinary user's services are in the group that the user is in.
    OtherGroup {
        /// What the unit names.
        group: String,
        /// Who runs it.
        runner: String,
    },
    /// An ordinary user's services are in no more groups than the user.
    NotInGroup {
        /// What the unit names.
        group: String,
        /// Who runs it.
        runner: String,
    },
    /// An ordinary user has no capabilities to grant.
    Capabilities {
        /// Who runs it.
        runner: String,
    },
    /// An ordinary user cannot give a socket to another.
    OtherOwner {
        /// The socket.
        socket: String,
        /// Whom the unit names.
        user: String,
        /// Who runs it.
        runner: String,
    },
    /// Another unit has the address.
    Taken {
        /// This address.
        address: String,
        /// The other unit.
        unit: String,
        /// The other's address.
        other: String,
        /// Where it is written.
        place: String,
    },
    /// A unit needs another that there is not.
    NoUnit {
        /// The key it is named under.
        key: &'static str,
        /// The name.
        name: String,
        /// Which one was probably meant.
        meant: Option<String>,
    },
    /// Units that wait for each other.
    Cycle {
        /// Their names in order, the first again at the end; None where a long one is cut.
        path: Vec<Option<String>>,
    },
    /// Two units with one name.
    SameName {
        /// The name.
        name: String,
        /// Where the other is.
        place: String,
    },
}
