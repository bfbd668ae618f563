//! The thread that owns the task records, so that a slow, locked or unreachable store delays nobody: work waits in a bounded mailbox and is
//! done when the store can be had again. What does not fit is counted and said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::driver::HubInput;
use super::machine::DbCall;
use crate::db::{AgeClock, DbError, Patch, Retention, TaskDb};
use crate::net::{Clock, Complaints, Mailbox, Outbox, Tally};

/// What has been merged is committed with the batch that brought it, so that the end of this process takes little with it. But after a
/// commit so many times as long goes to other work, at most this long: the more a commit has to do, the fewer of them there are.
const COMMIT_SHARE: u32 = 4;
const COMMIT_WITHIN: Duration = Duration::from_millis(25);
/// How long updates gather before the next look, so that this thread is not woken for each.
const GATHER_MS: i64 = 3;
/// How often a store that can not be had is tried.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often retention is looked at, and how much it removes at once.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
const EXPIRE_AT_ONCE: usize = 1000;
/// Work taken from the mailbox at once: what waits shall wait there, where it is counted.
const BATCH: usize = 1024;
/// How long the last records may take once the process shall end. Whoever waits for the hub's end waits longer.
pub const CLOSE_WITHIN: Duration = Duration::from_millis(2500);

/// How long questions wait for a store that can not be had, before they are answered with that.
const ANSWER_AFTER: Duration = Duration::from_secs(5);

pub(super) enum Job {
    Merge {
        id: String,
        patch: Patch,
        create: bool,
    },
    /// The question of this number has its turn.
    Call(u64),
    /// Look up: the end has been announced.
    Wake,
}

/// Questions to the store, and the announcement of the end. They stand apart from the queue, so that none has to wait behind updates that can
/// not be made.
#[derive(Clone, Default)]
pub(super) struct Calls {
    waiting: Arc<Mutex<BTreeMap<u64, DbCall>>>,
    is_closing: Arc<AtomicBool>,
}

impl Calls {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, DbCall>) -> T) -> T {
        work(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Announces the end, before [`Job::Wake`].
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Adds one, before its turn is in the queue.
    pub(super) fn insert(&self, number: u64, call: DbCall) {
        self.with(|calls| calls.insert(number, call));
    }

    /// Takes one out, if nobody has.
    pub(super) fn take(&self, number: u64) -> Option<DbCall> {
        self.with(|calls| calls.remove(&number))
    }

    fn take_all(&self) -> BTreeMap<u64, DbCall> {
        self.with(std::mem::take)
    }
}

/// A store to open on the thread that will own it, and what to keep in it.
pub struct Records {
    /// The store.
    pub db: Box<dyn TaskDb>,
    /// Which completed records are dropped when.
    pub retention: Vec<Retention>,
}

impl From<Box<dyn TaskDb>> for Records {
    fn from(db: Box<dyn TaskDb>) -> Self {
        Records { db, retention: Vec::new() }
    }
}

/// Records that are not written, or not in full, at the end of a store's thread.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// How many, those included that were lost before.
    pub(super) records: u64,
    /// Why the last of them were not.
    pub(super) reason: String,
}

/// How long it is waited for a store that can not be had.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// By questions.
    answer_after: Duration,
    /// By the end.
    close_within: Duration,
}

/// Starts the thread. It ends after [`Calls::close`], when all that was sent before is written or the patience is over, and says what is not.
pub(super) fn start(
    records: Records,
    jobs: Mailbox<Job>,
    calls: Calls,
    replies: Outbox<HubInput>,
    tally: &Tally,
) -> std::io::Result<JoinHandle<Unwritten>> {
    let patience = Patience { answer_after: ANSWER_AFTER, close_within: CLOSE_WITHIN };
    start_patient(records, jobs, calls, replies, tally, patience)
}

fn start_patient(
    records: Records,
    jobs: Mailbox<Job>,
    calls: Calls,
    replies: Outbox<HubInput>,
    tally: &Tally,
    patience: Patience,
) -> std::io::Result<JoinHandle<Unwritten>> {
    let complaints = Complaints::new("records", tally);
    std::thread::Builder::new().name("records".into()).spawn(move || {
        let keeper = Keeper {
            db: records.db,
            rules: records.retention,
            calls,
            replies,
            patience,
            clock: Clock::default(),
            complaints,
            taken: VecDeque::new(),
            commit_at: None,
            commit_not_before: Duration::ZERO,
            retry_at: None,
            away_since: None,
            away_why: String::new(),
            lost: 0,
            gathers: false,
            ages: AgeClock::new(Clock::date()),
            expire_at: EXPIRE_EVERY / 10,
            removed: 0,
            close_by: None,
        };
        keeper.run(&jobs)
    })
}

