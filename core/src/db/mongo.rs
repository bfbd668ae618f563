//! Records in MongoDB, in the collection and shape that ipyparallel's own store uses: either opens what the other has written. Updates gather
//! here and go out as batches that may be sent again without harm; a server that does not answer in time is one that can not be had.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc, oid::ObjectId, serialize_to_bson, spec::BinarySubtype};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, IndexOptions};
use mongodb::{Client, Collection, Database, IndexModel};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::record::MAX_OUTPUT_BYTES;
use super::{DbError, Ended, Key, Keys, MAX_ANSWER_BYTES, Necessary, Patch, Query, Record, Status, TaskDb, Trouble};
use crate::date::Date;

const COLLECTION: &str = "task_records";
/// What gathers before it is sent, and how much of it goes at once.
const BATCH_UPDATES: usize = 500;
const BATCH_BYTES: usize = 12 << 20;
/// A document may have 16 MiB. A list of buffers beyond this is left out; what is too much together, the server refuses.
const MAX_BUFFER_BYTES: usize = 10 << 20;
/// The largest value that an update keeps once the server has refused it whole.
const LEAN_BYTES: usize = 64 << 10;
/// How long one request may take. What waits for it is the records' thread, and nothing else.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long one may take that looks at everything, or makes an index of it.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
/// Codes of a server that is stepping down or shutting down: another, or the same again, will take what it does not.
const PASSING_CODES: [i32; 10] = [6, 7, 89, 91, 189, 9001, 10107, 11600, 11602, 13435];
/// Names the batch that last added output to a record, so that sending it again does not add it twice.
const STAMP: &str = "pointsman_batch";

/// Whether the server can not be had now, rather than does not want this.
fn is_passing(error: &Error) -> bool {
    use ErrorKind::{ConnectionPoolCleared, DnsResolve, Io, ServerSelection};
    match &*error.kind {
        Io(_) | ServerSelection { .. } | ConnectionPoolCleared { .. } | DnsResolve { .. } => true,
        ErrorKind::Command(refused) => PASSING_CODES.contains(&refused.code),
        _ => false,
    }
}

impl From<Error> for DbError {
    fn from(error: Error) -> Self {
        let reason = format!("MongoDB: {}", error.kind);
        if is_passing(&error) { DbError::Busy(reason) } else { DbError::Store(reason) }
    }
}

/// Records on a server.
#[derive(Debug)]
pub struct MongoDb {
    /// Where requests run while this thread waits for them.
    runtime: Runtime,
    database: Database,
    records: Collection<Document>,
    waiting: Vec<Update>,
    /// Where in `waiting` a record's update is.
    places: HashMap<String, usize, FixedState>,
    waiting_bytes: usize,
    /// How many of the first may be there already, since they were sent and no answer came: nothing is added to these.
    unsure: usize,
    troubles: Vec<Trouble>,
}

/// An update that the server did not take, by its place in the batch, and why.
type Refusal = (usize, String);

/// All that is new of one record.
#[derive(Debug)]
struct Update {
    id: String,
    create: bool,
    values: Document,
    stdout: String,
    stderr: String,
    stamp: ObjectId,
    bytes: usize,
}

fn is_date(key: Key) -> bool {
    matches!(key, Key::Submitted | Key::Started | Key::Completed | Key::Received)
}

/// JSON as the database keeps it. What only looks like a type of theirs (`{"$date": ...}`) stays the object that it is.
fn to_bson(value: Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Bson::Int64(integer),
            None => number.as_f64().map_or(Bson::Null, Bson::Double),
        },
        Value::String(text) => Bson::String(text),
        Value::Array(list) => Bson::Array(list.into_iter().map(to_bson).collect()),
        // Names end at a zero byte there.
        Value::Object(map) => {
            Bson::Document(map.into_iter().map(|(key, value)| (key.replace('\0', "\u{fffd}"), to_bson(value))).collect())
        }
    }
}

fn to_date(date: DateTime) -> Date {
    Date::from_unix_us(date.timestamp_millis().saturating_mul(1000))
}

fn to_json(value: Bson) -> Value {
    match value {
        Bson::Boolean(value) => value.into(),
        Bson::Int32(number) => number.into(),
        Bson::Int64(number) => number.into(),
        Bson::Double(number) => number.into(),
        Bson::String(text) | Bson::Symbol(text) => text.into(),
        Bson::DateTime(date) => to_date(date).to_string().into(),
        Bson::ObjectId(id) => id.to_hex().into(),
        Bson::Array(list) => list.into_iter().map(to_json).collect(),
        Bson::Document(map) => Value::Object(map.into_iter().map(|(key, value)| (key, to_json(value))).collect()),
        _ => Value::Null,
    }
}

