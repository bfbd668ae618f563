//! Records of tasks: what was asked, where it ran, what came back. One trait, several stores, one query language evaluated by the same
//! code for all of them; a store that can do better does so, but never differently.

mod memory;
mod query;
mod record;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::{MemoryDb, MemoryLimits};
pub use query::{Query, QueryError};
pub use record::{Key, Patch, Record};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteDb;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Nothing is stored, by configuration.
    #[error("this controller keeps no task records")]
    NoData,
    /// A query that makes no sense; `kind` is the exception name for clients.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The store itself failed.
    #[error("task records: {0}")]
    Store(String),
}

impl DbError {
    /// The exception name that clients see.
    pub fn ename(&self) -> &'static str {
        match self {
            DbError::NoData => "NoData",
            DbError::Query(error) => error.ename(),
            DbError::Store(_) => "OSError",
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

/// A store of records. Calls come from one thread, in the order in which things happened.
pub trait TaskDb: Send {
    /// Merges `patch` into the record of `id`. Without such a record one is made if `create`, else nothing happens.
    ///
    /// # Errors
    /// If the store fails.
    fn merge(&mut self, id: &str, patch: Patch, create: bool) -> Result<(), DbError>;

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

    /// Makes everything merged so far durable, if the store has such a notion.
    ///
    /// # Errors
    /// If the store fails.
    fn flush(&mut self) -> Result<(), DbError> {
        Ok(())
    }
}

/// Keeps nothing: writes are ignored, reads are answered with [`DbError::NoData`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDb;

impl TaskDb for NoDb {
    fn merge(&mut self, _id: &str, _patch: Patch, _create: bool) -> Result<(), DbError> {
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
}
