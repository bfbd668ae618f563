//! What no well-behaved peer sends, on every port of a running controller: it is dropped, and nothing else changes.

use std::time::Duration;

use pointsman::core::date::Date;
use pointsman::core::peer::{Client, TaskRequest};
use pointsman::core::{Session, Signer};
use serde_json::{Value, json};

use crate::world::{PATIENCE, World};

fn dial(world: &World, kind: zmq::SocketType, port: u16) -> zmq::Socket {
    let socket = world.context.socket(kind).unwrap();
    socket.set_linger(500).unwrap();
    socket.set_rcvtimeo(5000).unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    socket
}

fn works(client: &mut Client) {
    client.submit(&TaskRequest::function("echo", "alive")).unwrap();
    assert_eq!(client.next_reply(PATIENCE).unwrap().unwrap().outcome.unwrap(), "alive");
    client.ask("queue_request", &json!({}), PATIENCE).unwrap();
}

/// Messages that are nobody's.
fn junk() -> Vec<Vec<Vec<u8>>> {
    let frame = |text: &str| text.as_bytes().to_vec();
    let unsigned = |parts: [&str; 4]| {
        let mut message = vec![frame("<IDS|MSG>"), frame("00")];
        message.extend(parts.iter().map(|part| frame(part)));
        message
    };
    vec![
        vec![vec![]],
        vec![vec![], vec![]],
        vec![vec![0xff; 10]; 1000],
        vec![frame("no"), frame("delimiter"), frame("here")],
        vec![frame("<IDS|MSG>")],
        unsigned(["{}", "{}", "{}", "{}"]),
        unsigned(["not json", "[", "7", "null"]),
        vec![frame("id"), frame("<IDS|MSG>"), vec![0xff; 64], frame("{}"), frame("{}"), frame("{}"), frame("{}")],
        vec![vec![b'x'; 1 << 20]],
    ]
}

#[test]
fn junk_on_every_port_changes_nothing() {
    let world = World::new(2, |_| {});
    let mut client = world.client();
    let (c, e) = (world.controller().client_file().clone(), world.controller().engine_file().clone());
    let mut ports = vec![c.common.registration, c.common.mux, c.common.task, c.common.control, c.broadcast];
    ports.extend([e.common.mux, e.common.task, e.common.control, e.hb_pong]);
    ports.extend(&e.broadcast);
    let sockets: Vec<_> = ports.iter().map(|&port| dial(&world, zmq::DEALER, port)).collect();
    let publisher = dial(&world, zmq::PUB, e.common.iopub);
    for message in junk() {
        for socket in sockets.iter().chain([&publisher]) {
            socket.send_multipart(&message, 0).unwrap();
        }
    }
    for _ in 0..3 {
        works(&mut client);
    }
    assert_eq!(client.engines().unwrap().len(), 2);
}

/// Genuine signatures around nonsense: answered with an error where the protocol has one.
#[test]
fn signed_nonsense_gets_an_error_reply() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let key = world.controller().client_file().common.key.clone();
    let mut session = Session::new(Signer::new(key.as_bytes()), "evil", "u", 1);
    let task = dial(&world, zmq::DEALER, world.controller().client_file().common.task);
    let error_of = |socket: &zmq::Socket| -> String {
        let reply = socket.recv_multipart(0).unwrap();
        serde_json::from_slice::<Value>(&reply[5]).unwrap()["ename"].as_str().unwrap().to_owned()
    };
    for metadata in ["[]", "{\"after\": 7}", "{\"targets\": {}}", "no json at all"] {
        let parts = session.compose("apply_request", Date::from_unix_us(0), b"{}", metadata.as_bytes(), b"{}".to_vec());
        task.send_multipart(&parts, 0).unwrap();
        assert_eq!(error_of(&task), "InvalidDependency", "{metadata}");
    }
    let header = session.header_with_id("evil_cycle", "apply_request", Date::from_unix_us(0));
    let parts = session.seal(header, b"{}".to_vec(), br#"{"after": ["evil_cycle"]}"#.to_vec(), b"{}".to_vec());
    task.send_multipart(&parts, 0).unwrap();
    assert_eq!(error_of(&task), "InvalidDependency");
    // The same bytes again are a duplicate: no reply, no harm.
    task.send_multipart(&parts, 0).unwrap();
    let query = dial(&world, zmq::DEALER, world.controller().client_file().common.registration);
    for (kind, content) in [("what_request", "{}"), ("db_request", "{\"query\": []}"), ("queue_request", "[]")] {
        let parts = session.compose(kind, Date::from_unix_us(0), b"{}", b"{}", content.as_bytes().to_vec());
        query.send_multipart(&parts, 0).unwrap();
        let reply = query.recv_multipart(0).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&reply[5]).unwrap()["status"], "error", "{kind}");
    }
    // A header that is no header, well signed.
    for header in ["[]", "{}", "{\"msg_id\": 7, \"msg_type\": \"apply_request\"}"] {
        let parts = session.seal(header.as_bytes().to_vec(), b"{}".to_vec(), b"{}".to_vec(), b"{}".to_vec());
        task.send_multipart(&parts, 0).unwrap();
        query.send_multipart(&parts, 0).unwrap();
    }
    works(&mut client);
}

/// An engine that is registered and answers tasks of others, its own twice, and things that never were.
#[test]
fn a_lying_engine_changes_nothing() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let file = world.controller().engine_file().clone();
    let mut session = Session::new(Signer::new(file.common.key.as_bytes()), "liar", "u", 1);
    let liar = world.context.socket(zmq::DEALER).unwrap();
    liar.set_identity(b"liar").unwrap();
    liar.set_linger(0).unwrap();
    liar.connect(&format!("tcp://127.0.0.1:{}", file.common.task)).unwrap();
    let id = client.submit(&TaskRequest::function("slow", "truth")).unwrap();
    for parent in [id.as_str(), "client_1_999", ""] {
        let parent = json!({"msg_id": parent}).to_string();
        let metadata = json!({"status": "ok", "engine": "liar"}).to_string();
        let parts = session.compose("apply_reply", Date::from_unix_us(0), parent.as_bytes(), metadata.as_bytes(), b"{}".to_vec());
        let mut message = vec![b"client".to_vec()];
        message.extend(parts);
        liar.send_multipart(&message, 0).unwrap();
    }
    let reply = client.next_reply(PATIENCE).unwrap().unwrap();
    assert_eq!((reply.msg_id, reply.outcome.unwrap()), (id, "truth".into()));
    assert!(client.next_reply(Duration::from_millis(100)).unwrap().is_none());
    works(&mut client);
}
