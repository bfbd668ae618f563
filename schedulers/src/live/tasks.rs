//! The task scheduler on its two ROUTERs. Order of a turn: results first, as they make room; then news of engines; then submissions.
//! What the scheduler keeps is packed once and shared with the hub by reference count.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, LazyLock};

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{Copied, Topic};
use pointsman_core::net::{Clock, Complaints, Frame, FrameBuf, Mailbox, Outbox, Port, PortError};
use pointsman_core::wire::{self, ErrorContent, Header, Parent, ReplyMetadata, Status};
use pointsman_core::{Envelope, Multipart, Session};
use pointsman_policies::{NamedSchemes, Needs, Scheme, Time};
use serde_json::json;
use smallvec::SmallVec;

use super::facts::{FactReader, measured};
use super::orders::SchedulerOrder;
use super::{BURST, poll};
use crate::task::{Action, EngineId, Event, FailKind, Reason, ReplyKind, TaskScheduler, TaskSpec};

/// Aborts whose acknowledgement is waited for; the oldest are given up beyond that, and their tasks stay where they are.
const MAX_ABORTS: usize = 10_000;

/// What the scheduler keeps of a message: its frames and where its parts are.
pub type Request = Envelope;

/// What other threads tell the scheduler.
#[derive(Debug)]
pub enum TaskInput {
    /// An engine is there, under a number.
    EngineUp(Box<str>, u64),
    /// An engine is gone.
    EngineDown(Box<str>),
    /// A request of the hub's, whose answer is for the records: `[] message`.
    Resubmit(Arc<Multipart>),
    /// Something to be done by this scheduler, under the hub's number for whoever asked; 0 if nobody waits for an answer.
    Order(u64, SchedulerOrder),
    /// The process shall end.
    Stop,
}

/// The scheduler's sockets, bound.
pub struct TaskSockets {
    /// ROUTER for clients.
    pub clients: zmq::Socket,
    /// ROUTER for engines; made mandatory, so that a dispatch to nobody comes back.
    pub engines: zmq::Socket,
    /// DEALER to the control relay, as a client's: for engines that shall drop a task.
    pub control: zmq::Socket,
}

/// The scheduler thread's clock, lent to policies' accounting.
pub(super) fn stopwatch() -> u64 {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::default);
    CLOCK.now().as_nanos() as u64
}

/// What else a scheduler's thread does.
#[derive(Default)]
pub struct TaskOptions {
    /// How many decisions are kept with their reasons; 0 for none.
    pub log_decisions: usize,
    /// Where each of them goes besides, as JSON. What does not fit is left out and counted.
    pub decisions: Option<SyncSender<serde_json::Value>>,
    /// Schemes that decide without acting.
    pub shadows: NamedSchemes,
}

/// Runs a scheduler until it is told to stop.
///
/// # Errors
/// If libzmq fails.
pub fn run_tasks(
    machine: LiveScheduler,
    sockets: TaskSockets,
    inputs: &Mailbox<TaskInput>,
    hub: Outbox<HubInput>,
    session: Session,
    options: TaskOptions,
) -> Result<(), PortError> {
    sockets.engines.set_router_mandatory(true)?;
    let mut driver = Driver {
        machine,
        clients: sockets.clients.into(),
        engines: sockets.engines.into(),
        control: sockets.control.into(),
        aborts: VecDeque::new(),
        hub,
        session,
        clock: Clock::default(),
        facts: FactReader::default(),
        complaints: Complaints::new("tasks"),
        lost_copies: 0,
        decisions: options.decisions,
        decisions_sent: 0,
    };
    driver.machine.log_decisions(options.log_decisions, Some(stopwatch));
    driver.machine.set_shadows(Time::ZERO, options.shadows, Some(stopwatch));
    driver.serve(inputs)
}

/// The scheduler with whatever scheme configuration has chosen.
pub type LiveScheduler = TaskScheduler<Box<dyn Scheme>, Request>;

pub(super) struct Driver {
    pub(super) machine: LiveScheduler,
    clients: Port,
    engines: Port,
    control: Port,
    /// Aborts that engines have yet to take note of: id of the request, task, engine.
    aborts: VecDeque<(String, Box<str>, Box<str>)>,
    hub: Outbox<HubInput>,
    session: Session,
    clock: Clock,
    facts: FactReader,
    complaints: Complaints,
    lost_copies: u64,
    decisions: Option<SyncSender<serde_json::Value>>,
    decisions_sent: u64,
}