/// A value for its field, or nothing for null and for what is no JSON.
fn field(key: Key, json: &[u8]) -> Option<Bson> {
    match serde_json::from_slice(json).ok()? {
        Value::Null => None,
        Value::String(text) if is_date(key) => {
            // Milliseconds are all that the type has, for ipyparallel too.
            let date = Date::parse(&text).map(|date| DateTime::from_millis(date.as_unix_us().div_euclid(1000)));
            Some(date.map_or(Bson::String(text), Bson::DateTime))
        }
        value => Some(to_bson(value)),
    }
}

fn buffers(list: &[Bytes]) -> Bson {
    list.iter().map(|buffer| Binary { subtype: BinarySubtype::Generic, bytes: buffer.to_vec() }).collect()
}

fn to_buffers(value: Option<Bson>) -> Vec<Bytes> {
    let Some(Bson::Array(list)) = value else { return Vec::new() };
    let binary = |value| match value {
        Bson::Binary(binary) => Some(Bytes::from(binary.bytes)),
        _ => None,
    };
    list.into_iter().filter_map(binary).collect()
}

fn record(mut found: Document) -> Record {
    let text = |value| if let Some(Bson::String(text)) = value { text } else { String::new() };
    let mut record = Record::new(text(found.remove(Key::MsgId.name())));
    for key in Key::ALL.into_iter().filter(|key| *key != Key::MsgId) {
        if let Some(value) = found.remove(key.name()).filter(|value| *value != Bson::Null) {
            record.set(key, to_json(value).to_string().into());
        }
    }
    record.buffers = to_buffers(found.remove("buffers"));
    record.result_buffers = to_buffers(found.remove("result_buffers"));
    record
}

impl Update {
    fn new(id: &str, create: bool) -> Update {
        let (stdout, stderr) = (String::new(), String::new());
        Update { id: id.to_owned(), create, values: Document::new(), stdout, stderr, stamp: ObjectId::new(), bytes: 0 }
    }

    fn add(&mut self, patch: &Patch) {
        self.bytes += patch.size_bytes();
        for (key, value) in patch.fields().iter().filter(|(key, _)| *key != Key::MsgId) {
            if let Some(value) = field(*key, &value.to_json()) {
                self.values.insert(key.name(), value);
            }
        }
        for (name, list) in [("buffers", &patch.buffers), ("result_buffers", &patch.result_buffers)] {
            let Some(list) = list else { continue };
            let bytes = list.iter().map(Bytes::len).sum::<usize>();
            if bytes > MAX_BUFFER_BYTES {
                tracing::warn!("task {}: {bytes} bytes of {name} are too much for a record in MongoDB; left out of it", self.id);
                self.bytes -= bytes.min(self.bytes);
            } else {
                self.values.insert(name, buffers(list));
            }
        }
        for (key, text) in patch.appended() {
            let output = if key == Key::Stderr { &mut self.stderr } else { &mut self.stdout };
            output.push_str(cut(text, MAX_OUTPUT_BYTES.saturating_sub(output.len())));
        }
    }

    /// Without what is large: how the task ended is worth more than what it said.
    fn make_lean(&mut self) {
        let status = self.values.get_document("result_content").ok().and_then(|content| content.get_str("status").ok());
        let status = status.map(str::to_owned);
        let is_small = |value: &Bson| doc! { "": value.clone() }.to_vec().is_ok_and(|bytes| bytes.len() <= LEAN_BYTES);
        self.values = std::mem::take(&mut self.values).into_iter().filter(|(_, value)| is_small(value)).collect();
        if let Some(status) = status.filter(|_| !self.values.contains_key("result_content")) {
            self.values.insert("result_content", doc! { "status": status });
        }
        for output in [&mut self.stdout, &mut self.stderr] {
            *output = cut(output, LEAN_BYTES).to_owned();
        }
    }

