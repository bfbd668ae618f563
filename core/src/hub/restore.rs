//! What a former controller has left behind: its engines, and what its records say is not done. Each such request comes to an end: it is
//! answered by the engine that has it, or sent again under a new signature, or its record says why there will be no answer.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde_json::json;

use super::answers::{Asked, REQUEST_NOT_KEPT, UNREADABLE_REQUEST, lacks_request};
use super::engines::EnginesState;
use super::machine::{Action, DbCall, DbReply, Hub, InFlight, Now};
use crate::Envelope;
use crate::date::Date;
use crate::db::{DbError, Key, Keys, Query, Record};
use crate::packer::Packer;
use crate::renew;
use crate::wire::{ErrorContent, Status};

/// Requests whose records are read at once to be sent again.
const AT_ONCE: usize = 64;
/// How long after an engine has done what it was given last a direct request that it had before may still be answered: the two answers
/// travel on different connections, which may come back at different times.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What is still open of a former controller's.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Since when its requests are ours, and the engines that it had; nothing if it is not known who they were.
    since: Option<Date>,
    engines: Option<BTreeSet<Box<str>>>,
    /// Requests of our own behind all that an engine had before, by id, with the engine's uuid: once such a one is answered, what else it
    /// had and has not answered it has no more.
    last_words: HashMap<Box<str>, Box<str>, FixedState>,
    /// Engines that have given theirs, and when that counts for direct requests.
    settling: VecDeque<(Duration, Box<str>)>,
    /// Tasks to be sent again, whose records are to be read first.
    again: VecDeque<Box<str>>,
    /// Records are being read for that.
    is_reading: bool,
    /// So many of them are read one by one, as together they are too much for an answer.
    singly: usize,
}

impl Hub {
    /// Takes over the engines of a former controller, and what its records say is not done: what was sent to an engine that is there may
    /// still be answered, what was sent to another will not, and what was sent nowhere is sent now.
    pub fn restore(&mut self, state: &EnginesState) {
        self.since = state.since;
        for (&number, uuid) in &state.engines {
            if self.engines.restore(uuid, number) {
                self.hearts.resume(uuid);
                self.actions.push_back(Action::EngineUp { uuid: uuid.as_str().into(), number });
            }
        }
        self.engines.continue_at(state.next_id);
        tracing::info!("{} engines restored; those that do not answer will be lost", self.engines.live.len());
        // The store may be shared, and be older than this cluster: what is not of its engines and its time is none of its business.
        let engines = state.engines.values().chain(&state.leaving).map(|uuid| uuid.as_str().into()).collect();
        self.restore_records(state.since, Some(engines));
    }

    /// Takes over what the records since then say is not done, of a former controller whose engines are not known.
    pub fn restore_without_engines(&mut self, since: Option<Date>) {
        self.since = since;
        self.restore_records(since, None);
    }

    fn restore_records(&mut self, since: Option<Date>, engines: Option<BTreeSet<Box<str>>>) {
        (self.former.since, self.former.engines) = (since, engines);
        if self.config.keeps_records {
            self.ask_what_is_pending();
        }
    }

    fn ask_what_is_pending(&mut self) {
        let keys = Keys { keys: vec![Key::Queue, Key::EngineUuid], ..Keys::default() };
        self.call_db(DbCall::Find(Query::pending_since(self.former.since), keys), Asked::Restore);
    }

    /// The store's answer to what is pending.
    pub(super) fn pending_found(&mut self, now: Now, reply: Result<DbReply, DbError>) {
        match reply {
            Ok(DbReply::Records(records)) => self.restore_requests(now, &records),
            Ok(_) | Err(DbError::NoData) => {}
            Err(DbError::Busy(_)) => self.ask_what_is_pending(), // which says so in the log
            Err(error) => tracing::error!("what the former controller had not finished is not known: {error}"),
        }
    }

