//! The task scheduler on its two ROUTERs. Order of a turn: results first, as they make room; then news of engines; then submissions.
//! What the scheduler keeps is packed once and shared with the hub by reference count.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::net::{
    Clock, Complaints, Frame, FrameBuf, MAX_FRAMES, Mailbox, Opened, Outbox, Port, PortError, Tally, pack, wait,
};
use pointsman_core::wire::{self, ErrorContent, Parent, ReplyMetadata, Status};
use pointsman_core::{Envelope, LARGE_FRAME_BYTES, Multipart, Session, renew};
use pointsman_policies::{NamedSchemes, Needs, Scheme, Time};
use serde_json::json;
use smallvec::SmallVec;

use super::BURST;
use super::facts::{FactReader, run_time};
use super::feed::HubFeed;
use super::orders::SchedulerOrder;
use super::watch::TaskWatch;
use crate::admit::{self, Denied, Refusal};
use crate::task::{Action, EngineId, Event, FailKind, InvalidSpec, Measured, Reason, ReplyKind, TaskScheduler};

/// Aborts whose acknowledgement is waited for; the oldest are given up beyond that, and their tasks stay where they are.
const MAX_ABORTS: usize = 10_000;

/// What the scheduler keeps of a message.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its frames and where its parts are; nothing for a reply that is passed on at once.
    kept: Option<Envelope>,
    /// Which of the messages received it is, 0 for one that was not: the last one's frames are still in the buffer.
    serial: u64,
    /// What a reply says of its task.
    status: Status,
}

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
    /// ROUTER for clients; made mandatory, so that an answer to nobody is known.
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
    /// Where what is given up is counted.
    pub tally: Tally,
    /// How many decisions are kept with their reasons; 0 for none.
    pub log_decisions: usize,
    /// Where each of them goes besides, as JSON. What does not fit is left out and counted.
    pub decisions: Option<SyncSender<serde_json::Value>>,
    /// Schemes that decide without acting.
    pub shadows: NamedSchemes,
    /// Who may see copies of what comes and goes.
    pub watch: Option<TaskWatch>,
    /// The hub keeps records, and wants the messages for them.
    pub keeps_records: bool,
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
    sockets.clients.set_router_mandatory(true)?;
    let mut driver = Driver {
        machine,
        clients: sockets.clients.into(),
        engines: sockets.engines.into(),
        control: sockets.control.into(),
        buffer: FrameBuf::default(),
        received: 0,
        aborts: VecDeque::new(),
        hub: HubFeed::new(hub, options.keeps_records),
        session,
        clock: Clock::default(),
        facts: FactReader::default(),
        complaints: Complaints::new("tasks", &options.tally),
        refused: None,
        decisions: options.decisions,
        decisions_sent: 0,
        watch: options.watch,
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
    /// The message received last, and how many have been.
    buffer: FrameBuf,
    received: u64,
    /// Aborts that engines have yet to take note of: id of the request, task, engine.
    aborts: VecDeque<(String, Box<str>, Box<str>)>,
    pub(super) hub: HubFeed,
    session: Session,
    clock: Clock,
    facts: FactReader,
    complaints: Complaints,
    /// What the machine has been told is wrong with the last request, until it says so itself.
    refused: Option<Refusal>,
    decisions: Option<SyncSender<serde_json::Value>>,
    decisions_sent: u64,
    watch: Option<TaskWatch>,
}

