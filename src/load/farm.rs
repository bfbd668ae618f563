//! Any number of engines on one thread: they register, answer pings, and "run" tasks by a timer. They cost so little that what is measured is
//! the controller.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::{Events, Poll, Token, Waker};
use pointsman_core::connection_file::EngineFile;
use pointsman_core::date::Date;
use pointsman_core::net::{Clock, fresh_id};
use pointsman_core::wire;
use pointsman_core::zmtp::{Message, push_frame};
use pointsman_core::{Packer, Signer, find_delimiter};
use serde_json::Value;

use super::alarm::Alarm;
use super::link::{Link, address};
use super::speaker::Speaker;
use super::task::{ARGUMENTS, NEVER_NS, length_ns};

const WAKER: Token = Token(0);
const ALARM: Token = Token(1);
const REGISTRATION: Token = Token(2);
const PING: Token = Token(3);
/// Two for each engine from here on.
const FIRST_ENGINE: usize = 4;
/// Registrations under way at once.
const REGISTER_AHEAD: usize = 64;

/// Engines at work, until this is dropped.
pub(super) struct Farm {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    uuids: Vec<String>,
}

impl Farm {
    /// Starts so many engines. They are known to the controller some time later. Without `hearts`, an engine's connection for heartbeats is
    /// closed when it has answered a ping: the controller must be patient then.
    pub(super) fn start(file: &EngineFile, count: usize, result_bytes: usize, hearts: bool) -> anyhow::Result<Farm> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let stop = Arc::new(AtomicBool::new(false));
        let common = &file.common;
        let registration = address(common, common.registration)?;
        let (task_address, pong_address) = (address(common, common.task)?, address(common, file.hb_pong)?);
        let mut ping = Link::connect(address(common, file.hb_ping)?, "SUB", "", poll.registry(), PING)?;
        ping.push([&[1][..]]); // a subscription to everything
        let mut work = Work {
            alarm: Alarm::new(poll.registry(), ALARM)?,
            registration: Link::connect(registration, "DEALER", &fresh_id(), poll.registry(), REGISTRATION)?,
            ping,
            engines: (0..count).map(|_| Engine::new()).collect(),
            asked: 0,
            answered: 0,
            task_address,
            pong_address,
            hearts,
            speaker: Speaker::new(Signer::new(common.key.as_bytes()), fresh_id()),
            sent: 0,
            ends: BTreeMap::new(),
            begun: 0,
            result: vec![b'r'; result_bytes],
            clock: Clock::default(),
            poll,
        };
        let uuids = work.engines.iter().map(|engine| engine.uuid.clone()).collect();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("engines".into()).spawn(move || {
            work.register()?;
            work.serve(&stopped)
        })?;
        Ok(Farm { stop, waker, thread: Some(thread), uuids })
    }

    /// The uuids of its engines.
    pub(super) fn uuids(&self) -> &[String] {
        &self.uuids
    }

    /// Whether its thread has ended, which it does early only with an error.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => match thread.join() {
                Ok(outcome) => outcome.and_then(|()| bail!("the engines have gone")).context("the load's engines"),
                Err(_) => bail!("the thread of the load's engines panicked"),
            },
            None => Ok(()),
        }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(Err(error)) = self.thread.take().and_then(|thread| thread.join().ok()) {
            tracing::debug!("the load's engines ended with: {error:#}");
        }
    }
}

struct Engine {
    uuid: String,
    number: Option<u64>,
    task: Option<Link>,
    pong: Option<Link>,
    /// What it is at, with the date at which it began.
    at_work: Option<(Job, String)>,
    /// What it has been sent and has yet to begin.
    waiting: VecDeque<Job>,
}

impl Engine {
    fn new() -> Engine {
        Engine { uuid: fresh_id(), number: None, task: None, pong: None, at_work: None, waiting: VecDeque::new() }
    }
}

/// A task that is under way or waits for its engine.
struct Job {
    client: Vec<u8>,
    header: Vec<u8>,
    length_ns: u64,
}

struct Work {
    poll: Poll,
    alarm: Alarm,
    registration: Link,
    ping: Link,
    engines: Vec<Engine>,
    /// Registrations that were sent, and answered.
    asked: usize,
    answered: usize,
    task_address: std::net::SocketAddr,
    pong_address: std::net::SocketAddr,
    hearts: bool,
    speaker: Speaker,
    sent: u64,
    /// Engines at work by when they will be done, and by when they began among equals.
    ends: BTreeMap<(Duration, u64), usize>,
    begun: u64,
    result: Vec<u8>,
    clock: Clock,
}

