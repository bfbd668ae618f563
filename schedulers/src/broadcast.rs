//! The broadcast tree: one request to many engines, its replies one by one or gathered into one. The tree's levels are folded into one
//! machine, so a message crosses one process instead of depth + 1; the ports of its leaves remain, as engines choose theirs by number.
//! A request that gathers always ends: an engine that dies counts as having answered with an error.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pointsman_core::date::Date;
use pointsman_core::wire::{self, ErrorContent, Header, Parent, ReplyMetadata, Status};
use pointsman_core::{Envelope, Parts, Refused, Session};
use serde_json::{Map, Value, json};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not genuine.
    Refused(Refused),
    /// A part is not what it should be; which.
    Json(&'static str),
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
    /// (uuid, number) as the client gave them, and the buffers that came.
    targets: Vec<(Box<str>, Value)>,
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
    gathering: HashMap<Box<str>, Gathering, FixedState>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Engine {
    number: u64,
    /// Requests that gather from it, some perhaps over.
    owes: Vec<Box<str>>,
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
                self.engines.insert(uuid.into(), Engine { number, owes: Vec::new() });
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
        let header: Map<String, Value> = wire::object(envelope.header()).map_err(|_| Reason::Json("header"))?;
        let Some(id) = header.get("msg_id").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Reason::Json("header"));
        };
        let metadata: Map<String, Value> = wire::object(envelope.metadata()).map_err(|_| Reason::Json("metadata"))?;
        let targets = read_targets(metadata.get("targets")).ok_or(Reason::Json("metadata"))?;
        let gathers = metadata.get("is_coalescing").and_then(Value::as_bool).unwrap_or(false);
        let client = Bytes::copy_from_slice(envelope.identity(0));
        if gathers {
            if self.gathering.len() >= MAX_GATHERING {
                let content = ErrorContent::new("QueueFull", "too many broadcasts are waiting for replies").to_json();
                self.answer_error(now, &client, envelope.part_bytes(0), &id, &targets, content.into());
                return Err(Reason::Full);
            }
            let gathering = Gathering {
                client: client.clone(),
                request_header: envelope.part_bytes(0),
                buffers: vec![None; targets.len()],
                missing: targets.len(),
                targets: targets.clone(),
                last: None,
                error: None,
            };
            self.gathering.insert(id.as_str().into(), gathering);
        }
        self.send_all(envelope, &id, header, metadata, &targets, &client);
        for (uuid, _) in &targets {
            match self.engines.get_mut(uuid) {
                Some(engine) if gathers => engine.owes.push(id.as_str().into()),
                Some(_) => {}
                None if gathers => self.gathered_loss(&id, uuid),
                None => {
                    let mut header = envelope.part_bytes(0);
                    if let Ok(mut parent) = wire::object::<Map<String, Value>>(&header) {
                        parent.insert("msg_id".into(), json!(format!("{id}_{uuid}")));
                        header = Value::Object(parent).to_string().into();
                    }
                    self.answer_lost_one(now, &client, &header, &id, uuid);
                }
            }
        }
        if gathers {
            self.finish_if_whole(now, &id);
        }
        Ok(())
    }

    /// Sends a request to each target that is there. Each gets a message id of its own, and the targets of its leaf.
    fn send_all(
        &mut self,
        envelope: &Envelope,
        id: &str,
        mut header: Map<String, Value>,
        mut metadata: Map<String, Value>,
        targets: &[(Box<str>, Value)],
        client: &Bytes,
    ) {
        let buffers: Vec<Bytes> = envelope.buffers().collect();
        metadata.insert("original_msg_id".into(), json!(id));
        for leaf in 0..self.leaves {
            let here: Vec<&(Box<str>, Value)> =
                targets.iter().filter(|(uuid, _)| self.engines.get(uuid).is_some_and(|e| self.leaf(e.number) == leaf)).collect();
            if here.is_empty() {
                continue;
            }
            metadata.insert("targets".into(), json!(here));
            let leaf_metadata = Value::Object(metadata.clone()).to_string().into_bytes();
            for (uuid, _) in here {
                header.insert("msg_id".into(), json!(format!("{id}_{uuid}")));
                let child_header = Value::Object(header.clone()).to_string().into_bytes();
                let (parent, content) = (envelope.parent().to_vec(), envelope.content().to_vec());
                let parts = self.session.seal(child_header, parent, leaf_metadata.clone(), content);
                let (uuid, client, buffers) = (uuid.as_ref().into(), client.clone(), buffers.clone());
                self.actions.push_back(Action::Send { leaf, uuid, client, parts, buffers });
            }
        }
    }

    fn leaf(&self, number: u64) -> usize {
        (number % self.leaves as u64) as usize
    }

    fn reply(&mut self, now: Date, envelope: Envelope) -> Result<(), Reason> {
        self.session.admit(&envelope).map_err(Reason::Refused)?;
        Header::parse(envelope.header()).map_err(|_| Reason::Json("header"))?;
        let metadata: ReplyMetadata<'_> = wire::object(envelope.metadata()).map_err(|_| Reason::Json("metadata"))?;
        if metadata.is_coalescing != Some(true) {
            self.actions.push_back(Action::PassOn(envelope));
            return Ok(());
        }
        let status = wire::reply_status(self.session.packer(), &metadata, envelope.content());
        let parent: Parent<'_> = wire::object(envelope.parent()).map_err(|_| Reason::Json("parent header"))?;
        let original = metadata.original_msg_id.map(String::from).unwrap_or_default();
        let uuid =
            parent.msg_id.as_deref().and_then(|child| child.strip_prefix(&*original)?.strip_prefix('_')).map(str::to_owned);
        let Some((gathering, uuid)) = self.gathering.get_mut(&*original).zip(uuid) else { return Err(Reason::Stray) };
        let place = gathering.targets.iter().position(|(target, _)| **target == *uuid);
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
        let metadata: ReplyMetadata<'_> = wire::object(&parts[4]).unwrap_or_default();
        let id = metadata.original_msg_id.unwrap_or_default();
        if metadata.is_coalescing == Some(true) {
            self.gathered_loss(&id, uuid);
            self.finish_if_whole(now, &id);
        } else {
            self.answer_lost_one(now, client, &Bytes::copy_from_slice(&parts[2]), &id, uuid);
        }
    }

    fn gathered_loss(&mut self, id: &str, uuid: &str) {
        let Some(gathering) = self.gathering.get_mut(id) else { return };
        for (place, (target, _)) in gathering.targets.iter().enumerate() {
            if **target == *uuid && gathering.buffers[place].is_none() {
                gathering.buffers[place] = Some(Vec::new());
                gathering.missing -= 1;
                let content = ErrorContent::new("EngineError", format!("Engine '{uuid}' died while running task '{id}'"));
                gathering.error.get_or_insert_with(|| content.to_json().into());
            }
        }
    }

    fn finish_if_whole(&mut self, now: Date, id: &str) {
        if self.gathering.get(id).is_none_or(|gathering| gathering.missing > 0) {
            return;
        }
        let Some(gathering) = self.gathering.remove(id) else { return };
        for (uuid, _) in &gathering.targets {
            if let Some(engine) = self.engines.get_mut(uuid)
                && let Some(place) = engine.owes.iter().position(|owed| **owed == *id)
            {
                engine.owes.swap_remove(place);
            }
        }
        let Some(last) = &gathering.last else {
            let content = gathering.error.unwrap_or_else(|| ErrorContent::new("EngineError", "no targets").to_json().into());
            return self.answer_error(now, &gathering.client, gathering.request_header, id, &gathering.targets, content);
        };
        let mut metadata: Map<String, Value> = wire::object(last.metadata()).unwrap_or_default();
        metadata.insert("broadcast_targets".into(), json!(gathering.targets));
        let (content, buffers) = match gathering.error {
            Some(error) => {
                metadata.insert("status".into(), json!("error"));
                (error.to_vec(), Vec::new())
            }
            None => (last.content().to_vec(), gathering.buffers.into_iter().flatten().flatten().collect()),
        };
        let metadata = Value::Object(metadata).to_string().into_bytes();
        let parts = self.session.seal(last.header().to_vec(), last.parent().to_vec(), metadata, content);
        self.actions.push_back(Action::Answer { client: gathering.client, parts, buffers });
    }

    /// An error in place of a gathered reply.
    fn answer_error(
        &mut self,
        now: Date,
        client: &Bytes,
        header: Bytes,
        id: &str,
        targets: &[(Box<str>, Value)],
        content: Bytes,
    ) {
        let metadata = json!({
            "status": "error", "is_broadcast": true, "is_coalescing": true, "original_msg_id": id, "broadcast_targets": targets,
        });
        self.answer(now, client, &header, &metadata, content);
    }

    /// An error in place of one engine's reply.
    fn answer_lost_one(&mut self, now: Date, client: &Bytes, header: &Bytes, id: &str, uuid: &str) {
        let content = ErrorContent::new("EngineError", format!("Engine '{uuid}' is gone"));
        let metadata = json!({
            "status": "error", "engine": uuid, "is_broadcast": true, "is_coalescing": false, "original_msg_id": id,
        });
        self.answer(now, client, header, &metadata, content.to_json().into());
    }

    fn answer(&mut self, now: Date, client: &Bytes, parent: &Bytes, metadata: &Value, content: Bytes) {
        let metadata = metadata.to_string().into_bytes();
        let parts = self.session.compose("apply_reply", now, parent, &metadata, content.to_vec());
        self.actions.push_back(Action::Answer { client: client.clone(), parts, buffers: Vec::new() });
    }
}

