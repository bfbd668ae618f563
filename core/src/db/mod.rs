//! Records of tasks: what was asked, where it ran, what came back. One trait, several stores, one query language evaluated by the same
//! code for all of them; a store that can do better does so, but never differently.

mod memory;
#[cfg(feature = "mongodb")]
mod mongo;
mod query;
mod record;
mod retention;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::{MemoryDb, MemoryLimits};
#[cfg(feature = "mongodb")]
pub use mongo::MongoDb;
pub use query::{Necessary, Query, QueryError};
pub use record::{Field, Key, Patch, Record};
pub use retention::{AgeClock, Ended, Retention, Status};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteDb, unpickle};

use crate::date::Date;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Nothing is stored, by configuration.
    #[error("this controller keeps no task records")]
    NoData,
    /// A query that makes no sense; `kind` is the exception name for clients.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The store can not be reached, is locked by somebody else, is full or damaged: the same call may succeed later.
    #[error("task records, for now: {0}")]
    Busy(String),
    /// The store itself failed.
    #[error("task records: {0}")]
    Store(String),
    /// The answer would be larger than anything a client can have meant.
    #[error("the answer would have more than {0} bytes: ask for fewer records or fewer keys")]
    TooMuch(usize),
}

/// The most bytes of records that one answer may have.
pub const MAX_ANSWER_BYTES: usize = 1 << 30;

impl DbError {
    /// The exception name that clients see.
    pub fn ename(&self) -> &'static str {
        match self {
            DbError::NoData => "NoData",
            DbError::Query(error) => error.ename(),
            DbError::Busy(_) | DbError::Store(_) => "OSError",
            DbError::TooMuch(_) => "MemoryError",
        }
    }
}

/// Which keys of a record are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Wanted keys in order; empty means all.
    pub keys: Vec<Key>,
    /// Whether the request's buffers are wanted.
    pub buffers: bool,
    /// Whether the result's buffers are wanted.
    pub result_buffers: bool,
}

/// Something that has gone wrong, and what it has cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of thing.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// How many updates of records are not there for it, nor will be.
    pub lost: u64,
    /// Where and why, of one of them.
    pub detail: String,
}

/// A store of records. Calls come from one thread, in the order in which things happened.
pub trait TaskDb: Send {
    /// Merges `patch` into the record of `id`. Without such a record one is made if `create`, else nothing happens.
    ///
    /// # Errors
    /// If the store fails. After [`DbError::Busy`] nothing has happened, and the call is to be made again.
    fn merge(&mut self, id: &str, patch: &Patch, create: bool) -> Result<(), DbError>;

    /// The record of an id.
    ///
    /// # Errors
    /// If the store fails or keeps nothing.
    fn get(&mut self, id: &str) -> Result<Option<Record>, DbError>;

    /// Matching records in order of arrival.
    ///
    /// # Errors
    /// If the store fails or keeps nothing.
    fn find(&mut self, query: &Query, keys: &Keys) -> Result<Vec<Record>, DbError>;

    /// Ids of all submitted tasks, in order of submission.
    ///
    /// # Errors
    /// If the store fails or keeps nothing.
    fn history(&mut self) -> Result<Vec<String>, DbError>;

    /// Removes records; unknown ids are fine.
    ///
    /// # Errors
    /// If the store fails.
    fn remove(&mut self, ids: &[String]) -> Result<(), DbError>;

    /// Removes every matching record and returns how many.
    ///
    /// # Errors
    /// If the store fails.
    fn remove_matching(&mut self, query: &Query) -> Result<usize, DbError> {
        let found = self.find(query, &Keys { keys: vec![Key::Completed], ..Keys::default() })?;
        let ids: Vec<String> = found.into_iter().map(|record| record.id).collect();
        self.remove(&ids)?;
        Ok(ids.len())
    }

    /// Completed records, the newest first, with what retention wants to know of them; their bytes may be 0 unless asked for.
    ///
    /// # Errors
    /// If the store fails or keeps nothing.
    fn ended(&mut self, with_bytes: bool) -> Result<Vec<Ended>, DbError>;

    /// Removes completed records that no rule wants kept, the oldest first, at most `at_most` of them; returns how many. O(records).
    ///
    /// # Errors
    /// If the store fails.
    fn expire(&mut self, rules: &[Retention], now: Date, at_most: usize) -> Result<usize, DbError> {
        if rules.is_empty() {
            return Ok(0);
        }
        let with_bytes = rules.iter().any(|rule| rule.max_bytes.is_some());
        let doomed = retention::doomed(&self.ended(with_bytes)?, rules, now, at_most);
        self.remove(&doomed)?;
        Ok(doomed.len())
    }

    /// Gives back the space of removed records, if that is worth the work.
    ///
    /// # Errors
    /// If the store fails.
    fn compact(&mut self) -> Result<(), DbError> {
        Ok(())
    }

    /// Makes everything merged so far outlive this process, if the store has such a notion.
    ///
    /// # Errors
    /// If the store fails. After [`DbError::Busy`] nothing is lost, and the call is to be made again.
    fn flush(&mut self) -> Result<(), DbError> {
        Ok(())
    }

    /// What has gone wrong since this was last asked, for whoever counts and logs.
    fn troubles(&mut self) -> Vec<Trouble> {
        Vec::new()
    }

    /// The ids of records of which something has been merged and is not yet safe from the end of this process.
    fn unwritten(&self) -> Vec<Box<str>> {
        Vec::new()
    }
}

/// Keeps nothing: writes are ignored, reads are answered with [`DbError::NoData`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDb;

impl TaskDb for NoDb {
    fn merge(&mut self, _id: &str, _patch: &Patch, _create: bool) -> Result<(), DbError> {
        Ok(())
    }
    fn get(&mut self, _id: &str) -> Result<Option<Record>, DbError> {
        Err(DbError::NoData)
    }
    fn find(&mut self, _query: &Query, _keys: &Keys) -> Result<Vec<Record>, DbError> {
        Err(DbError::NoData)
    }
    fn history(&mut self) -> Result<Vec<String>, DbError> {
        Err(DbError::NoData)
    }
    fn remove(&mut self, _ids: &[String]) -> Result<(), DbError> {
        Ok(())
    }
    fn remove_matching(&mut self, _query: &Query) -> Result<usize, DbError> {
        Ok(0)
    }
    fn ended(&mut self, _with_bytes: bool) -> Result<Vec<Ended>, DbError> {
        Ok(Vec::new())
    }
}
