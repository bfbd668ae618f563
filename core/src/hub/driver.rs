//! The hub on its sockets: one thread that polls the query, notification and heartbeat sockets and a mailbox, feeds the machine, and does
//! what it says. Every source has its bounded turn; records go to a thread of their own.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::engines::EngineNumber;
use super::engines::EnginesState;
use super::machine::{Action, Copied, DaskAddress, DaskOrder, DbReply, Event, Hub, Now, Reason};
use super::news::TaskNews;
pub use super::store::Records;
use super::store::{self, Calls, Job, Unwritten};
use crate::Multipart;
use crate::db::{DbError, Patch};
use crate::net::{Clock, Complaints, Frame, FrameBuf, Mailbox, Outbox, Port, PortError, Taken, Tally, wait};

/// Messages taken from one source before the next has its turn.
const BURST: usize = 64;
/// The most work that may wait for the store.
const MAX_JOBS: usize = 4_000_000;
const MAX_JOB_BYTES: usize = 1 << 30;
/// Identities whose way back is remembered when there are two query sockets.
const MAX_ASKERS: usize = 100_000;
/// How long copies of messages gather before the next look: woken for each, this thread would take more time from the others than its work does.
const GATHER: Duration = Duration::from_millis(2);
/// The most of the time that goes into writing engines down, as one in so many; at most so long changes are gathered for that.
const SAVE_SHARE: u32 = 20;
const SAVE_WITHIN: Duration = Duration::from_millis(200);

/// What other threads tell the hub.
#[derive(Debug)]
pub enum HubInput {
    /// Messages passed by.
    Copied(Vec<Copied>),
    /// What happened to tasks, in order.
    Tasks(Vec<TaskNews>),
    /// The store's answer.
    Db(u64, Result<DbReply, DbError>),
    /// What came of an errand given to [`Outlet::errand`].
    Errand(u64, Result<serde_json::Value, String>),
    /// The policies in force from now on, as text, for the records.
    Policies(Box<str>),
    /// What came of an order to [`Outlet::dask`].
    Dask(u64, Result<Option<DaskAddress>, String>),
    /// The process shall end.
    Stop,
}

/// What the hub tells other threads. Implementations must not wait.
pub trait Outlet: Send {
    /// An engine is there; called before clients hear of it.
    fn engine_up(&mut self, uuid: &str, number: EngineNumber);
    /// An engine is gone.
    fn engine_down(&mut self, uuid: &str, number: EngineNumber);
    /// Run this request as if a client had sent it; its answer is for the records only.
    fn resubmit(&mut self, request: Arc<Multipart>);
    /// Do what this program's own tools ask, and send [`HubInput::Errand`] with this number when that is done.
    fn errand(&mut self, number: u64, content: serde_json::Value);
    /// Start or stop a Dask scheduler, and send [`HubInput::Dask`] with this number when that is done.
    fn dask(&mut self, number: u64, order: DaskOrder);
    /// Keep this for the next controller. Called a moment after a change, not for each.
    fn engines_changed(&mut self, state: &EnginesState);
}

/// The sockets of a hub, bound.
pub struct HubSockets {
    /// ROUTERs for requests; one for each interface.
    pub queries: Vec<zmq::Socket>,
    /// XPUB for notifications.
    pub notifications: zmq::Socket,
    /// PUB for pings.
    pub ping: zmq::Socket,
    /// ROUTER for their answers.
    pub pong: zmq::Socket,
}

/// Why a hub has ended other than well.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// One of its sockets failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The store's mailbox could not be made.
    #[error("no mailbox for the store of task records: {0}; raise the limit of open files (ulimit -n)")]
    Mailbox(std::io::Error),
    /// The store's thread could not be started.
    #[error("no thread for the store of task records: {0}; raise the limit of processes (ulimit -u)")]
    Thread(std::io::Error),
    /// The store's thread is no more.
    #[error("the thread that keeps task records has died, and with it what it had not written; the log says why")]
    RecordsDied,
    /// It has ended as it was asked to, and not all that happened is in the records.
    #[error("up to {records} task records are not written, or not in full{why}")]
    Unwritten {
        /// How many.
        records: u64,
        /// Why the last ones are not, after a colon; empty if they are.
        why: String,
    },
}