struct Keeper {
    db: Box<dyn TaskDb>,
    rules: Vec<Retention>,
    calls: Calls,
    replies: Outbox<HubInput>,
    patience: Patience,
    clock: Clock,
    complaints: Complaints,
    taken: VecDeque<Job>,
    commit_at: Option<Duration>,
    commit_not_before: Duration,
    retry_at: Option<Duration>,
    /// Since when the store can not be had, and why.
    away_since: Option<Duration>,
    away_why: String,
    /// Updates that the store could not take for their own sake.
    lost: u64,
    /// By which records age.
    ages: AgeClock,
    /// Updates have just been made, and more are likely to come.
    gathers: bool,
    expire_at: Duration,
    removed: usize,
    close_by: Option<Duration>,
}

impl Keeper {
    fn run(mut self, jobs: &Mailbox<Job>) -> Unwritten {
        let mut batch = Vec::new();
        loop {
            self.sleep(jobs);
            if self.taken.len() < BATCH {
                jobs.take(BATCH, &mut batch);
                self.taken.extend(batch.drain(..));
            }
            if self.close_by.is_none() && self.calls.is_closing.load(Ordering::Acquire) {
                self.close_by = Some(self.clock.now() + self.patience.close_within);
            }
            self.retry_at = None;
            self.work();
            let now = self.clock.now();
            if self.retry_at.is_none() && (self.close_by.is_some() || self.commit_at.is_some_and(|at| at <= now)) {
                self.commit();
            }
            if let Some(close_by) = self.close_by {
                let is_done = self.taken.is_empty() && jobs.is_empty() && self.commit_at.is_none();
                if is_done || self.clock.now() >= close_by {
                    return self.unwritten(jobs);
                }
            } else if !self.rules.is_empty() && self.retry_at.is_none() && now >= self.expire_at {
                self.expire();
            }
        }
    }

    /// Until there is work, or until it is time to go on with what there is.
    fn sleep(&mut self, jobs: &Mailbox<Job>) {
        let now = self.clock.now();
        let until = |at: Duration| at.saturating_sub(now).as_millis() as i64 + 1;
        let outcome = if let Some(at) = self.retry_at {
            zmq::poll(&mut [], until(at)) // not the mailbox: it may be full
        } else if !self.taken.is_empty() {
            Ok(0)
        } else if std::mem::take(&mut self.gathers) && self.close_by.is_none() {
            zmq::poll(&mut [], GATHER_MS)
        } else {
            let expiry = Some(self.expire_at).filter(|_| !self.rules.is_empty());
            let wait_ms = [self.commit_at, expiry, self.close_by].into_iter().flatten().min().map_or(-1, until);
            zmq::poll(&mut [zmq::PollItem::from_fd(jobs.fd(), zmq::POLLIN)], wait_ms)
        };
        // An interrupted sleep is a short one.
        let _ = outcome;
    }

    /// What is left of all that was to be written.
    fn unwritten(mut self, jobs: &Mailbox<Job>) -> Unwritten {
        let mut rest = Vec::new();
        jobs.take(usize::MAX, &mut rest);
        let ids = self.taken.iter().chain(&rest).filter_map(|job| match job {
            Job::Merge { id, .. } => Some(id.as_str()),
            Job::Call(_) | Job::Wake => None,
        });
        let in_db = self.db.unwritten();
        let missing: BTreeSet<&str> = ids.chain(in_db.iter().map(|id| &**id)).collect();
        let records = missing.len() as u64;
        if records > 0 {
            self.complaints.note_many(
                self.clock.now(),
                "a record is not written",
                records,
                format_args!("at the end: {}", self.away_why),
            );
        }
        Unwritten { records: records + self.lost, reason: self.away_why }
    }

    /// Does what has been taken, in order, until the store can not be had.
    fn work(&mut self) {
        while let Some(job) = self.taken.front() {
            match job {
                Job::Merge { id, patch, create } => match self.db.merge(id, patch, *create) {
                    Ok(()) => {
                        self.gathers = true;
                        self.has_changed();
                    }
                    Err(DbError::Busy(reason)) => return self.wait(&reason),
                    Err(error) => {
                        self.lost += 1;
                        self.complaints.note(self.clock.now(), "an update is lost", error);
                    }
                },
                Job::Call(number) => {
                    let number = *number;
                    if let Some(call) = self.calls.take(number) {
                        match call.perform(&mut *self.db) {
                            // It keeps its turn until the patience with the store is over.
                            Err(DbError::Busy(reason)) => {
                                self.calls.insert(number, call);
                                return self.wait(&reason);
                            }
                            reply => {
                                self.is_there();
                                self.replies.send_always(HubInput::Db(number, reply));
                            }
                        }
                        self.tell_troubles();
                        self.has_changed(); // by a removal
                    }
                }
                Job::Wake => {}
            }
            self.taken.pop_front();
        }
    }

