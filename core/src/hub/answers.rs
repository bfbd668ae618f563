//! Answers that needed the store first, and how answers and errors are written.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::engines::EngineNumber;
use super::machine::{Action, DbReply, Hub, InFlight, Now};
use crate::db::{DbError, Key, Keys, Patch, Record};
use crate::wire::ErrorContent;
use crate::{DELIMITER, Multipart};

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
    Find(Asker, Keys),
    Results { asker: Asker, pending: Vec<String>, ended: Vec<String>, status_only: bool },
    Queue(Asker, Map<String, Value>, Vec<(Box<str>, EngineNumber)>),
    Purge(Asker),
    Resubmit(Asker, Vec<String>),
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
            Asked::History(asker) => (asker.clone(), "history_reply"),
            Asked::Find(asker, _) => (asker.clone(), "db_reply"),
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
            (Asked::Find(asker, keys), DbReply::Records(records)) => self.answer_find(now, &asker, &keys, &records),
            (Asked::Results { asker, pending, ended, status_only }, DbReply::Records(records)) => {
                self.answer_results(now, &asker, pending, &ended, status_only, &records)?;
            }
            (Asked::Queue(asker, mut reply, uuids), DbReply::Records(records)) => {
                for (uuid, number) in uuids {
                    let by_it = |record: &&Record| record.value(Key::EngineUuid).as_str() == Some(&uuid);
                    let ids: Vec<&str> = records.iter().filter(by_it).map(|record| record.id.as_str()).collect();
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

    fn answer_find(&mut self, now: Now, asker: &Asker, keys: &Keys, records: &[Record]) {
        let mut content = b"{\"status\":\"ok\",\"records\":[".to_vec();
        for (n, record) in records.iter().enumerate() {
            if n > 0 {
                content.push(b',');
            }
            record.write_json(&keys.keys, &mut content);
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
                buffers.extend(record.buffers.iter().cloned());
            }
            if keys.result_buffers {
                buffers.extend(record.result_buffers.iter().cloned());
            }
        }
        self.reply_json(now, asker, "db_reply", content, buffers);
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
        for id in ended {
            let Some(record) = records.iter().find(|record| record.id == *id) else {
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
                    result_content: raw(record, Key::ResultContent),
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

    fn answer_resubmit(&mut self, now: Now, asker: &Asker, ids: &[String], records: Vec<Record>) -> Result<(), Failure> {
        let missing: Vec<&String> = ids.iter().filter(|id| !records.iter().any(|r| r.id == **id && r.is_submitted())).collect();
        if !missing.is_empty() {
            return Err(Failure::own("KeyError", format!("No such msg(s): {missing:?}")));
        }
        let mut resubmitted = Map::new();
        for record in records {
            let new_id = self.session.next_msg_id();
            let mut header = record.value(Key::Header);
            header["msg_id"] = json!(new_id);
            header["date"] = json!(now.date);
            let header = header.to_string().into_bytes();
            let json_of = |key| record.json(key).map_or_else(|| b"{}".to_vec(), |json| json.to_vec());
            let (metadata, content) = (json_of(Key::Metadata), json_of(Key::Content));
            let parts = self.session.seal(header.clone(), b"{}".to_vec(), metadata.clone(), content.clone());
            debug_assert_eq!(parts[0], DELIMITER);
            // The identity of nobody: the scheduler keeps the answer to itself.
            let frames =
                std::iter::once(&b""[..]).chain(parts.iter().map(Vec::as_slice)).chain(record.buffers.iter().map(|b| &b[..]));
            let message = Arc::new(Multipart::pack(frames));
            let mut patch = Patch::default()
                .json(Key::Header, header.into())
                .json(Key::Metadata, metadata.into())
                .json(Key::Content, content.into())
                .value(Key::Submitted, &json!(now.date))
                .value(Key::ClientUuid, &record.value(Key::ClientUuid))
                .value(Key::Label, &record.value(Key::Label))
                .text(Key::Queue, "task");
            patch.buffers = Some(record.buffers.clone());
            // Known as pending before the answer is out: the client asks for the result at once.
            self.in_flight.insert(new_id.as_str().into(), InFlight { is_task: true, engine: None });
            self.unassigned += 1;
            self.actions.push_back(Action::Record { id: new_id.clone(), patch, create: true });
            let link = Patch::default().text(Key::Resubmitted, &new_id);
            self.actions.push_back(Action::Record { id: record.id.clone(), patch: link, create: false });
            self.actions.push_back(Action::Resubmit(message));
            resubmitted.insert(record.id, json!(new_id));
        }
        self.reply(now, asker, "resubmit_reply", &json!({"status": "ok", "resubmitted": resubmitted}));
        Ok(())
    }
}
