//! The hub's state and front door: events in, actions out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde_json::Value;

use super::answers::Asked;
use super::engines::{EngineNumber, Engines, EnginesState};
use super::hearts::Hearts;
use super::news::TaskNews;
use super::restore::Former;
use crate::date::Date;
use crate::db::{DbError, Keys, Patch, Query, Record};
use crate::session::Parts;
use crate::{Envelope, Ledger, Multipart, Session};

/// How a hub behaves.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Time between pings.
    pub heartbeat: Duration,
    /// Pings that an engine may miss in a row.
    pub max_misses: u32,
    /// How long an engine may take from its request to its first answer to a ping.
    pub registration_timeout: Duration,
    /// How long direct requests of a lost engine may still be answered.
    pub grace: Duration,
    /// What registration replies carry as `connection_info`: the engine file of a reused one, else an empty object.
    pub connection_info: Value,
    /// Whether a client may make it start a Dask scheduler.
    pub allows_dask: bool,
    /// Whether records are kept: without them results are known only as pending or completed.
    pub keeps_records: bool,
}

impl Default for HubConfig {
    fn default() -> Self {
        HubConfig {
            heartbeat: Duration::from_millis(3000),
            max_misses: 10,
            registration_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(1),
            connection_info: Value::Object(serde_json::Map::new()),
            allows_dask: false,
            keeps_records: true,
        }
    }
}

/// The time of an event, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, since an origin of the driver's choice.
    pub mono: Duration,
    /// By the wall clock, for what is written down.
    pub date: Date,
}

/// Where a copied message passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Direct request: `[uuid][client] message`.
    In,
    /// Direct reply: `[client][uuid] message`.
    Out,
    /// Output of an engine: `[topic] message`.
    Iopub,
}

/// A message that passed by.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Where.
    pub topic: Topic,
    /// Its frames.
    pub message: Arc<Multipart>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A message came to the query socket: `[sender] message`.
    Query(Arc<Multipart>),
    /// A message passed by.
    Copied(Copied),
    /// The task scheduler has something to tell.
    Task(TaskNews),
    /// An answer to a ping.
    Pong {
        /// The sender's identity.
        uuid: Vec<u8>,
        /// What it echoes.
        text: Vec<u8>,
    },
    /// Somebody has subscribed to notifications and may have missed some.
    Subscribed,
    /// The store has done what an [`Action::Db`] asked.
    Db(u64, Result<DbReply, DbError>),
    /// What came of an [`Action::Errand`]: a JSON object, or why not.
    Errand(u64, Result<serde_json::Value, String>),
    /// The policies in force from now on, as text, for the records.
    Policies(Box<str>),
    /// What came of an [`Action::Dask`]: where the scheduler listens, nothing for one that has been stopped, or why not.
    Dask(u64, Result<Option<DaskAddress>, String>),
    /// The process was asked to stop.
    Stop,
}

/// Where a Dask scheduler listens.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DaskAddress {
    /// The host's address.
    pub ip: String,
    /// All of it, `tcp://host:port`.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// What is wanted of the Dask scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum DaskOrder {
    /// That it runs, with these arguments.
    Start(serde_json::Map<String, Value>),
    /// That it ends.
    Stop,
}

/// A question to the store that has an answer.
#[derive(Clone, Debug)]
pub enum DbCall {
    /// Records of these ids, with buffers; unknown ones are left out.
    Get(Vec<String>),
    /// Matching records, as they are.
    Find(Query, Keys),
    /// Matching records, as the content and buffers of a `db_reply`.
    Show(Query, Keys),
    /// Ids of submitted tasks.
    History,
    /// Remove these, and all that match.
    Remove(Vec<String>, Vec<Query>),
}

impl DbCall {
    /// Bytes it holds, about.
    pub fn size_bytes(&self) -> usize {
        let ids = match self {
            DbCall::Get(ids) | DbCall::Remove(ids, _) => ids.iter().map(String::len).sum(),
            DbCall::Find(..) | DbCall::Show(..) | DbCall::History => 0,
        };
        1024 + ids
    }
}

