//! The thread that owns the task records, so that a slow or locked store delays nobody: work waits in a bounded mailbox, and what does
//! not fit is counted and said.

use std::thread::JoinHandle;
use std::time::Duration;

use super::driver::HubInput;
use super::machine::{DbCall, DbReply};
use crate::db::{DbError, Patch, TaskDb};
use crate::net::{Clock, Complaints, Mailbox, Outbox};

/// How long merged records may wait for their commit.
const COMMIT_AFTER: Duration = Duration::from_millis(500);

pub(super) enum Job {
    Merge { id: String, patch: Patch, create: bool },
    Call(u64, DbCall),
    Close,
}

/// Starts the thread. It ends at [`Job::Close`], after everything before it is durable.
pub(super) fn start(mut db: Box<dyn TaskDb>, jobs: Mailbox<Job>, replies: Outbox<HubInput>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("records".into()).spawn(move || {
        let clock = Clock::default();
        let mut complaints = Complaints::new("records");
        let mut batch = Vec::new();
        let mut commit_at: Option<Duration> = None;
        loop {
            let wait_ms = commit_at.map_or(-1, |at| at.saturating_sub(clock.now()).as_millis() as i64 + 1);
            let _ = zmq::poll(&mut [zmq::PollItem::from_fd(jobs.fd(), zmq::POLLIN)], wait_ms);
            jobs.take(4096, &mut batch);
            let mut close = false;
            for job in batch.drain(..) {
                match job {
                    Job::Merge { id, patch, create } => {
                        if let Err(error) = db.merge(&id, patch, create) {
                            complaints.note(clock.now(), "could not write", error);
                        }
                        commit_at = commit_at.or(Some(clock.now() + COMMIT_AFTER));
                    }
                    Job::Call(number, call) => {
                        let reply = answer(&mut *db, call);
                        replies.send_always(HubInput::Db(number, reply));
                    }
                    Job::Close => close = true,
                }
            }
            if close || commit_at.is_some_and(|at| at <= clock.now()) {
                if let Err(error) = db.flush() {
                    complaints.note(clock.now(), "could not commit", error);
                }
                commit_at = None;
            }
            if close {
                return;
            }
        }
    })
}

fn answer(db: &mut dyn TaskDb, call: DbCall) -> Result<DbReply, DbError> {
    match call {
        DbCall::Get(ids) => {
            let mut records = Vec::new();
            for id in ids {
                records.extend(db.get(&id)?);
            }
            Ok(DbReply::Records(records))
        }
        DbCall::Find(query, keys) => db.find(&query, &keys).map(DbReply::Records),
        DbCall::History => db.history().map(DbReply::Ids),
        DbCall::Remove(ids, queries) => {
            db.remove(&ids)?;
            for query in queries {
                db.remove_matching(&query)?;
            }
            Ok(DbReply::Removed)
        }
    }
}