impl Work {
    fn serve(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut tokens = VecDeque::new();
        while !stop.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            tokens.extend(events.iter().map(mio::event::Event::token));
            while let Some(token) = tokens.pop_front() {
                self.attend(token)?;
            }
            self.finish_due()?;
        }
        self.say_goodbye()
    }

    fn attend(&mut self, token: Token) -> anyhow::Result<()> {
        match token {
            WAKER | ALARM => Ok(()),
            REGISTRATION => self.registered().context("registration"),
            PING => self.pinged().context("heartbeat"),
            Token(number) => {
                let at = (number - FIRST_ENGINE) / 2;
                let engine = &mut self.engines[at];
                if (number - FIRST_ENGINE) % 2 == 1 {
                    return engine.pong.as_mut().map_or(Ok(()), |pong| pong.each(|_, _| Ok(())));
                }
                self.requests(at).with_context(|| format!("engine {at}"))
            }
        }
    }

    /// Keeps some registrations under way.
    fn register(&mut self) -> anyhow::Result<()> {
        while self.asked < self.engines.len() && self.asked - self.answered < REGISTER_AHEAD {
            let content = format!(r#"{{"uuid":"{}"}}"#, self.engines[self.asked].uuid);
            self.asked += 1;
            self.sent += 1;
            let parts = [&b"{}"[..], b"{}", content.as_bytes()];
            let out = &mut self.registration.outbox;
            self.speaker.say(out, self.clock.now(), (self.sent, "registration_request"), parts, []);
        }
        Ok(self.registration.flush()?)
    }

    /// Answers come in the order of the questions: one hub has one queue.
    fn registered(&mut self) -> anyhow::Result<()> {
        self.registration.each(|message, _| {
            let content: Value = serde_json::from_slice(message.frame(5)).context("its answer")?;
            let Some(number) = content["id"].as_u64().filter(|_| content["status"] == "ok") else {
                bail!("the controller refuses an engine: {}", content["evalue"]);
            };
            let Some(engine) = self.engines.get_mut(self.answered) else { return Ok(()) };
            let token = FIRST_ENGINE + 2 * self.answered;
            let registry = self.poll.registry();
            engine.number = Some(number);
            // Tasks can come before its first answer to a ping: an engine is known by that.
            engine.task = Some(Link::connect(self.task_address, "ROUTER", &engine.uuid, registry, Token(token))?);
            engine.pong = Some(Link::connect(self.pong_address, "DEALER", &engine.uuid, registry, Token(token + 1))?);
            self.answered += 1;
            Ok(())
        })?;
        self.register()
    }

    fn pinged(&mut self) -> anyhow::Result<()> {
        self.ping.each(|message, _| {
            for engine in &mut self.engines {
                let Some(pong) = &mut engine.pong else { continue };
                pong.push(message.frames());
                pong.flush()?;
                // The last pings of a registration come after its socket is open; one answer is enough then.
                if !self.hearts && pong.inbox.is_ready() && pong.backlog_bytes() == 0 {
                    engine.pong = None;
                }
            }
            Ok(())
        })
    }

    fn requests(&mut self, at: usize) -> anyhow::Result<()> {
        let Some(mut link) = self.engines[at].task.take() else { return Ok(()) };
        let outcome = self.run_requests(at, &mut link);
        self.engines[at].task = Some(link);
        outcome
    }

    fn run_requests(&mut self, at: usize, link: &mut Link) -> anyhow::Result<()> {
        link.each(|message, out| {
            let Some((client, header, length_ns)) = read_request(message, self.speaker.signer()) else { return Ok(()) };
            if length_ns == NEVER_NS {
                return Ok(());
            }
            let now = self.clock.now();
            let engine = &mut self.engines[at];
            let is_idle = engine.at_work.is_none();
            if length_ns == 0 && is_idle {
                let started = self.speaker.date(now).to_owned();
                let to = (&engine.uuid[..], client, &started[..]);
                self.sent += 1;
                answer(&mut self.speaker, out, now, self.sent, to, header, &self.result);
                return Ok(());
            }
            engine.waiting.push_back(Job { client: client.to_vec(), header: header.to_vec(), length_ns });
            if is_idle {
                self.begin(at);
            }
            Ok(())
        })
    }

    /// Lets an engine begin what is next, and stamps that it has. It takes its time from the stamp on, not from when its turn came: an answer
    /// that was sent in between would be taken off it.
    fn begin(&mut self, at: usize) {
        let engine = &mut self.engines[at];
        let Some(job) = engine.waiting.pop_front() else { return };
        let started = self.speaker.exact_date(self.clock.now()).to_owned();
        let now = self.clock.now();
        self.begun += 1;
        self.ends.insert((now + Duration::from_nanos(job.length_ns), self.begun), at);
        engine.at_work = Some((job, started));
    }

    /// Answers what is done by now, lets those engines go on, and sets the alarm for the next end. An engine that is late begins the next task late:
    /// stamps say what happened, and never that it did two things at once.
    fn finish_due(&mut self) -> anyhow::Result<()> {
        loop {
            let now = self.clock.now();
            let Some(entry) = self.ends.first_entry() else { return Ok(()) };
            let due = entry.key().0;
            if due > now {
                return Ok(self.alarm.set(now, due)?);
            }
            let at = entry.remove();
            let engine = &mut self.engines[at];
            let (Some((job, started)), Some(link)) = (engine.at_work.take(), &mut engine.task) else { continue };
            self.sent += 1;
            self.speaker.exact_date(now);
            let to = (&engine.uuid[..], &job.client[..], &started[..]);
            answer(&mut self.speaker, &mut link.outbox, now, self.sent, to, &job.header, &self.result);
            link.flush()?;
            self.begin(at);
        }
    }

    /// Leaves the cluster, as far as the controller still listens.
    fn say_goodbye(&mut self) -> anyhow::Result<()> {
        for engine in &self.engines {
            let Some(number) = engine.number else { continue };
            self.sent += 1;
            let content = format!(r#"{{"id":{number}}}"#);
            let parts = [&b"{}"[..], b"{}", content.as_bytes()];
            self.speaker.say(&mut self.registration.outbox, self.clock.now(), (self.sent, "unregistration_request"), parts, []);
        }
        let until = self.clock.now() + Duration::from_secs(1);
        while self.registration.backlog_bytes() > 0 && self.clock.now() < until {
            self.registration.flush()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Who asked, the header of a genuine request, and how long it takes in nanoseconds.
fn read_request<'m>(message: &Message<'m>, signer: &Signer) -> Option<(&'m [u8], &'m [u8], u64)> {
    let delimiter = find_delimiter(message.frames())?;
    let part = |offset: usize| message.frame(delimiter + offset);
    let parts = [part(2), part(3), part(4), part(5)];
    signer.verify(part(1), parts).ok()?;
    Some((message.frame(0), parts[0], length_ns(part(6 + ARGUMENTS))))
}

/// Writes the answer of an engine to a client, to a request of this header.
fn answer(
    speaker: &mut Speaker,
    out: &mut Vec<u8>,
    now: Duration,
    number: u64,
    (uuid, client, started): (&str, &[u8], &str),
    request_header: &[u8],
    result: &[u8],
) {
    let metadata = format!(
        r#"{{"started":"{started}","dependencies_met":true,"engine":"{uuid}","is_broadcast":false,"is_coalescing":false,"original_msg_id":"","label":null,"status":"ok"}}"#
    );
    push_frame(out, client, true);
    speaker.say(out, now, (number, "apply_reply"), [request_header, metadata.as_bytes(), br#"{"status":"ok"}"#], [result]);
}

/// What a reply says.
pub(super) struct Answered<'m> {
    /// The id of its request.
    pub(super) id: Cow<'m, str>,
    pub(super) status: wire::Status,
    /// How long its engine says that it ran, if that was asked.
    pub(super) ran: Option<Duration>,
}

/// Checks that a reply is genuine and well, and reads it; the run time only `with_run`, as dates take longer than all else.
pub(super) fn read_reply<'m>(message: &Message<'m>, signer: &Signer, with_run: bool) -> Option<Answered<'m>> {
    let delimiter = find_delimiter(message.frames())?;
    let part = |offset: usize| message.frame(delimiter + offset);
    signer.verify(part(1), [part(2), part(3), part(4), part(5)]).ok()?;
    let parent: wire::Parent<'m> = wire::object(part(3)).ok()?;
    let metadata: wire::ReplyMetadata<'_> = wire::object(part(4)).unwrap_or_default();
    let ran = || {
        let began = Date::parse(metadata.started.as_deref()?)?.as_unix_us();
        let ended = wire::Header::parse(part(2)).ok()?.date()?.as_unix_us();
        u64::try_from(ended.checked_sub(began)?).ok().map(Duration::from_micros)
    };
    let ran = if with_run { ran() } else { None };
    Some(Answered { id: parent.msg_id?, status: wire::reply_status(Packer::Json, &metadata, part(5)), ran })
}
