//! Requests that no engine could answer: their senders are told at once what is wrong, and no engine's place is lost. What is not genuine
//! gets no answer.

use std::time::Duration;

use pointsman::core::date::Date;
use pointsman::core::net::MAX_FRAMES;
use pointsman::core::peer::{Client, TaskRequest};
use pointsman::core::{Packer, Session, Signer};
use serde_json::{Map, Value, json};

use crate::world::{PATIENCE, World};

const NOW: Date = Date::from_unix_us(0);

/// A client by hand: it can sign anything.
struct Sender {
    session: Session,
    task: zmq::Socket,
    broadcast: zmq::Socket,
}

impl Sender {
    fn new(world: &World, packer: Packer) -> Sender {
        let file = world.controller().client_file();
        let dial = |port: u16| {
            let socket = world.context.socket(zmq::DEALER).unwrap();
            socket.set_linger(500).unwrap();
            socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).unwrap()).unwrap();
            socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
            socket
        };
        let session = Session::new(Signer::new(file.common.key.as_bytes()), "sender", "u", 1).packed_by(packer);
        Sender { session, task: dial(file.common.task), broadcast: dial(file.broadcast) }
    }

    /// A header as everyone makes it, with what is to be changed; null takes a key away.
    fn header(&mut self, changes: &Value) -> Vec<u8> {
        let (_, header) = self.session.header("apply_request", NOW);
        let mut header = self.session.packer().read_map(&header).unwrap();
        for (key, value) in changes.as_object().into_iter().flatten() {
            if value.is_null() {
                header.remove(key);
            } else {
                header.insert(key.clone(), value.clone());
            }
        }
        self.session.packer().of_map(&header)
    }

    fn answer(&self, socket: &zmq::Socket) -> Answer {
        let message = socket.recv_multipart(0).expect("an answer");
        let map = |part: usize| self.session.packer().read_map(&message[part]).unwrap();
        Answer { parent: map(3), metadata: map(4), content: map(5) }
    }
}

#[derive(Debug)]
struct Answer {
    parent: Map<String, Value>,
    metadata: Map<String, Value>,
    content: Map<String, Value>,
}

impl Answer {
    fn text(&self) -> String {
        format!("{}: {}", self.content["ename"].as_str().unwrap_or_default(), self.content["evalue"].as_str().unwrap_or_default())
    }
}

fn works(client: &mut Client) {
    client.submit(&TaskRequest::function("echo", "alive")).unwrap();
    assert_eq!(client.next_reply(PATIENCE).unwrap().unwrap().outcome.unwrap(), "alive");
}

fn refused(world: &World, part: &str) -> u64 {
    let counts = world.controller().tally().counts();
    counts.iter().filter(|(of, kind, _)| *of == part && *kind != "reply to a client that has gone").map(|(.., count)| count).sum()
}

