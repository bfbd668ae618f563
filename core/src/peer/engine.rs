//! An engine: registers, answers pings, runs what it is asked, one request after the other, and answers. A thread sleeps at the sockets and
//! wakes for what comes; another does the work, so that a long task stops neither heartbeat nor control.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::abort::{Aborted, Named, named};
use super::task::Call;
use super::vigil::Vigil;
use super::work::{Done, Functions, Job, Work, call, failure, read_call, read_code, work};
use super::{PeerError, connect, language};
use crate::connection_file::EngineFile;
use crate::net::{Clock, Complaints, FrameBuf, Mailbox, Outbox, Port, Tally, fresh_id, wait};
use crate::wire::{self, Header};
use crate::{Envelope, Session, Signer};

/// What may be chosen of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The number to ask for; the controller's choice without one.
    pub number: Option<u64>,
    /// How long the controller may take to answer the registration.
    pub timeout: Duration,
    /// Looks in a row, 500 ms more than the controller's period apart, that may find no ping of the controller's before it is given up;
    /// 0 for however many. ipyparallel's `IPEngine.max_heartbeat_misses`.
    pub max_heartbeat_misses: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { number: None, timeout: Duration::from_secs(10), max_heartbeat_misses: 50 }
    }
}

/// Ends an engine from another thread; clones end the same one.
#[derive(Clone, Debug)]
pub struct EngineStopper {
    news: Outbox<News>,
}

impl EngineStopper {
    /// Asks it to end. It says goodbye to the controller; what it has not begun is left to the controller, and a running task is not waited
    /// for. Returns at once.
    pub fn stop(&self) {
        self.news.send_always(News::Stop);
    }
}

/// A running engine.
#[derive(Debug)]
pub struct EngineHandle {
    number: u64,
    uuid: String,
    stopper: EngineStopper,
    tally: Tally,
    thread: JoinHandle<Result<(), PeerError>>,
}

impl EngineHandle {
    /// Its number in the cluster.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its uuid.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Asks it to end, as [`EngineStopper::stop`].
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// What ends it, for whoever outlives this handle.
    pub fn stopper(&self) -> EngineStopper {
        self.stopper.clone()
    }

    /// How many messages it has refused, by reason.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If a socket failed.
    pub fn join(self) -> Result<(), PeerError> {
        self.thread.join().unwrap_or(Err(PeerError::Panicked))
    }
}

/// What the engine's thread is told by others.
#[derive(Debug)]
pub(super) enum News {
    /// The working thread has finished with a request.
    Done(Done),
    /// Somebody wants the end.
    Stop,
}

/// An engine; see [`Engine::start`].
#[derive(Debug)]
pub struct Engine {
    pub(super) uuid: String,
    pub(super) number: u64,
    pub(super) session: Session,
    query: Port,
    pub(super) shell: Port,
    pub(super) control: Port,
    pub(super) iopub: Port,
    ping: Port,
    pong: Port,
    functions: Arc<Functions>,
    /// Requests that wait for the working thread, which has one of them at most.
    waiting: VecDeque<Envelope>,
    waiting_bytes: usize,
    working: bool,
    jobs: std::sync::mpsc::Sender<Job>,
    news: Mailbox<News>,
    aborted: Aborted,
    vigil: Vigil,
    complaints: Complaints,
    clock: Clock,
}

/// Requests that are read ahead of the working thread, and their bytes; more wait in the socket.
const READ_AHEAD: usize = 1024;
const READ_AHEAD_BYTES: usize = 64 << 20;
/// Messages of one socket that are handled before the others have their turn.
const BURST: usize = 64;
/// Most requests that one abort of all takes out of the socket.
const MAX_SWEPT: usize = 100_000;

/// By how much the replies to what is dropped are ahead of that to the shutdown, from which the controller knows that the engine is gone:
/// they go other ways, and a client that hears first of the end takes what it has sent for lost.
const HEAD_START: Duration = Duration::from_millis(200);

/// How a turn at the sockets ended.
enum Turn {
    /// There was nothing to do.
    Idle,
    /// There may be more.
    Busy,
    /// It is time to leave.
    Over,
}

