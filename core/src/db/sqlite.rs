//! Records in SQLite, in the very table that ipyparallel's own store makes: it opens files written there and leaves them readable to it.
//! Writes gather in a transaction that `flush` commits; a write-ahead log keeps readers and the writer out of each other's way.

use std::path::Path;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rusqlite::types::{Null, ToSqlOutput, Value as Sql};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params_from_iter};
use serde_bytes::ByteBuf;
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::record::{CUT_OFF, MAX_OUTPUT_BYTES};
use super::{DbError, Ended, Field, Key, Keys, MAX_ANSWER_BYTES, Necessary, Patch, Query, Record, Status, TaskDb};
use crate::date::Date;

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DbError::Busy(error.to_string()),
            _ => DbError::Store(error.to_string()),
        }
    }
}

/// The most content that is copied to give back empty space: about a second's work.
const MAX_REWRITE_BYTES: i64 = 256 << 20;

/// Records in a file.
#[derive(Debug)]
pub struct SqliteDb {
    connection: Connection,
    /// Quoted names: the table of records, and the one of what has no column there.
    table: String,
    more: String,
    gathered: Gathered,
    /// Updates that could not be written, said by the next flush: no question and no other update suffers for them.
    lost: usize,
    reason: Option<DbError>,
}

/// How a value is written in its column. ipyparallel checks names, types and order of the columns, so they are all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A string as it is.
    Text,
    /// A moment as Python's `isoformat` writes it.
    Date,
    /// An object as JSON.
    Json,
    /// A string as it is, an object or list as JSON.
    Mixed,
    /// Byte strings as a pickled list.
    Buffers,
}

const COLUMNS: [(&str, Form); 23] = [
    ("msg_id", Form::Text),
    ("header", Form::Json),
    ("metadata", Form::Json),
    ("content", Form::Json),
    ("buffers", Form::Buffers),
    ("submitted", Form::Date),
    ("client_uuid", Form::Text),
    ("engine_uuid", Form::Text),
    ("started", Form::Date),
    ("completed", Form::Date),
    ("resubmitted", Form::Text),
    ("received", Form::Date),
    ("result_header", Form::Json),
    ("result_metadata", Form::Json),
    ("result_content", Form::Json),
    ("result_buffers", Form::Buffers),
    ("queue", Form::Text),
    ("execute_input", Form::Text),
    ("execute_result", Form::Mixed),
    ("error", Form::Mixed),
    ("stdout", Form::Text),
    ("stderr", Form::Text),
    ("label", Form::Mixed),
];

impl Form {
    fn column_type(self) -> &'static str {
        match self {
            Form::Text | Form::Mixed => "text",
            Form::Date => "timestamp",
            Form::Json => "dict text",
            Form::Buffers => "bufs blob",
        }
    }
}

fn form(key: Key) -> Form {
    COLUMNS.iter().find(|(name, _)| *name == key.name()).map_or(Form::Json, |(_, form)| *form)
}

/// A moment as Python's isoformat writes it, so that both writers' dates sort as text.
fn isoformat(date: Date) -> String {
    date.to_string().replace('Z', "+00:00")
}

/// A value as its column has it, lent as far as it is the same.
fn to_sql(form: Form, field: &Field) -> ToSqlOutput<'_> {
    match (form, field) {
        // What a peer sent as JSON and is not would spoil the whole file for a reader that expects it.
        (Form::Json | Form::Buffers, Field::Json(json)) => match serde_json::from_slice::<&RawValue>(json) {
            Ok(raw) => ToSqlOutput::from(raw.get()),
            Err(_) => ToSqlOutput::from(Null),
        },
        (Form::Json | Form::Buffers, other) => ToSqlOutput::from(String::from_utf8_lossy(&other.to_json()).into_owned()),
        (Form::Date, Field::Text(text)) => {
            Date::parse(text).map_or_else(|| ToSqlOutput::from(&**text), |date| ToSqlOutput::from(isoformat(date)))
        }
        (_, Field::Text(text)) => ToSqlOutput::from(&**text),
        (_, Field::Date(date)) => ToSqlOutput::from(isoformat(*date)),
        (_, Field::Json(json)) => match serde_json::from_slice(json) {
            Ok(Value::String(text)) if form == Form::Date => ToSqlOutput::from(Date::parse(&text).map_or(text, isoformat)),
            Ok(Value::String(text)) => ToSqlOutput::from(text),
            Ok(Value::Null) | Err(_) => ToSqlOutput::from(Null),
            Ok(other) => ToSqlOutput::from(other.to_string()),
        },
    }
}