/// Its answer.
#[derive(Debug)]
pub enum DbReply {
    /// To `Get` and `Find`.
    Records(Vec<Record>),
    /// To `Show`.
    Shown {
        /// The content.
        content: Vec<u8>,
        /// The buffers, record by record.
        buffers: Vec<Bytes>,
    },
    /// To `History`.
    Ids(Vec<String>),
    /// To `Remove`.
    Removed,
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Send a message on the query socket.
    Reply {
        /// To this identity.
        to: Vec<u8>,
        /// The message.
        parts: Parts,
        /// And what follows its content.
        buffers: Vec<Bytes>,
    },
    /// Publish a notification.
    Notify(Parts),
    /// Publish a ping.
    Ping(String),
    /// Tell the schedulers of an engine, before clients hear of it.
    EngineUp {
        /// Its uuid.
        uuid: Box<str>,
        /// Its number.
        number: EngineNumber,
    },
    /// Tell the schedulers that an engine is gone.
    EngineDown {
        /// Its uuid.
        uuid: Box<str>,
        /// Its number.
        number: EngineNumber,
    },
    /// Give the task scheduler a request as if a client had sent it: `[] message`.
    Resubmit(Arc<Multipart>),
    /// Merge into a record; there is no answer.
    Record {
        /// The task.
        id: String,
        /// What is new.
        patch: Patch,
        /// Whether to make the record if there is none.
        create: bool,
    },
    /// Ask the store; the answer comes as [`Event::Db`] with this number.
    Db(u64, DbCall),
    /// Who is there has changed: [`Hub::engines_state`] is to be kept, if it is kept at all.
    EnginesChanged,
    /// Do what this program's own tools ask; what came of it comes as [`Event::Errand`] with this number.
    Errand(u64, serde_json::Value),
    /// Start or stop a Dask scheduler; what came of it comes as [`Event::Dask`] with this number.
    Dask(u64, DaskOrder),
    /// Count and log: a peer's mistake.
    Reject(Reason),
    /// End the process after sending what is above.
    Stop,
}

/// What was wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has not the frames of one.
    Malformed(crate::Malformed),
    /// It is not genuine.
    Refused(crate::Refused),
    /// A part is not the JSON it should be; which part.
    Json(&'static str),
    /// A message type that the protocol has not.
    UnknownType(String),
    /// A reply to a request that nobody has made.
    UnknownTask,
    /// A pong from nobody, or to no ping.
    StrayPong,
    /// An unregistration of nobody.
    UnknownEngine,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) is_task: bool,
    /// Where it was sent; nothing for a task that has not been.
    pub(super) engine: Option<Arc<str>>,
    /// A task of a former controller's, which no scheduler gives up when its engine dies.
    pub(super) is_orphan: bool,
}

/// The hub. Calling order: [`handle`](Self::handle) or [`handle_timeout`](Self::handle_timeout), then
/// [`poll_action`](Self::poll_action) until it returns nothing, then sleep at most until [`poll_timeout`](Self::poll_timeout).
///
/// Each event costs O(1) but for: a heartbeat, O(engines); an unregistration, O(requests in flight); a verbose queue request, the same.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: HubConfig,
    pub(super) session: Session,
    pub(super) engines: Engines,
    pub(super) hearts: Hearts,
    next_beat: Duration,
    /// When to repeat the current ping for engines that are coming, and until when to do so at all.
    next_probe: Duration,
    probe_until: Duration,
    /// When to tell new subscribers of the engines.
    republish_at: Option<Duration>,
    pub(super) in_flight: HashMap<Box<str>, InFlight, FixedState>,
    pub(super) unassigned: u64,
    /// Every request that has completed.
    pub(super) completed: Ledger,
    /// The scheduler's policies in force, as a JSON string.
    pub(super) policies: Option<String>,
    /// Lost engines whose direct requests may still be answered.
    pub(super) dying: VecDeque<(Duration, Box<str>)>,
    pub(super) asked: HashMap<u64, Asked, FixedState>,
    /// Engines that have answered a ping and may not have heard that somebody listens to their output.
    answered: VecDeque<(Duration, Box<str>)>,
    next_call: u64,
    /// When the first of the controllers that took over from one another started.
    pub(super) since: Option<Date>,
    pub(super) former: Former,
    pub(super) actions: VecDeque<Action>,
}

/// How often the ping is repeated while engines are coming, and for how long after the last of them asked.
const PROBE_EVERY: Duration = Duration::from_millis(50);
const PROBE_FOR: Duration = Duration::from_secs(10);
/// For each engine that is there a ping takes longer to answer; so many times as long is waited before it is repeated.
const PROBE_EACH: Duration = Duration::from_micros(200);
/// How long an engine that has answered a ping may take until its output arrives. Newer ones say so at once; older ones say nothing.
const LISTEN_WITHIN: Duration = Duration::from_millis(250);
/// How long subscriptions are gathered before they are answered together: anybody can subscribe, and each answer goes to all.
const REPUBLISH_AFTER: Duration = Duration::from_millis(100);