    /// The store has something to commit.
    fn has_changed(&mut self) {
        self.commit_at = self.commit_at.or(Some(self.commit_not_before));
    }

    /// The store has done what it does not do while it can not be had.
    fn is_there(&mut self) {
        if let Some(since) = self.away_since.take() {
            tracing::info!("records: the store can be had again, after {:.1} s", (self.clock.now() - since).as_secs_f64());
        }
    }

    fn tell_troubles(&mut self) {
        for trouble in self.db.troubles() {
            if trouble.lost > 0 {
                self.lost += trouble.lost;
                self.away_why.clone_from(&trouble.detail);
            }
            self.complaints.note_many(self.clock.now(), trouble.kind, trouble.count, trouble.detail);
        }
    }

    fn wait(&mut self, reason: &str) {
        let now = self.clock.now();
        self.retry_at = Some(now + RETRY_AFTER);
        self.tell_troubles();
        self.complaints.note(now, "the store can not be had, updates wait", reason);
        reason.clone_into(&mut self.away_why);
        if now.saturating_sub(*self.away_since.get_or_insert(now)) >= self.patience.answer_after {
            for number in self.calls.take_all().into_keys() {
                self.replies.send_always(HubInput::Db(number, Err(DbError::Busy(reason.to_owned()))));
            }
        }
    }

    fn commit(&mut self) {
        let began = self.clock.now();
        let outcome = self.db.flush();
        self.tell_troubles();
        let now = self.clock.now();
        self.commit_not_before = now + pause_after(now - began);
        match outcome {
            Ok(()) => {
                self.commit_at = None;
                self.is_there();
            }
            Err(DbError::Busy(reason)) => self.wait(&reason),
            Err(error) => {
                self.complaints.note(now, "could not commit all", error);
                self.commit_at = Some(now + RETRY_AFTER);
            }
        }
    }

    fn expire(&mut self) {
        let began = self.clock.now();
        let (date, step_s) = self.ages.read(Clock::date(), began);
        if let Some(step_s) = step_s {
            let detail = format_args!(
                "by {step_s} s against the time that has passed: records age by the slower of both until they agree again or the controller is \
                 started anew"
            );
            self.complaints.note(began, "the wall clock was set", detail);
        }
        let outcome = self.db.expire(&self.rules, date, EXPIRE_AT_ONCE);
        let now = self.clock.now();
        // At most a twentieth of the time goes into it, however large the store is.
        self.expire_at = now + EXPIRE_EVERY.max((now - began) * 20);
        match outcome {
            Ok(EXPIRE_AT_ONCE) => {
                self.removed += EXPIRE_AT_ONCE;
                self.expire_at = now + (now - began); // there may be more, after what clients want
            }
            Ok(more) => {
                let removed = std::mem::take(&mut self.removed) + more;
                if removed > 0 {
                    tracing::info!("{removed} task records have expired");
                    self.commit();
                    if let Err(error) = self.db.compact() {
                        self.complaints.note(now, "could not compact", error);
                    }
                }
            }
            Err(error) => self.complaints.note(now, "could not remove expired records", error),
        }
    }
}