impl Driver {
    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.clock.now()
    }

    fn serve(&mut self, inputs: &Mailbox<TaskInput>) -> Result<(), PortError> {
        let mut buffer = FrameBuf::default();
        let mut batch = Vec::new();
        loop {
            let mut busy = false;
            for _ in 0..BURST {
                if !self.engines.take(&mut buffer)? {
                    break;
                }
                busy = true;
                self.result(&mut buffer)?;
            }
            if self.take_news(inputs, &mut batch)? {
                return Ok(());
            }
            for _ in 0..BURST {
                if !self.clients.take(&mut buffer)? {
                    break;
                }
                busy = true;
                // Its client may know of engines that this scheduler has yet to hear of.
                if self.take_news(inputs, &mut batch)? {
                    return Ok(());
                }
                self.submit(Arc::new(buffer.pack()), false);
                self.act()?;
            }
            for _ in 0..BURST {
                if !self.control.take(&mut buffer)? {
                    break;
                }
                busy = true;
                self.abort_noted(&mut buffer);
                self.act()?;
            }
            let due = self.machine.poll_timeout();
            if due.is_some_and(|at| at <= self.now()) {
                self.machine.handle_timeout(self.now());
                self.act()?;
            } else if !busy {
                let wait_ms = due.map_or(-1, |at| (at - self.now()).as_millis() as i64 + 1);
                let mut items = [
                    zmq::PollItem::from_fd(inputs.fd(), zmq::POLLIN),
                    self.engines.socket().as_poll_item(zmq::POLLIN),
                    self.clients.socket().as_poll_item(zmq::POLLIN),
                    self.control.socket().as_poll_item(zmq::POLLIN),
                ];
                poll(&mut items, wait_ms)?;
            }
        }
    }

    /// Hears everything that other threads have said; true if that is to stop.
    fn take_news(&mut self, inputs: &Mailbox<TaskInput>, batch: &mut Vec<TaskInput>) -> Result<bool, PortError> {
        inputs.take(usize::MAX, batch);
        for input in batch.drain(..) {
            let now = self.now();
            match input {
                TaskInput::EngineUp(uuid, number) => self.machine.handle(now, Event::EngineUp { uuid: &uuid, number }),
                TaskInput::EngineDown(uuid) => self.machine.handle(now, Event::EngineDown { uuid: &uuid }),
                TaskInput::Resubmit(message) => self.submit(message, true),
                TaskInput::Order(number, order) => self.follow(number, order),
                TaskInput::Stop => return Ok(true),
            }
            self.act()?;
        }
        Ok(false)
    }

    fn complain(&mut self, kind: &'static str, detail: impl std::fmt::Display) {
        self.complaints.note(self.clock.now(), kind, detail);
    }

    /// Tells the hub; it may be slow or dead, and the tasks flow on.
    pub(super) fn tell(&mut self, input: HubInput, bytes: usize) {
        if !self.hub.send(input, bytes) {
            self.lost_copies += 1;
            let total = self.lost_copies;
            self.complain("record lost", format_args!("the hub is too slow, {total} messages not recorded so far"));
        }
    }

    fn copy(&mut self, topic: Topic, message: Arc<Multipart>) {
        let bytes = message.size_bytes();
        self.tell(HubInput::Copied(Copied { topic, message }), bytes);
    }

    fn submit(&mut self, message: Arc<Multipart>, from_hub: bool) {
        let envelope = match Envelope::open(message) {
            Ok(envelope) if envelope.identity_count() == 1 => envelope,
            Ok(_) => return self.complain("malformed request", "it has other than one identity"),
            Err(malformed) => return self.complain("malformed request", malformed),
        };
        if !from_hub && let Err(refused) = self.session.signer().verify(envelope.signature(), envelope.parts()) {
            return self.complain("refused request", refused);
        }
        let request = envelope.clone();
        let Ok(header) = Header::parse(request.header()) else {
            return self.complain("unreadable request", "its header is not a JSON object with a msg_id");
        };
        // A repeated id is the machine's to reject; the hub must not take it for a new request.
        if !self.machine.knows(&header.msg_id) {
            self.copy(Topic::InTask, envelope.message().clone());
        }
        let bytes = envelope.message().size_bytes();
        let mut spec = TaskSpec::parse(envelope.metadata());
        if let Ok(spec) = &mut spec {
            spec.facts = self.facts.of_request(&envelope, &header, spec.label.hints);
            if let Some(wrong) = &spec.label.wrong {
                self.complain("label hint ignored", wrong);
            }
        }
        let now = self.now();
        self.machine.handle(now, Event::Submit { id: &header.msg_id, spec, payload: envelope, bytes });
    }

    fn result(&mut self, buffer: &mut FrameBuf) -> Result<(), PortError> {
        let reply = match Envelope::open(Arc::new(buffer.pack())) {
            Ok(envelope) if envelope.identity_count() == 2 => envelope,
            Ok(_) => {
                self.complain("malformed reply", "it has other than two identities");
                return Ok(());
            }
            Err(malformed) => {
                self.complain("malformed reply", malformed);
                return Ok(());
            }
        };
        if let Err(refused) = self.session.signer().verify(reply.signature(), reply.parts()) {
            self.complain("refused reply", refused);
            return Ok(());
        }
        let envelope = reply.clone();
        let parent: Parent<'_> = wire::object(envelope.parent()).unwrap_or_default();
        let (Some(id), Ok(engine)) = (parent.msg_id, std::str::from_utf8(envelope.identity(0))) else {
            self.complain("unreadable reply", "it does not say to which request");
            return Ok(());
        };
        let metadata: ReplyMetadata<'_> = wire::object(envelope.metadata()).unwrap_or_default();
        let kind = match wire::reply_status(&metadata, envelope.content()) {
            _ if metadata.dependencies_met == Some(false) => ReplyKind::Unmet,
            Status::Ok => ReplyKind::Ok,
            Status::Aborted => ReplyKind::Aborted,
            Status::Error => ReplyKind::Failed,
        };
        let wants_run = self.machine.needs().intersects(Needs::RUN | Needs::ESTIMATE | Needs::SPEED);
        let measured = measured(&envelope, &metadata, wants_run);
        let now = self.now();
        self.machine.handle(now, Event::Result { id: &id, engine, kind, payload: reply, measured });
        self.act()
    }

    /// Passes on the decisions made since it last did.
    fn tell_decisions(&mut self) {
        let Some(out) = &self.decisions else { return };
        let mut lost = 0;
        for decision in self.machine.decisions_since(self.decisions_sent) {
            self.decisions_sent = decision.number;
            lost += u64::from(out.try_send(decision.to_json()).is_err());
        }
        if lost > 0 {
            self.complain("decision lost", format_args!("the file is too slow, {lost} decisions not written"));
        }
    }

    fn act(&mut self) -> Result<(), PortError> {
        self.tell_decisions();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dispatch { task, attempt, engine, payload } => {
                    let uuid = self.machine.uuid(engine);
                    match forward(&self.engines, &[uuid.as_bytes(), payload.identity(0)], &payload) {
                        Ok(()) => {
                            let engine_uuid: Box<str> = uuid.into();
                            if let Some(id) = self.machine.task_id(task) {
                                let msg_id = id.into();
                                self.tell(HubInput::Tracked { msg_id, engine_uuid }, 128);
                            }
                        }
                        Err(PortError::NoSuchPeer | PortError::NotNow) => {
                            let now = self.now();
                            self.machine.handle(now, Event::SendFailed { task, attempt });
                        }
                        Err(error) => return Err(error),
                    }
                }
                Action::Reply { payload } => {
                    self.relay_reply(&payload)?;
                    self.copy(Topic::OutTask, payload.message().clone());
                }
                Action::PassOn { payload } => {
                    self.complain("unknown reply", "passed on to its client: its request was not seen by this scheduler");
                    self.relay_reply(&payload)?;
                    // The hub may know it from the records of a former controller.
                    self.copy(Topic::OutTask, payload.message().clone());
                }
                Action::Abort { engine, id } => self.abort(engine, &id)?,
                Action::Fail { kind, engine, payload } => self.fail(kind, engine, &payload)?,
                Action::Reject { reason } => self.rejected(reason),
            }
        }
        Ok(())
    }

    /// Asks an engine to drop a task (PROTOCOL: control requests). If it can not be reached, the task stays where it is.
    fn abort(&mut self, engine: EngineId, id: &str) -> Result<(), PortError> {
        let uuid = self.machine.uuid(engine).to_owned();
        let (request, header) = self.session.header("abort_request", Clock::date());
        let content = json!({"msg_ids": [id]}).to_string().into_bytes();
        let parts = self.session.seal(header, b"{}".to_vec(), b"{}".to_vec(), content);
        let frames = std::iter::once(uuid.as_bytes()).chain(parts.iter().map(Vec::as_slice));
        match self.control.send_parts(frames) {
            Ok(()) => {}
            Err(PortError::NoSuchPeer | PortError::NotNow) => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.aborts.len() == MAX_ABORTS {
            self.aborts.pop_front();
        }
        self.aborts.push_back((request, id.into(), uuid.into()));
        Ok(())
    }

    fn abort_noted(&mut self, buffer: &mut FrameBuf) {
        let Ok(reply) = Envelope::open(Arc::new(buffer.pack())) else { return };
        if let Err(refused) = self.session.signer().verify(reply.signature(), reply.parts()) {
            return self.complain("refused reply", refused);
        }
        let parent: Parent<'_> = wire::object(reply.parent()).unwrap_or_default();
        let Some(at) = self.aborts.iter().position(|(request, ..)| parent.msg_id.as_deref() == Some(request)) else { return };
        if let Some((_, id, engine)) = self.aborts.remove(at) {
            let now = self.now();
            self.machine.handle(now, Event::AbortNoted { id: &id, engine: &engine });
        }
    }

    /// `[engine][client] message` goes on as `[client][engine] message`. A client without identity is the hub.
    fn relay_reply(&mut self, reply: &Envelope) -> Result<(), PortError> {
        let (engine, client) = (reply.identity(0), reply.identity(1));
        if client.is_empty() {
            return Ok(());
        }
        match forward(&self.clients, &[client, engine], reply) {
            // A client that has gone does not wait for its answer; the records have it.
            Err(PortError::NoSuchPeer | PortError::NotNow) => Ok(()),
            outcome => outcome,
        }
    }

    fn fail(&mut self, kind: FailKind, engine: Option<EngineId>, request: &Envelope) -> Result<(), PortError> {
        let died = engine.filter(|_| kind == FailKind::EngineError).map(|engine| self.machine.uuid(engine).to_owned());
        let header = Header::parse(request.header());
        let id = header.as_ref().map_or("", |header| &*header.msg_id);
        let evalue = match (&died, kind) {
            (Some(uuid), _) => format!("Engine '{uuid}' died while running task '{id}'"),
            (None, FailKind::QueueFull) => "the scheduler holds as many tasks as it may".to_owned(),
            _ => String::new(),
        };
        let date = Clock::date();
        let metadata = died.as_ref().map_or_else(|| json!({}), |uuid| json!({"status": "error", "engine": uuid, "date": date}));
        let content = ErrorContent::new(kind.ename(), evalue).to_json();
        let parts = self.session.compose("apply_reply", date, request.header(), metadata.to_string().as_bytes(), content);
        let client = request.identity(0);
        let identities: SmallVec<[&[u8]; 2]> = std::iter::once(client).chain(died.as_deref().map(str::as_bytes)).collect();
        let parts = parts.iter().map(Vec::as_slice);
        let message = Multipart::pack(identities.iter().copied().chain(parts));
        if !client.is_empty() {
            let sent = self.clients.send_parts(message.frames());
            if let Err(error) = sent
                && !matches!(error, PortError::NoSuchPeer | PortError::NotNow)
            {
                return Err(error);
            }
        }
        let of_nobody = Multipart::pack(std::iter::once(&b""[..]).chain(message.frames().skip(identities.len())));
        self.copy(Topic::OutTask, Arc::new(of_nobody));
        Ok(())
    }

    fn rejected(&mut self, reason: Reason) {
        match reason {
            Reason::AlreadyAnswered => self.complain("late reply", "its task has been answered; dropped"),
            Reason::NotRunningThere => self.complain("stray reply", "from an engine that does not run its task; dropped"),
            Reason::DuplicateTask => self.complain("duplicate request", "a task of that id has been submitted before; dropped"),
            Reason::EngineAlreadyUp | Reason::UnknownEngine | Reason::StaleAttempt | Reason::NotWaiting => {
                tracing::debug!("scheduler: {reason:?}");
            }
        }
    }
}

/// Sends new identities and a kept message from its delimiter on. Large frames go by reference.
fn forward(port: &Port, identities: &[&[u8]], message: &Envelope) -> Result<(), PortError> {
    let whole = message.message();
    let mut frames: SmallVec<[Frame; 16]> = identities.iter().map(|identity| Frame::copy_of(identity)).collect();
    frames.extend((message.delimiter()..whole.len()).map(|index| Frame::of_bytes(whole.frame_bytes(index))));
    port.send(&mut frames)
}
