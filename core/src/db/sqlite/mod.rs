//! Records in SQLite, in the very table that ipyparallel's own store makes: it opens files written there and leaves them readable to it.
//! Updates gather until they are written and committed as one; what can not be written now stays as it is, and no update is lost for another.

mod form;
mod open;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rusqlite::types::{ToSqlOutput, Value as Sql};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params_from_iter};
use smallvec::SmallVec;

pub use form::unpickle;
use form::{Form, form, is_ambiguous, pickle, to_json, to_sql};
use open::{FileId, Opened};

use super::record::{CUT_OFF, MAX_OUTPUT_BYTES};
use super::{DbError, Ended, Field, Key, Keys, MAX_ANSWER_BYTES, Necessary, Patch, Query, Record, Status, TaskDb, Trouble};
use crate::date::Date;

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DbError::Busy(error.to_string()),
            _ => DbError::Store(error.to_string()),
        }
    }
}

/// Whether it is the file that can not be written, rather than this one update: then all of them wait.
fn is_of_the_file(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, FileLockingProtocolFailed, NotADatabase,
        OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | SystemIoFailure
                | ReadOnly
                | CannotOpen
                | DatabaseCorrupt
                | NotADatabase
                | PermissionDenied
                | FileLockingProtocolFailed
                | OutOfMemory
        )
    )
}

/// The most content that is copied to give back empty space: about a second's work.
const MAX_REWRITE_BYTES: i64 = 256 << 20;

/// Records in a file.
#[derive(Debug)]
pub struct SqliteDb {
    path: PathBuf,
    /// The table that was asked for.
    wanted: String,
    connection: Connection,
    /// Quoted names: the table of records, and the one of what has no column there.
    table: String,
    more: String,
    /// Which file was opened, and its write-ahead log.
    file: Option<FileId>,
    wal: Option<FileId>,
    /// That file is no longer the one of this name, and there is no other yet.
    is_gone: bool,
    gathered: Gathered,
    troubles: Vec<Trouble>,
}

impl SqliteDb {
    /// Opens or makes a file, and tries whether it can be read and written. Where the table is there in another layout, the next of
    /// `table_1`, `table_2`... is used, as ipyparallel does.
    ///
    /// # Errors
    /// If the file can not be opened or written, is damaged, or is no database: the text names the file, what is wrong, and what to do.
    pub fn open(path: &Path, table: &str) -> Result<Self, DbError> {
        let Opened { connection, table: name, more, file, wal } = open::open(path, table)?;
        Ok(SqliteDb {
            path: path.to_owned(),
            wanted: table.to_owned(),
            connection,
            table: name,
            more,
            file,
            wal,
            is_gone: false,
            gathered: Gathered::default(),
            troubles: Vec::new(),
        })
    }

    /// Goes on with another file where that of this name is no longer the one that was opened: what is written to one that has been
    /// deleted is lost without an error. A look at the file's name costs a system call.
    fn ready(&mut self) -> Result<(), DbError> {
        if !self.is_gone {
            let now = FileId::of(&self.path);
            if self.file.is_none() || now == self.file {
                return Ok(());
            }
            let what = if now.is_none() { "has been deleted" } else { "has been replaced by another" };
            let detail = format!(
                "{} {what} while records were written to it: what was in it is not in the one that is used from now on, and results of \
                 tasks that were submitted before have no record to go to",
                self.path.display()
            );
            self.troubles.push(Trouble { kind: "the file was deleted or replaced", count: 1, lost: 1, detail });
            self.is_gone = true;
        }
        self.connection = Connection::open_in_memory()?; // the one before is closed by that
        open::remove_stale_wal(&self.path, self.wal);
        let opened = open::open(&self.path, &self.wanted).map_err(|error| DbError::Busy(error.to_string()))?;
        (self.connection, self.table, self.more) = (opened.connection, opened.table, opened.more);
        (self.file, self.wal, self.is_gone) = (opened.file, opened.wal, false);
        Ok(())
    }