    fn restore_requests(&mut self, now: Now, records: &[Record]) {
        let mut lost = 0;
        let mut last_words = BTreeSet::new();
        for record in records {
            let is_task = record.value(Key::Queue) == "task";
            let engine = record.value(Key::EngineUuid).as_str().map(Box::<str>::from);
            if self.in_flight.contains_key(record.id.as_str()) || self.completed.get(&record.id) != 0 {
                continue; // a client was quicker
            }
            let is_ours = |uuid| self.former.engines.as_ref().is_none_or(|engines| engines.contains(uuid));
            match &engine {
                Some(uuid) if !is_ours(uuid) => continue, // another cluster's
                Some(uuid) => match self.engines.by_uuid(uuid) {
                    Some(live) => {
                        *(if is_task { &mut live.tasks } else { &mut live.queue }) += 1;
                        last_words.insert(uuid.clone());
                    }
                    None => {
                        lost += 1;
                        self.dies(now, uuid);
                    }
                },
                None if is_task => {
                    self.unassigned += 1;
                    self.former.again.push_back(record.id.as_str().into());
                }
                None => continue,
            }
            let request = InFlight { is_task, is_orphan: engine.is_some(), engine: engine.as_deref().map(Into::into) };
            self.in_flight.insert(record.id.as_str().into(), request);
        }
        let waiting = self.former.again.len();
        if waiting + lost > 0 {
            tracing::info!(
                "{waiting} tasks of the former controller that had not been sent are sent now; {lost} were on engines that are gone"
            );
        }
        // Before what is sent again, so that no task is placed behind one that an engine may be at for long.
        for uuid in last_words {
            self.ask_for_last_word(now, &uuid);
        }
        self.read_again();
    }

    /// Gives an engine something to do behind all that it had before.
    fn ask_for_last_word(&mut self, now: Now, uuid: &str) {
        let (id, header) = self.session.header("execute_request", now.date);
        let content = json!({
            "code": "", "silent": true, "store_history": false, "user_expressions": {}, "allow_stdin": false, "stop_on_error": false,
        });
        let parts = self.session.compose_under(
            header,
            b"{}",
            json!({"targets": [uuid]}).to_string().as_bytes(),
            content.to_string().into_bytes(),
        );
        self.former.last_words.insert(id.into(), uuid.into());
        self.resubmit(&parts, &[]);
    }

    /// Whether a task is none of a client's, but asks an engine for its last word.
    pub(super) fn is_last_word(&self, id: &str) -> bool {
        !self.former.last_words.is_empty() && self.former.last_words.contains_key(id)
    }

    /// A request for an engine's last word has ended; only an answer of the engine's own is one.
    pub(super) fn last_word(&mut self, now: Now, id: &str, reply: Option<&Envelope>) {
        let Some(uuid) = self.former.last_words.remove(id) else { return };
        if reply.is_none_or(|reply| reply.identity_count() == 0 || reply.identity(0) != uuid.as_bytes()) {
            return; // it is gone, and so are its requests
        }
        let mut tasks: Vec<Box<str>> = self.orphans(&uuid, true).collect();
        tasks.sort_unstable();
        for id in &tasks {
            if let Some(request) = self.in_flight.get_mut(&**id) {
                (request.engine, request.is_orphan) = (None, false);
                self.unassigned += 1;
            }
        }
        if let Some(live) = self.engines.by_uuid(&uuid) {
            live.tasks = live.tasks.saturating_sub(tasks.len() as u64);
        }
        if !tasks.is_empty() {
            tracing::info!(
                "engine {uuid} has nothing more of {} tasks of the former controller: they are sent again",
                tasks.len()
            );
            self.former.again.extend(tasks);
            self.read_again();
        }
        if self.orphans(&uuid, false).next().is_some() {
            self.former.settling.push_back((now.mono + ANSWERS_WITHIN, uuid));
        }
    }

