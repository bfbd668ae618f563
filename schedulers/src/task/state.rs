//! What the scheduler holds of one task that has not ended.

use std::time::Duration;

use pointsman_policies::{EngineIx, Hints, Rank, TaskFacts, Ticket, Time};
use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::growth::Sketch;
use super::{Dependency, EngineId};

slotmap::new_key_type! {
    /// A live task. A key of a task that has ended is recognised and matches nothing.
    pub struct TaskKey;
}

/// The last failure of a task that is to be tried again, kept in case nobody else can.
#[derive(Clone, Debug)]
pub(super) struct Failure<P> {
    pub(super) engine: EngineId,
    /// What the engine answered; nothing if it died.
    pub(super) reply: Option<P>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// Dependencies are not met.
    Blocked,
    /// May run on any engine; in the common queue.
    Ready,
    /// May run on a few engines; parked on each of them.
    Parked,
    /// May run on any engine but those that turned it away; in the log at that position.
    TurnedAway(u64),
    /// Put off by the scheme, until something happens or a time that it named.
    SetAside,
    /// At one engine, or at two at once.
    Running,
}

/// A task at an engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) engine: EngineId,
    pub(super) ix: EngineIx,
    /// Its place in the engine's list of tasks in flight.
    pub(super) place: u32,
    pub(super) attempt: u32,
    /// Which dispatch of all it was.
    pub(super) dispatch: u64,
    pub(super) since: Time,
    /// The scheme's word, and the order's.
    pub(super) ticket: Ticket,
    pub(super) order_ticket: Ticket,
    /// How many tasks were in flight there when it was sent.
    pub(super) ahead: u32,
    /// When the rebalance policy wants to look at it.
    pub(super) look_at: Option<Time>,
    pub(super) recall: Recall,
}

/// Whether a task is being taken back from its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    No,
    /// The engine was asked to drop it.
    Asked,
    /// It will: what it had begun by then has been answered by that time.
    Until(Time),
}

impl State {
    pub(super) fn is_waiting_for_engine(self) -> bool {
        matches!(self, State::Ready | State::Parked | State::TurnedAway(_) | State::SetAside)
    }
}

/// Progress of a dependency: counters, no sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) all: bool,
    pub(super) success: bool,
    pub(super) failure: bool,
    /// Dependencies that have not ended.
    pub(super) open: u32,
    /// Whether one that counts has ended.
    pub(super) any_counted: bool,
    /// Whether one that does not count has ended.
    pub(super) any_missed: bool,
    pub(super) empty: bool,
}

impl Progress {
    /// Of no dependency.
    const NONE: Progress =
        Progress { all: true, success: true, failure: false, open: 0, any_counted: false, any_missed: false, empty: true };

    pub(super) fn of(dependency: &Dependency) -> Self {
        Progress {
            all: dependency.all,
            success: dependency.success,
            failure: dependency.failure,
            open: dependency.ids.len() as u32,
            any_counted: false,
            any_missed: false,
            empty: dependency.ids.is_empty(),
        }
    }

    /// One dependency ended; returns whether that outcome counts.
    pub(super) fn ended(&mut self, ok: bool) -> bool {
        let counts = if ok { self.success } else { self.failure };
        self.open = self.open.saturating_sub(1);
        self.any_counted |= counts;
        self.any_missed |= !counts;
        counts
    }

    pub(super) fn met(&self) -> bool {
        self.empty || if self.all { self.open == 0 && !self.any_missed } else { self.any_counted }
    }

    pub(super) fn unreachable(&self) -> bool {
        !self.empty && if self.all { self.any_missed } else { self.open == 0 && !self.any_counted }
    }
}

/// Which of its two dependencies joins a task to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    After,
    Follow,
}

/// [`TaskFacts`] in less room: few tasks have hints.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) class: u64,
    client: u64,
    session: u64,
    bytes: u64,
    hints: Option<Box<Hints>>,
}

impl Facts {
    pub(super) fn of(facts: &TaskFacts) -> Self {
        let hints = (facts.hints != Hints::default()).then(|| Box::new(facts.hints));
        Facts { class: facts.class, client: facts.client, session: facts.session, bytes: facts.bytes, hints }
    }

    /// As policies see them.
    pub(super) fn open(&self) -> TaskFacts {
        let mut facts = TaskFacts::default();
        (facts.class, facts.client, facts.session, facts.bytes) = (self.class, self.client, self.session, self.bytes);
        if let Some(hints) = &self.hints {
            facts.hints = **hints;
        }
        facts
    }

    /// Whether a second copy may run.
    pub(super) fn may_be_hedged(&self) -> bool {
        self.hints.as_ref().is_some_and(|hints| hints.hedge)
    }
}

/// What the scheduler holds of a task: here what every task has, and in `rest` what few have. Lists take one word while they are empty.
#[derive(Debug)]
pub(super) struct Task<P> {
    pub(super) id: Box<str>,
    pub(super) seq: u64,
    pub(super) payload: P,
    pub(super) bytes: usize,
    pub(super) facts: Facts,
    pub(super) submitted: Time,
    pub(super) ready_since: Time,
    /// Where the order has put it.
    pub(super) rank: Rank,
    pub(super) state: State,
    /// Where it is in flight.
    pub(super) runs: ThinVec<Run>,
    /// Counts stays in queues, so that old entries are recognised.
    pub(super) epoch: u32,
    pub(super) attempt: u32,
    pub(super) retries: u32,
    pub(super) last_failure: Option<Box<Failure<P>>>,
    /// Tasks that wait for this one; may hold dead keys, counted beside.
    pub(super) dependents: ThinVec<(TaskKey, Edge)>,
    pub(super) rest: Lazy,
}