    /// The statement that does it, however often it is sent.
    fn statement(&self) -> Document {
        let mut stages = Vec::new();
        if self.create {
            let mut empty: Document = Key::ALL.iter().map(|key| (key.name().to_owned(), Bson::Null)).collect();
            empty.extend(doc! { "_id": ObjectId::new(), "stdout": "", "stderr": "", "buffers": [], "result_buffers": [] });
            empty.remove(Key::DisplayData.name());
            stages.push(doc! { "$replaceWith": { "$mergeObjects": [{ "$literal": empty }, "$$ROOT"] } });
        }
        let mut set: Document =
            self.values.iter().map(|(key, value)| (key.clone(), Bson::Document(doc! { "$literal": value.clone() }))).collect();
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if text.is_empty() {
                continue;
            }
            let before = doc! { "$ifNull": [format!("${name}"), ""] };
            let is_done = doc! { "$eq": [format!("${STAMP}"), self.stamp] };
            let is_full = doc! { "$gte": [{ "$strLenBytes": before.clone() }, MAX_OUTPUT_BYTES as i64] };
            let both = doc! { "$concat": [before.clone(), { "$literal": text }] };
            set.insert(name, doc! { "$cond": [{ "$or": [is_done, is_full] }, before, both] });
            set.insert(STAMP, self.stamp);
        }
        if !set.is_empty() {
            stages.push(doc! { "$set": set });
        }
        doc! { "q": { "msg_id": &self.id }, "u": stages, "upsert": self.create }
    }
}

/// The beginning of a text, at most so many bytes of it.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Waits for a request on this thread, but not for ever.
fn wait<T>(runtime: &Runtime, request: impl Future<Output = Result<T, Error>>) -> Result<T, DbError> {
    wait_for(runtime, TIMEOUT, request)
}

fn wait_for<T>(runtime: &Runtime, timeout: Duration, request: impl Future<Output = Result<T, Error>>) -> Result<T, DbError> {
    let outcome = runtime.block_on(async { tokio::time::timeout(timeout, request).await });
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(DbError::Busy(format!("MongoDB: no answer within {} s", timeout.as_secs()))),
    }
}