    /// What an engine has of a former controller's: tasks or direct requests. O(requests in flight).
    fn orphans<'h>(&'h self, uuid: &'h str, tasks: bool) -> impl Iterator<Item = Box<str>> + 'h {
        let is_there = move |r: &InFlight| r.is_orphan && r.is_task == tasks && r.engine.as_deref() == Some(uuid);
        self.in_flight.iter().filter(move |(_, request)| is_there(request)).map(|(id, _)| id.clone())
    }

    /// When [`settle`](Self::settle) has something to do.
    pub(super) fn settles_at(&self) -> Option<Duration> {
        self.former.settling.front().map(|(at, _)| *at)
    }

    /// Ends direct requests of a former controller that their engines have done and whose answers did not come.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some((at, _)) = self.former.settling.front()
            && *at <= now.mono
            && let Some((_, uuid)) = self.former.settling.pop_front()
        {
            let ids: Vec<Box<str>> = self.orphans(&uuid, false).collect();
            for id in ids {
                self.complete(&id, Status::Error);
                let reason =
                    "it was answered, or lost on its way, when the controller before this one ended: the answer was not recorded";
                self.record_error(now, &id, &uuid, &ErrorContent::new("OSError", format!("{id}: {reason}")));
            }
        }
    }

    /// Reads the next records of what is to be sent again, unless some are being read.
    fn read_again(&mut self) {
        if self.former.is_reading {
            return;
        }
        let at_once = if self.former.singly > 0 { 1 } else { AT_ONCE };
        let count = self.former.again.len().min(at_once);
        self.former.singly = self.former.singly.saturating_sub(count);
        let ids: Vec<String> = self.former.again.drain(..count).map(String::from).collect();
        if !ids.is_empty() {
            self.former.is_reading = true;
            self.call_db(DbCall::Get(ids.clone()), Asked::Again(ids));
        }
    }

    /// Records of what is to be sent again, as the store has them.
    pub(super) fn again_found(&mut self, now: Now, ids: Vec<String>, reply: Result<DbReply, DbError>) {
        self.former.is_reading = false;
        let count = ids.len();
        let mut put_back = |ids: Vec<String>| ids.into_iter().rev().for_each(|id| self.former.again.push_front(id.into()));
        match reply {
            Ok(DbReply::Records(records)) => {
                let mut found = records.into_iter().peekable();
                for id in ids {
                    let record = found.next_if(|record| record.id == id);
                    self.send_again(now, &id, record);
                }
            }
            Err(DbError::Busy(_)) => put_back(ids),
            Err(DbError::TooMuch(_)) if count > 1 => {
                put_back(ids);
                self.former.singly = count;
            }
            Ok(_) => {}
            Err(error) => {
                for id in ids {
                    self.give_up(now, &id, &error.to_string());
                }
            }
        }
        self.read_again();
    }

    fn send_again(&mut self, now: Now, id: &str, record: Option<Record>) {
        if self.in_flight.get(id).is_none_or(|request| request.engine.is_some()) {
            return; // it has been answered meanwhile, or its client has sent it again
        }
        let Some(record) = record else { return self.give_up(now, id, "its record has been removed") };
        if lacks_request(&record) {
            return self.give_up(now, id, REQUEST_NOT_KEPT);
        }
        let header = record.json(Key::Header).and_then(|header| renew::renewed(Packer::Json, header, now.date));
        let Some(header) = header else { return self.give_up(now, id, UNREADABLE_REQUEST) };
        let part = |key| record.json(key).map_or_else(|| b"{}".to_vec(), |json| json.to_vec());
        match self.sealed(header, part(Key::Metadata), part(Key::Content)) {
            Some(parts) => self.resubmit(&parts, &record.buffers),
            None => self.give_up(now, id, UNREADABLE_REQUEST),
        }
    }

    fn give_up(&mut self, now: Now, id: &str, why: &str) {
        self.complete(id, Status::Error);
        self.record_error(now, id, "", &ErrorContent::new("OSError", why));
    }
}
