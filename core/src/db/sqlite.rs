//! Records in SQLite, in the table layout that ipyparallel's own store uses. Writes gather in a transaction that `flush` commits;
//! a write-ahead log keeps readers and the writer out of each other's way.

use std::path::Path;

use bytes::Bytes;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use serde_json::Value;

use super::record::MAX_OUTPUT_BYTES;
use super::{DbError, Key, Keys, Patch, Query, Record, TaskDb};

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        DbError::Store(error.to_string())
    }
}

/// Records in a file.
#[derive(Debug)]
pub struct SqliteDb {
    connection: Connection,
    table: String,
}

/// Columns that hold text as it is; the others hold JSON.
fn is_text(key: Key) -> bool {
    use Key::{
        ClientUuid, Completed, EngineUuid, ExecuteInput, MsgId, Queue, Received, Resubmitted, Started, Stderr, Stdout, Submitted,
    };
    matches!(
        key,
        MsgId
            | Submitted
            | ClientUuid
            | EngineUuid
            | Started
            | Completed
            | Resubmitted
            | Received
            | Queue
            | ExecuteInput
            | Stdout
            | Stderr
    )
}

fn column_type(key: Key) -> &'static str {
    match key {
        Key::MsgId => "text PRIMARY KEY",
        Key::Submitted | Key::Started | Key::Completed | Key::Received => "timestamp",
        Key::Header | Key::Metadata | Key::Content | Key::ResultHeader | Key::ResultMetadata | Key::ResultContent => "dict text",
        _ => "text",
    }
}

/// JSON to a column's value.
fn to_sql(key: Key, json: &[u8]) -> Sql {
    if !is_text(key) {
        return Sql::Text(String::from_utf8_lossy(json).into_owned());
    }
    match serde_json::from_slice(json) {
        Ok(Value::String(text)) => Sql::Text(text),
        Ok(Value::Null) | Err(_) => Sql::Null,
        Ok(other) => Sql::Text(other.to_string()),
    }
}

/// A column's value to JSON. Text in a JSON column that is none, as other programs write it, becomes a string.
fn to_json(key: Key, value: Sql) -> Option<Bytes> {
    match value {
        Sql::Text(text) if is_text(key) || serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() => {
            Some(Value::String(text).to_string().into())
        }
        Sql::Text(text) => Some(text.into()),
        Sql::Integer(number) => Some(number.to_string().into()),
        Sql::Real(number) => Some(number.to_string().into()),
        Sql::Null | Sql::Blob(_) => None,
    }
}

/// Buffers as one blob: for each its length in 8 bytes, little end first, then the bytes.
fn pack(buffers: &[Bytes]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(buffers.iter().map(|buffer| 8 + buffer.len()).sum());
    for buffer in buffers {
        blob.extend_from_slice(&(buffer.len() as u64).to_le_bytes());
        blob.extend_from_slice(buffer);
    }
    blob
}

fn unpack(blob: Vec<u8>) -> Vec<Bytes> {
    let mut rest = Bytes::from(blob);
    let mut buffers = Vec::new();
    while rest.len() >= 8 {
        let mut len = [0; 8];
        len.copy_from_slice(&rest.split_to(8));
        let Some(len) = usize::try_from(u64::from_le_bytes(len)).ok().filter(|len| *len <= rest.len()) else { break };
        buffers.push(rest.split_to(len));
    }
    buffers
}

