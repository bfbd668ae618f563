//! The thread that owns the task records, so that a slow, locked or unreachable store delays nobody: work waits in a bounded mailbox and is
//! done when the store can be had again. What does not fit is counted and said.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::driver::HubInput;
use super::machine::DbCall;
use crate::db::{DbError, Patch, Retention, TaskDb};
use crate::net::{Clock, Complaints, Mailbox, Outbox, Tally};

/// How long merged records may wait for their commit.
const COMMIT_AFTER: Duration = Duration::from_millis(500);
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

/// Starts the thread. It ends after [`Calls::close`], when all that was sent before is durable or the patience is over.
pub(super) fn start(
    records: Records,
    jobs: Mailbox<Job>,
    calls: Calls,
    replies: Outbox<HubInput>,
    tally: &Tally,
) -> std::io::Result<JoinHandle<()>> {
    let complaints = Complaints::new("records", tally);
    std::thread::Builder::new().name("records".into()).spawn(move || {
        let keeper = Keeper {
            db: records.db,
            rules: records.retention,
            calls,
            replies,
            clock: Clock::default(),
            complaints,
            taken: VecDeque::new(),
            commit_at: None,
            retry_at: None,
            away_since: None,
            gathers: false,
            expire_at: EXPIRE_EVERY / 10,
            removed: 0,
            close_by: None,
        };
        keeper.run(&jobs);
    })
}

struct Keeper {
    db: Box<dyn TaskDb>,
    rules: Vec<Retention>,
    calls: Calls,
    replies: Outbox<HubInput>,
    clock: Clock,
    complaints: Complaints,
    taken: VecDeque<Job>,
    commit_at: Option<Duration>,
    retry_at: Option<Duration>,
    /// Since when the store can not be had.
    away_since: Option<Duration>,
    /// Updates have just been made, and more are likely to come.
    gathers: bool,
    expire_at: Duration,
    removed: usize,
    close_by: Option<Duration>,
}

impl Keeper {
    fn run(mut self, jobs: &Mailbox<Job>) {
        let mut batch = Vec::new();
        loop {
            self.sleep(jobs);
            if self.taken.len() < BATCH {
                jobs.take(BATCH, &mut batch);
                self.taken.extend(batch.drain(..));
            }
            if self.close_by.is_none() && self.calls.is_closing.load(Ordering::Acquire) {
                self.close_by = Some(self.clock.now() + CLOSE_WITHIN);
            }
            self.retry_at = None;
            self.work();
            let now = self.clock.now();
            if self.retry_at.is_none() && (self.close_by.is_some() || self.commit_at.is_some_and(|at| at <= now)) {
                self.commit();
            }
            if let Some(close_by) = self.close_by {
                let waiting = self.taken.len() + jobs.len();
                if waiting == 0 && self.commit_at.is_none() {
                    return;
                }
                if self.clock.now() >= close_by {
                    tracing::error!("{waiting} updates of task records are lost: the store did not take them in time");
                    return;
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
                    Err(error) => self.complaints.note(self.clock.now(), "an update is lost", error),
                },
                Job::Call(number) => {
                    if let Some(call) = self.calls.take(*number) {
                        let reply = call.perform(&mut *self.db);
                        let busy = if let Err(DbError::Busy(reason)) = &reply { Some(reason.clone()) } else { None };
                        self.replies.send_always(HubInput::Db(*number, reply));
                        if let Some(reason) = busy {
                            self.taken.pop_front();
                            return self.wait(&reason);
                        }
                        self.has_changed(); // by a removal
                    }
                }
                Job::Wake => {}
            }
            self.taken.pop_front();
        }
    }

    /// The store has done something, which is to be committed.
    fn has_changed(&mut self) {
        self.away_since = None;
        self.commit_at = self.commit_at.or(Some(self.clock.now() + COMMIT_AFTER));
    }

    fn wait(&mut self, reason: &str) {
        let now = self.clock.now();
        self.retry_at = Some(now + RETRY_AFTER);
        self.complaints.note(now, "the store can not be had, updates wait", reason);
        if now.saturating_sub(*self.away_since.get_or_insert(now)) >= ANSWER_AFTER {
            for number in self.calls.take_all().into_keys() {
                self.replies.send_always(HubInput::Db(number, Err(DbError::Busy(reason.to_owned()))));
            }
        }
    }

    fn commit(&mut self) {
        match self.db.flush() {
            Ok(()) => (self.commit_at, self.away_since) = (None, None),
            Err(DbError::Busy(reason)) => self.wait(&reason),
            Err(error) => {
                let now = self.clock.now();
                self.complaints.note(now, "could not commit all", error);
                self.commit_at = Some(now + COMMIT_AFTER);
            }
        }
    }

    fn expire(&mut self) {
        let began = self.clock.now();
        let outcome = self.db.expire(&self.rules, Clock::date(), EXPIRE_AT_ONCE);
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