/// A [`Rest`] that is made when something is first written into it.
#[derive(Debug, Default)]
pub(super) struct Lazy(Option<Box<Rest>>);

impl Lazy {
    /// To write into what is there.
    pub(super) fn get_mut(&mut self) -> Option<&mut Rest> {
        self.0.as_deref_mut()
    }

    /// To write into it.
    pub(super) fn edit(&mut self) -> &mut Rest {
        self.0.get_or_insert_default()
    }
}

impl std::ops::Deref for Lazy {
    type Target = Rest;

    fn deref(&self) -> &Rest {
        static NONE: Rest = Rest::NONE;
        self.0.as_deref().unwrap_or(&NONE)
    }
}

/// What tasks have that depend on others, are bound to engines, have a timeout, were turned away or inherited, or are ordered by the graph.
#[derive(Debug)]
pub(super) struct Rest {
    /// The number of the end that released it, if it waited for any.
    pub(super) release: u64,
    /// Where results are that it depends on, and the classes of their sizes.
    pub(super) inputs: ThinVec<(EngineId, u8)>,
    /// Its place in the graph, while the order looks at that.
    pub(super) level_s: f64,
    pub(super) sketch: Option<Box<Sketch>>,
    /// Its parents have yet to hear of that.
    pub(super) has_news: bool,
    pub(super) after: Progress,
    pub(super) follow: Progress,
    /// Engines on which followed tasks have counted.
    pub(super) follow_places: ThinVec<EngineId>,
    /// A followed task counted but ran nowhere.
    pub(super) follow_nowhere: bool,
    /// Engines named by the client, as far as they have ever been; `None` if it named none.
    pub(super) targets: Option<ThinVec<EngineId>>,
    /// Engines that failed it or turned it away.
    pub(super) blacklist: ThinVec<EngineId>,
    /// Engines from which it was taken back and that have not said so yet: it must not be sent there meanwhile.
    pub(super) haunted: ThinVec<EngineId>,
    pub(super) timeout: Option<Duration>,
    pub(super) deadline: Option<Time>,
    /// The deadline it had when it was sent: it applies again if the sending fails.
    pub(super) sent_before: Option<Time>,
    /// Live tasks that this one waits for.
    pub(super) waits_for: ThinVec<TaskKey>,
    pub(super) dead_dependents: u32,
    /// An earlier scheduler may have sent it.
    pub(super) inherited: bool,
}

impl Rest {
    const NONE: Rest = Rest {
        release: 0,
        inputs: ThinVec::new(),
        level_s: 0.0,
        sketch: None,
        has_news: false,
        after: Progress::NONE,
        follow: Progress::NONE,
        follow_places: ThinVec::new(),
        follow_nowhere: false,
        targets: None,
        blacklist: ThinVec::new(),
        haunted: ThinVec::new(),
        timeout: None,
        deadline: None,
        sent_before: None,
        waits_for: ThinVec::new(),
        dead_dependents: 0,
        inherited: false,
    };
}

impl Default for Rest {
    fn default() -> Self {
        Rest::NONE
    }
}

impl<P> Task<P> {
    /// Whether it is bound to engines by name or place, rather than free to go anywhere. `soft_follow`: its place is a wish.
    pub(super) fn is_bound(&self, soft_follow: bool) -> bool {
        self.rest.targets.is_some() || !(self.rest.follow.empty || soft_follow)
    }

    /// The engines it may use now, for a bound task: targets and places of followed tasks, less the blacklist.
    pub(super) fn allowed(&self, soft_follow: bool) -> SmallVec<[EngineId; 4]> {
        self.allowed_but(soft_follow, |engine| !self.excludes(*engine))
    }

    /// The same whether or not it is on its way back from there.
    pub(super) fn allowed_ever(&self, soft_follow: bool) -> SmallVec<[EngineId; 4]> {
        self.allowed_but(soft_follow, |engine| !self.rest.blacklist.contains(engine))
    }

    /// Whether it must not be sent to an engine, of those that it may use.
    pub(super) fn excludes(&self, engine: EngineId) -> bool {
        self.rest.blacklist.contains(&engine) || self.rest.haunted.contains(&engine)
    }

    fn allowed_but(&self, soft_follow: bool, fresh: impl Fn(&EngineId) -> bool) -> SmallVec<[EngineId; 4]> {
        let Rest { targets, follow, follow_places, .. } = &*self.rest;
        match (targets, follow.empty || soft_follow) {
            (Some(targets), true) => targets.iter().copied().filter(fresh).collect(),
            // Targets are sorted, so each place costs a binary search.
            (Some(targets), false) => {
                let named = |engine: &EngineId| targets.binary_search(engine).is_ok() && fresh(engine);
                follow_places.iter().copied().filter(named).collect()
            }
            (None, _) => follow_places.iter().copied().filter(fresh).collect(),
        }
    }

    /// Its request has reached an engine: its next wait is a new one.
    pub(super) fn got_there(&mut self) {
        if let Some(rest) = self.rest.get_mut() {
            rest.sent_before = None;
        }
    }

    /// Whether its dependencies are met, so that only an engine is missing.
    pub(super) fn dependencies_met(&self) -> bool {
        self.rest.after.met() && self.rest.follow.met()
    }
}

#[cfg(test)]
mod tests {
    use super::Task;

    /// A million tasks may wait: what each takes beside its payload, its id and its edges is looked at before it grows.
    #[test]
    fn a_task_is_small() {
        assert!(size_of::<Task<()>>() <= 184, "{} bytes", size_of::<Task<()>>());
    }
}
