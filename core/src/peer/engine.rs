//! An engine: registers, answers pings, runs what it is asked, one request after the other, and answers. A thread polls the sockets, and
//! another does the work, so that a long task stops neither heartbeat nor control.

use std::collections::VecDeque;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::task::Call;
use super::{PeerError, RemoteError, connect};
use crate::connection_file::EngineFile;
use crate::date::Date;
use crate::net::{Clock, Frame, FrameBuf, Mailbox, Outbox, Port, fresh_id};
use crate::wire::{self, ErrorContent, Header};
use crate::{Envelope, Session, Signer};

type Function = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// The functions that an engine runs by name.
#[derive(Default)]
pub struct Functions {
    by_name: HashMap<String, (Function, bool), foldhash::fast::FixedState>,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Functions {
    /// None; shell commands can be run all the same.
    pub fn new() -> Self {
        Functions::default()
    }

    /// Adds a function from bytes to bytes, or to the message of an error. It runs on the engine's working thread.
    pub fn register(&mut self, name: &str, function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static) {
        self.by_name.insert(name.to_owned(), (Box::new(function), false));
    }

    /// Adds a function that takes microseconds: it runs between two looks at the sockets, without a change of threads.
    pub fn register_quick(&mut self, name: &str, function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static) {
        self.by_name.insert(name.to_owned(), (Box::new(function), true));
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// A running engine.
#[derive(Debug)]
pub struct EngineHandle {
    number: u64,
    uuid: String,
    stop: Arc<AtomicBool>,
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

    /// Asks it to end. It says goodbye to the controller; a running task is not waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// The flag that [`stop`](Self::stop) raises, for whoever outlives this handle.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If a socket failed.
    pub fn join(self) -> Result<(), PeerError> {
        self.thread.join().unwrap_or_else(|_| Err(PeerError::Unreadable("the engine's thread panicked".into())))
    }
}

/// An engine; see [`Engine::start`].
#[derive(Debug)]
pub struct Engine {
    uuid: String,
    number: u64,
    session: Session,
    query: Port,
    shell: Port,
    control: Port,
    iopub: Port,
    ping: Port,
    pong: Port,
    functions: Arc<Functions>,
    /// Requests that wait for the working thread, which has one of them at most.
    waiting: VecDeque<Envelope>,
    working: bool,
    jobs: std::sync::mpsc::Sender<Job>,
    done: Mailbox<Done>,
    aborted: std::collections::BTreeSet<String>,
    stop: Arc<AtomicBool>,
    /// Since when the controller has not pinged; it is left when it is gone.
    last_ping: Duration,
    silence: Duration,
    clock: Clock,
}

#[derive(Debug)]
struct Job {
    request: Envelope,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Call(Call, Bytes),
    Execute(String),
}

#[derive(Debug)]
struct Done {
    request: Envelope,
    started: Date,
    outcome: Result<Bytes, RemoteError>,
    /// Name and text of its output, for requests that publish it.
    output: Vec<(&'static str, String)>,
}

/// Requests that are read ahead of the working thread; more wait in the socket.
const READ_AHEAD: usize = 1024;
/// Ids of requests to be dropped when they come; older ones are forgotten.
const MAX_ABORTED: usize = 100_000;

impl Engine {
    /// Registers with a controller and starts to work for it.
    ///
    /// # Errors
    /// If the controller does not answer within `timeout`, or refuses.
    pub fn start(
        context: &zmq::Context,
        file: &EngineFile,
        functions: Arc<Functions>,
        wanted_number: Option<u64>,
        timeout: Duration,
    ) -> Result<EngineHandle, PeerError> {
        let uuid = fresh_id();
        let mut session = Session::new(Signer::new(file.common.key.as_bytes()), uuid.clone(), "pointsman", std::process::id())
            .packed_by(super::packer(&file.common)?);
        let dial = |kind, port: u16| connect(context, kind, uuid.as_bytes(), &file.common, port);
        let query = Port::from(dial(zmq::DEALER, file.common.registration)?);
        let mut content = json!({"uuid": uuid});
        if let Some(number) = wanted_number {
            content["id"] = json!(number);
        }
        let parts = session.compose("registration_request", Clock::date(), b"{}", b"{}", content.to_string().into_bytes());
        query.send_parts(parts.iter().map(Vec::as_slice))?;
        let (number, period) = registered(&query, &session, timeout)?;

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

        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, job_queue) = std::sync::mpsc::channel();
        let (done_outbox, done) = Mailbox::new(usize::MAX, usize::MAX)?;
        let clock = Clock::default();
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
            working: false,
            jobs,
            done,
            aborted: std::collections::BTreeSet::new(),
            stop: stop.clone(),
            last_ping: clock.now(),
            silence: (period * 50).max(Duration::from_secs(10)),
            clock,
        };
        let named = |role: &str| std::thread::Builder::new().name(format!("engine-{number}{role}"));
        // Ends when the engine drops its end of the channel.
        named("-work").spawn(move || work(&functions, &job_queue, &done_outbox))?;
        let thread = named("").spawn(move || engine.serve())?;
        Ok(EngineHandle { number, uuid, stop, thread })
    }

    fn serve(mut self) -> Result<(), PeerError> {
        let mut buffer = FrameBuf::default();
        let mut finished = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            let mut busy = false;
            while self.iopub.take(&mut buffer)? {
                if buffer.frames().first().is_some_and(|frame| frame.as_ref().first() == Some(&1)) {
                    self.welcome()?;
                }
            }
            while self.ping.take(&mut buffer)? {
                self.last_ping = self.clock.now();
                self.pong.send(buffer.frames_mut())?;
            }
            while let Some(request) = self.request(Channel::Control, &mut buffer)? {
                busy = true;
                if self.handle_control(&request)? {
                    return self.goodbye();
                }
            }
            self.done.take(usize::MAX, &mut finished);
            for done in finished.drain(..) {
                busy = true;
                self.working = false;
                self.answer(done)?;
            }
            for _ in 0..64 {
                if self.waiting.len() >= READ_AHEAD {
                    break;
                }
                let Some(request) = self.request(Channel::Shell, &mut buffer)? else { break };
                busy = true;
                self.waiting.push_back(request);
            }
            self.begin()?;
            if self.clock.now() > self.last_ping + self.silence {
                tracing::warn!("engine {}: the controller has not pinged for {:?}; ending", self.number, self.silence);
                return self.goodbye();
            }
            if !busy {
                let mut items = [
                    zmq::PollItem::from_fd(self.done.fd(), zmq::POLLIN),
                    self.ping.socket().as_poll_item(zmq::POLLIN),
                    self.control.socket().as_poll_item(zmq::POLLIN),
                    self.iopub.socket().as_poll_item(zmq::POLLIN),
                    self.shell.socket().as_poll_item(zmq::POLLIN),
                ];
                // The last only while there is room; the timeout is how soon `stop` is seen.
                let watched = if self.waiting.len() < READ_AHEAD { 5 } else { 4 };
                match zmq::poll(&mut items[..watched], 100) {
                    Ok(_) | Err(zmq::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.goodbye()
    }

    /// The next genuine message of a channel.
    fn request(&mut self, channel: Channel, buffer: &mut FrameBuf) -> Result<Option<Envelope>, PeerError> {
        let port = match channel {
            Channel::Shell => &self.shell,
            Channel::Control => &self.control,
        };
        while port.take(buffer)? {
            match Envelope::open(Arc::new(buffer.pack())) {
                Ok(envelope) => match self.session.admit(&envelope) {
                    Ok(()) => match self.session.packer().message_as_json(&envelope) {
                        Ok(envelope) => return Ok(Some(envelope.into_owned())),
                        Err(part) => tracing::warn!("engine {}: a message whose {part} can not be read", self.number),
                    },
                    Err(refused) => tracing::warn!("engine {}: {refused}", self.number),
                },
                Err(malformed) => tracing::warn!("engine {}: {malformed}", self.number),
            }
        }
        Ok(None)
    }

    /// Gives the working thread its next request, and does what needs none.
    fn begin(&mut self) -> Result<(), PeerError> {
        while !self.working
            && let Some(request) = self.waiting.pop_front()
        {
            let Ok(header) = Header::parse(request.header()) else { continue };
            if self.aborted.remove(&*header.msg_id) {
                let metadata = self.metadata(&request, Clock::date(), "aborted");
                let reply_type = reply_type(&header.msg_type);
                self.send_reply(&request, &reply_type, metadata, json!({"status": "aborted"}).to_string().into_bytes(), None)?;
                continue;
            }
            let started = Clock::date();
            let work = match &*header.msg_type {
                "apply_request" => read_call(&request),
                "execute_request" => read_code(&request),
                other => Err(failure("NotImplementedError", format!("a native engine does not know {other}"))),
            };
            self.publish_status(&request, "busy")?;
            match work {
                Ok(Work::Call(Call::Function(name), argument)) if self.functions.by_name.get(&name).is_some_and(|f| f.1) => {
                    let outcome = call(&self.functions, &name, &argument);
                    self.answer(Done { request, started, outcome, output: Vec::new() })?;
                }
                Ok(work) => {
                    self.working = true;
                    if self.jobs.send(Job { request, work }).is_err() {
                        return Err(PeerError::Unreadable("the engine's working thread is gone".into()));
                    }
                }
                Err(error) => self.answer(Done { request, started, outcome: Err(error), output: Vec::new() })?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, done: Done) -> Result<(), PeerError> {
        let Done { request, started, outcome, output } = done;
        for (name, text) in output.into_iter().filter(|(_, text)| !text.is_empty()) {
            self.publish(&request, name, "stream", &json!({"name": name, "text": text}))?;
        }
        let header = Header::parse(request.header());
        let msg_type = header.as_ref().map_or("apply_request", |header| &*header.msg_type);
        let reply_type = reply_type(msg_type);
        let status = if outcome.is_ok() { "ok" } else { "error" };
        let mut metadata = self.metadata(&request, started, status);
        let (content, result) = match outcome {
            Ok(result) if msg_type == "execute_request" => {
                drop(result);
                (json!({"status": "ok", "execution_count": 0, "user_expressions": {}, "payload": []}).to_string(), None)
            }
            Ok(result) => (json!({"status": "ok"}).to_string(), Some(result)),
            Err(error) => {
                let info =
                    json!({"engine_uuid": self.uuid, "engine_id": self.number, "method": msg_type.trim_end_matches("_request")});
                metadata.insert("engine_info".into(), info.clone());
                let content = ErrorContent::new(error.ename, error.evalue).to_json();
                let mut content: Value = serde_json::from_slice(&content).unwrap_or_default();
                content["engine_info"] = info;
                (content.to_string(), None)
            }
        };
        self.send_reply(&request, &reply_type, metadata, content.into_bytes(), result)?;
        self.publish_status(&request, "idle")
    }

    fn metadata(&self, request: &Envelope, started: Date, status: &str) -> Map<String, Value> {
        let asked: Value = wire::object(request.metadata()).unwrap_or_default();
        let mut metadata = Map::new();
        metadata.insert("started".into(), json!(started));
        metadata.insert("dependencies_met".into(), json!(true));
        metadata.insert("engine".into(), json!(self.uuid));
        metadata.insert("is_broadcast".into(), json!(asked["is_broadcast"] == true));
        metadata.insert("is_coalescing".into(), json!(asked["is_coalescing"] == true));
        metadata.insert("original_msg_id".into(), json!(asked["original_msg_id"].as_str().unwrap_or_default()));
        metadata.insert("label".into(), asked["label"].clone());
        metadata.insert("status".into(), json!(status));
        metadata
    }

    fn send_reply(
        &mut self,
        request: &Envelope,
        reply_type: &str,
        metadata: Map<String, Value>,
        content: Vec<u8>,
        result: Option<Bytes>,
    ) -> Result<(), PeerError> {
        let metadata = Value::Object(metadata).to_string().into_bytes();
        let parts = self.session.compose(reply_type, Clock::date(), request.header(), &metadata, content);
        let identities = (0..request.identity_count()).map(|index| request.identity(index));
        let mut frames: Vec<Frame> = identities.chain(parts.iter().map(Vec::as_slice)).map(Frame::copy_of).collect();
        frames.extend(result.map(Frame::of_bytes));
        Ok(self.shell.send(&mut frames)?)
    }

    /// Publishes the state of a request, unless its client said that it does not care.
    /// Tells whoever has subscribed to its output that they will get it (as ipykernel does).
    fn welcome(&mut self) -> Result<(), PeerError> {
        let content = json!({"subscription": ""}).to_string().into_bytes();
        let parts = self.session.compose("iopub_welcome", Clock::date(), b"{}", b"{}", content);
        Ok(self.iopub.send_parts(parts.iter().map(Vec::as_slice))?)
    }

    fn publish_status(&mut self, request: &Envelope, state: &str) -> Result<(), PeerError> {
        self.publish(request, "status", "status", &json!({"execution_state": state}))
    }

    fn publish(&mut self, request: &Envelope, topic: &str, msg_type: &str, content: &Value) -> Result<(), PeerError> {
        #[derive(Default, Deserialize)]
        struct Asked {
            #[serde(default)]
            quiet: bool,
        }
        if msg_type == "status" && wire::object::<Asked>(request.metadata()).unwrap_or_default().quiet {
            return Ok(());
        }
        let metadata = json!({"engine": self.uuid}).to_string().into_bytes();
        let content = content.to_string().into_bytes();
        let parts = self.session.compose(msg_type, Clock::date(), request.header(), &metadata, content);
        let topic = format!("engine.{}.{topic}", self.number);
        let parts = std::iter::once(topic.as_bytes()).chain(parts.iter().map(Vec::as_slice));
        Ok(self.iopub.send_parts(parts)?)
    }

    /// Does what a control message says; true if that is to end.
    fn handle_control(&mut self, request: &Envelope) -> Result<bool, PeerError> {
        let Ok(header) = Header::parse(request.header()) else { return Ok(false) };
        let content: Value = wire::object(request.content()).unwrap_or_default();
        match &*header.msg_type {
            "abort_request" => {
                let ids = content["msg_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
                self.aborted.extend(ids.map(str::to_owned));
                while self.aborted.len() > MAX_ABORTED {
                    self.aborted.pop_first();
                }
            }
            "clear_request" | "shutdown_request" => {}
            other => tracing::debug!("engine {}: control message {other}", self.number),
        }
        let metadata = json!({"engine": self.uuid}).to_string().into_bytes();
        let reply_type = reply_type(&header.msg_type);
        let content = json!({"status": "ok"}).to_string().into_bytes();
        let parts = self.session.compose(&reply_type, Clock::date(), request.header(), &metadata, content);
        let identities = (0..request.identity_count()).map(|index| request.identity(index));
        self.control.send_parts(identities.chain(parts.iter().map(Vec::as_slice)))?;
        Ok(header.msg_type == "shutdown_request")
    }

    /// Leaves the cluster.
    fn goodbye(mut self) -> Result<(), PeerError> {
        let content = json!({"id": self.number}).to_string().into_bytes();
        let parts = self.session.compose("unregistration_request", Clock::date(), b"{}", b"{}", content);
        Ok(self.query.send_parts(parts.iter().map(Vec::as_slice))?)
    }
}

#[derive(Clone, Copy)]
enum Channel {
    Shell,
    Control,
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
        let _ = query.socket().poll(zmq::POLLIN, left.as_millis() as i64 + 1);
        if !query.take(&mut buffer)? {
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

fn reply_type(request_type: &str) -> String {
    format!("{}_reply", request_type.trim_end_matches("_request"))
}

fn failure(ename: &str, evalue: impl Into<String>) -> RemoteError {
    RemoteError { ename: ename.to_owned(), evalue: evalue.into() }
}

fn read_call(request: &Envelope) -> Result<Work, RemoteError> {
    let mut buffers = request.buffers();
    let call = buffers.next().and_then(|call| serde_json::from_slice::<Call>(&call).ok());
    let call = call.ok_or_else(|| {
        failure("NotImplementedError", "a native engine runs named functions and shell commands, not pickled Python")
    })?;
    Ok(Work::Call(call, buffers.next().unwrap_or_default()))
}

fn read_code(request: &Envelope) -> Result<Work, RemoteError> {
    let content: Value = wire::object(request.content()).unwrap_or_default();
    let code = content["code"].as_str().ok_or_else(|| failure("TypeError", "execute_request without code"))?;
    Ok(Work::Execute(code.to_owned()))
}

fn call(functions: &Functions, name: &str, argument: &[u8]) -> Result<Bytes, RemoteError> {
    let Some((function, _)) = functions.by_name.get(name) else {
        let known = functions.names().join(", ");
        return Err(failure("NameError", format!("no function is called '{name}' here; known: {known}")));
    };
    // A function of the user's may panic; that is its task's failure, not the engine's.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(argument))) {
        Ok(Ok(result)) => Ok(result.into()),
        Ok(Err(message)) => Err(failure("RuntimeError", message)),
        Err(_) => Err(failure("RuntimeError", format!("'{name}' panicked"))),
    }
}

/// The working thread.
fn work(functions: &Functions, jobs: &std::sync::mpsc::Receiver<Job>, done: &Outbox<Done>) {
    while let Ok(Job { request, work }) = jobs.recv() {
        let started = Clock::date();
        let mut output = Vec::new();
        let outcome = match work {
            Work::Call(Call::Function(name), argument) => call(functions, &name, &argument),
            Work::Call(Call::Shell(command), input) => shell(&command, &input).and_then(|out| {
                if out.status.success() {
                    Ok(out.stdout.into())
                } else {
                    Err(failure("CalledProcessError", format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim())))
                }
            }),
            Work::Execute(code) => shell(&code, b"").and_then(|out| {
                output.push(("stdout", String::from_utf8_lossy(&out.stdout).into_owned()));
                output.push(("stderr", String::from_utf8_lossy(&out.stderr).into_owned()));
                if out.status.success() { Ok(Bytes::new()) } else { Err(failure("CalledProcessError", out.status.to_string())) }
            }),
        };
        done.send(Done { request, started, outcome, output }, 0);
    }
}

fn shell(command: &str, input: &[u8]) -> Result<std::process::Output, RemoteError> {
    let os = |error: std::io::Error| failure("OSError", error.to_string());
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(os)?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // Written beside the reading of its output: neither pipe can fill up and block the other.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().map_err(os)
    })
}
