//! The clients of a load, on one thread: they submit by a closed or an open loop and see how long each task takes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use pointsman_core::Signer;
use pointsman_core::connection_file::ClientFile;
use pointsman_core::net::{Clock, fresh_id};
use pointsman_core::wire::Status;
use pointsman_policies::Rng;
use smallvec::SmallVec;

use super::alarm::Alarm;
use super::farm::read_reply;
use super::link::{Link, address};
use super::plan::{Durations, Plan};
use super::report::Ran;
use super::speaker::Speaker;
use super::task::{Buffers, NEVER_NS};
use crate::lab::world::{Ended, Job, Source};

const ALARM: Token = Token(0);
const FIRST_CLIENT: usize = 1;
/// More than this under way in an open loop is a queue that only grows.
const MAX_UNDER_WAY: usize = 2_000_000;
/// Unsent bytes of a client beyond which it composes no more.
const MAX_BACKLOG_BYTES: usize = 4 << 20;
/// Results that nobody sends are waited for so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What has been seen since it was last asked.
pub(super) struct Seen {
    /// Tasks that were answered well.
    pub(super) done: u64,
    /// Tasks that were answered with an error.
    pub(super) failed: u64,
    /// Microseconds from submission, or from when it was due, to the answer.
    pub(super) latency_us: Histogram<u64>,
    /// How long they were to run, and ran.
    pub(super) ran: Ran,
}

impl Seen {
    fn new() -> anyhow::Result<Seen> {
        let latency_us = Histogram::new_with_bounds(1, 3_600_000_000, 3)?;
        Ok(Seen { done: 0, failed: 0, latency_us, ran: Ran::default() })
    }
}

/// How clients submit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many tasks are under way.
    Closed { window: usize },
    /// So many tasks a second come, whatever becomes of them.
    Open { rate: f64 },
}

/// A task without its answer.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    /// When it was sent or due.
    due: Duration,
    length_ns: u64,
}

/// The end of a task, for whoever drives them one by one.
struct End {
    number: u64,
    at: Duration,
    ok: bool,
    ran: Option<Duration>,
}

/// Clients at work.
pub(super) struct Clients {
    poll: Poll,
    events: Events,
    alarm: Alarm,
    links: Vec<Link>,
    speaker: Speaker,
    plan: Plan,
    lengths: Rng,
    graph: Rng,
    gaps: Rng,
    /// Tasks from `first` on, unless they were answered.
    under_way: VecDeque<Option<UnderWay>>,
    first: u64,
    /// The number of the first task of the plan; those before it are blocked.
    base: u64,
    count: usize,
    /// When the next task of an open loop is due.
    due: Duration,
    seen: Seen,
    /// Ends of tasks by number, while somebody wants them.
    ends: Option<Vec<End>>,
    last_answer: Duration,
    metadata: Vec<u8>,
    buffers: Buffers,
    /// Somebody wants it to end.
    stop: Arc<AtomicBool>,
    clock: Clock,
}

impl Clients {
    /// Connects the clients of a plan. All that they do ends with an error soon after `stop` is set.
    pub(super) fn connect(file: &ClientFile, plan: &Plan, stop: &Arc<AtomicBool>) -> anyhow::Result<Clients> {
        let poll = Poll::new()?;
        let to = address(&file.common, file.common.task)?;
        let links = (0..plan.clients)
            .map(|n| Link::connect(to, "DEALER", "", poll.registry(), Token(FIRST_CLIENT + n)))
            .collect::<std::io::Result<_>>()?;
        Ok(Clients {
            alarm: Alarm::new(poll.registry(), ALARM)?,
            events: Events::with_capacity(256),
            links,
            speaker: Speaker::new(Signer::new(file.common.key.as_bytes()), fresh_id()),
            lengths: Rng::stream(plan.seed, "lengths"),
            graph: Rng::stream(plan.seed, "graph"),
            gaps: Rng::stream(plan.seed, "gaps"),
            plan: plan.clone(),
            under_way: VecDeque::new(),
            first: 0,
            base: 0,
            count: 0,
            due: Duration::ZERO,
            seen: Seen::new()?,
            ends: None,
            last_answer: Duration::ZERO,
            metadata: Vec::new(),
            buffers: Buffers::new(plan.payload_bytes),
            stop: stop.clone(),
            clock: Clock::default(),
            poll,
        })
    }

    /// Time since it connected.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// How many tasks it has submitted.
    pub(super) fn submitted(&self) -> u64 {
        self.first + self.under_way.len() as u64
    }

    /// What has been seen since the last call.
    pub(super) fn take_seen(&mut self) -> anyhow::Result<Seen> {
        Ok(std::mem::replace(&mut self.seen, Seen::new()?))
    }