impl MongoDb {
    /// Connects to a server, `mongodb://user:password@host:port/?option=value`, and uses its collection `task_records`.
    ///
    /// # Errors
    /// If the address is none, the server can not be had, or does not let us in.
    pub fn open(uri: &str, database: &str) -> Result<Self, DbError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("mongodb").enable_all().build();
        let runtime = runtime.map_err(|error| DbError::Store(format!("MongoDB: no thread for it: {error}")))?;
        let database = wait(&runtime, async {
            let mut options = ClientOptions::parse(uri).await?;
            options.app_name.get_or_insert_with(|| "pointsman".into());
            options.server_selection_timeout.get_or_insert(TIMEOUT / 2);
            options.connect_timeout.get_or_insert(TIMEOUT / 2);
            Ok(Client::with_options(options)?.database(database))
        })?;
        let records = database.collection(COLLECTION);
        let index = |keys, unique: bool| {
            IndexModel::builder().keys(keys).options(unique.then(|| IndexOptions::builder().unique(true).build())).build()
        };
        for index in [
            index(doc! { "msg_id": 1 }, true),
            index(doc! { "submitted": 1 }, false), // order of history
            // All that retention by age and number looks at, so that it reads no records.
            index(doc! { "completed": 1, "msg_id": 1, "result_content.status": 1 }, false),
        ] {
            wait_for(&runtime, LONG_TIMEOUT, async { records.create_index(index).await })?;
        }
        let (waiting, places) = (Vec::new(), HashMap::default());
        Ok(MongoDb { runtime, database, records, waiting, places, waiting_bytes: 0, unsure: 0, troubles: Vec::new() })
    }

    fn send(&self, updates: &[Update]) -> Result<Vec<Refusal>, DbError> {
        let statements: Vec<Document> = updates.iter().map(Update::statement).collect();
        // A record is in a batch once, so their order does not matter.
        let mut command = doc! { "update": COLLECTION, "updates": statements, "ordered": false };
        if let Some(concern) = self.database.write_concern().and_then(|concern| serialize_to_bson(concern).ok()) {
            command.insert("writeConcern", concern);
        }
        let answer = wait(&self.runtime, async { self.database.run_command(command).await })?;
        let refused: Vec<&Document> =
            answer.get_array("writeErrors").into_iter().flatten().filter_map(Bson::as_document).collect();
        if refused.iter().any(|error| error.get_i32("code").is_ok_and(|code| PASSING_CODES.contains(&code))) {
            return Err(DbError::Busy("MongoDB: the server is going away".into()));
        }
        let reason = |error: &Document| error.get_str("errmsg").unwrap_or("no reason given").to_owned();
        // What the server says is foreign input, too: a place outside the batch is nobody's.
        let place = |error: &Document| usize::try_from(error.get_i32("index").ok()?).ok().filter(|place| *place < updates.len());
        Ok(refused.into_iter().filter_map(|error| Some((place(error)?, reason(error)))).collect())
    }

    /// Sends what waits, and forgets it once it is known to be there or can not be.
    fn write(&mut self) -> Result<(), DbError> {
        while !self.waiting.is_empty() {
            let mut bytes = 0;
            let fits = |update: &&Update| {
                bytes += update.bytes;
                bytes <= BATCH_BYTES
            };
            let count = self.waiting.iter().take(BATCH_UPDATES).take_while(fits).count().max(1);
            self.unsure = self.unsure.max(count);
            let refused = match self.send(&self.waiting[..count]) {
                Ok(refused) => refused,
                Err(busy @ DbError::Busy(_)) => return Err(busy),
                // One that the server can not even read spoils the batch for the others.
                Err(_) => self.send_singly(0..count)?,
            };
            if let Some((index, reason)) = refused.first().cloned() {
                for (index, _) in &refused {
                    self.waiting[*index].make_lean();
                }
                let id = self.waiting[index].id.clone();
                let lost = self.send_singly(refused.iter().map(|(index, _)| *index))?;
                let (all, lost) = (refused.len(), lost.len());
                let detail = format!(
                    "MongoDB does not take {all} updates of task records, the first of task {id}: {reason}; {} are there without what is \
                     large, {lost} are lost",
                    all - lost
                );
                let (count, lost) = (all as u64, lost as u64);
                self.troubles.push(Trouble { kind: "an update is shortened or lost", count, lost, detail });
            }
            self.waiting.drain(..count);
            self.unsure = 0;
            self.waiting_bytes = self.waiting.iter().map(|update| update.bytes).sum();
            self.places.clear();
            self.places.extend(self.waiting.iter().enumerate().map(|(place, update)| (update.id.clone(), place)));
        }
        Ok(())
    }

    fn send_singly(&self, indices: impl Iterator<Item = usize>) -> Result<Vec<Refusal>, DbError> {
        let mut refused = Vec::new();
        for index in indices {
            match self.send(&self.waiting[index..=index]) {
                Ok(one) => refused.extend(one.into_iter().map(|(_, reason)| (index, reason))),
                Err(busy @ DbError::Busy(_)) => return Err(busy),
                Err(error) => refused.push((index, error.to_string())),
            }
        }
        Ok(refused)
    }

    /// Records for which a filter and then a query hold, in order of arrival.
    fn select(&mut self, filter: Document, fields: Document, query: &Query) -> Result<Vec<Record>, DbError> {
        self.write()?;
        let request = self.records.find(filter).projection(fields).sort(doc! { "_id": 1 }).allow_disk_use(true);
        let mut cursor = wait(&self.runtime, async { request.await })?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while wait(&self.runtime, cursor.advance())? {
            let document = Document::try_from(cursor.current()).map_err(Error::from)?;
            let record = record(document);
            if query.matches(&record) {
                bytes += record.size_bytes();
                if bytes > MAX_ANSWER_BYTES {
                    return Err(DbError::TooMuch(MAX_ANSWER_BYTES));
                }
                found.push(record);
            }
        }
        Ok(found)
    }
}

impl TaskDb for MongoDb {
    fn merge(&mut self, id: &str, patch: &Patch, create: bool) -> Result<(), DbError> {
        let place = self.places.get(id).copied();
        // What may be there already must not grow. And an update that only changes what is there can not take one in that makes it: what came
        // before must not be made by it.
        let is_closed = place.is_some_and(|place| place < self.unsure || create && !self.waiting[place].create);
        if is_closed || self.waiting.len() >= BATCH_UPDATES || self.waiting_bytes >= BATCH_BYTES {
            self.write()?;
        }
        let place = self.places.get(id).copied().unwrap_or_else(|| {
            self.places.insert(id.to_owned(), self.waiting.len());
            self.waiting.push(Update::new(id, create));
            self.waiting.len() - 1
        });
        let update = &mut self.waiting[place];
        let before = update.bytes;
        update.add(patch);
        self.waiting_bytes = (self.waiting_bytes + update.bytes).saturating_sub(before);
        Ok(())
    }

    fn get(&mut self, id: &str) -> Result<Option<Record>, DbError> {
        Ok(self.select(doc! { "msg_id": id }, Document::new(), &Query::default())?.pop())
    }

