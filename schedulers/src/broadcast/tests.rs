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
    assert_eq!((&metadata["original_msg_id"], &metadata["targets"]), (&json!("client_1_0"), &json!([["e0", 7]])));
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