impl Hub {
    /// A hub without engines. `session` signs its messages and checks others'.
    pub fn new(config: HubConfig, session: Session) -> Self {
        Hub {
            hearts: Hearts::new(config.max_misses),
            config,
            session,
            engines: Engines::default(),
            next_beat: Duration::ZERO,
            next_probe: Duration::ZERO,
            probe_until: Duration::ZERO,
            republish_at: None,
            in_flight: HashMap::default(),
            unassigned: 0,
            completed: Ledger::default(),
            policies: None,
            dying: VecDeque::new(),
            asked: HashMap::default(),
            answered: VecDeque::new(),
            next_call: 0,
            since: None,
            former: Former::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Query(message) => match Envelope::open(message) {
                Ok(envelope) => self.query(now, &envelope),
                Err(malformed) => self.reject(Reason::Malformed(malformed)),
            },
            Event::Copied(Copied { topic, message }) => match Envelope::open(message) {
                Ok(envelope) => self.copied(now, topic, &envelope),
                Err(malformed) => self.reject(Reason::Malformed(malformed)),
            },
            Event::Task(news) => self.task_news(now, news),
            Event::Pong { uuid, text } => self.pong(now, &uuid, &text),
            Event::Subscribed => self.republish_at = self.republish_at.or(Some(now.mono + REPUBLISH_AFTER)),
            Event::Db(number, reply) => self.db_replied(now, number, reply),
            Event::Dask(number, outcome) => self.dask_replied(now, number, outcome),
            Event::Errand(number, outcome) => self.errand_done(now, number, outcome),
            Event::Policies(text) => self.policies = Some(serde_json::Value::from(&*text).to_string()),
            // Without a notification: clients would close, though a controller that reuses its files may be back in a second.
            Event::Stop => self.actions.push_back(Action::Stop),
        }
    }

    /// Lets time pass: pings, engines that have gone silent, engines that never came.
    pub fn handle_timeout(&mut self, now: Now) {
        self.since.get_or_insert(now.date);
        if now.mono >= self.next_beat {
            for uuid in self.hearts.beat(now.mono) {
                if let Some(&number) = self.engines.numbers.get(&uuid) {
                    tracing::warn!("engine {number} ({uuid}) has stopped answering and is taken for lost");
                    self.unregister(now, number);
                }
            }
            // From the last beat, not from now, so that lateness does not add up; but never two at once.
            self.next_beat = (self.next_beat + self.config.heartbeat).max(now.mono + self.config.heartbeat / 2);
            self.next_probe = now.mono + PROBE_EVERY;
            self.actions.push_back(Action::Ping(self.hearts.ping().to_owned()));
        }
        if self.is_probing(now.mono) && now.mono >= self.next_probe {
            self.next_probe = now.mono + PROBE_EVERY.max(PROBE_EACH * u32::try_from(self.engines.live.len()).unwrap_or(u32::MAX));
            self.actions.push_back(Action::Ping(self.hearts.ping().to_owned()));
        }
        while let Some((until, _)) = self.answered.front()
            && *until <= now.mono
            && let Some((_, uuid)) = self.answered.pop_front()
        {
            self.confirm(now, &uuid);
        }
        let late: Vec<Box<str>> =
            self.engines.pending.iter().filter(|(_, pending)| pending.until <= now.mono).map(|(uuid, _)| uuid.clone()).collect();
        for uuid in late {
            tracing::warn!("engine {uuid} asked to register and never answered a ping; forgotten");
            self.engines.cancel(&uuid);
            self.hearts.forget(&uuid);
            self.actions.push_back(Action::EnginesChanged);
        }
        if self.republish_at.is_some_and(|at| at <= now.mono) {
            self.republish_at = None;
            self.republish(now);
        }
        while let Some((until, _)) = self.dying.front()
            && *until <= now.mono
            && let Some((_, uuid)) = self.dying.pop_front()
        {
            self.strand(now, &uuid);
        }
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        let mut next = self.next_beat;
        if self.is_probing(now) {
            next = next.min(self.next_probe);
        }
        for (until, _) in self.dying.front().into_iter().chain(self.answered.front()) {
            next = next.min(*until);
        }
        self.republish_at.into_iter().chain(self.settles_at()).fold(next, Duration::min)
    }

    fn is_probing(&self, now: Duration) -> bool {
        now < self.probe_until && !self.engines.pending.is_empty()
    }

