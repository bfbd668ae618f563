//! What is refused, given up or too large: each has a count that can be read, and none costs memory that stays.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::core::connection_file::{ClientFile, EngineFile};
use pointsman::core::net::files::read_json;
use pointsman::core::peer::{Client, TaskRequest};
use serde_json::{Value, json};

use crate::world::{PATIENCE, World};

fn dial(context: &zmq::Context, kind: zmq::SocketType, port: u16) -> zmq::Socket {
    let socket = context.socket(kind).unwrap();
    socket.set_linger(20_000).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    socket
}

/// What the controller says that it has given up: part, kind, count.
fn given_up(client: &mut Client) -> Vec<(String, String, u64)> {
    let shown = client.ask("pointsman_request", &json!({"action": "show"}), PATIENCE).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kinds = shown["given_up"].as_array().unwrap().iter();
    kinds.map(|kind| (text(&kind["part"]), text(&kind["kind"]), kind["count"].as_u64().unwrap())).collect()
}

/// Waits until at least so many are counted for each part and kind.
fn wait_for(client: &mut Client, wanted: &[(&str, &str, u64)]) {
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        let counts = given_up(client);
        let is_there = |(part, kind, least): &(&str, &str, u64)| {
            counts.iter().any(|count| (count.0.as_str(), count.1.as_str()) == (*part, *kind) && count.2 >= *least)
        };
        if wanted.iter().all(is_there) {
            return;
        }
        assert!(Instant::now() < until, "wanted {wanted:?} of {counts:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn whatever_a_part_gives_up_can_be_read() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let (c, e) = (world.controller().client_file().clone(), world.controller().engine_file().clone());
    let mut sockets = Vec::new();
    let mut send = |kind, port, message: &[&[u8]]| {
        let socket = dial(&world.context, kind, port);
        socket.send_multipart(message, 0).unwrap();
        sockets.push(socket);
    };
    for port in [c.common.registration, c.common.task, e.common.task, c.broadcast, e.broadcast[0]] {
        send(zmq::DEALER, port, &[b"junk"]);
    }
    for port in [c.common.mux, c.common.control, e.common.mux, e.common.control] {
        send(zmq::DEALER, port, &[b"junk"]);
        send(zmq::DEALER, port, &[b"nobody", b"junk"]);
    }
    send(zmq::DEALER, e.hb_pong, &[b"a", b"b", b"c"]);
    send(zmq::DEALER, e.hb_pong, &[b"a beat of nobody"]);
    wait_for(
        &mut client,
        &[
            ("hub", "malformed message", 2),
            ("hub", "stray pong", 1),
            ("tasks", "malformed request", 1),
            ("tasks", "malformed reply", 1),
            ("broadcast", "malformed message", 1),
            ("broadcast", "malformed request", 1),
            ("mux", "malformed message", 2),
            ("control", "malformed message", 2),
            // From an engine's side: to a client that is not there.
            ("mux", "reply to a client that has gone", 1),
            ("control", "reply to a client that has gone", 1),
            // From a client's: ten seconds later.
            ("mux", "undelivered", 1),
            ("control", "undelivered", 1),
        ],
    );
}

#[test]
fn an_answer_to_a_client_that_has_gone_is_counted() {
    let world = World::new(1, |_| {});
    let mut client = world.client();
    let mut leaver = world.client();
    leaver.submit(&TaskRequest::function("slow", "1")).unwrap();
    leaver.submit(&TaskRequest::function("slow", "2")).unwrap();
    leaver.submit(&TaskRequest::function("slow", "3")).unwrap();
    let started = Instant::now();
    while client.ask("queue_request", &json!({}), PATIENCE).unwrap()["0"]["tasks"] == 0 {
        assert!(started.elapsed() < PATIENCE);
    }
    drop(leaver);
    wait_for(&mut client, &[("tasks", "reply to a client that has gone", 1)]);
}

/// A controller in a process of its own, so that its memory is its own.
struct Alone {
    child: Child,
    folder: tempfile::TempDir,
}

impl Alone {
    fn start(args: &[&str]) -> Alone {
        let folder = tempfile::tempdir().unwrap();
        let program = std::env::var("POINTSMAN_OTHER_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_pointsman").into());
        let mut command = Command::new(program);
        command.arg("controller").arg(format!("--profile-dir={}", folder.path().display())).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Alone { child: command.spawn().unwrap(), folder }
    }

    fn files(&self) -> (ClientFile, EngineFile) {
        let path = |role: &str| self.folder.path().join(format!("security/ipcontroller-{role}.json"));
        let until = Instant::now() + PATIENCE;
        loop {
            let read = read_json(&path("client")).and_then(|client| Ok((client, read_json(&path("engine"))?)));
            match read {
                Ok(files) => return files,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn memory_comes_back_after_large_messages_that_are_nobodys() {
    let alone = Alone::start(&["--nodb"]);
    let (c, e) = alone.files();
    let context = zmq::Context::new();
    let mut client = Client::connect(&context, &c, PATIENCE).unwrap();
    let before = alone.memory_mib();
    // More than all that strangers' messages have to wait, so that none of it is kept.
    let frame = vec![b'x'; 3 << 20];
    let ports =
        [c.common.task, e.common.task, c.common.registration, c.common.mux, c.common.control, c.broadcast, e.broadcast[0]];
    for port in ports {
        dial(&context, zmq::DEALER, port).send_multipart(std::iter::repeat_n(&frame, 31), 0).unwrap();
    }
    wait_for(
        &mut client,
        &[
            ("tasks", "malformed request", 1),
            ("tasks", "malformed reply", 1),
            ("hub", "malformed message", 2), // its own, and a copy of the direct one
            ("mux", "no room to wait", 1),
            ("control", "no room to wait", 1),
            ("broadcast", "malformed message", 1),
            ("broadcast", "malformed request", 1),
        ],
    );
    // The allocator gives memory back as the threads that had it go on, so each has a little to do meanwhile.
    let sockets = ports.map(|port| dial(&context, zmq::DEALER, port));
    let until = Instant::now() + Duration::from_secs(180);
    while alone.memory_mib() > before + 64 {
        assert!(Instant::now() < until, "{before} MiB before, {} MiB now", alone.memory_mib());
        for socket in &sockets {
            socket.send_multipart(["a", "b"], 0).unwrap();
        }
        given_up(&mut client);
    }
}

#[test]
fn whoever_sends_more_than_is_allowed_is_cut_off() {
    let world = World::new(1, |config| config.controller.max_message_bytes = 1 << 20);
    let mut client = world.client();
    let (c, e) = (world.controller().client_file().clone(), world.controller().engine_file().clone());
    let mut cases = vec![(zmq::PUB, e.common.iopub, 1 << 20)];
    for port in [c.common.mux, c.common.task, c.common.control, c.common.registration, c.broadcast] {
        cases.push((zmq::DEALER, port, 1 << 20));
    }
    for port in [e.common.mux, e.common.task, e.common.control, e.hb_pong, e.broadcast[0], e.broadcast[1]] {
        cases.push((zmq::DEALER, port, 1 << 20));
    }
    for port in [c.common.iopub, c.notification, e.hb_ping] {
        cases.push((zmq::SUB, port, 4 << 10));
    }
    for (number, (kind, port, most)) in cases.into_iter().enumerate() {
        assert!(is_cut_off(&world.context, number, kind, port, most + 1), "case {number}: {kind:?} on {port}");
    }
    // What is allowed still goes both ways.
    client.submit(&TaskRequest::function("echo", "x".repeat((1 << 20) - 1000))).unwrap();
    assert!(client.next_reply(PATIENCE).unwrap().unwrap().outcome.is_ok());
}

#[test]
fn requests_to_the_hub_are_limited_whatever_else_is_allowed() {
    let world = World::new(0, |_| {});
    let (c, e) = (world.controller().client_file().clone(), world.controller().engine_file().clone());
    for (number, port) in [c.common.registration, e.hb_pong].into_iter().enumerate() {
        assert!(is_cut_off(&world.context, number, zmq::DEALER, port, (16 << 20) + 1), "{port}");
    }
}

/// Whether sending, or subscribing to, so many bytes ends the connection.
fn is_cut_off(context: &zmq::Context, number: usize, kind: zmq::SocketType, port: u16, bytes: usize) -> bool {
    let socket = context.socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    // Events of a new connection would wait, with libzmq's own thread, for somebody who has stopped listening.
    socket.set_reconnect_ivl(-1).unwrap();
    let events = format!("inproc://events{number}");
    socket.monitor(&events, zmq::SocketEvent::ALL.to_raw().into()).unwrap();
    let heard = context.socket(zmq::PAIR).unwrap();
    heard.connect(&events).unwrap();
    heard.set_rcvtimeo(50).unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    let (until, mut publishes) = (Instant::now() + Duration::from_secs(120), false);
    while Instant::now() < until {
        let Ok(event) = heard.recv_multipart(0) else {
            // A publisher drops what it sends before it has heard of the subscription.
            if publishes {
                socket.send(vec![b'x'; bytes], 0).unwrap();
            }
            continue;
        };
        match zmq::SocketEvent::from_raw(u16::from_le_bytes([event[0][0], event[0][1]])) {
            zmq::SocketEvent::HANDSHAKE_SUCCEEDED if kind == zmq::SUB => socket.set_subscribe(&vec![b'x'; bytes]).unwrap(),
            zmq::SocketEvent::HANDSHAKE_SUCCEEDED if kind == zmq::PUB => publishes = true,
            zmq::SocketEvent::HANDSHAKE_SUCCEEDED => socket.send(vec![b'x'; bytes], 0).unwrap(),
            zmq::SocketEvent::DISCONNECTED => return true,
            _ => {}
        }
    }
    false
}