/// Runs a hub until it says stop. What it and the store give up is counted in the tally.
///
/// # Errors
/// If libzmq fails, the store's thread can not be started or dies, or not all records could be written in the end.
pub fn run(
    mut hub: Hub,
    sockets: HubSockets,
    inputs: &Mailbox<HubInput>,
    to_self: Outbox<HubInput>,
    records: Records,
    outlet: &mut dyn Outlet,
    tally: &Tally,
) -> Result<(), HubError> {
    let (jobs, job_mailbox) = Mailbox::new(MAX_JOBS, MAX_JOB_BYTES).map_err(HubError::Mailbox)?;
    let calls = Calls::default();
    let store = store::start(records, job_mailbox, calls.clone(), to_self, tally).map_err(HubError::Thread)?;
    sockets.notifications.set_xpub_verbose(true).map_err(PortError::from)?; // each new subscriber shows itself, not only the first
    for queries in &sockets.queries {
        queries.set_router_mandatory(true).map_err(PortError::from)?; // an answer that nobody takes is known
    }
    let mut driver = Driver {
        queries: sockets.queries.into_iter().map(Port::from).collect(),
        notifications: sockets.notifications.into(),
        ping: sockets.ping.into(),
        pong: sockets.pong.into(),
        clock: Clock::default(),
        complaints: Complaints::new("hub", tally),
        jobs: jobs.clone(),
        calls: calls.clone(),
        // The query socket that each identity came by; with one socket it is never asked.
        came_by: hashbrown::HashMap::default(),
        lost_records: 0,
        gathers: false,
        // At once: what a former controller without successor has left there is no longer true.
        save_at: Some(Duration::ZERO),
        save_not_before: Duration::ZERO,
    };
    let outcome = driver.serve(&mut hub, inputs, outlet, &store);
    if outcome.is_ok() {
        outlet.engines_changed(&hub.engines_state());
    }
    calls.close();
    jobs.send_always(Job::Wake);
    let unwritten = store.join().map_err(|_| HubError::RecordsDied)?;
    outcome?;
    match unwritten.records + driver.lost_records {
        0 => Ok(()),
        records => {
            let why = if unwritten.reason.is_empty() { String::new() } else { format!(": {}", unwritten.reason) };
            Err(HubError::Unwritten { records, why })
        }
    }
}

struct Driver {
    queries: Vec<Port>,
    notifications: Port,
    ping: Port,
    pong: Port,
    clock: Clock,
    complaints: Complaints,
    jobs: Outbox<Job>,
    calls: Calls,
    came_by: hashbrown::HashMap<Vec<u8>, usize, foldhash::fast::FixedState>,
    /// Updates of records for which there was no room.
    lost_records: u64,
    /// Copies have just come, and more are likely to.
    gathers: bool,
    /// When to have the engines kept for the next controller.
    save_at: Option<Duration>,
    save_not_before: Duration,
}

impl Driver {
    fn now(&self) -> Now {
        Now { mono: self.clock.now(), date: Clock::date() }
    }

