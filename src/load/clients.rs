//! The clients of a load, on one thread: they submit by a closed or an open loop and see how long each task takes.

use std::collections::{HashMap, VecDeque};
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
use super::farm::{NEVER_NS, read_reply};
use super::link::{Link, address};
use super::plan::Plan;
use super::speaker::Speaker;
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
}

impl Seen {
    fn new() -> anyhow::Result<Seen> {
        Ok(Seen { done: 0, failed: 0, latency_us: Histogram::new_with_bounds(1, 3_600_000_000, 3)? })
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
    /// For tasks from `first` on: when it was sent or due, unless it was answered.
    under_way: VecDeque<Option<Duration>>,
    first: u64,
    /// The number of the first task of the plan; those before it are blocked.
    base: u64,
    count: usize,
    /// When the next task of an open loop is due.
    due: Duration,
    seen: Seen,
    /// Ends of tasks by number, while somebody wants them.
    ends: Option<Vec<(u64, Duration, bool)>>,
    last_answer: Duration,
    metadata: Vec<u8>,
    buffers: [Vec<u8>; 3],
    clock: Clock,
}

impl Clients {
    /// Connects the clients of a plan.
    pub(super) fn connect(file: &ClientFile, plan: &Plan) -> anyhow::Result<Clients> {
        let poll = Poll::new()?;
        let to = address(&file.common, file.common.task)?;
        let links = (0..plan.clients)
            .map(|n| Link::connect(to, "DEALER", "", poll.registry(), Token(FIRST_CLIENT + n)))
            .collect::<std::io::Result<_>>()?;
        let mut buffers = [0; 3].map(|_| vec![b'x'; plan.payload_bytes / 3]);
        buffers[0].resize(buffers[0].len().max(8), 0);
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
            buffers,
            clock: Clock::default(),
            poll,
        })
    }

    /// Time since it connected.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// What has been seen since the last call.
    pub(super) fn take_seen(&mut self) -> anyhow::Result<Seen> {
        Ok(std::mem::replace(&mut self.seen, Seen::new()?))
    }

    /// Composes a task of a client: its length, numbers of tasks to wait for, engines that it must run on, a label without anything to escape. Returns its
    /// number.
    fn compose(&mut self, client: usize, length_ns: u64, after: &[u64], targets: &str, label: Option<&str>) -> u64 {
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
        self.buffers[0][..8].copy_from_slice(&length_ns.to_le_bytes());
        let link = &mut self.links[client];
        let buffers = self.buffers.iter().map(Vec::as_slice);
        self.speaker.say(&mut link.outbox, now, (number, "apply_request"), [b"{}", &self.metadata, b"{}"], buffers);
        number
    }

    /// Submits a task of the plan.
    fn submit(&mut self, due: Duration) {
        let length = self.plan.duration.draw(&mut self.lengths);
        let number = self.first + self.under_way.len() as u64;
        // Only on tasks of the same client: another's may come by its connection later than this one.
        let (links, number) = (self.links.len() as u64, number - self.base);
        let (client, own) = (number % links, number / links);
        let mut after = self.plan.after.of(own, &mut self.graph);
        after.iter_mut().for_each(|earlier| *earlier = self.base + *earlier * links + client);
        self.compose(client as usize, u64::try_from(length.as_nanos()).unwrap_or(NEVER_NS - 1), &after, "", None);
        self.under_way.push_back(Some(due));
        self.count += 1;
    }

    /// Submits tasks that wait for one that never ends, which occupies a place on the engine of this uuid; returns when the controller has
    /// taken them all.
    pub(super) fn block(&mut self, engine: &str, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
        let gate = self.compose(0, NEVER_NS, &[], &format!(r#""{engine}""#), None);
        self.under_way.push_back(None);
        for n in 0..self.plan.blocked {
            self.compose(0, 0, &[gate], "", None); // of the same client, so that it comes later
            self.under_way.push_back(None);
            if n % 64 == 0 {
                self.flush()?;
                progress(n as u64);
                while self.is_backed_up() {
                    self.wait(Duration::from_millis(10))?;
                }
            }
        }
        self.settle_front();
        // What is asked last is answered when all before it has been read.
        self.compose(0, 0, &[], "", None);
        self.under_way.push_back(Some(self.clock.now()));
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
                let label = job.hints.cost_s.map(|cost_s| format!("#cost={}", cost_s * unit_s));
                let client = job.client as usize % self.links.len();
                let length_ns = (job.work_ns as f64 * unit_s) as u64;
                self.compose(client, length_ns.min(NEVER_NS - 1), &after, "", label.as_deref());
                let due = from + Duration::from_nanos((job.at_ns as f64 * unit_s) as u64);
                self.under_way.push_back(Some(due));
                self.count += 1;
                jobs.insert(submitted, job);
                submitted += 1;
            }
            self.flush()?;
            for (number, at, ok) in self.ends.replace(Vec::new()).unwrap_or_default() {
                let Some(job) = number.checked_sub(base).and_then(|number| jobs.remove(&number)) else { continue };
                let ended_ns = virtual_ns(at).max(job.at_ns);
                let ended = Ended {
                    number: number - base,
                    class: job.class,
                    client: job.client,
                    at_ns: job.at_ns,
                    // The way back is short beside the task, or there is little to be learned from it.
                    started_ns: ended_ns.saturating_sub(job.work_ns).max(job.at_ns),
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
        self.links[at].each(|message, _| {
            let Some((id, status)) = read_reply(message, self.speaker.signer()) else { return Ok(()) };
            let Some(number) = self.speaker.number(&id) else { return Ok(()) };
            let slot = number.checked_sub(self.first).and_then(|at| self.under_way.get_mut(at as usize));
            let Some(due) = slot.and_then(Option::take) else { return Ok(()) };
            let now = self.clock.now();
            self.last_answer = now;
            self.count -= 1;
            self.seen.latency_us.saturating_record((now.saturating_sub(due).as_micros() as u64).max(1));
            *(if status == Status::Ok { &mut self.seen.done } else { &mut self.seen.failed }) += 1;
            if let Some(ends) = &mut self.ends {
                ends.push((number, now, status == Status::Ok));
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