/// What is wrong, as changes to the header, the other parts, and what the answer says.
fn unanswerable() -> Vec<(Value, [&'static [u8]; 3], &'static str)> {
    let deep: &'static [u8] = Vec::leak(format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000)).into_bytes());
    let ok: [&[u8]; 3] = [b"{}", b"{}", b"{}"];
    let content = |content: &'static [u8]| [&b"{}"[..], b"{}", content];
    let execute = json!({"msg_type": "execute_request"});
    vec![
        (
            json!({"msg_type": "bogus_request"}),
            ok,
            "NotImplementedError: no engine answers a request of the type 'bogus_request'",
        ),
        (json!({"msg_type": "comm_msg"}), ok, "NotImplementedError: no engine answers a request of the type 'comm_msg'"),
        (json!({"msg_type": "apply_reply"}), ok, "NotImplementedError"),
        (json!({"msg_type": null}), ok, "TypeError: the request's header can not be read"),
        (json!({"msg_type": 7}), ok, "TypeError: the request's header can not be read"),
        (json!({"session": null}), ok, "TypeError: the request's header has no `session`"),
        (json!({"session": ""}), ok, "TypeError: the request's header has no `session`"),
        (json!({"version": "new"}), ok, "TypeError: the request's header has the version 'new', which should be as '5.4'"),
        (json!({"version": 5.3}), ok, "TypeError: the request's header can not be read"),
        (json!({}), content(b"not json"), "TypeError: the request's content can not be read"),
        (json!({}), content(b""), "TypeError: the request's content can not be read"),
        (json!({}), content(b"[]"), "TypeError: the request's content can not be read: not a JSON object"),
        (json!({}), content(b"{} {}"), "TypeError: the request's content can not be read"),
        (json!({}), content(deep), "TypeError: the request's content can not be read"),
        (json!({}), [b"{", b"{}", b"{}"], "TypeError: the request's parent header can not be read"),
        (json!({}), [b"{}", b"[]", b"{}"], "InvalidDependency: task metadata: not a JSON object"),
        (json!({}), [b"{}", br#"{"retries": -1}"#, b"{}"], "InvalidDependency: task metadata: retries must be"),
        (json!({}), [b"{}", deep, b"{}"], "TypeError: the request's metadata can not be read"),
        (execute.clone(), ok, "TypeError: the content of an execute_request needs a text `code`"),
        (execute, content(br#"{"code": 7}"#), "TypeError: the request's content can not be read"),
        (json!({"msg_type": "complete_request"}), content(br#"{"code": "a"}"#), "needs a number `cursor_pos`"),
        (json!({"msg_type": "history_request"}), content(br#"{"raw": true}"#), "needs `hist_access_type`"),
    ]
}

#[test]
fn a_task_that_no_engine_could_answer_is_refused_at_once_with_the_reason() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let mut sender = Sender::new(&world, Packer::Json);
    for (n, (changes, [parent, metadata, content], expected)) in unanswerable().into_iter().enumerate() {
        let header = sender.header(&changes);
        let parts = sender.session.seal(header.clone(), parent.to_vec(), metadata.to_vec(), content.to_vec());
        sender.task.send_multipart(&parts, 0).unwrap();
        let answer = sender.answer(&sender.task);
        assert!(
            answer.text().contains(expected),
            "{changes} {}: {}",
            String::from_utf8_lossy(&content[..content.len().min(40)]),
            answer.text()
        );
        assert_eq!(answer.content["status"], "error");
        assert_eq!(answer.parent, sender.session.packer().read_map(&header).unwrap(), "the parent tells which request it was");
        assert_eq!(refused(&world, "tasks"), n as u64 + 1, "{changes}");
    }
    works(&mut client);
}

#[test]
fn a_header_or_a_message_that_is_not_whole_is_answered_all_the_same() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let mut sender = Sender::new(&world, Packer::Json);
    for header in ["[]", "no json", "{\"msg_type\": \"apply_request\"}"] {
        let parts = sender.session.seal(header.into(), b"{}".to_vec(), b"{}".to_vec(), b"{}".to_vec());
        sender.task.send_multipart(&parts, 0).unwrap();
        assert!(sender.answer(&sender.task).text().contains("the request's header can not be read"), "{header}");
    }
    for len in 3..6 {
        let header = sender.header(&json!({}));
        let mut all = [header.clone(), b"{}".to_vec(), b"{}".to_vec(), b"{}".to_vec()];
        all[len - 2..].iter_mut().for_each(Vec::clear); // a signature is over what is there
        let [header_there, parent, metadata, content] = all;
        let parts = sender.session.seal(header_there, parent, metadata, content);
        for socket in [&sender.task, &sender.broadcast] {
            socket.send_multipart(&parts[..len], 0).unwrap();
            let answer = sender.answer(socket);
            assert!(answer.text().contains("the request is incomplete: it has no "), "{len}: {}", answer.text());
            assert_eq!(answer.parent.contains_key("msg_id"), len > 2);
        }
    }
    works(&mut client);
}

#[test]
fn what_is_not_genuine_gets_no_answer_and_a_signature_in_another_spelling_is_not() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let mut sender = Sender::new(&world, Packer::Json);
    let header = sender.header(&json!({"msg_type": "bogus_request"}));
    let genuine = sender.session.seal(header, b"{}".to_vec(), b"{}".to_vec(), b"{}".to_vec());
    let mut forged = [genuine.clone(), genuine.clone(), genuine.clone(), genuine.clone()];
    forged[0][1] = genuine[1].to_ascii_uppercase();
    forged[1][1] = [b"0x", &genuine[1][..]].concat();
    forged[2][1].clear();
    forged[3][5] = b"{\"other\": 1}".to_vec();
    for parts in &forged {
        sender.task.send_multipart(parts, 0).unwrap();
        sender.task.send_multipart(&parts[..4], 0).unwrap(); // not whole, and not signed as that
        sender.broadcast.send_multipart(parts, 0).unwrap();
    }
    // The first answer is to what was sent last: there is none to what came before.
    let header = sender.header(&json!({"msg_type": "last_request"}));
    let last = sender.session.seal(header, b"{}".to_vec(), b"{\"targets\": []}".to_vec(), b"{}".to_vec());
    sender.task.send_multipart(&last, 0).unwrap();
    assert!(sender.answer(&sender.task).text().contains("'last_request'"));
    assert_eq!(refused(&world, "tasks"), 9);
    works(&mut client);
}

#[test]
fn a_broadcast_that_engines_could_not_answer_is_refused_as_its_client_waits_for_it() {
    let world = World::new(2, |_| {});
    let mut sender = Sender::new(&world, Packer::Json);
    let uuids: Vec<String> = world.client().engines().unwrap().values().cloned().collect();
    let header = sender.header(&json!({}));
    let parts = sender.session.seal(header, b"{}".to_vec(), b"{\"targets\": 7}".to_vec(), b"{}".to_vec());
    sender.broadcast.send_multipart(&parts, 0).unwrap();
    assert!(sender.answer(&sender.broadcast).text().contains("they need `targets`, a list of [uuid, number] pairs"));
    for gathers in [true, false] {
        let targets: Vec<Value> = uuids.iter().map(|uuid| json!([uuid, 0])).collect();
        let metadata = json!({"targets": targets, "is_broadcast": true, "is_coalescing": gathers}).to_string();
        for (changes, content, expected) in [
            (json!({"msg_type": "bogus_request"}), "{}", "'bogus_request'"),
            (json!({}), "not json", "the request's content can not be read"),
        ] {
            let header = sender.header(&changes);
            let id = sender.session.packer().read_map(&header).unwrap()["msg_id"].as_str().unwrap().to_owned();
            let parts = sender.session.seal(header, b"{}".to_vec(), metadata.clone().into_bytes(), content.into());
            sender.broadcast.send_multipart(&parts, 0).unwrap();
            let mut awaited = if gathers { vec![id.clone()] } else { uuids.iter().map(|uuid| format!("{id}_{uuid}")).collect() };
            while !awaited.is_empty() {
                let answer = sender.answer(&sender.broadcast);
                assert!(answer.text().contains(expected), "{}", answer.text());
                assert_eq!(
                    (&answer.metadata["is_coalescing"], &answer.metadata["original_msg_id"]),
                    (&json!(gathers), &json!(id))
                );
                let before = awaited.len();
                awaited.retain(|id| answer.parent["msg_id"] != *id);
                assert_eq!(awaited.len(), before - 1);
            }
        }
    }
}

#[test]
fn a_cluster_on_msgpack_refuses_in_msgpack() {
    let world = World::new(1, |config| config.session.packer = Some(Packer::Msgpack));
    let mut client = world.client();
    works(&mut client);
    let mut sender = Sender::new(&world, Packer::Msgpack);
    let cases: [(&[u8], &str); 4] = [
        (b"{}", "the request's content can not be read: not a msgpack object"),
        (b"\xdf\xff\xff\xff\xff", "it ends too early"),
        (b"\x81\x01\x01", "a key that is not text"),
        (b"\x80\x80", "something behind its end"),
    ];
    for (content, expected) in cases {
        let header = sender.header(&json!({}));
        let parts = sender.session.seal(header, b"\xc0".to_vec(), b"\x80".to_vec(), content.to_vec());
        sender.task.send_multipart(&parts, 0).unwrap();
        let answer = sender.answer(&sender.task);
        assert!(answer.text().contains(expected), "{}", answer.text());
    }
    works(&mut client);
}

#[test]
fn tens_of_thousands_of_frames_pass_and_more_than_are_taken_are_refused() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let mut sender = Sender::new(&world, Packer::Json);
    sender.task.set_sndhwm(0).unwrap();
    let call: &[u8] = br#"{"function":"echo"}"#;
    for (buffers, expected) in [(17_000, None), (MAX_FRAMES, Some("has more than 262144 frames"))] {
        let header = sender.header(&json!({}));
        let parts = sender.session.seal(header, b"{}".to_vec(), b"{}".to_vec(), b"{}".to_vec());
        let frames = parts.iter().map(Vec::as_slice).chain([call]).chain(std::iter::repeat_n(&b"x"[..], buffers));
        let frames: Vec<&[u8]> = frames.collect();
        sender.task.send_multipart(frames, 0).unwrap();
        let answer = sender.answer(&sender.task);
        match expected {
            None => assert_eq!(answer.content["status"], "ok"),
            Some(expected) => assert!(answer.text().contains(expected), "{}", answer.text()),
        }
    }
    works(&mut client);
    assert!(client.next_reply(Duration::ZERO).unwrap().is_none());
}
