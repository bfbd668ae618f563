//! Answers that needed the store first, and how answers and errors are written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::engines::EngineNumber;
use super::machine::{Action, DaskAddress, DbCall, DbReply, Hub, InFlight, Now};
use crate::db::{DbError, Key, Keys, MAX_ANSWER_BYTES, Patch, Record, Status, TaskDb};
use crate::session::Parts;
use crate::wire::ErrorContent;
use crate::{Multipart, Packer, renew};

/// Who asked, and with which header.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) to: Vec<u8>,
    pub(super) parent: Bytes,
}

/// What to do with the store's answer.
#[derive(Debug)]
pub(super) enum Asked {
    History(Asker),
    Find(Asker),
    Results {
        asker: Asker,
        pending: Vec<String>,
        ended: Vec<String>,
        status_only: bool,
    },
    Queue(Asker, Map<String, Value>, Vec<(Box<str>, EngineNumber)>),
    Purge(Asker),
    Resubmit(Asker, Vec<String>),
    /// What is not done of a former controller's.
    Restore,
    /// The records of these tasks, to send them again.
    Again(Vec<String>),
    BecomeDask(Asker),
    StopDask(Asker),
    Errand(Asker),
}

/// An error for the one who asked. The reference answers some with the reply's own type and some with `hub_error`.
#[derive(Debug)]
pub(super) struct Failure {
    by_hub: bool,
    content: ErrorContent,
}

impl Failure {
    /// In the reply's own type.
    pub(super) fn own(ename: &str, evalue: impl Into<String>) -> Self {
        Failure { by_hub: false, content: ErrorContent::new(ename, evalue) }
    }

    /// As `hub_error`.
    pub(super) fn hub(ename: &str, evalue: impl Into<String>) -> Self {
        Failure { by_hub: true, content: ErrorContent::new(ename, evalue) }
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Failure::own(error.ename(), error.to_string())
    }
}