impl SqliteDb {
    /// Opens or makes a file. `table` is quoted, so any name is safe.
    ///
    /// # Errors
    /// If the file can not be opened, or is not a database.
    pub fn open(path: &Path, table: &str) -> Result<Self, DbError> {
        let connection = Connection::open(path).map_err(|error| DbError::Store(format!("{}: {error}", path.display())))?;
        connection.busy_timeout(std::time::Duration::from_secs(30))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let table = format!("\"{}\"", table.replace('"', "\"\""));
        let columns: Vec<String> = Key::ALL.iter().map(|&key| format!("{} {}", key.name(), column_type(key))).collect();
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {table} ({}, buffers blob, result_buffers blob)",
            columns.join(", ")
        ))?;
        // A file that another program or version made may lack columns.
        let present: Vec<String> = connection
            .prepare(&format!("PRAGMA table_info({table})"))?
            .query_map([], |row| row.get::<_, String>(1))?
            .collect::<Result<_, _>>()?;
        let wanted = Key::ALL.iter().map(|&key| (key.name(), column_type(key)));
        for (name, kind) in wanted.chain([("buffers", "blob"), ("result_buffers", "blob")]) {
            if !present.iter().any(|column| column == name) {
                connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?;
            }
        }
        Ok(SqliteDb { connection, table })
    }

    fn begin(&mut self) -> Result<(), DbError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    /// Records in order of arrival whose condition holds, with the columns asked for.
    fn select(&mut self, condition: &str, ids: &[&str], columns: &[Key], keys: &Keys) -> Result<Vec<Record>, DbError> {
        let mut names: Vec<&str> = columns.iter().map(|key| key.name()).collect();
        names.insert(0, "msg_id");
        names
            .extend([if keys.buffers { "buffers" } else { "NULL" }, if keys.result_buffers { "result_buffers" } else { "NULL" }]);
        let sql = format!("SELECT {} FROM {} {condition} ORDER BY rowid", names.join(","), self.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(ids), |row| {
            let mut record = Record::new(row.get::<_, String>(0)?);
            for (index, &key) in columns.iter().enumerate() {
                if let Some(json) = to_json(key, row.get(index + 1)?) {
                    record.set(key, json);
                }
            }
            let blob = |index: usize| row.get::<_, Option<Vec<u8>>>(index).map(|blob| unpack(blob.unwrap_or_default()));
            record.buffers = blob(columns.len() + 1)?;
            record.result_buffers = blob(columns.len() + 2)?;
            Ok(record)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl TaskDb for SqliteDb {
    fn merge(&mut self, id: &str, mut patch: Patch, create: bool) -> Result<(), DbError> {
        self.begin()?;
        if create {
            let sql = format!("INSERT OR IGNORE INTO {} (msg_id, stdout, stderr) VALUES (?, '', '')", self.table);
            self.connection.prepare_cached(&sql)?.execute([id])?;
        }
        let mut sets = Vec::new();
        let mut values = Vec::new();
        for (key, json) in patch.fields().iter().filter(|(key, json)| *key != Key::MsgId && &json[..] != b"null") {
            sets.push(format!("{}=?", key.name()));
            values.push(to_sql(*key, json));
        }
        if let Some((key, text)) = patch.append.take() {
            sets.push(format!("{0}=substr(coalesce({0},'')||?,1,{MAX_OUTPUT_BYTES})", key.name()));
            values.push(Sql::Text(text));
        }
        for (name, buffers) in [("buffers", patch.buffers), ("result_buffers", patch.result_buffers)] {
            if let Some(buffers) = buffers {
                sets.push(format!("{name}=?"));
                values.push(Sql::Blob(pack(&buffers)));
            }
        }
        if sets.is_empty() {
            return Ok(());
        }
        values.push(Sql::Text(id.to_owned()));
        let sql = format!("UPDATE {} SET {} WHERE msg_id=?", self.table, sets.join(","));
        self.connection.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    }

    fn get(&mut self, id: &str) -> Result<Option<Record>, DbError> {
        let keys = Keys { buffers: true, result_buffers: true, ..Keys::default() };
        Ok(self.select("WHERE msg_id=?", &[id], &Key::ALL, &keys)?.pop())
    }

    fn find(&mut self, query: &Query, keys: &Keys) -> Result<Vec<Record>, DbError> {
        let mut columns = if keys.keys.is_empty() { Key::ALL.to_vec() } else { keys.keys.clone() };
        columns.extend(query.keys());
        columns.sort_unstable();
        columns.dedup();
        let mut found = match query.only_ids() {
            // SQLite's default limit on parameters is 32,766.
            Some(ids) if ids.len() <= 1000 => {
                let marks = vec!["?"; ids.len()].join(",");
                self.select(&format!("WHERE msg_id IN ({marks})"), &ids, &columns, keys)?
            }
            _ => self.select("", &[], &columns, keys)?,
        };
        found.retain(|record| query.matches(record));
        Ok(found)
    }

    fn history(&mut self) -> Result<Vec<String>, DbError> {
        let sql = format!("SELECT msg_id FROM {} WHERE submitted IS NOT NULL ORDER BY submitted, rowid", self.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let ids = statement.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn remove(&mut self, ids: &[String]) -> Result<(), DbError> {
        self.begin()?;
        let sql = format!("DELETE FROM {} WHERE msg_id=?", self.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        for id in ids {
            statement.execute([id]).optional()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DbError> {
        // After a failed commit the transaction is still open, and the next flush tries again.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }
}

impl Drop for SqliteDb {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::error!("the last task records are lost: {error}");
        }
    }
}