    /// Does something as one: all of it is in the file, or nothing.
    fn transact<T>(&mut self, work: impl FnOnce(&Self) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let commit = |done| self.connection.execute_batch("COMMIT").map(|()| done);
        let outcome = self.connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| work(self)).and_then(commit);
        if outcome.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK"); // the error is told already
        }
        outcome.map_err(|error| DbError::Busy(format!("{}: {error}", self.path.display())))
    }

    /// Reads, after all that was merged before has been written.
    fn read<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, DbError>) -> Result<T, DbError> {
        self.write_gathered()?;
        work(self).map_err(|error| match error {
            DbError::Store(reason) => DbError::Store(format!("{}: {reason}", self.path.display())),
            other => other,
        })
    }

    /// Records in order of arrival for which a condition and then a query hold, with the columns asked for. O(rows that the condition leaves).
    fn select(
        &self,
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
    fn merge_more(&self, id: &str, key: Key, field: &Field) -> rusqlite::Result<()> {
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
    /// Writes what was gathered, and commits it. An update that can not be written for its own sake is lost, and told as a trouble; where
    /// nothing can be written now, everything stays.
    fn write_gathered(&mut self) -> Result<(), DbError> {
        self.ready()?;
        if self.gathered.updates.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        match self.transact(|db| db.write_all(&gathered.updates)) {
            Ok(lost) => self.troubles.extend(lost),
            Err(error) => {
                self.gathered = gathered;
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_all(&self, updates: &[Update]) -> rusqlite::Result<Option<Trouble>> {
        let mut lost: Option<Trouble> = None;
        for update in updates {
            match self.write(update) {
                Ok(()) => {}
                Err(error) if is_of_the_file(&error) => return Err(error),
                Err(error) => {
                    let new = || Trouble {
                        kind: "an update is lost",
                        count: 0,
                        lost: 0,
                        detail: format!("task {}: {error}", update.id),
                    };
                    let trouble = lost.get_or_insert_with(new);
                    (trouble.count, trouble.lost) = (trouble.count + 1, trouble.lost + 1);
                }
            }
        }
        Ok(lost)
    }

    fn write(&self, Update { id, create, patch }: &Update) -> rusqlite::Result<()> {
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

impl TaskDb for SqliteDb {
    fn merge(&mut self, id: &str, patch: &Patch, create: bool) -> Result<(), DbError> {
        if self.gathered.is_full() {
            self.write_gathered()?;
        }
        self.gathered.add(id, patch, create);
        Ok(())
    }

    fn get(&mut self, id: &str) -> Result<Option<Record>, DbError> {
        let keys = Keys { buffers: true, result_buffers: true, ..Keys::default() };
        self.read(|db| Ok(db.select("WHERE msg_id=?", &[id], &Key::ALL, &keys, &Query::default())?.pop()))
    }

    fn find(&mut self, query: &Query, keys: &Keys) -> Result<Vec<Record>, DbError> {
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
        self.read(|db| db.select(&condition, &values, &columns, keys, query))
    }

    fn history(&mut self) -> Result<Vec<String>, DbError> {
        self.read(|db| {
            let sql = format!("SELECT msg_id FROM {} WHERE submitted IS NOT NULL ORDER BY submitted, rowid", db.table);
            let mut statement = db.connection.prepare_cached(&sql)?;
            let ids = statement.query_map([], |row| row.get(0))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
    }

    fn remove(&mut self, ids: &[String]) -> Result<(), DbError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write_gathered()?;
        self.transact(|db| {
            for table in [&db.table, &db.more] {
                let mut statement = db.connection.prepare_cached(&format!("DELETE FROM {table} WHERE msg_id=?"))?;
                for id in ids {
                    statement.execute([id]).optional()?;
                }
            }
            Ok(())
        })
    }

    fn ended(&mut self, _with_bytes: bool) -> Result<Vec<Ended>, DbError> {
        let sql = format!(
            "SELECT msg_id, completed,
                    coalesce(length(buffers),0) + coalesce(length(result_buffers),0) + coalesce(length(content),0)
                    + coalesce(length(result_content),0) + coalesce(length(stdout),0) + coalesce(length(stderr),0) + 1000,
                    CASE WHEN json_valid(result_content) THEN json_extract(result_content, '$.status') END
             FROM {} WHERE completed IS NOT NULL ORDER BY completed DESC, rowid DESC",
            self.table
        );
        let ended = |row: &rusqlite::Row<'_>| {
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
        };
        self.read(|db| {
            let mut statement = db.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], ended)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
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
        self.write_gathered()
    }

    fn troubles(&mut self) -> Vec<Trouble> {
        std::mem::take(&mut self.troubles)
    }

    fn unwritten(&self) -> Vec<Box<str>> {
        self.gathered.updates.iter().map(|update| update.id.clone()).collect()
    }
}

impl Drop for SqliteDb {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::error!("{} task records are not written, or not in full: {error}", self.gathered.updates.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(byte: u8) -> Patch {
        let mut patch = Patch::default().text(Key::Submitted, "2026-11-21T03:00:00Z").append(Key::Stdout, "once");
        patch.buffers = Some(vec![Bytes::from(vec![byte; 200_000])]);
        patch
    }

    /// Makes a file that can not be written, and lets it be written again.
    type Trouble = (fn(&Connection), fn(&Connection), &'static str);

    #[test]
    fn what_can_not_be_written_waits_whole_and_is_written_once_when_it_can() {
        let troubles: [Trouble; 2] = [
            (
                |db| db.query_row("PRAGMA max_page_count=30", [], |_| Ok(())).unwrap(),
                |db| db.query_row("PRAGMA max_page_count=1000000", [], |_| Ok(())).unwrap(),
                "disk is full",
            ),
            (
                |db| db.execute_batch("PRAGMA query_only=1").unwrap(),
                |db| db.execute_batch("PRAGMA query_only=0").unwrap(),
                "readonly",
            ),
        ];
        for (make, end, reason) in troubles {
            let folder = tempfile::tempdir().unwrap();
            let mut db = SqliteDb::open(&folder.path().join("tasks.db"), "t").unwrap();
            make(&db.connection);
            for n in 0..5 {
                db.merge(&format!("s_1_{n}"), &large(n), true).unwrap();
            }
            for _ in 0..3 {
                let refused = db.flush().unwrap_err();
                assert!(matches!(&refused, DbError::Busy(why) if why.contains(reason) && why.contains("tasks.db")), "{refused}");
                assert!(matches!(db.get("s_1_0"), Err(DbError::Busy(_))), "a question is not answered with less than there is");
            }
            assert_eq!((db.unwritten().len(), db.troubles()), (5, vec![]), "nothing is lost");
            // It takes only so much in.
            while db.gathered.bytes < MAX_GATHERED_BYTES {
                db.merge("s_1_0", &Patch::default().text(Key::Label, &"l".repeat(1 << 20)), false).unwrap();
            }
            assert!(matches!(db.merge("s_1_9", &large(9), true), Err(DbError::Busy(_))));
            end(&db.connection);
            db.flush().unwrap();
            for n in 0..5 {
                let record = db.get(&format!("s_1_{n}")).unwrap().unwrap();
                assert_eq!((record.buffers[0][0], record.value(Key::Stdout)), (n, "once".into()));
            }
        }
    }
}
