//! PURE. What should happen to each service: `(state, event, now)` in, actions and the next deadline out.
//! Never I/O, a clock, randomness or a pid.
//!
//! Two facts are kept apart everywhere: the *goal* is what the operator wants, the *phase* is what is so.
//! The shell around this (the manager, or the simulation in `tests/sim`) reads the clock once a turn, feeds
//! events in, writes the changed state down, and only then carries the actions out; what comes of an action
//! is an event of a later turn. So a crash after any single action can be taken up again: [`recover`] tells,
//! from the state and from what is left in the world, which event was missed.

pub mod backoff;
mod ends;
mod incarnation;
mod operations;
pub mod recover;
mod roll;
pub mod service;
mod spec;
mod state;
pub mod watch;
pub mod world;

use serde::{Deserialize, Serialize};

/// Milliseconds of CLOCK_MONOTONIC, always an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mono(pub u64);

impl Mono {
    /// This instant and `ms` milliseconds more; the end of time instead of an overflow.
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 when that is not in the past.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One incarnation: one start of one instance. Never reused, unlike a pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run(pub u64);

/// One service of this supervisor. Never reused while the supervisor's state lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub u32);

/// An operation that somebody waits for; the client makes it up, so that it can ask again after a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Operation(pub u128);

/// How a main process ended (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It called exit with this status, 0 to 255.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// Nobody who could know is left to ask.
    Unknown,
}

/// How an incarnation ended, or why it never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The command ran and ended.
    Exited(Exit),
    /// A step before the command failed: the stage's number, the system's errno, a detail of that stage.
    Launch {
        /// Number of the stage.
        stage: u8,
        /// errno(3).
        errno: i32,
        /// What the stage says of it.
        detail: u32,
    },
    /// No process could be made: errno(3). A shortage of the machine, not a fault of the service.
    NoProcess(i32),
    /// The manager could not prepare the start (an account, a directory); its words are kept beside it.
    Unprepared,
    /// A socket could not be bound; its words are kept beside it. Never counts as the service's failure, and is tried
    /// again whatever `[restart]` says.
    Unbound,
    /// Nobody said in time what the start needs to know (whose number a name is); its words are kept beside it. As with a
    /// socket, it is nobody's failure and is tried again whatever `[restart]` says.
    Unanswered,
    /// The steps before the command took longer than `start-timeout`.
    TimedOut,
    /// The command ran and was not ready within `start-timeout`.
    NotReady,
    /// The command ran, and a probe said that it does not work.
    Unhealthy,
    /// The command ran and gave no sign of life within `watchdog`, or asked to be ended.
    Watchdog,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The supervisor begins, or begins to supervise this service.
    Boot,
    /// An operator wants it up.
    Start(Operation),
    /// An operator wants it down.
    Stop(Operation),
    /// The same, but its sockets stay, and clients wait.
    Hold(Operation),
    /// An operator wants a fresh incarnation of a new generation.
    Restart(Operation),
    /// The same, but what runs is stopped first, whatever the unit says.
    RestartStopFirst(Operation),
    /// An operator wants it to read its configuration anew; a restart where it cannot.
    Reload(Operation),
    /// An operator wants so many instances of it, until its unit is applied again.
    Scale(Operation, u16),
    /// Another service that is being started needs it.
    Pull,
    /// The whole supervisor stops.
    Close,
    /// The process exists and waits at its gate.
    Cloned(Run),
    /// There is no process and there will be none.
    NotCloned(Run, End),
    /// The command is executing.
    Executed(Run),
    /// It says that it is ready. Told after `Executed`, whatever came in first.
    Ready(Run),
    /// It says that what it does now, starting or stopping, takes so many milliseconds more from now on.
    Extended(Run, u64),
    /// It says that its earlier failures are over.
    Healed(Run),
    /// A sign of life; after a recovery, that one has a full period again.
    Alive(Run),
    /// It says that it is to be treated as if it had given none.
    Trigger(Run),
    /// From now on it gives a sign of life so often, in milliseconds; 0: no more.
    Watched(Run, u64),
    /// A probe found that it works.
    Healthy(Run),
    /// A probe found that it does not.
    Unhealthy(Run),
    /// A probe had no answer from it.
    Unanswered(Run),
    /// A probe did not get through to it, for want of something of ours or because another that shares its
    /// sockets took the connection.
    Unasked(Run),
    /// It is known that it cannot serve: none of its processes has a socket of its any more, and one listens elsewhere.
    Astray(Run),
    /// It has read its configuration anew.
    Reloaded(Run),
    /// What was to make it do so has failed.
    NotReloaded(Run),
    /// A step before the command failed; the process ends on its own.
    NotExecuted(Run, End),
    /// The stop signal has been sent.
    Signalled(Run),
    /// The main process has ended.
    Gone(Run, Exit),
    /// Nothing is left of the process tree, and every resource of the incarnation is released.
    Empty(Run),
    /// After a recovery: the incarnation never passed its gate, and nothing is left of it.
    Lost(Run),
    /// There is nothing on which this rehearsal could be done, and no process of it.
    Unrehearsed(Run),
    /// Time has passed.
    Tick,
}

/// What to do. Each is written down with the state before it is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the process and hold it at its gate; brings `Cloned` or `NotCloned`.
    Spawn(Run),
    /// Write the process down, register it, open its gate; brings `Executed` or `NotExecuted`, then `Gone`.
    Release(Run),
    /// Send the stop signal to the main process; brings `Signalled`.
    Terminate(Run),
    /// Send ABRT to the main process, which gave no sign of life; brings `Signalled`.
    Abort(Run),
    /// Look once whether it works; brings `Healthy` or `Unhealthy`.
    Probe(Run),
    /// Have it read its configuration anew; brings `Reloaded`.
    Reload(Run),
    /// Send KILL to everything of the tree; brings `Gone` where that has not come.
    Kill(Run),
    /// The main process is gone: TERM to what is left of the tree; brings `Empty` when nothing is.
    Clear(Run),
    /// The command has its answer: tell whoever waits for it.
    Answer(Operation),
}

/// What came of an operation on one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As wanted.
    Done,
    /// It was so already.
    Already,
    /// The incarnation that was to prove itself ended before it had.
    Ended(End),
    /// Nothing of it runs that could do it.
    NotRunning,
    /// What was to have it read its configuration anew has failed.
    NotReloaded,
    /// Its unit says that it is never to start.
    Off,
    /// It does not start before this other one is ready, which has failed.
    Requires(ServiceId),
    /// Another operator's command came in between.
    Superseded,
    /// The supervisor is stopping.
    Closing,
}
