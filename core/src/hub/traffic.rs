//! What passes by: requests, replies and output, turned into counts and records. Nothing here is answered.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::machine::{Action, Hub, InFlight, Now, Reason, Topic};
use super::news::TaskNews;
use crate::db::{Key, Patch};
use crate::wire::{self, ErrorContent, Header, Parent, ReplyMetadata, Status};
use crate::{Envelope, Packer};

impl Hub {
    pub(super) fn copied(&mut self, now: Now, topic: Topic, envelope: &Envelope) {
        if let Err(refused) = self.session.admit(envelope) {
            return self.reject(Reason::Refused(refused));
        }
        let envelope = match self.session.packer().message_as_json(envelope) {
            Ok(envelope) => envelope,
            Err(part) => return self.reject(Reason::Json(part)),
        };
        let envelope = &*envelope;
        let Ok(header) = Header::parse(envelope.header()) else { return self.reject(Reason::Json("header")) };
        match topic {
            // It has no reply, so it would be in flight for ever.
            Topic::In if header.msg_type.starts_with("comm_") => {}
            Topic::In => {
                let engine = String::from_utf8_lossy(envelope.identity(0));
                if self.begin(now, &header.msg_id, Some(&engine)) {
                    self.record_request(&header.msg_id, &header, envelope, Some(&engine));
                }
            }
            Topic::Out => {
                let parent: Parent<'_> = wire::object(envelope.parent()).unwrap_or_default();
                let Some(id) = parent.msg_id else { return self.reject(Reason::Json("parent header")) };
                let metadata: ReplyMetadata<'_> = wire::object(envelope.metadata()).unwrap_or_default();
                let status = wire::reply_status(Packer::Json, &metadata, envelope.content());
                if let Some(is_task) = self.end(&id, status) {
                    self.record_result(now, &id, &header, envelope, envelope.identity(1), &metadata, is_task);
                }
            }
            Topic::Iopub => self.output(now, &header, envelope),
        }
    }

    pub(super) fn task_news(&mut self, now: Now, news: TaskNews) {
        let packer = self.session.packer();
        let as_json = |envelope: Envelope| match packer.message_as_json(&envelope) {
            Ok(Cow::Borrowed(_)) => Some(envelope),
            Ok(Cow::Owned(translated)) => Some(translated),
            Err(_) => None, // the scheduler has read it, and refuses what can not be
        };
        match news {
            TaskNews::Submitted { id, .. } | TaskNews::Sent { id, .. } if self.is_last_word(&id) => {}
            TaskNews::Ended { id, reply, .. } if self.is_last_word(&id) => {
                let reply = reply.and_then(as_json);
                self.last_word(now, &id, reply.as_ref());
            }
            TaskNews::Submitted { id, request } => {
                let is_new = self.begin(now, &id, None);
                if is_new
                    && let Some(request) = request.and_then(as_json)
                    && let Ok(header) = Header::parse(request.header())
                {
                    self.record_request(&id, &header, &request, None);
                }
            }
            TaskNews::Sent { id, engine } => self.sent(&id, &engine),
            TaskNews::Ended { id, status, reply } => {
                if let Some(is_task) = self.end(&id, status)
                    && let Some(reply) = reply.and_then(as_json)
                    && let Ok(header) = Header::parse(reply.header())
                {
                    let metadata: ReplyMetadata<'_> = wire::object(reply.metadata()).unwrap_or_default();
                    self.record_result(now, &id, &header, &reply, reply.identity(0), &metadata, is_task);
                }
            }
        }
    }

    /// A request is in flight from now on, a direct one to an engine. False if it is known already.
    fn begin(&mut self, now: Now, id: &str, engine: Option<&str>) -> bool {
        if self.completed.get(id) != 0 {
            return false; // seen again, by mistake or malice: what is known of it stands
        }
        if self.in_flight.contains_key(id) {
            return false; // sent again, by this program under another date: its record has what its client sent
        }
        match engine.map(|uuid| self.engines.by_uuid(uuid)) {
            Some(Some(live)) => live.queue += 1,
            // Sent to an engine that is gone: nobody will answer, and the record is to say so, too.
            Some(None) => self.dies(now, engine.unwrap_or_default()),
            None => self.unassigned += 1,
        }
        let request = InFlight { is_task: engine.is_none(), engine: engine.map(Into::into), is_orphan: false };
        self.in_flight.insert(id.into(), request);
        true
    }