impl Driver {
    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.clock.now()
    }

    fn serve(&mut self, inputs: &Mailbox<TaskInput>) -> Result<(), PortError> {
        let mut batch = Vec::new();
        let mut turn = 0_u32;
        loop {
            let mut busy = false;
            if let Some(watch) = &mut self.watch {
                watch.refresh(&self.clock);
            }
            for _ in 0..BURST {
                if !self.receive(Channel::Engines)? {
                    break;
                }
                busy = true;
                self.result()?;
            }
            if self.take_news(inputs, &mut batch)? {
                return Ok(());
            }
            for _ in 0..BURST {
                if !self.receive(Channel::Clients)? {
                    break;
                }
                busy = true;
                // Its client may know of engines that this scheduler has yet to hear of.
                if self.take_news(inputs, &mut batch)? {
                    return Ok(());
                }
                self.request()?;
                self.act()?;
            }
            for _ in 0..BURST {
                if !self.receive(Channel::Control)? {
                    break;
                }
                busy = true;
                self.abort_noted();
                self.act()?;
            }
            let due = self.machine.poll_timeout();
            let is_due = due.is_some_and(|at| at <= self.now());
            if is_due {
                self.machine.handle_timeout(self.now());
                self.act()?;
            }
            self.tell_hub();
            turn = turn.wrapping_add(1);
            busy |= is_due;
            // What is idle is looked at when there is nothing else to do, and now and then.
            if !busy || turn.is_multiple_of(8) {
                let timeout = if busy { Some(Duration::ZERO) } else { due.map(|at| at - self.now()) };
                wait(&[&self.engines, &self.clients, &self.control], [inputs.as_fd()], timeout)?;
            }
        }
    }

    /// Receives a message into the buffer, if there is one.
    fn receive(&mut self, from: Channel) -> Result<bool, PortError> {
        let port = match from {
            Channel::Clients => &self.clients,
            Channel::Engines => &self.engines,
            Channel::Control => &self.control,
        };
        if port.is_idle() {
            return Ok(false);
        }
        self.received += 1; // whatever comes, what was in the buffer is there no more
        port.take(&mut self.buffer)
    }

    /// Hears everything that other threads have said; true if that is to stop.
    fn take_news(&mut self, inputs: &Mailbox<TaskInput>, batch: &mut Vec<TaskInput>) -> Result<bool, PortError> {
        inputs.take(usize::MAX, batch);
        for input in batch.drain(..) {
            let now = self.now();
            match input {
                TaskInput::EngineUp(uuid, number) => self.machine.handle(now, Event::EngineUp { uuid: &uuid, number }),
                TaskInput::EngineDown(uuid) => self.machine.handle(now, Event::EngineDown { uuid: &uuid }),
                TaskInput::Resubmit(message) => self.submit(Arc::unwrap_or_clone(message), true)?,
                TaskInput::Order(number, order) => self.follow(number, order),
                TaskInput::Stop => return Ok(true),
            }
            self.act()?;
        }
        Ok(false)
    }

    /// Hands over what there is to tell the hub.
    pub(super) fn tell_hub(&mut self) {
        if let Some((kind, count, why)) = self.hub.flush() {
            self.complaints.note_many(self.clock.now(), kind, count, why);
        }
    }

    fn complain(&mut self, kind: &'static str, detail: impl std::fmt::Display) {
        self.complaints.note(self.clock.now(), kind, detail);
    }

    /// Takes in the request that has just been received.
    fn request(&mut self) -> Result<(), PortError> {
        if let Some(beginning) = self.buffer.beginning_of_too_long() {
            let beginning = Multipart::pack(beginning);
            return self.deny(admit::too_long(&beginning, self.session.signer(), self.session.packer(), MAX_FRAMES));
        }
        let message = pack(self.buffer.frames_mut());
        self.submit(message, false)
    }

    fn submit(&mut self, message: Multipart, from_hub: bool) -> Result<(), PortError> {
        let packer = self.session.packer();
        let signer = self.session.signer();
        let opened = admit::open(message, signer, packer)
            .and_then(|envelope| if from_hub { Ok(envelope) } else { admit::verify(&envelope, signer).map(|()| envelope) });
        let envelope = match opened {
            Ok(envelope) => envelope,
            Err(denied) => return self.deny(denied),
        };
        let header = match admit::header(&envelope, packer) {
            Ok(header) => header,
            Err(denied) => return self.deny(denied),
        };
        let bytes = envelope.message().size_bytes();
        let spec = match admit::spec(&envelope, &header, packer) {
            Ok(mut spec) => {
                spec.inherited = from_hub;
                spec.facts = self.facts.of_request(&envelope, &header, spec.label.hints);
                if let Some(wrong) = &spec.label.wrong {
                    let (task, client) = (header.msg_id.escape_debug(), header.session.escape_debug());
                    self.complain("label hint ignored", format_args!("{wrong} (task {task}, client session {client})"));
                }
                Ok(spec)
            }
            Err(refusal) => {
                let (task, client) = (header.msg_id.escape_debug(), header.session.escape_debug());
                self.complain("refused task", format_args!("{} (task {task}, client session {client})", refusal.evalue));
                let why = InvalidSpec(refusal.evalue.clone());
                self.refused = Some(refusal);
                Err(why)
            }
        };
        let serial = if from_hub { 0 } else { self.received };
        let payload = Request { kept: Some(envelope.clone()), serial, status: Status::Ok };
        let (now, rejected) = (self.now(), self.machine.counters().rejected);
        self.machine.handle(now, Event::Submit { id: &header.msg_id, spec, payload, bytes });
        // A repeated id was rejected; the hub must not take it for a new request.
        if self.machine.counters().rejected == rejected {
            self.hub.submitted(&header.msg_id, &envelope);
            match watched(&mut self.watch) {
                Some(watch) if from_hub => watch.request_again(&envelope),
                Some(watch) => watch.request(self.buffer.frames_mut()),
                None => {}
            }
        } else {
            self.refused = None;
        }
        Ok(())
    }

    /// Says that a request is not taken: in the log, and to its sender if that is known to be genuine.
    fn deny(&mut self, denied: Denied) -> Result<(), PortError> {
        let Denied { kind, detail, answer } = denied;
        self.complain(kind, detail);
        let Some((client, parent, Refusal { ename, evalue })) = answer else { return Ok(()) };
        let content = ErrorContent::new(ename, evalue).to_json();
        let parts = self.session.compose("apply_reply", Clock::date(), &parent, br#"{"status":"error"}"#, content);
        let sent = self.clients.send_parts(std::iter::once(&client[..]).chain(parts.iter().map(Vec::as_slice)));
        self.unless_gone(sent)
    }

    /// Takes in the reply that has just been received.
    fn result(&mut self) -> Result<(), PortError> {
        if let Some(beginning) = self.buffer.beginning_of_too_long() {
            let beginning = Multipart::pack(beginning);
            return self.result_too_long(&beginning);
        }
        let read = match Opened::new(self.buffer.frames()) {
            Ok(reply) if reply.identity_count() == 2 => read_reply(&reply, &self.session),
            Ok(_) => Err(("malformed reply", "it has other than two identities".to_owned())),
            Err(malformed) => Err(("malformed reply", malformed.to_string())),
        };
        let read = match read {
            Ok(read) => read,
            Err((kind, detail)) => {
                self.complain(kind, detail);
                return Ok(());
            }
        };
        let wants_run = self.machine.needs().intersects(Needs::RUN | Needs::ESTIMATE | Needs::SPEED);
        let bytes = self.buffer.frames().iter().map(Frame::len).sum::<usize>() as u64;
        let run = if wants_run { run_time(self.session.packer(), read.header, &read.metadata) } else { None };
        // A failure may have to wait for what comes of a retry; all else is passed on at once, from the buffer.
        let is_kept = self.hub.keeps_records() || read.kind == ReplyKind::Failed;
        let (kind, status, id, engine) = (read.kind, read.status, read.id.into_owned(), read.engine.to_owned());
        let kept = if is_kept { Envelope::open(Arc::new(pack(self.buffer.frames_mut()))).ok() } else { None };
        let payload = Request { kept, serial: self.received, status };
        let now = self.now();
        self.machine.handle(now, Event::Result { id: &id, engine: &engine, kind, payload, measured: Measured { run, bytes } });
        self.act()
    }

    /// A result of more frames than are taken: its task has failed, as its engine has nothing else to say.
    fn result_too_long(&mut self, beginning: &Multipart) -> Result<(), PortError> {
        let frames: Vec<Frame> = beginning.frames().map(Frame::copy_of).collect();
        let read = match Opened::new(&frames) {
            Ok(reply) if reply.identity_count() == 2 => read_reply(&reply, &self.session),
            _ => Err(("malformed reply", format!("more than {MAX_FRAMES} frames, and not those of a reply"))),
        };
        let (id, engine) = match read {
            Ok(read) => (read.id.into_owned(), read.engine.to_owned()),
            Err((kind, detail)) => {
                self.complain(kind, detail);
                return Ok(());
            }
        };
        let evalue = format!(
            "the result has more than {MAX_FRAMES} frames: each large array or byte string in it travels in a frame of its own; return fewer \
             and larger ones"
        );
        self.complain("malformed reply", format_args!("{evalue} (task {})", id.escape_debug()));
        let content = ErrorContent::new("ValueError", evalue).to_json();
        let metadata = json!({"status": "error", "engine": engine}).to_string();
        let parts = self.session.compose("apply_reply", Clock::date(), beginning.frame(5), metadata.as_bytes(), content);
        let identities = [beginning.frame(0), beginning.frame(1)];
        let message = Arc::new(Multipart::pack(identities.into_iter().chain(parts.iter().map(Vec::as_slice))));
        let payload = Request { kept: Envelope::open(message).ok(), serial: 0, status: Status::Error };
        let (now, kind) = (self.now(), ReplyKind::Failed);
        self.machine.handle(now, Event::Result { id: &id, engine: &engine, kind, payload, measured: Measured::default() });
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
            let detail = format_args!("the file is too slow, {lost} decisions not written");
            self.complaints.note_many(self.clock.now(), "decision lost", lost, detail);
        }
    }

    fn act(&mut self) -> Result<(), PortError> {
        self.tell_decisions();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dispatch { task, attempt, engine, payload } => {
                    let uuid = self.machine.shared_uuid(engine);
                    let Some(request) = &payload.kept else { continue }; // requests always are
                    let identities = [uuid.as_bytes(), request.identity(0)];
                    let is_fresh = attempt == 1 && payload.serial == self.received;
                    let sent = if attempt > 1 {
                        // An engine that has had it before, from here or by way of another, would drop the same signature without a word.
                        forward_anew(&self.engines, identities, request, &self.session)
                    } else if is_fresh {
                        forward_received(&self.engines, identities, self.buffer.frames_mut(), request.delimiter())
                    } else {
                        forward(&self.engines, identities, request)
                    };
                    match sent {
                        Ok(()) => {
                            self.received += u64::from(is_fresh); // what was in the buffer has gone
                            if let Some(id) = self.machine.task_id(task) {
                                self.hub.sent(id, uuid);
                                if let Some(watch) = watched(&mut self.watch) {
                                    watch.sent(&mut self.session, id, uuid);
                                }
                            }
                        }
                        Err(PortError::NoSuchPeer | PortError::NotNow) => {
                            let now = self.now();
                            self.machine.handle(now, Event::SendFailed { task, attempt });
                        }
                        Err(error) => return Err(error),
                    }
                }
                Action::Reply { id, payload } => {
                    self.relay_reply(&payload)?;
                    self.hub.ended(&id, payload.status, payload.kept.as_ref());
                }
                Action::PassOn { payload } => {
                    self.complain("unknown reply", "passed on to its client: its request was not seen by this scheduler");
                    let id = self.asked_in(&payload);
                    self.relay_reply(&payload)?;
                    // The hub may know it from the records of a former controller.
                    self.hub.ended(&id, payload.status, payload.kept.as_ref());
                }
                Action::Abort { engine, id } => self.abort(engine, &id)?,
                Action::Fail { id, kind, engine, payload } => self.fail(&id, kind, engine, &payload)?,
                Action::Reject { reason } => self.rejected(reason),
            }
        }
        Ok(())
    }

    /// Asks an engine to drop a task, as clients do on the control channel. If it can not be reached, the task stays where it is.
    fn abort(&mut self, engine: EngineId, id: &str) -> Result<(), PortError> {
        let uuid = self.machine.uuid(engine).to_owned();
        let (request, header) = self.session.header("abort_request", Clock::date());
        let content = json!({"msg_ids": [id]}).to_string().into_bytes();
        let parts = self.session.compose_under(header, b"{}", b"{}", content);
        let frames = std::iter::once(uuid.as_bytes()).chain(parts.iter().map(Vec::as_slice));
        match self.control.send_parts(frames) {
            Ok(()) => {}
            Err(error @ (PortError::NoSuchPeer | PortError::NotNow)) => {
                self.complain("abort not sent", format_args!("of task '{id}': {error}; it stays where it is"));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if self.aborts.len() == MAX_ABORTS {
            self.aborts.pop_front();
            self.complain("abort forgotten", "too many are waited for; its task stays where it is");
        }
        self.aborts.push_back((request, id.into(), uuid.into()));
        Ok(())
    }

    fn abort_noted(&mut self) {
        let reply = match Envelope::open(Arc::new(self.buffer.pack())) {
            Ok(reply) => reply,
            Err(malformed) => return self.complain("malformed reply", malformed),
        };
        if let Err(refused) = self.session.signer().verify(reply.signature(), reply.parts()) {
            return self.complain("refused reply", refused);
        }
        let parent: Parent<'_> = self.session.packer().read(reply.parent()).unwrap_or_default();
        let Some(at) = self.aborts.iter().position(|(request, ..)| parent.msg_id.as_deref() == Some(request)) else { return };
        if let Some((_, id, engine)) = self.aborts.remove(at) {
            let now = self.now();
            self.machine.handle(now, Event::AbortNoted { id: &id, engine: &engine });
        }
    }

    /// The id of the request that a reply is to; empty if it does not say.
    fn asked_in(&self, reply: &Request) -> String {
        let parent = match &reply.kept {
            Some(envelope) => envelope.parent(),
            None => Opened::new(self.buffer.frames()).map_or(&b""[..], |opened| opened.part(1)),
        };
        let parent: Parent<'_> = self.session.packer().read(parent).unwrap_or_default();
        parent.msg_id.unwrap_or_default().into_owned()
    }

    /// `[engine][client] message` goes on as `[client][engine] message`. A client without identity is the hub.
    fn relay_reply(&mut self, reply: &Request) -> Result<(), PortError> {
        match (watched(&mut self.watch), &reply.kept) {
            (Some(watch), _) if reply.serial == self.received => watch.answer(self.buffer.frames_mut()),
            (Some(watch), Some(kept)) => watch.answer_in(kept.message().frames()),
            _ => {}
        }
        let sent = if reply.serial == self.received {
            let frames = self.buffer.frames_mut();
            if frames.get(1).is_none_or(Frame::is_empty) {
                return Ok(());
            }
            frames.swap(0, 1);
            self.received += 1; // what was in the buffer goes now
            self.clients.send(frames)
        } else {
            match &reply.kept {
                Some(envelope) if envelope.identity(1).is_empty() => return Ok(()),
                Some(envelope) => forward(&self.clients, [envelope.identity(1), envelope.identity(0)], envelope),
                None => {
                    self.complain("reply lost", "its message is no longer there");
                    return Ok(());
                }
            }
        };
        self.unless_gone(sent)
    }

    /// A client that has gone does not wait for its answer, which is counted.
    fn unless_gone(&mut self, sent: Result<(), PortError>) -> Result<(), PortError> {
        match sent {
            Err(PortError::NoSuchPeer | PortError::NotNow) => {
                let is_kept = self.hub.keeps_records();
                let detail = if is_kept { "the records have it, under the task's id" } else { "no records are kept" };
                self.complain("reply to a client that has gone", detail);
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn fail(&mut self, id: &str, kind: FailKind, engine: Option<EngineId>, payload: &Request) -> Result<(), PortError> {
        let Some(request) = &payload.kept else { return Ok(()) }; // requests always are
        let died = engine.filter(|_| kind == FailKind::EngineError).map(|engine| self.machine.uuid(engine).to_owned());
        let (ename, evalue) = match (&died, kind, self.refused.take()) {
            (Some(uuid), ..) => (kind.ename(), format!("Engine '{uuid}' died while running task '{id}'")),
            (None, FailKind::QueueFull, _) => (kind.ename(), "the scheduler holds as many tasks as it may".to_owned()),
            (None, FailKind::InvalidDependency, Some(Refusal { ename, evalue })) => (ename, evalue),
            _ => (kind.ename(), String::new()),
        };
        let date = Clock::date();
        let metadata = died.as_ref().map_or_else(|| json!({}), |uuid| json!({"status": "error", "engine": uuid, "date": date}));
        let content = ErrorContent::new(ename, evalue).to_json();
        let parts = self.session.compose("apply_reply", date, request.header(), metadata.to_string().as_bytes(), content);
        let client = request.identity(0);
        let identities: SmallVec<[&[u8]; 2]> = std::iter::once(client).chain(died.as_deref().map(str::as_bytes)).collect();
        let parts = parts.iter().map(Vec::as_slice);
        let message = Multipart::pack(identities.iter().copied().chain(parts));
        if let Some(watch) = watched(&mut self.watch) {
            watch.answer_in(message.frames());
        }
        if !client.is_empty() {
            let sent = self.clients.send_parts(message.frames());
            self.unless_gone(sent)?;
        }
        let of_nobody = Multipart::pack(std::iter::once(&b""[..]).chain(message.frames().skip(identities.len())));
        if let Ok(reply) = Envelope::open(Arc::new(of_nobody)) {
            self.hub.ended(id, Status::Error, Some(&reply));
        }
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

/// The same as [`forward`] with a new date and signature.
fn forward_anew(port: &Port, identities: [&[u8]; 2], message: &Envelope, session: &Session) -> Result<(), PortError> {
    let Some(parts) = renew::resealed(session, message, Clock::date()) else { return forward(port, identities, message) };
    let own = identities.into_iter().chain(parts.iter().map(Vec::as_slice));
    let mut frames: SmallVec<[Frame; 16]> = own.map(Frame::copy_of).collect();
    frames.extend(message.buffers().map(Frame::of_bytes));
    port.send(&mut frames)
}

/// The copies, if anybody looks at them.
fn watched(watch: &mut Option<TaskWatch>) -> Option<&mut TaskWatch> {
    watch.as_mut().filter(|watch| watch.is_watched())
}

/// Sends new identities and a kept message from its delimiter on. Large frames go by reference.
fn forward(port: &Port, identities: [&[u8]; 2], message: &Envelope) -> Result<(), PortError> {
    let whole = message.message();
    let mut frames: SmallVec<[Frame; 16]> = identities.iter().map(|identity| Frame::copy_of(identity)).collect();
    frames.extend((message.delimiter()..whole.len()).map(|index| {
        let bytes = whole.frame(index);
        if bytes.len() < LARGE_FRAME_BYTES { Frame::copy_of(bytes) } else { Frame::of_bytes(whole.frame_bytes(index)) }
    }));
    port.send(&mut frames)
}

/// The same with a message whose frames have just been received: they go as they are. On an error they have stayed.
fn forward_received(port: &Port, identities: [&[u8]; 2], frames: &mut [Frame], delimiter: usize) -> Result<(), PortError> {
    let mut identities = identities.map(Frame::copy_of);
    port.send(identities.iter_mut().chain(&mut frames[delimiter..]))
}

#[derive(Clone, Copy)]
enum Channel {
    Clients,
    Engines,
    Control,
}

/// What a reply says, read where it lies.
struct Read<'f> {
    id: Cow<'f, str>,
    engine: &'f str,
    kind: ReplyKind,
    status: Status,
    metadata: ReplyMetadata<'f>,
    header: &'f [u8],
}

fn read_reply<'f>(reply: &Opened<'f>, session: &Session) -> Result<Read<'f>, (&'static str, String)> {
    let parts = [0, 1, 2, 3].map(|part| reply.part(part));
    session.signer().verify(reply.signature(), parts).map_err(|refused| ("refused reply", refused.to_string()))?;
    let packer = session.packer();
    let parent: Parent<'_> = packer.read(parts[1]).unwrap_or_default();
    let (Some(id), Ok(engine)) = (parent.msg_id, std::str::from_utf8(reply.identity(0))) else {
        return Err(("unreadable reply", "it does not say to which request".to_owned()));
    };
    let metadata: ReplyMetadata<'_> = packer.read(parts[2]).unwrap_or_default();
    let status = wire::reply_status(packer, &metadata, parts[3]);
    let kind = match status {
        _ if metadata.dependencies_met == Some(false) => ReplyKind::Unmet,
        Status::Ok => ReplyKind::Ok,
        Status::Aborted => ReplyKind::Aborted,
        Status::Error => ReplyKind::Failed,
    };
    Ok(Read { id, engine, kind, status, metadata, header: parts[0] })
}