impl Engine {
    /// Registers with a controller and starts to work for it, with the number wanted and otherwise the usual options.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with).
    pub fn start(
        context: &zmq::Context,
        file: &EngineFile,
        functions: Arc<Functions>,
        wanted_number: Option<u64>,
        timeout: Duration,
    ) -> Result<EngineHandle, PeerError> {
        let options = EngineOptions { number: wanted_number, timeout, ..EngineOptions::default() };
        Engine::start_with(context, file, functions, &options)
    }

    /// Registers with a controller and starts to work for it.
    ///
    /// # Errors
    /// If the file asks for what a native engine does not speak, or the controller does not answer in time, or refuses.
    pub fn start_with(
        context: &zmq::Context,
        file: &EngineFile,
        functions: Arc<Functions>,
        options: &EngineOptions,
    ) -> Result<EngineHandle, PeerError> {
        let uuid = fresh_id();
        let mut session = Session::new(Signer::new(file.common.key.as_bytes()), uuid.clone(), "pointsman", std::process::id())
            .packed_by(language(&file.common)?);
        let dial = |kind, port: u16| connect(context, kind, uuid.as_bytes(), &file.common, port);
        let query = Port::from(dial(zmq::DEALER, file.common.registration)?);
        let mut content = json!({"uuid": uuid});
        if let Some(number) = options.number {
            content["id"] = json!(number);
        }
        let parts = session.compose("registration_request", Clock::date(), b"{}", b"{}", content.to_string().into_bytes());
        query.send_parts(parts.iter().map(Vec::as_slice))?;
        let (number, period) = registered(&query, &session, options.timeout)?;

        let shell = dial(zmq::ROUTER, file.common.mux)?;
        shell.connect(&file.common.url(file.common.task))?;
        if let Some(leaf) = file.broadcast.get((number % file.broadcast.len().max(1) as u64) as usize) {
            shell.connect(&file.common.url(*leaf))?;
        }
        let control = dial(zmq::ROUTER, file.common.control)?;
        let iopub = dial(zmq::XPUB, file.common.iopub)?;
        // Last, as the first answer to a ping is what makes the engine known.
        let pong = dial(zmq::DEALER, file.hb_pong)?;
        let ping = dial(zmq::SUB, file.hb_ping)?;
        ping.set_subscribe(b"")?;

        let (jobs, job_queue) = std::sync::mpsc::channel();
        // One request is under way at most, and somebody may want the end: neither may be lost.
        let (outbox, news) = Mailbox::new(usize::MAX, usize::MAX)?;
        let clock = Clock::default();
        let tally = Tally::default();
        let engine = Engine {
            uuid: uuid.clone(),
            number,
            session,
            query,
            shell: shell.into(),
            control: control.into(),
            iopub: iopub.into(),
            ping: ping.into(),
            pong: pong.into(),
            functions: functions.clone(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            working: false,
            jobs,
            news,
            aborted: Aborted::default(),
            vigil: Vigil::new(clock.now(), period, options.max_heartbeat_misses),
            complaints: Complaints::new("engine", &tally),
            clock,
        };
        let named = |role: &str| std::thread::Builder::new().name(format!("engine-{number}{role}"));
        let done = outbox.clone();
        // Ends when the engine drops its end of the channel.
        named("-work").spawn(move || work(&functions, &job_queue, &done))?;
        let thread = named("").spawn(move || engine.serve())?;
        Ok(EngineHandle { number, uuid, stopper: EngineStopper { news: outbox }, tally, thread })
    }

    fn serve(mut self) -> Result<(), PeerError> {
        let mut buffer = FrameBuf::default();
        let mut told = Vec::new();
        loop {
            match self.turn(&mut buffer, &mut told)? {
                Turn::Busy => {}
                Turn::Idle => self.sleep()?,
                Turn::Over => return self.goodbye(),
            }
        }
    }

    /// Until there is something to do.
    fn sleep(&self) -> Result<(), PeerError> {
        let ports = [&self.ping, &self.control, &self.iopub, &self.shell];
        // The last only while there is room for what it has.
        let watched = if self.has_room() { 4 } else { 3 };
        let news = [self.news.as_fd()];
        wait(&ports[..watched], news, self.vigil.left(self.clock.now()))?;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < READ_AHEAD && self.waiting_bytes < READ_AHEAD_BYTES
    }

    fn turn(&mut self, buffer: &mut FrameBuf, told: &mut Vec<News>) -> Result<Turn, PeerError> {
        let mut busy = false;
        for _ in 0..BURST {
            if !self.iopub.take(buffer)? {
                break;
            }
            if buffer.frames().first().is_some_and(|frame| frame.as_ref().first() == Some(&1)) {
                self.welcome()?;
            }
        }
        for _ in 0..BURST {
            if !self.ping.take(buffer)? {
                break;
            }
            self.vigil.pinged();
            self.pong.send(buffer.frames_mut())?;
        }
        for _ in 0..BURST {
            let Some(request) = self.request(Channel::Control, buffer)? else { break };
            busy = true;
            if self.handle_control(&request, buffer)? {
                return Ok(Turn::Over);
            }
        }
        self.news.take(usize::MAX, told);
        for news in told.drain(..) {
            busy = true;
            match news {
                News::Done(done) => {
                    self.working = false;
                    self.answer(done)?;
                }
                News::Stop => {
                    tracing::info!("engine {}: stopped", self.number);
                    return Ok(Turn::Over);
                }
            }
        }
        for _ in 0..BURST {
            if !self.has_room() {
                break;
            }
            let Some(request) = self.request(Channel::Shell, buffer)? else { break };
            busy = true;
            self.waiting_bytes += request.message().size_bytes();
            self.waiting.push_back(request);
        }
        self.begin()?;
        if self.vigil.look(self.clock.now()) {
            let (misses, interval) = self.vigil.misses();
            tracing::warn!(
                "engine {}: no ping of the controller at {misses} looks in a row, {interval:?} apart; ending",
                self.number
            );
            return Ok(Turn::Over);
        }
        Ok(if busy { Turn::Busy } else { Turn::Idle })
    }

    /// The next genuine message of a channel.
    fn request(&mut self, channel: Channel, buffer: &mut FrameBuf) -> Result<Option<Envelope>, PeerError> {
        let port = match channel {
            Channel::Shell => &self.shell,
            Channel::Control => &self.control,
        };
        // A flood of what is not genuine waits for its turn like the rest.
        for _ in 0..BURST {
            if !port.take(buffer)? {
                break;
            }
            match Envelope::open(Arc::new(buffer.pack())) {
                Ok(envelope) => match self.session.admit(&envelope) {
                    Ok(()) => match self.session.packer().message_as_json(&envelope) {
                        Ok(envelope) => return Ok(Some(envelope.into_owned())),
                        Err(part) => {
                            let detail = format_args!("its {part} can not be read");
                            self.complaints.note(self.clock.now(), "unreadable", detail);
                        }
                    },
                    Err(refused) => self.complaints.note(self.clock.now(), "refused", refused),
                },
                Err(malformed) => self.complaints.note(self.clock.now(), "malformed", malformed),
            }
        }
        Ok(None)
    }

    /// Gives the working thread its next request, and does what needs none.
    fn begin(&mut self) -> Result<(), PeerError> {
        while !self.working
            && let Some(request) = self.waiting.pop_front()
        {
            self.waiting_bytes -= request.message().size_bytes();
            let header = match Header::parse(request.header()) {
                Ok(header) => header,
                Err(error) => {
                    self.complaints.note(self.clock.now(), "malformed", format_args!("header: {error}"));
                    continue;
                }
            };
            if self.aborted.remove(&header.msg_id) {
                self.reply_aborted(&request, &header.msg_type)?;
                continue;
            }
            let started = Clock::date();
            let work = match &*header.msg_type {
                "apply_request" => read_call(&request),
                "execute_request" => read_code(&request),
                "kernel_info_request" => {
                    self.publish_status(&request, "busy")?;
                    self.reply_kernel_info(&request, Channel::Shell)?;
                    self.publish_status(&request, "idle")?;
                    continue;
                }
                other => Err(unknown(other)),
            };
            self.publish_status(&request, "busy")?;
            match work {
                Ok(Work::Call(Call::Function(name), argument)) if self.functions.is_quick(&name) => {
                    let outcome = call(&self.functions, &name, &argument);
                    self.answer(Done { request, started, outcome, output: Vec::new() })?;
                }
                Ok(work) => {
                    self.working = true;
                    self.jobs.send(Job { request, work }).map_err(|_| PeerError::Panicked)?;
                }
                Err(error) => self.answer(Done { request, started, outcome: Err(error), output: Vec::new() })?,
            }
        }
        Ok(())
    }

    /// Drops everything that waits, here and in the socket, and says so to whoever sent it. How many that were. O(what waits).
    fn abort_all(&mut self, buffer: &mut FrameBuf) -> Result<usize, PeerError> {
        self.waiting_bytes = 0;
        let mut answered = 0;
        let mut waiting = std::mem::take(&mut self.waiting);
        for swept in 0.. {
            let next = match waiting.pop_front() {
                Some(request) => Some(request),
                None if swept < MAX_SWEPT => self.request(Channel::Shell, buffer)?,
                None => None,
            };
            let Some(request) = next else { break };
            if let Ok(header) = Header::parse(request.header()) {
                self.aborted.remove(&header.msg_id);
                self.reply_aborted(&request, &header.msg_type)?;
                answered += 1;
            }
        }
        Ok(answered)
    }

    /// Does what a control message says; true if that is to end.
    fn handle_control(&mut self, request: &Envelope, buffer: &mut FrameBuf) -> Result<bool, PeerError> {
        let header = match Header::parse(request.header()) {
            Ok(header) => header,
            Err(error) => {
                self.complaints.note(self.clock.now(), "malformed", format_args!("header: {error}"));
                return Ok(false);
            }
        };
        let mut content: Value = wire::object(request.content()).unwrap_or_default();
        let mut ok = json!({"status": "ok"});
        match &*header.msg_type {
            "abort_request" => match named(&mut content) {
                Named::Ids(ids) => ids.into_iter().for_each(|id| self.aborted.insert(id)),
                Named::All => drop(self.abort_all(buffer)?),
            },
            "kernel_info_request" => {
                self.reply_kernel_info(request, Channel::Control)?;
                return Ok(false);
            }
            // Nothing lasts here from one request to the next.
            "clear_request" => {}
            "shutdown_request" => {
                if self.abort_all(buffer)? > 0 {
                    std::thread::sleep(HEAD_START);
                }
                tracing::info!("engine {}: shut down by a client", self.number);
                ok["restart"] = content["restart"].take();
                self.reply_control(request, &header.msg_type, &ok)?;
                self.publish(request, "shutdown", "shutdown_reply", &ok)?;
                return Ok(true);
            }
            other => {
                let content = self.error_content(unknown(other), other);
                self.reply_control(request, &header.msg_type, &content)?;
                return Ok(false);
            }
        }
        self.reply_control(request, &header.msg_type, &ok)?;
        Ok(false)
    }

    /// Leaves the cluster.
    fn goodbye(mut self) -> Result<(), PeerError> {
        let content = json!({"id": self.number}).to_string().into_bytes();
        let parts = self.session.compose("unregistration_request", Clock::date(), b"{}", b"{}", content);
        Ok(self.query.send_parts(parts.iter().map(Vec::as_slice))?)
    }
}

/// Where a request came from, and its reply goes.
#[derive(Clone, Copy)]
pub(super) enum Channel {
    Shell,
    Control,
}

fn unknown(msg_type: &str) -> super::RemoteError {
    failure("NotImplementedError", format!("a native engine does not know {msg_type}"))
}

/// Waits for the hub's answer to a registration: the number, and the time between pings.
fn registered(query: &Port, session: &Session, timeout: Duration) -> Result<(u64, Duration), PeerError> {
    let clock = Clock::default();
    let mut buffer = FrameBuf::default();
    loop {
        let left = timeout.saturating_sub(clock.now());
        if left.is_zero() {
            return Err(PeerError::Timeout("registration_request".into()));
        }
        if !query.take(&mut buffer)? {
            let [] = wait(&[query], [], Some(left))?;
            continue;
        }
        let Ok(envelope) = Envelope::open(Arc::new(buffer.pack())) else { continue };
        if session.signer().verify(envelope.signature(), envelope.parts()).is_err() {
            continue;
        }
        let content = session.packer().read_map(envelope.content());
        let content = Value::Object(content.map_err(|error| PeerError::Unreadable(format!("registration_reply: {error}")))?);
        if content["status"] != "ok" {
            return Err(PeerError::Refused(serde_json::from_value(content).unwrap_or_default()));
        }
        let number = content["id"].as_u64().ok_or_else(|| PeerError::Unreadable("registration_reply without an id".into()))?;
        return Ok((number, Duration::from_millis(content["hb_period"].as_u64().unwrap_or(3000))));
    }
}