    /// Composes a task of a client: its function and length, numbers of tasks to wait for, engines that it must run on, a label without anything to escape.
    /// Returns its number.
    fn compose(
        &mut self,
        client: usize,
        (function, length_ns): (u64, u64),
        after: &[u64],
        targets: &str,
        label: Option<&str>,
    ) -> u64 {
        use std::io::Write as _;
        let number = self.first + self.under_way.len() as u64;
        let now = self.clock.now();
        self.metadata.clear();
        let (label, quote) = label.map_or(("null", ""), |label| (label, "\""));
        self.metadata.extend_from_slice(br#"{"after":["#);
        for (at, dependency) in after.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(self.metadata, r#"{comma}"{}""#, self.speaker.id(*dependency)); // memory takes everything
        }
        let _ = write!(
            self.metadata,
            r#"],"follow":[],"timeout":0.0,"targets":[{targets}],"retries":0,"label":{quote}{label}{quote},"quiet":true}}"#
        );
        let link = &mut self.links[client];
        let buffers = self.buffers.of(function, length_ns);
        self.speaker.say(&mut link.outbox, now, (number, "apply_request"), [b"{}", &self.metadata, b"{}"], buffers);
        number
    }

    /// Submits a task of the plan.
    fn submit(&mut self, due: Duration) {
        let (function, length) = self.plan.duration.draw(&mut self.lengths);
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(NEVER_NS).min(NEVER_NS - 1);
        let number = self.first + self.under_way.len() as u64;
        // Only on tasks of the same client: another's may come by its connection later than this one.
        let (links, number) = (self.links.len() as u64, number - self.base);
        let (client, own) = (number % links, number / links);
        let mut after = self.plan.after.of(own, &mut self.graph);
        after.iter_mut().for_each(|earlier| *earlier = self.base + *earlier * links + client);
        let label = self.plan.label.take();
        self.compose(client as usize, (function, length_ns), &after, "", label.as_deref());
        self.plan.label = label;
        self.under_way.push_back(Some(UnderWay { due, length_ns }));
        self.count += 1;
    }

    /// Submits tasks that wait for one that never ends, which occupies a place on the engine of this uuid; returns when the controller has
    /// taken them all.
    pub(super) fn block(&mut self, engine: &str, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
        let gate = self.compose(0, (0, NEVER_NS), &[], &format!(r#""{engine}""#), None);
        self.under_way.push_back(None);
        for n in 0..self.plan.blocked {
            self.compose(0, (0, 0), &[gate], "", None); // of the same client, so that it comes later
            self.under_way.push_back(None);
            if n % 64 == 0 {
                self.flush()?;
                progress(n as u64);
                while self.is_backed_up() {
                    self.wait(Duration::from_millis(10))?;
                    self.check_patience()?;
                }
            }
        }
        self.settle_front();
        // What is asked last is answered when all before it has been read.
        self.compose(0, (0, 0), &[], "", None);
        self.under_way.push_back(Some(UnderWay { due: self.clock.now(), length_ns: 0 }));
        self.count += 1;
        self.flush()?;
        self.drain()?;
        self.base = self.first + self.under_way.len() as u64;
        self.take_seen().map(drop)
    }

    /// Goes on until a time, or until so many tasks were answered.
    pub(super) fn drive(
        &mut self,
        pace: Pace,
        until: Duration,
        enough: u64,
        mut look: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let began = self.seen.done;
        self.due = self.clock.now();
        self.last_answer = self.due;
        let mut looked = self.due;
        loop {
            let now = self.clock.now();
            if now >= until || self.seen.done - began >= enough {
                return Ok(());
            }
            if now >= looked + Duration::from_millis(200) {
                looked = now;
                look()?;
                self.check_patience()?;
            }
            match pace {
                Pace::Closed { window } => {
                    while self.count < window && !self.is_backed_up() {
                        self.submit(now);
                    }
                    self.flush()?;
                    self.wait((until - now).min(Duration::from_millis(200)))?;
                }
                Pace::Open { rate } => {
                    while self.due <= now {
                        let due = self.due;
                        self.submit(due);
                        let gap_s = -(1.0 - self.gaps.unit()).ln() / rate;
                        self.due += Duration::from_secs_f64(gap_s.min(1e6));
                    }
                    if self.count > MAX_UNDER_WAY {
                        bail!(
                            "{} tasks are under way, and ever more: the controller does not keep up with this rate",
                            self.count
                        );
                    }
                    self.flush()?;
                    self.alarm.set(now, self.due.min(until))?;
                    self.wait(Duration::from_millis(200))?;
                }
            }
        }
    }

    /// Submits the jobs of a source at their moments, until it has no more and all have ended. A second of the source takes `unit_s`; `watch` sees
    /// each end in the source's time.
    pub(super) fn drive_source(
        &mut self,
        source: &mut dyn Source,
        unit_s: f64,
        watch: &mut dyn FnMut(&Ended),
        mut look: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let from = self.clock.now();
        let base = self.first + self.under_way.len() as u64;
        let mut jobs: HashMap<u64, Job> = HashMap::new();
        let mut submitted = 0;
        self.ends = Some(Vec::new());
        self.last_answer = from;
        let mut looked = from;
        loop {
            let now = self.clock.now();
            let virtual_ns = |at: Duration| ((at - from).as_nanos() as f64 / unit_s) as u64;
            while source.next_at().is_some_and(|at| at <= virtual_ns(now)) && !self.is_backed_up() {
                let job = source.take();
                let after: SmallVec<[u64; 4]> = job.after.iter().map(|number| base + number).collect();
                let client = job.client as usize % self.links.len();
                let length_ns = ((job.work_ns as f64 * unit_s) as u64).min(NEVER_NS - 1);
                self.compose(client, (job.class, length_ns), &after, "", job.label_at(unit_s).as_deref());
                let due = from + Duration::from_nanos((job.at_ns as f64 * unit_s) as u64);
                self.under_way.push_back(Some(UnderWay { due, length_ns }));
                self.count += 1;
                jobs.insert(submitted, job);
                submitted += 1;
            }
            self.flush()?;
            for End { number, at, ok, ran } in self.ends.replace(Vec::new()).unwrap_or_default() {
                let Some(job) = number.checked_sub(base).and_then(|number| jobs.remove(&number)) else { continue };
                let ended_ns = virtual_ns(at).max(job.at_ns);
                let ran_ns = ran.map_or(job.work_ns, |ran| (ran.as_nanos() as f64 / unit_s) as u64);
                let ended = Ended {
                    number: number - base,
                    class: job.class,
                    client: job.client,
                    at_ns: job.at_ns,
                    // The way back is short beside the task, or there is little to be learned from it.
                    started_ns: ended_ns.saturating_sub(ran_ns).max(job.at_ns),
                    ended_ns,
                    work_ns: job.work_ns,
                    engine: None,
                    ok,
                };
                source.ended(&ended);
                watch(&ended);
            }
            if now >= looked + Duration::from_millis(200) {
                looked = now;
                look()?;
                self.check_patience()?;
            }
            match source.next_at() {
                None if self.count == 0 => break,
                None => self.wait(Duration::from_millis(100))?,
                Some(at) => {
                    let due = from + Duration::from_nanos((at as f64 * unit_s) as u64);
                    if due > now {
                        self.alarm.set(now, due)?;
                        self.wait(Duration::from_millis(200))?;
                    } else {
                        self.wait(Duration::ZERO)?;
                    }
                }
            }
        }
        self.ends = None;
        Ok(())
    }

    /// Waits until nothing is under way.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        self.last_answer = self.clock.now();
        while self.count > 0 {
            self.wait(Duration::from_millis(100))?;
            self.check_patience()?;
        }
        Ok(())
    }

    fn check_patience(&self) -> anyhow::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if self.count > 0 && self.clock.now() > self.last_answer + PATIENCE {
            bail!("no answer for {PATIENCE:?}, and {} tasks are under way", self.count);
        }
        Ok(())
    }

    fn is_backed_up(&self) -> bool {
        self.links.iter().any(|link| link.backlog_bytes() > MAX_BACKLOG_BYTES)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.links.iter_mut().try_for_each(Link::flush).context("a client")
    }

    /// Waits for something to happen, and sees what has.
    fn wait(&mut self, timeout: Duration) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        let tokens: smallvec::SmallVec<[usize; 8]> = self.events.iter().map(|event| event.token().0).collect();
        for token in tokens {
            if let Some(at) = token.checked_sub(FIRST_CLIENT) {
                self.answers(at).with_context(|| format!("client {at}"))?;
            }
        }
        Ok(())
    }

