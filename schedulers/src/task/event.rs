//! What goes into the task scheduler and what comes out.

use std::time::Duration;

use pointsman_policies::Signal;

use super::{EngineId, InvalidSpec, TaskKey, TaskSpec};

/// Something that happened. `P` is the driver's message, opaque here.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "an event is made to be handled at once, and submissions are most of them")]
pub enum Event<'a, P> {
    /// An engine can take tasks from now on.
    EngineUp {
        /// Its uuid.
        uuid: &'a str,
        /// The number by which people know it.
        number: u64,
    },
    /// An engine is gone. Its tasks may still be answered for [`Limits::grace`].
    EngineDown {
        /// Its uuid.
        uuid: &'a str,
    },
    /// An engine shall take no new tasks (`draining`), or may again.
    EngineDraining {
        /// Its uuid.
        uuid: &'a str,
        /// Whether it drains.
        draining: bool,
    },
    /// A client wants a task run.
    Submit {
        /// The task's id.
        id: &'a str,
        /// What it asks for, or what is wrong with that.
        spec: Result<TaskSpec, InvalidSpec>,
        /// The request as it came.
        payload: P,
        /// Its size, counted against [`Limits::queued_bytes`].
        bytes: usize,
    },
    /// An engine answered.
    Result {
        /// The task's id.
        id: &'a str,
        /// The uuid of the engine that answered.
        engine: &'a str,
        /// How it went.
        kind: ReplyKind,
        /// The answer as it came.
        payload: P,
        /// What is known of the run.
        measured: Measured,
    },
    /// An engine answered, and whoever says so knows which dispatch that was: as [`Event::Result`], without a lookup of names.
    Answer {
        /// The task of the dispatch.
        task: TaskKey,
        /// The attempt of the dispatch.
        attempt: u32,
        /// How it went.
        kind: ReplyKind,
        /// The answer as it came.
        payload: P,
        /// What is known of the run.
        measured: Measured,
    },
    /// A dispatch could not be sent: the engine is not (yet) connected.
    SendFailed {
        /// The task of the dispatch.
        task: TaskKey,
        /// The attempt of the dispatch.
        attempt: u32,
    },
    /// An engine has said how much it has to do.
    Signal {
        /// The engine's uuid.
        engine: &'a str,
        /// What it said.
        signal: Signal,
    },
    /// An engine has taken note that it shall drop a task ([`Action::Abort`]).
    AbortNoted {
        /// The task's id.
        id: &'a str,
        /// The engine's uuid.
        engine: &'a str,
    },
    /// A client no longer wants a task that has not started.
    Cancel {
        /// The task's id.
        id: &'a str,
    },
}

/// What an answer tells about a run, as far as [`TaskScheduler::needs`](super::TaskScheduler::needs) asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How long the task ran, by the engine's clock.
    pub run: Option<Duration>,
    /// Size of the answer.
    pub bytes: u64,
}

/// How an engine's answer says it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// It succeeded.
    Ok,
    /// It failed, and may be retried elsewhere.
    Failed,
    /// It was dropped on request; final.
    Aborted,
    /// The engine refused it: a dependency that it checks itself was not met.
    Unmet,
}

/// Something to do. Actions come in the order in which they must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<P> {
    /// Send a request to an engine.
    Dispatch {
        /// The task, to be named in [`Event::SendFailed`].
        task: TaskKey,
        /// 1 for the first dispatch of the task.
        attempt: u32,
        /// Where to; [`TaskScheduler::uuid`](super::TaskScheduler::uuid) has its name.
        engine: EngineId,
        /// The request.
        payload: P,
    },
    /// Ask an engine to drop a task that it has not begun.
    Abort {
        /// The engine.
        engine: EngineId,
        /// The task's id.
        id: Box<str>,
    },
    /// Terminal: pass an engine's answer to its client.
    Reply {
        /// The task's id.
        id: Box<str>,
        /// The answer.
        payload: P,
    },
    /// Terminal: tell the client why there will be no answer.
    Fail {
        /// The task's id.
        id: Box<str>,
        /// Why.
        kind: FailKind,
        /// The engine that was running it, if one was.
        engine: Option<EngineId>,
        /// The request.
        payload: P,
    },
    /// Not terminal for any task: an answer to a request that this scheduler has never seen, to be passed to its client.
    PassOn {
        /// The answer.
        payload: P,
    },
    /// Nothing to do but count and log: a peer's mistake, or an answer that came too late.
    Reject {
        /// What was wrong.
        reason: Reason,
    },
}

/// Why a task ends without an engine's answer. Names as clients know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailKind {
    /// A dependency on itself, on an unknown task, on no outcome at all, or of a wrong type.
    InvalidDependency,
    /// No live engine can ever satisfy its dependencies or targets.
    ImpossibleDependency,
    /// It waited longer than its timeout.
    TaskTimeout,
    /// The engine that ran it died.
    EngineError,
    /// The scheduler holds as many tasks or bytes as it may.
    QueueFull,
    /// Its client took it back.
    Cancelled,
}

impl FailKind {
    /// The exception name that clients see.
    pub fn ename(self) -> &'static str {
        match self {
            FailKind::InvalidDependency => "InvalidDependency",
            FailKind::ImpossibleDependency => "ImpossibleDependency",
            FailKind::TaskTimeout => "TaskTimeout",
            FailKind::EngineError => "EngineError",
            FailKind::QueueFull => "QueueFull",
            FailKind::Cancelled => "TaskAborted",
        }
    }
}

/// Why an event was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The id of a submission is that of a task that is waiting, running or finished.
    DuplicateTask,
    /// An answer to a task that has been answered.
    AlreadyAnswered,
    /// An answer from an engine that does not run the task now.
    NotRunningThere,
    /// An engine that is up came up again.
    EngineAlreadyUp,
    /// An engine that is not up went down, was to be drained, or told its load.
    UnknownEngine,
    /// A failed send of an attempt that is over.
    StaleAttempt,
    /// A cancellation of a task that is not waiting.
    NotWaiting,
}

/// The bounds of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most tasks in flight on one engine; 0 means no limit.
    pub hwm: u32,
    /// How long the tasks of a lost engine may still be answered.
    pub grace: Duration,
    /// How long to wait before an engine that could not be reached is tried again.
    pub reconnect: Duration,
    /// The most tasks waiting and running together.
    pub queued_tasks: usize,
    /// The most bytes of requests held for them.
    pub queued_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            hwm: 1,
            grace: Duration::from_secs(1),
            reconnect: Duration::from_millis(50),
            queued_tasks: 2_000_000,
            queued_bytes: 8 << 30,
        }
    }
}

/// What a scheduler has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks accepted.
    pub accepted: u64,
    /// Dispatches, each attempt counted.
    pub dispatched: u64,
    /// Answers passed to clients as terminal.
    pub replied: u64,
    /// Tasks ended without an answer.
    pub failed: u64,
    /// Attempts that were followed by another because they failed or their engine died.
    pub retried: u64,
    /// Refusals by engines because of a dependency that they check themselves.
    pub unmet: u64,
    /// Second copies sent of tasks that took long.
    pub hedged: u64,
    /// Tasks taken back from an engine's queue and placed anew.
    pub recalled: u64,
    /// Answers that came after their task was answered.
    pub late: u64,
    /// All other rejected events.
    pub rejected: u64,
}