    fn record_request(&mut self, id: &str, header: &Header<'_>, envelope: &Envelope, engine: Option<&str>) {
        #[derive(Default, Deserialize)]
        struct Labelled<'a> {
            #[serde(borrow, default)]
            label: Option<&'a RawValue>,
        }
        if !self.config.keeps_records {
            return;
        }
        let labelled: Labelled<'_> = wire::object(envelope.metadata()).unwrap_or_default();
        let mut patch = Patch::default()
            .json(Key::Header, envelope.part_bytes(0))
            .json(Key::Metadata, envelope.part_bytes(2))
            .json(Key::Content, envelope.part_bytes(3))
            .text(Key::ClientUuid, &header.session)
            .text(Key::Queue, if engine.is_none() { "task" } else { "mux" });
        if let Some(date) = header.date() {
            patch = patch.date(Key::Submitted, date);
        }
        if let Some(label) = labelled.label {
            patch = patch.json(Key::Label, label.get().to_owned().into());
        }
        if let Some(engine) = engine {
            patch = patch.text(Key::EngineUuid, engine);
        }
        patch.buffers = Some(envelope.buffers().collect());
        self.record(id, patch, true);
    }

    /// A task has been sent to an engine, perhaps not for the first time.
    fn sent(&mut self, id: &str, engine: &Arc<str>) {
        let Some(request) = self.in_flight.get_mut(id) else { return };
        match request.engine.replace(engine.clone()) {
            None => self.unassigned -= 1,
            Some(before) => {
                if let Some(live) = self.engines.by_uuid(&before) {
                    live.tasks = live.tasks.saturating_sub(1);
                }
            }
        }
        if let Some(live) = self.engines.by_uuid(engine) {
            live.tasks += 1;
        }
        if self.config.keeps_records {
            self.record(id, Patch::default().text(Key::EngineUuid, engine), false);
        }
    }

    /// A request is answered. Returns whether it was a task, or nothing if it was not in flight.
    fn end(&mut self, id: &str, status: Status) -> Option<bool> {
        let is_task = self.complete(id, status);
        // Known and answered: a late answer of an engine that was taken for lost, say. The first one stands.
        if is_task.is_none() && self.completed.get(id) == 0 {
            self.reject(Reason::UnknownTask);
        }
        is_task
    }

    #[allow(clippy::too_many_arguments, reason = "what has been read of a reply, each part by its own type")]
    fn record_result(
        &mut self,
        now: Now,
        id: &str,
        header: &Header<'_>,
        envelope: &Envelope,
        engine: &[u8],
        metadata: &ReplyMetadata<'_>,
        is_task: bool,
    ) {
        if !self.config.keeps_records {
            return;
        }
        let engine = metadata.engine.as_deref().unwrap_or_else(|| std::str::from_utf8(engine).unwrap_or(""));
        let mut patch = Patch::default()
            .json(Key::ResultHeader, envelope.part_bytes(0))
            .json(Key::ResultMetadata, self.with_policies(envelope.part_bytes(2), is_task))
            .json(Key::ResultContent, envelope.part_bytes(3))
            .date(Key::Completed, header.date().unwrap_or(now.date))
            .date(Key::Received, now.date);
        if is_task || !engine.is_empty() {
            patch = patch.text(Key::EngineUuid, engine);
        }
        if let Some(started) = metadata.started.as_deref().and_then(crate::date::Date::parse) {
            patch = patch.date(Key::Started, started);
        }
        patch.result_buffers = Some(envelope.buffers().collect());
        self.record(id, patch, false);
    }

    /// The metadata of a task's reply with the policies under which it ran; clients read what they know and leave the rest.
    fn with_policies(&self, metadata: Bytes, is_task: bool) -> Bytes {
        let Some(policies) = self.policies.as_ref().filter(|_| is_task) else { return metadata };
        let Some(inside) = metadata.trim_ascii().strip_suffix(b"}") else { return metadata };
        let comma = if inside.trim_ascii_end().ends_with(b"{") { "" } else { ", " };
        let mut whole = BytesMut::with_capacity(metadata.len() + policies.len() + 16);
        whole.extend_from_slice(inside);
        whole.extend_from_slice(format!("{comma}\"policies\": {policies}}}").as_bytes());
        whole.freeze()
    }

    /// A request is no longer in flight. Returns whether it was a task, or nothing if it was not in flight.
    pub(super) fn complete(&mut self, id: &str, status: Status) -> Option<bool> {
        let InFlight { is_task, engine, .. } = self.in_flight.remove(id)?;
        self.completed.set(id, 1);
        match engine.as_deref().map(|uuid| self.engines.by_uuid(uuid)) {
            Some(Some(live)) => {
                let count = if is_task { &mut live.tasks } else { &mut live.queue };
                *count = count.saturating_sub(1);
                live.completed += u64::from(!(is_task && status == Status::Aborted));
            }
            Some(None) => {}
            None => self.unassigned -= u64::from(is_task),
        }
        Some(is_task)
    }

    /// Direct requests of a lost engine that nobody will answer: their records say so. Clients know by the notification.
    pub(super) fn strand(&mut self, now: Now, uuid: &str) {
        let lost = |request: &InFlight| (!request.is_task || request.is_orphan) && request.engine.as_deref() == Some(uuid);
        let ids: Vec<Box<str>> = self.in_flight.iter().filter(|(_, r)| lost(r)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.complete(&id, Status::Error);
            let content = ErrorContent::new("EngineError", format!("Engine '{uuid}' died while running task '{id}'"));
            self.record_error(now, &id, uuid, &content);
        }
    }

    /// Ends a record for which no reply will come.
    pub(super) fn record_error(&mut self, now: Now, id: &str, engine: &str, content: &ErrorContent) {
        let (_, header) = self.session.header("apply_reply", now.date);
        let header = self.session.packer().to_json(header.into()).unwrap_or_default(); // it is our own
        let patch = Patch::default()
            .json(Key::ResultHeader, header)
            .value(Key::ResultMetadata, &json!({"status": "error", "engine": engine}))
            .json(Key::ResultContent, content.to_json().into())
            .date(Key::Completed, now.date)
            .date(Key::Received, now.date);
        self.record(id, patch, false);
    }

    fn output(&mut self, now: Now, header: &Header<'_>, envelope: &Envelope) {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Stream {
            name: Option<String>,
            text: Option<String>,
            code: Option<String>,
        }
        if !self.engines.pending.is_empty() {
            self.heard(now, &header.session);
        }
        if header.msg_type == "shutdown_reply" {
            if let Some(&number) = self.engines.numbers.get(&*header.session) {
                self.unregister(now, number);
            }
            return;
        }
        let parent: Parent<'_> = wire::object(envelope.parent()).unwrap_or_default();
        let Some(id) = parent.msg_id else { return }; // of an engine's own accord: nothing to attach it to
        let content = envelope.part_bytes(3);
        let patch = match &*header.msg_type {
            "stream" => {
                let Ok(stream) = wire::object::<Stream>(&content) else { return self.reject(Reason::Json("content")) };
                let key = if stream.name.as_deref() == Some("stderr") { Key::Stderr } else { Key::Stdout };
                Patch::default().append(key, stream.text.unwrap_or_default())
            }
            "execute_input" => {
                let Ok(input) = wire::object::<Stream>(&content) else { return self.reject(Reason::Json("content")) };
                Patch::default().text(Key::ExecuteInput, &input.code.unwrap_or_default())
            }
            "execute_result" => Patch::default().json(Key::ExecuteResult, content),
            "error" => Patch::default().json(Key::Error, content),
            "display_data" => Patch::default().json(Key::DisplayData, content),
            _ => return, // status, data messages, comms: nothing to keep
        };
        self.record(&id, patch, true);
    }

    fn record(&mut self, id: &str, patch: Patch, create: bool) {
        if self.config.keeps_records {
            self.actions.push_back(Action::Record { id: id.to_owned(), patch, create });
        }
    }
}