fn looks_like_json(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A column's value to JSON. Text in a JSON column that is none, as other programs write it, becomes a string.
fn to_json(form: Form, value: Sql) -> Option<Bytes> {
    match value {
        Sql::Text(text) => Some(match form {
            Form::Date => Value::String(Date::parse(&text).map_or(text, |date| date.to_string())).to_string().into(),
            Form::Mixed if looks_like_json(&text) => text.into(),
            Form::Json if serde_json::from_str::<&RawValue>(&text).is_ok() => text.into(),
            _ => Value::String(text).to_string().into(),
        }),
        Sql::Integer(number) => Some(number.to_string().into()),
        Sql::Real(number) => Some(number.to_string().into()),
        Sql::Null | Sql::Blob(_) => None,
    }
}

/// Buffers as Python would pickle a list of bytes; nothing for none, as there.
fn pickle(buffers: &[Bytes]) -> Result<ToSqlOutput<'static>, DbError> {
    if buffers.is_empty() {
        return Ok(ToSqlOutput::from(Null));
    }
    let list: Vec<&serde_bytes::Bytes> = buffers.iter().map(|buffer| serde_bytes::Bytes::new(buffer)).collect();
    let pickled = serde_pickle::to_vec(&list, serde_pickle::SerOptions::new());
    pickled.map(ToSqlOutput::from).map_err(|error| DbError::Store(format!("buffers: {error}")))
}