/// `[[uuid, number], ..]`; a uuid alone is fine too. An engine that is named twice is asked once.
fn read_targets(value: Option<&Value>) -> Option<Vec<(Box<str>, Value)>> {
    let mut seen = hashbrown::HashSet::<Box<str>, FixedState>::default();
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
mod tests {
    use super::*;
    use pointsman_core::{Multipart, Signer};

    const NOW: Date = Date::from_unix_us(0);

    struct World {
        tree: Broadcast,
        client: Session,
        engine: Session,
    }

    impl World {
        fn new(depth: u32, engines: u64) -> World {
            let session = |id| Session::new(Signer::new(b"k"), id, "u", 1);
            let mut tree = Broadcast::new(session("tree"), depth);
            for number in 0..engines {
                tree.handle(NOW, Event::EngineUp { uuid: &format!("e{number}"), number });
            }
            World { tree, client: session("client"), engine: session("engine") }
        }

        fn request(&mut self, targets: &[&str], gather: bool) {
            let pairs: Vec<Value> = targets.iter().map(|uuid| json!([uuid, 7])).collect();
            let metadata = json!({"targets": pairs, "is_broadcast": true, "is_coalescing": gather}).to_string();
            let parts = self.client.compose("apply_request", NOW, b"{}", metadata.as_bytes(), b"{}".to_vec());
            self.tree.handle(NOW, Event::Request(envelope(&[b"cid"], &parts, &[b"call"])));
        }

        /// Answers a request that was sent, as an engine does.
        fn reply(&mut self, sent: &Sent, status: &str, result: &[u8]) {
            let request: Value = serde_json::from_slice(&sent.parts[4]).unwrap();
            let metadata = json!({"status": status, "engine": sent.uuid, "is_coalescing": request["is_coalescing"],
                "original_msg_id": request["original_msg_id"]});
            let content = json!({"status": status, "ename": sent.uuid}).to_string().into_bytes();
            let parts = self.engine.compose("apply_reply", NOW, &sent.parts[2], metadata.to_string().as_bytes(), content);
            self.tree.handle(NOW, Event::Reply(envelope(&[sent.uuid.as_bytes(), b"cid"], &parts, &[result])));
        }

        fn sent(&mut self) -> Vec<Sent> {
            std::iter::from_fn(|| self.tree.poll_action())
                .map(|action| match action {
                    Action::Send { leaf, uuid, parts, .. } => Sent { leaf, uuid, parts },
                    other => panic!("{other:?}"),
                })
                .collect()
        }

        fn answer(&mut self) -> (Value, Value, Vec<Bytes>) {
            match self.tree.poll_action() {
                Some(Action::Answer { parts, buffers, .. }) => {
                    (serde_json::from_slice(&parts[4]).unwrap(), serde_json::from_slice(&parts[5]).unwrap(), buffers)
                }
                other => panic!("{other:?}"),
            }
        }
    }

    struct Sent {
        leaf: usize,
        uuid: Arc<str>,
        parts: Parts,
    }

    fn envelope(identities: &[&[u8]], parts: &Parts, buffers: &[&[u8]]) -> Envelope {
        let frames = identities.iter().copied().chain(parts.iter().map(Vec::as_slice)).chain(buffers.iter().copied());
        Envelope::open(Arc::new(Multipart::pack(frames))).unwrap()
    }

    #[test]
    fn each_engine_is_asked_by_its_leaf_under_an_id_of_its_own() {
        let mut world = World::new(1, 3);
        world.request(&["e2", "e0", "e1"], false);
        let sent = world.sent();
        let shown: Vec<_> = sent.iter().map(|sent| (sent.leaf, &*sent.uuid)).collect();
        assert_eq!(shown, [(0, "e2"), (0, "e0"), (1, "e1")]);
        let header: Value = serde_json::from_slice(&sent[1].parts[2]).unwrap();
        assert_eq!(header["msg_id"], "client_1_0_e0");
        let metadata: Value = serde_json::from_slice(&sent[1].parts[4]).unwrap();
        assert_eq!((&metadata["original_msg_id"], &metadata["targets"]), (&json!("client_1_0"), &json!([["e2", 7], ["e0", 7]])));
        world.reply(&sent[0], "ok", b"r");
        assert!(matches!(world.tree.poll_action(), Some(Action::PassOn(_))));
    }

    #[test]
    fn gathered_replies_come_in_the_order_of_targets_at_every_depth() {
        for depth in 0..3 {
            let mut world = World::new(depth, 4);
            world.request(&["e3", "e0", "e1", "e2"], true);
            let mut sent = world.sent();
            sent.sort_by(|a, b| a.uuid.cmp(&b.uuid));
            for each in &sent {
                assert!(world.tree.poll_action().is_none());
                world.reply(each, "ok", each.uuid.as_bytes());
            }
            let (metadata, content, buffers) = world.answer();
            assert_eq!(buffers, ["e3", "e0", "e1", "e2"]);
            assert_eq!(metadata["broadcast_targets"], json!([["e3", 7], ["e0", 7], ["e1", 7], ["e2", 7]]));
            assert_eq!(content["status"], "ok");
        }
    }

    #[test]
    fn what_can_not_be_delivered_is_answered_and_the_engine_stays() {
        let mut world = World::new(1, 2);
        for gather in [true, false] {
            world.request(&["e0", "e1"], gather);
            let sent = world.sent();
            let client = Bytes::from_static(b"cid");
            world.tree.handle(NOW, Event::Undelivered { uuid: "e0", client, parts: sent[0].parts.clone() });
            if gather {
                world.reply(&sent[1], "ok", b"r");
            }
            assert_eq!(world.answer().1["ename"], "EngineError");
        }
        world.request(&["e0"], false);
        assert_eq!(world.sent().len(), 1);
    }

    #[test]
    fn an_engine_named_twice_is_asked_once() {
        let mut world = World::new(1, 2);
        world.request(&["e0", "e0", "e1"], true);
        let sent = world.sent();
        assert_eq!(sent.len(), 2);
        for each in &sent {
            world.reply(each, "ok", each.uuid.as_bytes());
        }
        assert_eq!(world.answer().2, ["e0", "e1"]);
    }

    #[test]
    fn an_early_error_is_not_lost_and_duplicates_do_not_count() {
        let mut world = World::new(1, 2);
        world.request(&["e0", "e1"], true);
        let sent = world.sent();
        world.reply(&sent[0], "error", b"");
        world.reply(&sent[0], "ok", b"again");
        assert!(matches!(world.tree.poll_action(), Some(Action::Reject(Reason::Stray))));
        world.reply(&sent[1], "ok", b"r");
        let (metadata, content, buffers) = world.answer();
        assert_eq!((&content["ename"], &metadata["status"], buffers.len()), (&json!("e0"), &json!("error"), 0));
        assert_eq!(metadata["broadcast_targets"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_dead_or_unknown_target_ends_a_gathering_with_an_error() {
        let mut world = World::new(1, 2);
        world.request(&["e0", "e1", "nobody"], true);
        let sent = world.sent();
        world.reply(&sent[0], "ok", b"r");
        assert!(world.tree.poll_action().is_none());
        world.tree.handle(NOW, Event::EngineDown { uuid: "e1" });
        assert_eq!(world.answer().1["ename"], "EngineError");
        world.reply(&sent[1], "ok", b"late");
        assert!(matches!(world.tree.poll_action(), Some(Action::Reject(Reason::Stray))));
        // Nobody at all is there: still an answer.
        world.request(&["nobody"], true);
        let (metadata, content, _) = world.answer();
        assert_eq!((&metadata["is_coalescing"], &content["ename"]), (&json!(true), &json!("EngineError")));
        world.request(&["nobody"], false);
        assert_eq!(world.answer().1["ename"], "EngineError");
    }
}