/// JSON of a record as it is, null where there is none or where it is not JSON after all.
fn raw(record: &Record, key: Key) -> Box<RawValue> {
    let text = record.json(key).and_then(|json| std::str::from_utf8(json).ok()).unwrap_or("null");
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Records as the content and buffers of a `db_reply`.
fn show(keys: &Keys, records: Vec<Record>) -> Result<DbReply, DbError> {
    let mut content = b"{\"status\":\"ok\",\"records\":[".to_vec();
    for (n, record) in records.iter().enumerate() {
        if n > 0 {
            content.push(b',');
        }
        record.write_json(&keys.keys, &mut content);
        if content.len() > MAX_ANSWER_BYTES {
            return Err(DbError::TooMuch(MAX_ANSWER_BYTES));
        }
    }
    let lens = |wanted: bool, of: fn(&Record) -> usize| -> Value {
        if wanted { json!(records.iter().map(of).collect::<Vec<_>>()) } else { Value::Null }
    };
    let request_lens = lens(keys.buffers, |record| record.buffers.len());
    let result_lens = lens(keys.result_buffers, |record| record.result_buffers.len());
    let tail = format!("],\"buffer_lens\":{request_lens},\"result_buffer_lens\":{result_lens}}}");
    content.extend_from_slice(tail.as_bytes());
    let mut buffers = Vec::new();
    for record in records {
        if keys.buffers {
            buffers.extend(record.buffers);
        }
        if keys.result_buffers {
            buffers.extend(record.result_buffers);
        }
    }
    Ok(DbReply::Shown { content, buffers })
}

impl DbCall {
    /// Asks a store. O(what it reads); the answer to a [`Show`](DbCall::Show) is written here, as the hub has heartbeats to attend to.
    ///
    /// # Errors
    /// If the store fails, keeps nothing, or the answer would be too large.
    pub fn perform(&self, db: &mut dyn TaskDb) -> Result<DbReply, DbError> {
        match self {
            DbCall::Get(ids) => {
                let (mut records, mut bytes) = (Vec::new(), 0);
                for id in ids {
                    records.extend(db.get(id)?);
                    bytes += records.last().map_or(0, Record::size_bytes);
                    if bytes > MAX_ANSWER_BYTES {
                        return Err(DbError::TooMuch(MAX_ANSWER_BYTES));
                    }
                }
                Ok(DbReply::Records(records))
            }
            DbCall::Find(query, keys) => db.find(query, keys).map(DbReply::Records),
            DbCall::Show(query, keys) => show(keys, db.find(query, keys)?),
            DbCall::History => db.history().map(DbReply::Ids),
            DbCall::Remove(ids, queries) => {
                db.remove(ids)?;
                for query in queries {
                    db.remove_matching(query)?;
                }
                Ok(DbReply::Removed)
            }
        }
    }
}

impl Hub {
    pub(super) fn reply(&mut self, now: Now, asker: &Asker, msg_type: &str, content: &Value) {
        self.reply_json(now, asker, msg_type, content.to_string().into_bytes(), Vec::new());
    }

    fn reply_json(&mut self, now: Now, asker: &Asker, msg_type: &str, content: Vec<u8>, buffers: Vec<Bytes>) {
        let parts = self.session.compose(msg_type, now.date, &asker.parent, b"{}", content);
        self.actions.push_back(Action::Reply { to: asker.to.clone(), parts, buffers });
    }

    pub(super) fn reply_failure(&mut self, now: Now, asker: &Asker, reply_type: &str, failure: Failure) {
        let msg_type = if failure.by_hub { "hub_error" } else { reply_type };
        self.reply_json(now, asker, msg_type, failure.content.to_json(), Vec::new());
    }

    pub(super) fn db_replied(&mut self, now: Now, number: u64, reply: Result<DbReply, DbError>) {
        let Some(asked) = self.asked.remove(&number) else { return };
        let (asker, reply_type) = match &asked {
            Asked::Restore => return self.pending_found(now, reply),
            Asked::Again(ids) => return self.again_found(now, ids.clone(), reply),
            Asked::BecomeDask(_) | Asked::StopDask(_) | Asked::Errand(_) => return, // not the store's to answer
            Asked::History(asker) => (asker.clone(), "history_reply"),
            Asked::Find(asker) => (asker.clone(), "db_reply"),
            Asked::Results { asker, .. } => (asker.clone(), "result_reply"),
            Asked::Queue(asker, ..) => (asker.clone(), "queue_reply"),
            Asked::Purge(asker) => (asker.clone(), "purge_reply"),
            Asked::Resubmit(asker, _) => (asker.clone(), "resubmit_reply"),
        };
        let outcome = reply.map_err(Failure::from).and_then(|reply| self.answer(now, asked, reply));
        if let Err(failure) = outcome {
            self.reply_failure(now, &asker, reply_type, failure);
        }
    }

    fn answer(&mut self, now: Now, asked: Asked, reply: DbReply) -> Result<(), Failure> {
        match (asked, reply) {
            (Asked::History(asker), DbReply::Ids(history)) => {
                self.reply(now, &asker, "history_reply", &json!({"status": "ok", "history": history}));
            }
            (Asked::Find(asker), DbReply::Shown { content, buffers }) => {
                self.reply_json(now, &asker, "db_reply", content, buffers);
            }
            (Asked::Results { asker, pending, ended, status_only }, DbReply::Records(records)) => {
                self.answer_results(now, &asker, pending, &ended, status_only, &records)?;
            }
            (Asked::Queue(asker, mut reply, uuids), DbReply::Records(records)) => {
                let asked: HashMap<Box<str>, EngineNumber, FixedState> = uuids.into_iter().collect();
                let mut completed: BTreeMap<EngineNumber, Vec<&str>> = BTreeMap::new();
                for record in &records {
                    let by = record.value(Key::EngineUuid);
                    if let Some(number) = by.as_str().and_then(|uuid| asked.get(uuid)) {
                        completed.entry(*number).or_default().push(&record.id);
                    }
                }
                for (number, ids) in completed {
                    reply[&number.to_string()]["completed"] = json!(ids);
                }
                self.reply(now, &asker, "queue_reply", &Value::Object(reply));
            }
            (Asked::Purge(asker), DbReply::Removed) => self.reply(now, &asker, "purge_reply", &json!({"status": "ok"})),
            (Asked::Resubmit(asker, ids), DbReply::Records(records)) => self.answer_resubmit(now, &asker, &ids, records)?,
            _ => return Err(Failure::hub("RuntimeError", "the store answered another question")),
        }
        Ok(())
    }

    fn answer_results(
        &mut self,
        now: Now,
        asker: &Asker,
        mut pending: Vec<String>,
        ended: &[String],
        status_only: bool,
        records: &[Record],
    ) -> Result<(), Failure> {
        #[derive(serde::Serialize)]
        struct Shown {
            header: Box<RawValue>,
            metadata: Box<RawValue>,
            result_metadata: Box<RawValue>,
            result_header: Box<RawValue>,
            result_content: Box<RawValue>,
            received: Box<RawValue>,
            io: Io,
        }
        #[derive(serde::Serialize)]
        struct Io {
            execute_input: Box<RawValue>,
            execute_result: Box<RawValue>,
            error: Box<RawValue>,
            stdout: Box<RawValue>,
            stderr: Box<RawValue>,
        }
        let mut completed = Vec::new();
        let mut buffers = Vec::new();
        let mut shown = Vec::new();
        // The records come in the order of the ids; some may be missing.
        let mut records = records.iter().peekable();
        for id in ended {
            let Some(record) = records.next_if(|record| record.id == *id) else {
                if status_only && self.completed.get(id) != 0 {
                    completed.push(id.clone());
                    continue;
                }
                return Err(Failure::own("KeyError", format!("No such message: {id}")));
            };
            if record.json(Key::Completed).is_none() {
                pending.push(id.clone()); // of a former controller, or only output so far
                continue;
            }
            completed.push(id.clone());
            if !status_only {
                let io = Io {
                    execute_input: raw(record, Key::ExecuteInput),
                    execute_result: raw(record, Key::ExecuteResult),
                    error: raw(record, Key::Error),
                    stdout: raw(record, Key::Stdout),
                    stderr: raw(record, Key::Stderr),
                };
                shown.push(Shown {
                    header: raw(record, Key::Header),
                    metadata: raw(record, Key::Metadata),
                    result_metadata: raw(record, Key::ResultMetadata),
                    result_header: raw(record, Key::ResultHeader),
                    result_content: if lacks_result(record) { not_kept() } else { raw(record, Key::ResultContent) },
                    received: raw(record, Key::Received),
                    io,
                });
                buffers.extend(record.result_buffers.iter().cloned());
            }
        }
        let mut content = json!({"status": "ok", "pending": pending, "completed": completed}).to_string();
        content.pop();
        for (id, shown) in completed.iter().zip(shown) {
            content.push(',');
            content.push_str(&json!(id).to_string());
            content.push(':');
            content.push_str(&serde_json::to_string(&shown).unwrap_or_else(|_| "null".into()));
        }
        content.push('}');
        self.reply_json(now, asker, "result_reply", content.into_bytes(), buffers);
        Ok(())
    }

    /// A request out of the records, signed; nothing if this cluster's packer can not write it.
    pub(super) fn sealed(&self, header: Vec<u8>, metadata: Vec<u8>, content: Vec<u8>) -> Option<Parts> {
        let packer = self.session.packer();
        let [header, metadata, content] = [header, metadata, content].map(|json| packer.of_json(json).ok());
        Some(self.session.seal(header?, packer.empty_object().to_vec(), metadata?, content?))
    }

    /// Has a request run under the identity of nobody: the scheduler keeps its answer to itself.
    pub(super) fn resubmit(&mut self, parts: &Parts, buffers: &[Bytes]) {
        let frames = std::iter::once(&b""[..]).chain(parts.iter().map(Vec::as_slice));
        let message = Multipart::pack(frames.chain(buffers.iter().map(|buffer| &buffer[..])));
        self.actions.push_back(Action::Resubmit(Arc::new(message)));
    }

    pub(super) fn dask_replied(&mut self, now: Now, number: u64, outcome: Result<Option<DaskAddress>, String>) {
        let (asker, reply_type) = match self.asked.remove(&number) {
            Some(Asked::BecomeDask(asker)) => (asker, "become_dask_reply"),
            Some(Asked::StopDask(asker)) => (asker, "stop_distributed_reply"),
            _ => return,
        };
        match outcome {
            Ok(address) => {
                let mut content = address.map_or_else(|| json!({}), |address| json!(address));
                content["status"] = json!("ok");
                self.reply(now, &asker, reply_type, &content);
            }
            Err(reason) => self.reply_failure(now, &asker, reply_type, Failure::hub("RuntimeError", reason)),
        }
    }

    pub(super) fn errand_done(&mut self, now: Now, number: u64, outcome: Result<Value, String>) {
        let Some(Asked::Errand(asker)) = self.asked.remove(&number) else { return };
        match outcome {
            Ok(mut content) => {
                content["status"] = json!("ok");
                self.reply(now, &asker, "pointsman_reply", &content);
            }
            Err(reason) => self.reply_failure(now, &asker, "pointsman_reply", Failure::own("ValueError", reason)),
        }
    }

    fn answer_resubmit(&mut self, now: Now, asker: &Asker, ids: &[String], records: Vec<Record>) -> Result<(), Failure> {
        let known: BTreeSet<&str> = records.iter().filter(|record| record.is_submitted()).map(|record| &*record.id).collect();
        let missing: Vec<&String> = ids.iter().filter(|id| !known.contains(id.as_str())).collect();
        if !missing.is_empty() {
            return Err(Failure::own("KeyError", format!("No such msg(s): {missing:?}")));
        }
        if let Some(record) = records.iter().find(|record| lacks_request(record)) {
            return Err(Failure::own("OSError", format!("{}: {REQUEST_NOT_KEPT}", record.id)));
        }
        let mut sealed = Vec::with_capacity(records.len());
        for record in &records {
            let json_of = |key| record.json(key).map_or_else(|| b"{}".to_vec(), |json| json.to_vec());
            let (metadata, content) = (json_of(Key::Metadata), json_of(Key::Content));
            let new_id = self.session.next_msg_id();
            let header = record.json(Key::Header).and_then(|header| renew::renewed_as(Packer::Json, header, &new_id, now.date));
            let parts = header.clone().and_then(|header| self.sealed(header, metadata.clone(), content.clone()));
            let (Some(header), Some(parts)) = (header, parts) else {
                return Err(Failure::own("OSError", format!("{}: {UNREADABLE_REQUEST}", record.id)));
            };
            sealed.push((new_id, parts, header, metadata, content));
        }
        let mut resubmitted = Map::new();
        for (record, (new_id, parts, header, metadata, content)) in records.into_iter().zip(sealed) {
            let mut patch = Patch::default()
                .json(Key::Header, header.into())
                .json(Key::Metadata, metadata.into())
                .json(Key::Content, content.into())
                .date(Key::Submitted, now.date)
                .value(Key::ClientUuid, &record.value(Key::ClientUuid))
                .value(Key::Label, &record.value(Key::Label))
                .text(Key::Queue, "task");
            patch.buffers = Some(record.buffers.clone());
            // Known as pending before the answer is out: the client asks for the result at once.
            self.in_flight.insert(new_id.as_str().into(), InFlight { is_task: true, engine: None, is_orphan: false });
            self.unassigned += 1;
            self.actions.push_back(Action::Record { id: new_id.clone(), patch, create: true });
            let link = Patch::default().text(Key::Resubmitted, &new_id);
            self.actions.push_back(Action::Record { id: record.id.clone(), patch: link, create: false });
            self.resubmit(&parts, &record.buffers);
            resubmitted.insert(record.id, json!(new_id));
        }
        self.reply(now, asker, "resubmit_reply", &json!({"status": "ok", "resubmitted": resubmitted}));
        Ok(())
    }
}

pub(super) const UNREADABLE_REQUEST: &str = "the task's header in the records is not a JSON object: it can not be sent again";

pub(super) const REQUEST_NOT_KEPT: &str =
    "the task's arguments were not kept: too large for the store of task records, or more than it could take just then";

/// Whether a store has kept a task, and not its arguments: without them it can not be sent again.
pub(super) fn lacks_request(record: &Record) -> bool {
    record.buffers.is_empty() && record.value(Key::Header)["msg_type"] == "apply_request"
}

/// Whether a store has kept that a task ended well, and not what it returned.
fn lacks_result(record: &Record) -> bool {
    record.result_buffers.is_empty()
        && record.json(Key::ResultContent).is_some()
        && record.status() == Status::Ok
        && record.value(Key::ResultHeader)["msg_type"] == "apply_reply"
}

fn not_kept() -> Box<RawValue> {
    let content = ErrorContent::new(
        "OSError",
        "the task has ended, but its result was not kept: too large for the store of task records, or more than it could take just then",
    );
    String::from_utf8(content.to_json()).ok().and_then(|json| RawValue::from_string(json).ok()).unwrap_or_default()
}