/// Buffers from what Python pickles a list of bytes to; none if it is something else.
pub fn unpickle(blob: &[u8]) -> Vec<Bytes> {
    match serde_pickle::from_slice::<Vec<ByteBuf>>(blob, serde_pickle::DeOptions::new()) {
        Ok(list) => list.into_iter().map(|buffer| buffer.into_vec().into()).collect(),
        Err(error) => {
            tracing::warn!("a task record in SQLite has buffers that are not a pickled list of bytes ({error}); left out");
            Vec::new()
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl SqliteDb {
    /// Opens or makes a file. Where the table is there in another layout, the next of `table_1`, `table_2`... is used, as ipyparallel does.
    ///
    /// # Errors
    /// If the file can not be opened, or is not a database.
    pub fn open(path: &Path, table: &str) -> Result<Self, DbError> {
        let connection = Connection::open(path).map_err(|error| DbError::Store(format!("{}: {error}", path.display())))?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // The ends of the table and its indexes, in KiB: at full rate the default is read again and again from the file.
        connection.pragma_update(None, "cache_size", -16_384)?;
        // Pages between checkpoints: fewer write the same page more seldom.
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.set_prepared_statement_cache_capacity(64);
        let expected: Vec<(String, String)> =
            COLUMNS.iter().map(|(name, form)| ((*name).to_owned(), form.column_type().to_owned())).collect();
        let mut name = table.to_owned();
        for number in 1.. {
            let present: Vec<(String, String)> = connection
                .prepare(&format!("PRAGMA table_info({})", quoted(&name)))?
                .query_map([], |row| Ok((row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            // Newer SQLite shows the names of standard types in capitals.
            let alike = |a: &(String, String), b: &(String, String)| a.0 == b.0 && a.1.eq_ignore_ascii_case(&b.1);
            if present.is_empty() || present.len() == expected.len() && present.iter().zip(&expected).all(|(a, b)| alike(a, b)) {
                break;
            }
            let next = format!("{table}_{number}");
            tracing::warn!("{}: table {name} has another layout; records go to {next}", path.display());
            name = next;
        }
        let columns: Vec<String> = COLUMNS
            .iter()
            .map(|(name, form)| format!("{name} {}{}", form.column_type(), if *name == "msg_id" { " PRIMARY KEY" } else { "" }))
            .collect();
        let (table, more) = (quoted(&name), quoted(&format!("{name}-more")));
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {table} ({});
             CREATE TABLE IF NOT EXISTS {more} (msg_id text PRIMARY KEY, display_data text, label text) WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS {} ON {table} (completed)",
            columns.join(", "),
            quoted(&format!("{name}-completed")),
        ))?;
        let others: Vec<String> = connection
            .prepare(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB ?1 || '_[0-9]*' AND name NOT GLOB '*-more'",
            )?
            .query_map([&name], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if !others.is_empty() {
            // ipyparallel does not recognise its own table with newer SQLite and starts another one each time.
            tracing::warn!("{}: records go to table {name}; there are others: {}", path.display(), others.join(", "));
        }
        // Waiting is the caller's business: it has other work that need not wait.
        connection.busy_timeout(std::time::Duration::from_millis(250))?;
        Ok(SqliteDb { connection, table, more, gathered: Gathered::default(), lost: 0, reason: None })
    }

    fn begin(&mut self) -> Result<(), DbError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    /// Records in order of arrival for which a condition and then a query hold, with the columns asked for. O(rows that the condition leaves).
    fn select(
        &mut self,
        condition: &str,
        values: &[&str],
        columns: &[Key],
        keys: &Keys,
        query: &Query,
    ) -> Result<Vec<Record>, DbError> {
        let (table, more) = (&self.table, &self.more);
        let extra = |column: &str| format!("(SELECT m.{column} FROM {more} m WHERE m.msg_id = {table}.msg_id)");
        let mut names: Vec<String> = vec!["msg_id".into()];
        names.extend(columns.iter().map(|key| match key {
            Key::DisplayData => extra("display_data"),
            Key::Label => format!("coalesce({}, label)", extra("label")),
            key => key.name().to_owned(),
        }));
        let exact_label = if columns.contains(&Key::Label) { extra("label") } else { "NULL".into() };
        let blob = |wanted: bool, name: &str| if wanted { name.to_owned() } else { "NULL".into() };
        names.extend([exact_label, blob(keys.buffers, "buffers"), blob(keys.result_buffers, "result_buffers")]);
        let sql = format!("SELECT {} FROM {table} {condition} ORDER BY rowid", names.join(","));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let mut record = Record::new(row.get::<_, String>(0)?);
            let has_exact_label = row.get_ref(columns.len() + 1)? != rusqlite::types::ValueRef::Null;
            for (index, &key) in columns.iter().enumerate() {
                let form = if key == Key::Label && has_exact_label { Form::Json } else { form(key) };
                if let Some(json) = to_json(form, row.get(index + 1)?) {
                    record.set(key, json);
                }
            }
            if !query.matches(&record) {
                continue;
            }
            let blob = |index: usize| -> Result<Vec<Bytes>, DbError> {
                Ok(row.get_ref(index)?.as_blob_or_null().ok().flatten().map(unpickle).unwrap_or_default())
            };
            record.buffers = blob(columns.len() + 2)?;
            record.result_buffers = blob(columns.len() + 3)?;
            bytes += record.size_bytes();
            if bytes > MAX_ANSWER_BYTES {
                return Err(DbError::TooMuch(MAX_ANSWER_BYTES));
            }
            found.push(record);
        }
        Ok(found)
    }

    /// What has no column, or would lose its type in it.
    fn merge_more(&self, id: &str, key: Key, field: &Field) -> Result<(), DbError> {
        let (table, more, name) = (&self.table, &self.more, key.name());
        let sql = format!(
            "INSERT INTO {more} (msg_id, {name}) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM {table} WHERE msg_id = ?1)
             ON CONFLICT (msg_id) DO UPDATE SET {name} = excluded.{name}"
        );
        self.connection.prepare_cached(&sql)?.execute((id, to_sql(Form::Json, field)))?;
        Ok(())
    }
}

/// Updates that have not been written: a short task's submission, dispatch and result become one statement.
#[derive(Debug, Default)]
struct Gathered {
    /// In order of arrival.
    updates: Vec<Update>,
    places: HashMap<Box<str>, usize, FixedState>,
    bytes: usize,
}

#[derive(Debug)]
struct Update {
    id: Box<str>,
    create: bool,
    patch: Patch,
}

/// Most updates, and most bytes, that are gathered.
const MAX_GATHERED: usize = 20_000;
const MAX_GATHERED_BYTES: usize = 32 << 20;

impl Gathered {
    fn is_full(&self) -> bool {
        self.updates.len() >= MAX_GATHERED || self.bytes >= MAX_GATHERED_BYTES
    }

    fn add(&mut self, id: &str, patch: &Patch, create: bool) {
        self.bytes += patch.size_bytes();
        match self.places.get(id) {
            Some(&place) => {
                let update = &mut self.updates[place];
                update.create |= create;
                update.patch.absorb(patch);
            }
            None => {
                self.places.insert(id.into(), self.updates.len());
                self.updates.push(Update { id: id.into(), create, patch: patch.clone() });
            }
        }
    }
}

impl SqliteDb {
    /// Writes what was gathered into the open transaction. What can not be written is lost, and said by the next flush; if nothing can be
    /// written now, that is an error and everything stays.
    fn write_gathered(&mut self) -> Result<(), DbError> {
        if self.gathered.updates.is_empty() {
            return Ok(());
        }
        // The only step that another process can refuse: after it, this connection may write.
        self.begin()?;
        let Gathered { updates, .. } = std::mem::take(&mut self.gathered);
        for update in &updates {
            if let Err(error) = self.write(update) {
                self.lost += 1;
                self.reason.get_or_insert(error);
            }
        }
        Ok(())
    }

    fn write(&self, Update { id, create, patch }: &Update) -> Result<(), DbError> {
        let mut columns: SmallVec<[(&str, ToSqlOutput<'_>); 24]> = SmallVec::new();
        let mut more: SmallVec<[(Key, &Field); 2]> = SmallVec::new();
        for (key, field) in patch.fields().iter().filter(|(key, field)| *key != Key::MsgId && !field.is_null()) {
            if *key == Key::DisplayData || *key == Key::Label && is_ambiguous(field) {
                more.push((*key, field));
            }
            if *key != Key::DisplayData {
                columns.push((key.name(), to_sql(form(*key), field)));
            }
        }
        for (name, buffers) in [("buffers", &patch.buffers), ("result_buffers", &patch.result_buffers)] {
            if let Some(buffers) = buffers {
                columns.push((name, pickle(buffers)?));
            }
        }
        let appended: SmallVec<[&str; 2]> = patch.appended().map(|(key, _)| key.name()).collect();
        let sql = self.statement(*create, &columns, &appended);
        if let Some(sql) = sql {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let texts = patch.appended().map(|(_, text)| ToSqlOutput::from(text));
            let values = columns.into_iter().map(|(_, value)| value).chain(texts);
            statement.execute(params_from_iter(std::iter::once(ToSqlOutput::from(&**id)).chain(values)))?;
        }
        for (key, field) in more {
            self.merge_more(id, key, field)?;
        }
        Ok(())
    }

    /// The statement for these columns and this output; nothing if there is nothing to do. Parameter 1 is the id, then come columns, then output.
    fn statement(&self, create: bool, columns: &[(&str, ToSqlOutput<'_>)], appended: &[&str]) -> Option<String> {
        use std::fmt::Write as _;
        let mut sql = String::with_capacity(512);
        let mut sets = String::with_capacity(512);
        for (at, (name, _)) in columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(sets, "{comma}{name}=?{}", at + 2); // a string takes everything
        }
        for (at, name) in appended.iter().enumerate() {
            let comma = if sets.is_empty() { "" } else { "," };
            let number = columns.len() + at + 2;
            let whole = format!("coalesce({0}.{name},'')||?{number}", self.table);
            let _ = write!(sets, "{comma}{name}={}", within_bound(&whole));
        }
        if !create {
            let _ = write!(sql, "UPDATE {} SET {sets} WHERE msg_id=?1", self.table);
            return (!sets.is_empty()).then_some(sql);
        }
        let _ = write!(sql, "INSERT INTO {} (msg_id", self.table);
        let outputs = ["stdout", "stderr"];
        let empty = || outputs.iter().filter(|name| !appended.contains(name));
        columns.iter().map(|(name, _)| name).chain(appended).chain(empty()).for_each(|name| {
            let _ = write!(sql, ",{name}");
        });
        sql += ") VALUES (?1";
        (0..columns.len()).for_each(|at| {
            let _ = write!(sql, ",?{}", at + 2);
        });
        (0..appended.len()).for_each(|at| {
            let _ = write!(sql, ",{}", within_bound(&format!("?{}", columns.len() + at + 2)));
        });
        empty().for_each(|_| sql += ",''");
        let _ = if sets.is_empty() {
            write!(sql, ") ON CONFLICT (msg_id) DO NOTHING")
        } else {
            write!(sql, ") ON CONFLICT (msg_id) DO UPDATE SET {sets}")
        };
        Some(sql)
    }
}

/// An SQL expression for text within the bound of output. Longer than that it is only where it was cut off, which a mark says; more text
/// behind the mark is cut off before it, so the mark stays where it was.
fn within_bound(text: &str) -> String {
    format!(
        "CASE WHEN length({text})>{MAX_OUTPUT_BYTES} THEN substr({text},1,{MAX_OUTPUT_BYTES})||char(10)||'{}' ELSE {text} END",
        CUT_OFF.trim_start()
    )
}

/// Whether a label would come back from its column as something else.
fn is_ambiguous(label: &Field) -> bool {
    match serde_json::from_slice(&label.to_json()) {
        Ok(Value::String(text)) => looks_like_json(&text),
        Ok(Value::Bool(_) | Value::Number(_)) => true,
        _ => false,
    }
}

impl TaskDb for SqliteDb {
    fn merge(&mut self, id: &str, patch: &Patch, create: bool) -> Result<(), DbError> {
        if self.gathered.is_full() {
            self.write_gathered()?;
        }
        self.gathered.add(id, patch, create);
        Ok(())
    }

    fn get(&mut self, id: &str) -> Result<Option<Record>, DbError> {
        self.write_gathered()?;
        let keys = Keys { buffers: true, result_buffers: true, ..Keys::default() };
        Ok(self.select("WHERE msg_id=?", &[id], &Key::ALL, &keys, &Query::default())?.pop())
    }

    fn find(&mut self, query: &Query, keys: &Keys) -> Result<Vec<Record>, DbError> {
        self.write_gathered()?;
        let mut columns = if keys.keys.is_empty() { Key::ALL.to_vec() } else { keys.keys.clone() };
        columns.extend(query.keys());
        columns.sort_unstable();
        columns.dedup();
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        // SQLite's default limit on parameters is 32,766.
        if let Some(ids) = query.only_ids().filter(|ids| ids.len() <= 1000) {
            conditions.push(format!("msg_id IN ({})", vec!["?"; ids.len()].join(",")));
            values.extend(ids);
        }
        for (key, necessary) in query.necessary().filter(|(key, _)| *key != Key::DisplayData) {
            match necessary {
                Necessary::Text(text) => {
                    conditions.push(format!("{}=?", key.name()));
                    values.push(text);
                }
                Necessary::Null if form(key) != Form::Json => conditions.push(format!("{} IS NULL", key.name())),
                Necessary::Null => {}
                Necessary::Something => conditions.push(format!("{} IS NOT NULL", key.name())),
            }
        }
        let condition = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        self.select(&condition, &values, &columns, keys, query)
    }

    fn history(&mut self) -> Result<Vec<String>, DbError> {
        self.write_gathered()?;
        let sql = format!("SELECT msg_id FROM {} WHERE submitted IS NOT NULL ORDER BY submitted, rowid", self.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let ids = statement.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn remove(&mut self, ids: &[String]) -> Result<(), DbError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write_gathered()?;
        self.begin()?;
        for table in [&self.table, &self.more] {
            let mut statement = self.connection.prepare_cached(&format!("DELETE FROM {table} WHERE msg_id=?"))?;
            for id in ids {
                statement.execute([id]).optional()?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, _with_bytes: bool) -> Result<Vec<Ended>, DbError> {
        self.write_gathered()?;
        let sql = format!(
            "SELECT msg_id, completed,
                    coalesce(length(buffers),0) + coalesce(length(result_buffers),0) + coalesce(length(content),0)
                    + coalesce(length(result_content),0) + coalesce(length(stdout),0) + coalesce(length(stderr),0) + 1000,
                    CASE WHEN json_valid(result_content) THEN json_extract(result_content, '$.status') END
             FROM {} WHERE completed IS NOT NULL ORDER BY completed DESC, rowid DESC",
            self.table
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map([], |row| {
            let status: Option<Sql> = row.get(3)?;
            Ok(Ended {
                id: row.get(0)?,
                completed: row.get::<_, String>(1).ok().as_deref().and_then(Date::parse),
                bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                status: Status::of(match &status {
                    Some(Sql::Text(text)) => Some(text),
                    _ => None,
                }),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn compact(&mut self) -> Result<(), DbError> {
        self.flush()?;
        let number = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (free, all) = (number("freelist_count")?, number("page_count")?);
        // Rewriting the file pays only when much of it is empty; SQLite fills the holes by itself otherwise. And questions wait meanwhile.
        if free * 4 > all.max(4096) && (all - free) * number("page_size")? <= MAX_REWRITE_BYTES {
            self.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DbError> {
        self.write_gathered()?;
        // After a failed commit the transaction is still open, and the next flush tries again.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        let lost = std::mem::take(&mut self.lost);
        self.reason.take().map_or(Ok(()), |reason| Err(DbError::Store(format!("{lost} updates are lost: {reason}"))))
    }
}

impl Drop for SqliteDb {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::error!("the last task records are lost: {error}");
        }
    }
}