    fn serve(
        &mut self,
        hub: &mut Hub,
        inputs: &Mailbox<HubInput>,
        outlet: &mut dyn Outlet,
        store: &std::thread::JoinHandle<Unwritten>,
    ) -> Result<(), HubError> {
        let mut buffer = FrameBuf::default();
        let mut batch = Vec::new();
        loop {
            let mut busy = false;
            inputs.take(BURST, &mut batch);
            self.gathers |= !batch.is_empty();
            for input in batch.drain(..) {
                busy = true;
                let event = match input {
                    HubInput::Copied(messages) => {
                        self.pass_by(hub, outlet, messages.into_iter().map(Event::Copied));
                        continue;
                    }
                    HubInput::Tasks(news) => {
                        self.pass_by(hub, outlet, news.into_iter().map(Event::Task));
                        continue;
                    }
                    HubInput::Db(number, reply) => Event::Db(number, reply),
                    HubInput::Errand(number, outcome) => Event::Errand(number, outcome),
                    HubInput::Policies(text) => Event::Policies(text),
                    HubInput::Dask(number, outcome) => Event::Dask(number, outcome),
                    HubInput::Stop => Event::Stop,
                };
                hub.handle(self.now(), event);
                if self.act(hub, outlet) {
                    return Ok(());
                }
            }
            for _ in 0..BURST * 4 {
                if !self.pong.take_unless_idle(&mut buffer)? {
                    break;
                }
                busy = true;
                if let [uuid, text] = buffer.frames() {
                    let (uuid, text) = (uuid.as_ref().to_vec(), text.as_ref().to_vec());
                    hub.handle(self.now(), Event::Pong { uuid, text });
                } else {
                    let detail = format_args!("{} frames where a beat has 2", buffer.frames().len());
                    self.complaints.note(self.clock.now(), "malformed message", detail);
                }
            }
            let mut subscribed = false;
            for _ in 0..BURST {
                if !self.notifications.take_unless_idle(&mut buffer)? {
                    break;
                }
                busy = true;
                subscribed |= buffer.frames().first().is_some_and(|frame| frame.as_ref().first() == Some(&1));
            }
            if subscribed {
                hub.handle(self.now(), Event::Subscribed);
            }
            for index in 0..self.queries.len() {
                for _ in 0..BURST {
                    if !self.queries[index].take_unless_idle(&mut buffer)? {
                        break;
                    }
                    busy = true;
                    let message = Arc::new(buffer.pack());
                    if self.queries.len() > 1 {
                        if self.came_by.len() > MAX_ASKERS {
                            // Who waits for an answer right now may not get it; nobody else notices.
                            self.came_by.clear();
                            let detail = format_args!("of {MAX_ASKERS} identities: answers on their way may not arrive");
                            self.complaints.note(self.clock.now(), "ways back forgotten", detail);
                        }
                        self.came_by.insert(message.frame(0).to_vec(), index);
                    }
                    hub.handle(self.now(), Event::Query(message));
                }
            }
            if hub.poll_timeout(self.clock.now()) <= self.clock.now() {
                hub.handle_timeout(self.now());
                if store.is_finished() {
                    return Err(HubError::RecordsDied);
                }
            }
            if self.act(hub, outlet) {
                return Ok(());
            }
            self.save_if_due(hub, outlet);
            self.sleep(hub, inputs, busy)?;
        }
    }

    /// Tells the hub of a batch of what has passed by, which ends nothing.
    fn pass_by(&mut self, hub: &mut Hub, outlet: &mut dyn Outlet, events: impl Iterator<Item = Event>) {
        let now = self.now();
        for event in events {
            hub.handle(now, event);
            let _ = self.act(hub, outlet);
        }
    }

    /// Sleeps until there is something to do; while busy, only looks which sockets have something.
    fn sleep(&mut self, hub: &Hub, inputs: &Mailbox<HubInput>, busy: bool) -> Result<(), PortError> {
        let now = self.clock.now();
        let next = hub.poll_timeout(now);
        let left = self.save_at.map_or(next, |at| next.min(at)).saturating_sub(now);
        let ports: SmallVec<[&Port; 4]> = [&self.pong, &self.notifications].into_iter().chain(&self.queries).collect();
        if busy {
            wait(&ports, [], Some(Duration::ZERO))?;
        } else if std::mem::take(&mut self.gathers) && !hub.awaits_records() {
            // A client that waits for the store's answer is not kept waiting for this.
            wait(&ports, [], Some(left.min(GATHER)))?;
        } else {
            wait(&ports, [inputs.as_fd()], Some(left))?;
        }
        Ok(())
    }

