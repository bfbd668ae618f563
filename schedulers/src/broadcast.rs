//! The broadcast tree: one request to many engines, its replies one by one or gathered into one. The tree's levels are folded into one
//! machine, so a message crosses one process instead of depth + 1; the ports of its leaves remain, as engines choose theirs by number.
//! A request that gathers always ends: an engine that dies counts as having answered with an error.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use pointsman_core::date::Date;
use pointsman_core::wire::{self, ErrorContent, Header, Parent, ReplyMetadata, Status};
use pointsman_core::{Envelope, Parts, Refused, Session};
use serde_json::{Map, Value, json};

use crate::admit::{self, Denied, Refusal};

/// The most requests that may be gathering replies at once.
const MAX_GATHERING: usize = 65_536;

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// An engine is there.
    EngineUp {
        /// Its uuid.
        uuid: &'a str,
        /// Its number, which decides its leaf.
        number: u64,
    },
    /// An engine is gone.
    EngineDown {
        /// Its uuid.
        uuid: &'a str,
    },
    /// An [`Action::Send`] could not be done: that engine can not be reached.
    Undelivered {
        /// Its uuid.
        uuid: &'a str,
        /// The client of the request.
        client: Bytes,
        /// The message that was to be sent.
        parts: Parts,
    },
    /// A client asks: `[client] message`.
    Request(Envelope),
    /// An engine answers: `[engine][client] message`.
    Reply(Envelope),
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Send a request to an engine by its leaf: `[uuid][client] message`.
    Send {
        /// Which leaf.
        leaf: usize,
        /// The engine.
        uuid: Arc<str>,
        /// The client, to be echoed by the engine.
        client: Bytes,
        /// The message.
        parts: Parts,
        /// Its buffers.
        buffers: Vec<Bytes>,
    },
    /// Send a message of our own to a client: `[client] message`.
    Answer {
        /// The client.
        client: Bytes,
        /// The message.
        parts: Parts,
        /// Its buffers.
        buffers: Vec<Bytes>,
    },
    /// Pass an engine's reply to its client as it is, without the engine's identity.
    PassOn(Envelope),
    /// Count and log.
    Reject(Reason),
}

/// What was wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not genuine.
    Refused(Refused),
    /// A part is not what it should be; which.
    Json(&'static str),
    /// A request that engines could not answer, and why. Its sender has been told, if it is genuine.
    Unanswerable(String),
    /// A reply that nobody waits for, or waits for no longer.
    Stray,
    /// Too many requests are gathering replies.
    Full,
}

/// Replies to one request that are being gathered.
#[derive(Debug)]
struct Gathering {
    client: Bytes,
    /// Header of the request, for an answer of our own.
    request_header: Bytes,
    /// (uuid, number) as the client gave them, where each stands, and the buffers that came.
    targets: Vec<(Box<str>, Value)>,
    place_of: HashMap<Box<str>, usize, FixedState>,
    buffers: Vec<Option<Vec<Bytes>>>,
    missing: usize,
    /// The last reply: the gathered one takes after it.
    last: Option<Envelope>,
    /// The first error, which becomes the whole's.
    error: Option<Bytes>,
}

/// The machine. Calling order: [`handle`](Self::handle), then [`poll_action`](Self::poll_action) until it returns nothing.
/// A request costs O(targets), a reply O(1), a lost engine O(requests that gather from it).
#[derive(Debug)]
pub struct Broadcast {
    session: Session,
    leaves: usize,
    engines: HashMap<Box<str>, Engine, FixedState>,
    gathering: HashMap<Arc<str>, Gathering, FixedState>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Engine {
    number: u64,
    /// Requests that gather from it, some perhaps over.
    owes: HashSet<Arc<str>, FixedState>,
}

impl Broadcast {
    /// A tree of `2^depth` leaves.
    pub fn new(session: Session, depth: u32) -> Self {
        Broadcast {
            session,
            leaves: 1 << depth.min(12),
            engines: HashMap::default(),
            gathering: HashMap::default(),
            actions: VecDeque::new(),
        }
    }