    pub(super) fn probe(&mut self, now: Duration) {
        self.probe_until = now + PROBE_FOR;
        self.next_probe = self.next_probe.max(now + PROBE_EVERY / 4);
        if self.next_probe > now + PROBE_EVERY {
            self.next_probe = now + PROBE_EVERY;
        }
    }

    pub(super) fn reject(&mut self, reason: Reason) {
        self.actions.push_back(Action::Reject(reason));
    }

    pub(super) fn notify(&mut self, now: Now, msg_type: &str, parent: &[u8], content: &Value) {
        let parts = self.session.compose(msg_type, now.date, parent, b"{}", content.to_string().into_bytes());
        self.actions.push_back(Action::Notify(parts));
    }

    /// Asks somebody else what was asked here; the answer comes under the number that the action gets.
    fn pass_on(&mut self, asked: Asked, action: impl FnOnce(u64) -> Action) {
        self.next_call += 1;
        self.asked.insert(self.next_call, asked);
        self.actions.push_back(action(self.next_call));
    }

    pub(super) fn order_dask(&mut self, order: DaskOrder, asked: Asked) {
        self.pass_on(asked, |number| Action::Dask(number, order));
    }

    pub(super) fn order_errand(&mut self, content: Value, asked: Asked) {
        self.pass_on(asked, |number| Action::Errand(number, content));
    }

    pub(super) fn call_db(&mut self, call: DbCall, asked: Asked) {
        self.pass_on(asked, |number| Action::Db(number, call));
    }

    /// Publishes every live engine again: a new subscriber may have missed its registration, and others do not mind.
    fn republish(&mut self, now: Now) {
        let live: Vec<_> = self.engines.live.iter().map(|(&number, live)| (number, live.uuid.clone())).collect();
        for (number, uuid) in live {
            self.notify(now, "registration_notification", b"{}", &serde_json::json!({"id": number, "uuid": uuid}));
        }
    }

    fn pong(&mut self, now: Now, uuid: &[u8], text: &[u8]) {
        let Some(uuid) = std::str::from_utf8(uuid).ok().filter(|uuid| self.hearts.pong(uuid, text)) else {
            return self.reject(Reason::StrayPong);
        };
        let Some(pending) = self.engines.pending.get_mut(uuid) else { return };
        if pending.heard {
            self.confirm(now, uuid);
        } else if pending.answered.is_none() {
            pending.answered = Some(now.mono);
            self.answered.push_back((now.mono + LISTEN_WITHIN, uuid.into()));
        }
    }

    /// Output of an engine that is coming: the last of its channels that it can not be reached by unless it says so.
    pub(super) fn heard(&mut self, now: Now, uuid: &str) {
        let Some(pending) = self.engines.pending.get_mut(uuid) else { return };
        pending.heard = true;
        if pending.answered.is_some() {
            self.confirm(now, uuid);
        }
    }

    /// A pending engine is there.
    fn confirm(&mut self, now: Now, uuid: &str) {
        let Some(number) = self.engines.confirm(uuid) else { return };
        tracing::info!("engine {number} ({uuid}) registered");
        self.actions.push_back(Action::EngineUp { uuid: uuid.into(), number });
        self.actions.push_back(Action::EnginesChanged);
        self.notify(now, "registration_notification", b"{}", &serde_json::json!({"id": number, "uuid": uuid}));
    }

    /// Whether somebody waits for an answer of the store.
    pub fn awaits_records(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Who is there, for [`restore`](Self::restore) of the next controller.
    pub fn engines_state(&self) -> EnginesState {
        let leaving = self.dying.iter().map(|(_, uuid)| uuid.to_string()).collect();
        EnginesState { leaving, since: self.since, ..self.engines.state() }
    }

    /// An engine is gone, for whatever reason.
    pub(super) fn unregister(&mut self, now: Now, number: EngineNumber) {
        let Some(live) = self.engines.remove(number) else { return };
        tracing::info!("engine {number} ({}) unregistered", live.uuid);
        self.hearts.forget(&live.uuid);
        self.actions.push_back(Action::EngineDown { uuid: live.uuid.clone(), number });
        self.actions.push_back(Action::EnginesChanged);
        self.notify(now, "unregistration_notification", b"{}", &serde_json::json!({"id": number, "uuid": live.uuid}));
        self.dies(now, &live.uuid);
    }

    /// After the grace, direct requests to this engine that are in flight are given up.
    pub(super) fn dies(&mut self, now: Now, uuid: &str) {
        if !self.dying.iter().any(|(_, dying)| **dying == *uuid) {
            self.dying.push_back((now.mono + self.config.grace, uuid.into()));
        }
    }
}