    /// Does what the hub says; true if it says stop.
    fn act(&mut self, hub: &mut Hub, outlet: &mut dyn Outlet) -> bool {
        while let Some(action) = hub.poll_action() {
            match action {
                Action::Reply { to, parts, buffers } => {
                    let port = &self.queries[self.came_by.get(&to).copied().unwrap_or(0)];
                    let mut frames: Vec<Frame> = std::iter::once(&to).chain(&parts).map(|part| Frame::copy_of(part)).collect();
                    frames.extend(buffers.into_iter().map(Frame::of_bytes));
                    match port.send(&mut frames) {
                        Ok(()) => {}
                        Err(PortError::NoSuchPeer) => {
                            let detail = "its answer was made and is dropped; it may ask again";
                            self.complaints.note(self.clock.now(), "reply to a client that has gone", detail);
                        }
                        Err(error) => self.complaints.note(self.clock.now(), "reply not sent", error),
                    }
                }
                Action::Notify(parts) => {
                    let _ = self.notifications.send_parts(parts.iter().map(Vec::as_slice)); // a PUB never refuses
                }
                Action::Ping(text) => {
                    let _ = self.ping.send_parts([text.as_bytes()]);
                }
                Action::EngineUp { uuid, number } => outlet.engine_up(&uuid, number),
                Action::EngineDown { uuid, number } => outlet.engine_down(&uuid, number),
                Action::Resubmit(request) => outlet.resubmit(request),
                Action::Record { id, patch, create } => self.record(id, patch, create),
                Action::Db(number, call) => {
                    let bytes = call.size_bytes();
                    self.calls.insert(number, call);
                    if !self.jobs.send(Job::Call(number), bytes) && self.calls.take(number).is_some() {
                        let error = DbError::Store("too much work is waiting for the store; ask again later".into());
                        self.complaints.note(self.clock.now(), "question refused", "too much work is waiting for the store");
                        hub.handle(self.now(), Event::Db(number, Err(error)));
                    }
                }
                Action::EnginesChanged => {
                    // Before its number is told to anybody, unless many come at once.
                    self.save_at = self.save_at.or(Some(self.save_not_before));
                    self.save_if_due(hub, outlet);
                }
                Action::Dask(number, order) => outlet.dask(number, order),
                Action::Errand(number, content) => outlet.errand(number, content),
                Action::Reject(reason) => self.complain(&reason),
                Action::Stop => return true,
            }
        }
        false
    }

    /// Has the engines written down, if that is due: at once where nothing was for a while.
    fn save_if_due(&mut self, hub: &Hub, outlet: &mut dyn Outlet) {
        let began = self.clock.now();
        if self.save_at.is_some_and(|at| at <= began) {
            self.save_at = None;
            outlet.engines_changed(&hub.engines_state());
            let ended = self.clock.now();
            self.save_not_before = ended + ((ended - began) * SAVE_SHARE).min(SAVE_WITHIN);
        }
    }

    /// Gives the store an update. Once too much waits there updates come without buffers, once twice as much does they do not come.
    fn record(&mut self, id: String, patch: Patch, create: bool) {
        let bytes = patch.size_bytes();
        let taken = self.jobs.send_or_shed(Job::Merge { id, patch, create }, bytes, |mut job| {
            let Job::Merge { patch, .. } = &mut job else { return (job, bytes) };
            (patch.buffers, patch.result_buffers) = (None, None);
            let bytes = patch.size_bytes();
            (job, bytes)
        });
        let now = self.clock.now();
        match taken {
            Taken::Whole => {}
            Taken::Shed => {
                let detail = "the store is too slow, an update is made without buffers; tasks are not affected";
                self.complaints.note(now, "task record shortened", detail);
            }
            Taken::Lost => {
                self.lost_records += 1;
                let detail = "the store is too slow or can not be had, an update is lost; tasks are not affected";
                self.complaints.note(now, "task record lost", detail);
            }
        }
    }

    fn complain(&mut self, reason: &Reason) {
        let now = self.clock.now();
        match reason {
            Reason::Malformed(malformed) => self.complaints.note(now, "malformed message", malformed),
            Reason::Refused(refused) => self.complaints.note(now, "refused message", refused),
            Reason::Json(part) => {
                self.complaints.note(now, "unreadable message", format_args!("its {part} is not what it should be"));
            }
            Reason::UnknownType(name) => self.complaints.note(now, "unknown request", name.escape_debug()),
            Reason::UnknownTask => self.complaints.note(now, "unknown reply", "nobody has made its request"),
            // From an engine that is not registered yet, or not any more, or to an old ping.
            Reason::StrayPong => self.complaints.count("stray pong"),
            Reason::UnknownEngine => self.complaints.note(now, "unknown engine", "asked to unregister without a number"),
        }
    }
}