    /// How many leaves there are.
    pub fn leaves(&self) -> usize {
        self.leaves
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Date, event: Event<'_>) {
        let outcome = match event {
            Event::EngineUp { uuid, number } => {
                self.engines.insert(uuid.into(), Engine { number, owes: HashSet::default() });
                Ok(())
            }
            Event::EngineDown { uuid } => {
                self.lost(now, uuid);
                Ok(())
            }
            Event::Undelivered { uuid, client, parts } => {
                self.undelivered(now, uuid, &client, &parts);
                Ok(())
            }
            Event::Request(envelope) => self.request(now, &envelope),
            Event::Reply(envelope) => self.reply(now, envelope),
        };
        if let Err(reason) = outcome {
            self.actions.push_back(Action::Reject(reason));
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn request(&mut self, now: Date, envelope: &Envelope) -> Result<(), Reason> {
        self.session.admit(envelope).map_err(Reason::Refused)?;
        let packer = self.session.packer();
        let header = admit::header(envelope, packer).map_err(|denied| Reason::Unanswerable(self.deny(now, denied)))?;
        let id: Arc<str> = (&*header.msg_id).into();
        let client = Bytes::copy_from_slice(envelope.identity(0));
        let read = packer.read_map(envelope.metadata()).map_err(|why| why.to_string()).and_then(|metadata| {
            let wrong = || "they need `targets`, a list of [uuid, number] pairs".to_owned();
            read_targets(metadata.get("targets")).map(|targets| (metadata, targets)).ok_or_else(wrong)
        });
        let (metadata, targets) = match read {
            Ok(read) => read,
            Err(why) => {
                let content = ErrorContent::new("TypeError", format!("the metadata of the broadcast: {why}"));
                let metadata = json!({"status": "error"});
                self.answer(now, &client, envelope.header(), &metadata, content.to_json().into());
                return Err(Reason::Unanswerable(content.evalue));
            }
        };
        let gathers = metadata.get("is_coalescing").and_then(Value::as_bool).unwrap_or(false);
        if let Err(Refusal { ename, evalue }) = admit::answerable(envelope, &header, packer) {
            let content = ErrorContent::new(ename, evalue);
            self.refuse(now, &client, envelope, &id, &targets, gathers, &content);
            return Err(Reason::Unanswerable(content.evalue));
        }
        if gathers && self.gathering.len() >= MAX_GATHERING {
            let content = ErrorContent::new("QueueFull", "too many broadcasts are waiting for replies");
            self.refuse(now, &client, envelope, &id, &targets, gathers, &content);
            return Err(Reason::Full);
        }
        self.send_all(envelope, &id, metadata, &targets, &client);
        if gathers {
            let gathering = Gathering {
                client: client.clone(),
                request_header: envelope.part_bytes(0),
                place_of: targets.iter().enumerate().map(|(place, (uuid, _))| (uuid.clone(), place)).collect(),
                buffers: vec![None; targets.len()],
                missing: targets.len(),
                targets: targets.clone(),
                last: None,
                error: None,
            };
            self.gathering.insert(id.clone(), gathering);
        }
        for (uuid, _) in &targets {
            match self.engines.get_mut(uuid) {
                Some(engine) if gathers => {
                    engine.owes.insert(id.clone());
                }
                Some(_) => {}
                None if gathers => self.gathered_loss(&id, uuid),
                None => self.answer_one(now, &client, &self.child_header(envelope, &id, uuid), &id, uuid, &gone(uuid)),
            }
        }
        if gathers {
            self.finish_if_whole(now, &id);
        }
        Ok(())
    }

    /// Answers a request that is sent to nobody, as its client waits for it: once, or once for each target.
    #[allow(clippy::too_many_arguments, reason = "what has been read of a request, each part by its own type")]
    fn refuse(
        &mut self,
        now: Date,
        client: &Bytes,
        envelope: &Envelope,
        id: &str,
        targets: &[(Box<str>, Value)],
        gathers: bool,
        content: &ErrorContent,
    ) {
        if gathers {
            return self.answer_error(now, client, envelope.header(), id, targets, content.to_json().into());
        }
        for (uuid, _) in targets {
            self.answer_one(now, client, &self.child_header(envelope, id, uuid), id, uuid, content);
        }
    }

    /// Tells the sender of a request that is not whole, if it is genuine. Returns what is to be logged.
    pub(crate) fn deny(&mut self, now: Date, denied: Denied) -> String {
        if let Some((client, parent, Refusal { ename, evalue })) = denied.answer.map(|answer| *answer) {
            let content = ErrorContent::new(ename, evalue).to_json();
            self.answer(now, &client, &parent, &json!({"status": "error"}), content.into());
        }
        denied.detail
    }

    /// How it signs and packs, for whoever opens its messages.
    #[cfg(feature = "net")]
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The header under which a target gets a request, or would.
    fn child_header(&self, envelope: &Envelope, id: &str, uuid: &str) -> Vec<u8> {
        let packer = self.session.packer();
        let mut header = packer.read_map(envelope.header()).unwrap_or_default(); // it has been read
        header.insert("msg_id".into(), json!(format!("{id}_{uuid}")));
        packer.of_map(&header)
    }

    /// Sends a request to each target that is there, under a message id and with a list of targets of its own. O(targets).
    fn send_all(
        &mut self,
        envelope: &Envelope,
        id: &str,
        mut metadata: Map<String, Value>,
        targets: &[(Box<str>, Value)],
        client: &Bytes,
    ) {
        let buffers: Vec<Bytes> = envelope.buffers().collect();
        let packer = self.session.packer();
        metadata.insert("original_msg_id".into(), json!(id));
        let mut header = packer.read_map(envelope.header()).unwrap_or_default(); // it has been read
        for target in targets {
            let Some(engine) = self.engines.get(&target.0) else { continue };
            let (leaf, uuid): (usize, Arc<str>) = (self.leaf(engine.number), target.0.as_ref().into());
            metadata.insert("targets".into(), json!([target]));
            header.insert("msg_id".into(), json!(format!("{id}_{uuid}")));
            let (parent, content) = (envelope.parent().to_vec(), envelope.content().to_vec());
            let parts = self.session.seal(packer.of_map(&header), parent, packer.of_map(&metadata), content);
            self.actions.push_back(Action::Send { leaf, uuid, client: client.clone(), parts, buffers: buffers.clone() });
        }
    }

    fn leaf(&self, number: u64) -> usize {
        (number % self.leaves as u64) as usize
    }

    fn reply(&mut self, now: Date, envelope: Envelope) -> Result<(), Reason> {
        self.session.admit(&envelope).map_err(Reason::Refused)?;
        let packer = self.session.packer();
        Header::read(packer, envelope.header()).map_err(|_| Reason::Json("header"))?;
        let metadata: ReplyMetadata<'_> = packer.read(envelope.metadata()).map_err(|_| Reason::Json("metadata"))?;
        if metadata.is_coalescing != Some(true) {
            self.actions.push_back(Action::PassOn(envelope));
            return Ok(());
        }
        let status = wire::reply_status(packer, &metadata, envelope.content());
        let parent: Parent<'_> = packer.read(envelope.parent()).map_err(|_| Reason::Json("parent header"))?;
        let original = metadata.original_msg_id.map(String::from).unwrap_or_default();
        let uuid =
            parent.msg_id.as_deref().and_then(|child| child.strip_prefix(&*original)?.strip_prefix('_')).map(str::to_owned);
        let Some((gathering, uuid)) = self.gathering.get_mut(&*original).zip(uuid) else { return Err(Reason::Stray) };
        let place = gathering.place_of.get(&*uuid).copied();
        let Some(place) = place.filter(|&place| gathering.buffers[place].is_none()) else { return Err(Reason::Stray) };
        gathering.buffers[place] = Some(envelope.buffers().collect());
        gathering.missing -= 1;
        if status != Status::Ok && gathering.error.is_none() {
            gathering.error = Some(envelope.part_bytes(3));
        }
        gathering.last = Some(envelope);
        self.finish_if_whole(now, &original);
        Ok(())
    }

    /// An engine is gone: whatever is gathered from it counts its silence as an error.
    fn lost(&mut self, now: Date, uuid: &str) {
        let Some(engine) = self.engines.remove(uuid) else { return };
        for id in engine.owes {
            self.gathered_loss(&id, uuid);
            self.finish_if_whole(now, &id);
        }
    }

    /// One engine did not get one request: that request hears of it, and the engine stays for others.
    fn undelivered(&mut self, now: Date, uuid: &str, client: &Bytes, parts: &Parts) {
        let metadata: ReplyMetadata<'_> = self.session.packer().read(&parts[4]).unwrap_or_default();
        let id = metadata.original_msg_id.unwrap_or_default();
        if metadata.is_coalescing == Some(true) {
            self.gathered_loss(&id, uuid);
            self.finish_if_whole(now, &id);
        } else {
            self.answer_one(now, client, &parts[2], &id, uuid, &gone(uuid));
        }
    }

    fn gathered_loss(&mut self, id: &str, uuid: &str) {
        let Some(gathering) = self.gathering.get_mut(id) else { return };
        let Some(place) = gathering.place_of.get(uuid).copied().filter(|&place| gathering.buffers[place].is_none()) else {
            return;
        };
        gathering.buffers[place] = Some(Vec::new());
        gathering.missing -= 1;
        let content = ErrorContent::new("EngineError", format!("Engine '{uuid}' died while running task '{id}'"));
        gathering.error.get_or_insert_with(|| content.to_json().into());
    }

    fn finish_if_whole(&mut self, now: Date, id: &str) {
        if self.gathering.get(id).is_none_or(|gathering| gathering.missing > 0) {
            return;
        }
        let Some(gathering) = self.gathering.remove(id) else { return };
        for (uuid, _) in &gathering.targets {
            if let Some(engine) = self.engines.get_mut(uuid) {
                engine.owes.remove(id);
            }
        }
        let Some(last) = &gathering.last else {
            let content = gathering.error.unwrap_or_else(|| ErrorContent::new("EngineError", "no targets").to_json().into());
            return self.answer_error(now, &gathering.client, &gathering.request_header, id, &gathering.targets, content);
        };
        let packer = self.session.packer();
        let mut metadata = packer.read_map(last.metadata()).unwrap_or_default(); // it has been read
        metadata.insert("broadcast_targets".into(), json!(gathering.targets));
        let (content, buffers) = match gathering.error {
            Some(error) => {
                metadata.insert("status".into(), json!("error"));
                (error.to_vec(), Vec::new())
            }
            None => (last.content().to_vec(), gathering.buffers.into_iter().flatten().flatten().collect()),
        };
        let parts = self.session.compose_under(last.header().to_vec(), last.parent(), &packer.of_map(&metadata), content);
        self.actions.push_back(Action::Answer { client: gathering.client, parts, buffers });
    }

    /// An error in place of a gathered reply.
    fn answer_error(
        &mut self,
        now: Date,
        client: &Bytes,
        header: &[u8],
        id: &str,
        targets: &[(Box<str>, Value)],
        content: Bytes,
    ) {
        let metadata = json!({
            "status": "error", "is_broadcast": true, "is_coalescing": true, "original_msg_id": id, "broadcast_targets": targets,
        });
        self.answer(now, client, header, &metadata, content);
    }

    /// An error in place of one engine's reply.
    fn answer_one(&mut self, now: Date, client: &Bytes, header: &[u8], id: &str, uuid: &str, content: &ErrorContent) {
        let metadata = json!({
            "status": "error", "engine": uuid, "is_broadcast": true, "is_coalescing": false, "original_msg_id": id,
        });
        self.answer(now, client, header, &metadata, content.to_json().into());
    }

    fn answer(&mut self, now: Date, client: &Bytes, parent: &[u8], metadata: &Value, content: Bytes) {
        let metadata = metadata.to_string().into_bytes();
        let parts = self.session.compose("apply_reply", now, parent, &metadata, content.to_vec());
        self.actions.push_back(Action::Answer { client: client.clone(), parts, buffers: Vec::new() });
    }
}

fn gone(uuid: &str) -> ErrorContent {
    ErrorContent::new("EngineError", format!("Engine '{uuid}' is gone"))
}

/// `[[uuid, number], ..]`; a uuid alone is fine too. An engine that is named twice is asked once.
fn read_targets(value: Option<&Value>) -> Option<Vec<(Box<str>, Value)>> {
    let mut seen = HashSet::<Box<str>, FixedState>::default();
    let mut targets: Vec<(Box<str>, Value)> = value?
        .as_array()?
        .iter()
        .map(|target| match target {
            Value::String(uuid) => Some((uuid.as_str().into(), Value::Null)),
            Value::Array(pair) => Some((pair.first()?.as_str()?.into(), pair.get(1).cloned().unwrap_or(Value::Null))),
            _ => None,
        })
        .collect::<Option<_>>()?;
    targets.retain(|(uuid, _)| seen.insert(uuid.clone()));
    Some(targets)
}

#[cfg(test)]
mod tests;