    fn answers(&mut self, at: usize) -> anyhow::Result<()> {
        // Tasks of no length run for as long as it takes to answer them; nobody wants to know.
        let with_run = self.ends.is_some() || self.plan.duration != Durations::Zero;
        self.links[at].each(|message, _| {
            let Some(answered) = read_reply(message, self.speaker.signer(), with_run) else { return Ok(()) };
            let Some(number) = self.speaker.number(&answered.id) else { return Ok(()) };
            let slot = number.checked_sub(self.first).and_then(|at| self.under_way.get_mut(at as usize));
            let Some(UnderWay { due, length_ns }) = slot.and_then(Option::take) else { return Ok(()) };
            let is_ok = answered.status == Status::Ok;
            let now = self.clock.now();
            self.last_answer = now;
            self.count -= 1;
            self.seen.latency_us.saturating_record((now.saturating_sub(due).as_micros() as u64).max(1));
            *(if is_ok { &mut self.seen.done } else { &mut self.seen.failed }) += 1;
            if let Some(ran) = answered.ran.filter(|_| is_ok && length_ns > 0) {
                self.seen.ran.add(length_ns as f64 / 1e9, ran.as_secs_f64());
            }
            if let Some(ends) = &mut self.ends {
                ends.push(End { number, at: now, ok: is_ok, ran: answered.ran });
            }
            Ok(())
        })?;
        self.settle_front();
        Ok(())
    }

    fn settle_front(&mut self) {
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
    }
}