/// How long after a commit the next one waits, by how long it took.
fn pause_after(commit: Duration) -> Duration {
    commit.saturating_mul(COMMIT_SHARE).min(COMMIT_WITHIN)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::db::{Ended, Key, Keys, MemoryDb, Query, Record};
    use crate::hub::{DbCall, DbReply};

    /// Records in memory, which can not be had so many times, and then again.
    struct Moody {
        db: MemoryDb,
        refusals: Arc<AtomicUsize>,
        merged: Vec<Box<str>>,
        flushed: Arc<AtomicUsize>,
    }

    impl Moody {
        fn mood(&self) -> Result<(), DbError> {
            let one_less = |left: usize| left.checked_sub(1);
            match self.refusals.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) {
                Ok(_) => Err(DbError::Busy("disk full".into())),
                Err(_) => Ok(()),
            }
        }
    }

    impl TaskDb for Moody {
        fn merge(&mut self, id: &str, patch: &Patch, create: bool) -> Result<(), DbError> {
            self.merged.push(id.into());
            self.db.merge(id, patch, create)
        }
        fn get(&mut self, id: &str) -> Result<Option<Record>, DbError> {
            self.mood()?;
            self.db.get(id)
        }
        fn find(&mut self, query: &Query, keys: &Keys) -> Result<Vec<Record>, DbError> {
            self.db.find(query, keys)
        }
        fn history(&mut self) -> Result<Vec<String>, DbError> {
            self.mood()?;
            self.db.history()
        }
        fn remove(&mut self, ids: &[String]) -> Result<(), DbError> {
            self.db.remove(ids)
        }
        fn ended(&mut self, with_bytes: bool) -> Result<Vec<Ended>, DbError> {
            self.db.ended(with_bytes)
        }
        fn flush(&mut self) -> Result<(), DbError> {
            self.mood()?;
            self.flushed.fetch_add(self.merged.len(), Ordering::AcqRel);
            self.merged.clear();
            Ok(())
        }
        fn unwritten(&self) -> Vec<Box<str>> {
            self.merged.clone()
        }
    }

    struct World {
        jobs: Outbox<Job>,
        calls: Calls,
        replies: Mailbox<HubInput>,
        refusals: Arc<AtomicUsize>,
        flushed: Arc<AtomicUsize>,
        tally: Tally,
        thread: JoinHandle<Unwritten>,
    }

    fn world(refusals: usize, answer_after: Duration) -> World {
        let (jobs, mailbox) = Mailbox::new(1000, 1 << 20).unwrap();
        let (outbox, replies) = Mailbox::new(1000, 1 << 20).unwrap();
        let (refusals, flushed) = (Arc::new(AtomicUsize::new(refusals)), Arc::new(AtomicUsize::new(0)));
        let db = Moody { db: MemoryDb::default(), refusals: refusals.clone(), merged: Vec::new(), flushed: flushed.clone() };
        let (calls, tally) = (Calls::default(), Tally::default());
        let records = Records::from(Box::new(db) as Box<dyn TaskDb>);
        let patience = Patience { answer_after, close_within: Duration::from_millis(200) };
        let thread = start_patient(records, mailbox, calls.clone(), outbox, &tally, patience).unwrap();
        World { jobs, calls, replies, refusals, flushed, tally, thread }
    }

    impl World {
        fn merge(&self, id: &str) {
            let patch = Patch::default().text(Key::Submitted, "2026-11-21T03:00:00Z");
            self.jobs.send_always(Job::Merge { id: id.into(), patch, create: true });
        }

        fn ask(&self) -> Result<DbReply, DbError> {
            self.calls.insert(1, DbCall::History);
            self.jobs.send_always(Job::Call(1));
            let mut got = Vec::new();
            while got.is_empty() {
                let _ = zmq::poll(
                    &mut [zmq::PollItem::from_fd(std::os::fd::AsRawFd::as_raw_fd(&self.replies.fd()), zmq::POLLIN)],
                    -1,
                );
                self.replies.take(1, &mut got);
            }
            match got.pop() {
                Some(HubInput::Db(1, reply)) => reply,
                other => panic!("{other:?}"),
            }
        }

        fn end(self) -> Unwritten {
            self.calls.close();
            self.jobs.send_always(Job::Wake);
            self.thread.join().unwrap()
        }
    }

    #[test]
    fn a_question_waits_for_a_store_that_can_not_be_had_and_is_answered_when_it_can() {
        let world = world(3, Duration::from_secs(3600));
        world.merge("a");
        let reply = world.ask();
        assert!(matches!(&reply, Ok(DbReply::Ids(ids)) if ids == &["a"]), "{reply:?}");
        assert_eq!(world.end().records, 0);
    }

    #[test]
    fn a_question_is_answered_with_the_reason_when_the_store_can_not_be_had_for_long() {
        let world = world(usize::MAX, Duration::from_millis(300));
        world.merge("a");
        let reply = world.ask();
        assert!(matches!(&reply, Err(DbError::Busy(why)) if why == "disk full"), "{reply:?}");
        world.refusals.store(0, Ordering::Release);
        assert!(world.ask().is_ok(), "and the next one as before");
        assert_eq!(world.end().records, 0);
    }

    #[test]
    fn what_is_not_written_in_the_end_is_counted_by_record_with_the_reason() {
        let world = world(usize::MAX, Duration::from_millis(300));
        for id in ["a", "b", "a", "c"] {
            world.merge(id);
        }
        let tally = world.tally.clone();
        let unwritten = world.end();
        assert_eq!((unwritten.records, &*unwritten.reason), (3, "disk full"));
        assert!(tally.counts().contains(&("records", "a record is not written", 3)), "{:?}", tally.counts());
    }

    #[test]
    fn updates_are_committed_with_the_batch_that_brings_them() {
        let world = world(0, ANSWER_AFTER);
        for n in 1..=20 {
            world.merge("a");
            while world.flushed.load(Ordering::Acquire) < n {
                std::thread::yield_now();
            }
        }
        assert_eq!(world.end().records, 0);
        assert_eq!(pause_after(Duration::from_micros(500)), Duration::from_millis(2));
        assert_eq!(
            pause_after(Duration::from_secs(10)),
            Duration::from_millis(25),
            "however slow the store, little waits for it alone"
        );
    }
}