    fn find(&mut self, query: &Query, keys: &Keys) -> Result<Vec<Record>, DbError> {
        let mut fields = Document::new();
        if !keys.keys.is_empty() {
            fields.insert("msg_id", 1);
            fields.extend(keys.keys.iter().copied().chain(query.keys()).map(|key| (key.name().to_owned(), Bson::Int32(1))));
            let buffers = [("buffers", keys.buffers), ("result_buffers", keys.result_buffers)];
            fields.extend(buffers.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (name.to_owned(), Bson::Int32(1))));
        } else {
            fields.extend((!keys.buffers).then(|| ("buffers".to_owned(), Bson::Int32(0))));
            fields.extend((!keys.result_buffers).then(|| ("result_buffers".to_owned(), Bson::Int32(0))));
        }
        let mut conditions = Vec::new();
        if let Some(ids) = query.only_ids() {
            conditions.push(doc! { "msg_id": { "$in": ids } });
        }
        conditions.extend(query.necessary().map(|(key, necessary)| match necessary {
            Necessary::Text(text) => doc! { key.name(): text },
            Necessary::Null => doc! { key.name(): Bson::Null },
            Necessary::Something => doc! { key.name(): { "$ne": Bson::Null } },
        }));
        let filter = if conditions.is_empty() {
            Document::new()
        } else {
            doc! { "$and": conditions }
        };
        self.select(filter, fields, query)
    }

    fn history(&mut self) -> Result<Vec<String>, DbError> {
        self.write()?;
        let request = self.records.find(doc! { "submitted": { "$ne": Bson::Null } }).sort(doc! { "submitted": 1, "_id": 1 });
        let request = request.projection(doc! { "_id": 0, "msg_id": 1 }).allow_disk_use(true);
        let mut cursor = wait(&self.runtime, async { request.await })?;
        let mut ids = Vec::new();
        while wait(&self.runtime, cursor.advance())? {
            ids.extend(cursor.current().get_str("msg_id").ok().map(str::to_owned));
        }
        Ok(ids)
    }

    fn remove(&mut self, ids: &[String]) -> Result<(), DbError> {
        self.write()?;
        for ids in ids.chunks(10_000) {
            wait(&self.runtime, async { self.records.delete_many(doc! { "msg_id": { "$in": ids } }).await })?;
        }
        Ok(())
    }

    fn ended(&mut self, with_bytes: bool) -> Result<Vec<Ended>, DbError> {
        self.write()?;
        // Dates, rather than all but null: the index then has the whole answer.
        let completed = doc! { "$match": { "completed": { "$gte": DateTime::MIN } } };
        let mut fields = doc! { "_id": 0, "msg_id": 1, "completed": 1, "status": "$result_content.status" };
        if with_bytes {
            fields.insert("bytes", doc! { "$bsonSize": "$$ROOT" });
        }
        let sort = doc! { "$sort": { "completed": -1, "msg_id": -1 } };
        // Sizes need every record; they are sorted without what they were read from.
        let stages = if with_bytes {
            [completed, doc! { "$project": fields }, sort]
        } else {
            [completed, sort, doc! { "$project": fields }]
        };
        let request = self.records.aggregate(stages).allow_disk_use(true);
        let mut cursor = wait_for(&self.runtime, LONG_TIMEOUT, async { request.await })?;
        let mut ended = Vec::new();
        while wait(&self.runtime, cursor.advance())? {
            let found = Document::try_from(cursor.current()).map_err(Error::from)?;
            let Ok(id) = found.get_str("msg_id") else { continue };
            ended.push(Ended {
                id: id.to_owned(),
                completed: found.get_datetime("completed").ok().copied().map(to_date),
                bytes: found.get_i32("bytes").map_or(0, |bytes| u64::from(bytes.unsigned_abs())),
                status: Status::of(found.get_str("status").ok()),
            });
        }
        Ok(ended)
    }

    fn flush(&mut self) -> Result<(), DbError> {
        self.write()
    }

    fn troubles(&mut self) -> Vec<Trouble> {
        std::mem::take(&mut self.troubles)
    }

    fn unwritten(&self) -> Vec<Box<str>> {
        self.waiting.iter().map(|update| update.id.as_str().into()).collect()
    }
}

impl Drop for MongoDb {
    fn drop(&mut self) {
        // Without an answer just now there will be none now.
        let outcome = if self.unsure == 0 { self.write() } else { Err(DbError::Busy("MongoDB has not answered".into())) };
        if let Err(error) = outcome {
            tracing::error!("the last {} updates of task records are lost: {error}", self.waiting.len());
        }
    }
}
