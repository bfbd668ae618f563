//! A native engine at a controller that is nothing but sockets: what it answers to each message, and what it leaves behind.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pointsman_core::connection_file::{Common, EngineFile};
use pointsman_core::date::Date;
use pointsman_core::peer::{Engine, EngineHandle, EngineOptions, Functions, PeerError};
use pointsman_core::{Session, Signer};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// What holds a task up until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, open)| !*open).unwrap());
    }

    fn wait_for_somebody(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |(here, _)| !*here).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// The controller's ends of an engine's sockets.
struct Fake {
    context: zmq::Context,
    session: Session,
    registration: zmq::Socket,
    shell: zmq::Socket,
    control: zmq::Socket,
    iopub: zmq::Socket,
    ping: zmq::Socket,
    pong: zmq::Socket,
    file: EngineFile,
}

impl Fake {
    fn new() -> Fake {
        let context = zmq::Context::new();
        let bound = |kind| {
            let socket = context.socket(kind).unwrap();
            socket.set_rcvtimeo(PATIENCE.as_millis() as i32).unwrap();
            socket.set_linger(0).unwrap();
            if kind == zmq::ROUTER {
                socket.set_router_mandatory(true).unwrap();
            }
            socket.bind("tcp://127.0.0.1:*").unwrap();
            let url = socket.get_last_endpoint().unwrap().unwrap();
            let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
            (socket, port)
        };
        let (registration, registration_port) = bound(zmq::ROUTER);
        let (shell, mux) = bound(zmq::ROUTER);
        let (_, task) = bound(zmq::ROUTER);
        let (control, control_port) = bound(zmq::ROUTER);
        let (iopub, iopub_port) = bound(zmq::SUB);
        iopub.set_subscribe(b"").unwrap();
        let (ping, hb_ping) = bound(zmq::PUB);
        let (pong, hb_pong) = bound(zmq::ROUTER);
        let common = Common {
            ssh: String::new(),
            interface: "tcp://127.0.0.1".into(),
            location: "here".into(),
            registration: registration_port,
            control: control_port,
            mux,
            task,
            iopub: iopub_port,
            key: "a key".into(),
            curve_serverkey: None,
            pack: "json".into(),
            unpack: "json".into(),
            signature_scheme: "hmac-sha256".into(),
        };
        let session = Session::new(Signer::new(b"a key"), "fake", "fake", 1);
        let file = EngineFile { common, hb_ping, hb_pong, broadcast: Vec::new() };
        Fake { context, session, registration, shell, control, iopub, ping, pong, file }
    }

    /// An engine whose function `wait` waits at the gate, once it can be reached.
    fn engine(&mut self, gate: &Arc<Gate>, period_ms: u64, options: EngineOptions) -> EngineHandle {
        let mut functions = Functions::new();
        let held = gate.clone();
        functions.register("wait", move |argument| {
            held.pass();
            Ok(argument.to_vec())
        });
        functions.register_quick("echo", |argument| Ok(argument.to_vec()));
        let (context, file) = (self.context.clone(), self.file.clone());
        let starting = std::thread::spawn(move || Engine::start_with(&context, &file, Arc::new(functions), &options).unwrap());
        let asked = self.registration.recv_multipart(0).unwrap();
        let content = json!({"status": "ok", "id": 7, "hb_period": period_ms});
        let parts = self.session.compose("registration_reply", now(), &asked[3], b"{}", content.to_string().into_bytes());
        self.registration.send_multipart([asked[0].clone()].into_iter().chain(parts), 0).unwrap();
        let engine = starting.join().unwrap();
        // Each socket connects when it likes: a ROUTER knows its peer from then on. Nothing else is sent there, so a probe may be lost.
        while self.pong.poll(zmq::POLLIN, 10).unwrap() == 0 {
            self.ping.send("0", 0).unwrap();
        }
        for socket in [&self.shell, &self.control] {
            while socket.send_multipart([engine.uuid(), "probe"], 0).is_err() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        engine
    }

    /// Comes back when the engine has been sent all that went to it before. Everything here goes through one thread of libzmq, which serves
    /// each connection that has something, a few KB of each, before it comes to a ping again.
    fn settle(&self) {
        for turn in 0..600 {
            let text = format!("{turn} of 600");
            self.ping.send(&text, 0).unwrap();
            while self.pong.recv_multipart(0).unwrap()[1] != text.as_bytes() {}
        }
    }

    fn send(&mut self, to: &str, engine: &EngineHandle, msg_type: &str, content: &Value, buffers: &[&[u8]]) -> String {
        let (id, header) = self.session.header(msg_type, now());
        let metadata = json!({"quiet": true, "label": "x"}).to_string().into_bytes();
        let parts = self.session.seal(header, b"{}".to_vec(), metadata, content.to_string().into_bytes());
        let ends = [engine.uuid().as_bytes().to_vec(), b"client".to_vec()];
        let frames = ends.into_iter().chain(parts).chain(buffers.iter().map(|buffer| buffer.to_vec()));
        let socket = if to == "control" { &self.control } else { &self.shell };
        socket.send_multipart(frames, 0).unwrap();
        id
    }

    fn call(&mut self, engine: &EngineHandle, function: &str) -> String {
        let call = json!({"function": function}).to_string();
        self.send("shell", engine, "apply_request", &json!({}), &[call.as_bytes(), b"argument"])
    }

    fn receive(socket: &zmq::Socket) -> Reply {
        let frames = socket.recv_multipart(0).expect("an answer in time");
        let delimiter = frames.iter().position(|frame| frame == b"<IDS|MSG>").unwrap();
        let part = |at: usize| -> Value { serde_json::from_slice(&frames[delimiter + 2 + at]).unwrap() };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Reply {
            msg_type: text(&part(0)["msg_type"]),
            parent: text(&part(1)["msg_id"]),
            metadata: part(2),
            content: part(3),
            buffers: frames[delimiter + 6..].to_vec(),
        }
    }
}

#[derive(Debug)]
struct Reply {
    msg_type: String,
    parent: String,
    metadata: Value,
    content: Value,
    buffers: Vec<Vec<u8>>,
}

fn now() -> Date {
    Date::from_unix_us(1_790_000_000_000_000)
}

#[test]
fn an_abort_drops_what_it_names_in_each_of_its_forms_and_all_that_waits_if_it_names_nothing() {
    /// The ids of three tasks that wait, what to abort of them, and which are dropped then.
    type Case = (&'static str, fn(&[String]) -> Value, [bool; 3]);
    let cases: [Case; 8] = [
        ("a list", |ids| json!({"msg_ids": [ids[0], ids[2]]}), [true, false, true]),
        ("a string", |ids| json!({"msg_ids": ids[1]}), [false, true, false]),
        ("a list with what is no id", |ids| json!({"msg_ids": [7, null, ids[1]]}), [false, true, false]),
        ("None", |_| json!({"msg_ids": null}), [true; 3]),
        ("an empty list", |_| json!({"msg_ids": []}), [true; 3]),
        ("an empty string", |_| json!({"msg_ids": ""}), [true; 3]),
        ("nothing at all", |_| json!({}), [true; 3]),
        ("somebody else", |_| json!({"msg_ids": ["unheard of"]}), [false; 3]),
    ];
    let mut fake = Fake::new();
    for (name, content, dropped) in cases {
        let gate = Arc::new(Gate::default());
        let engine = fake.engine(&gate, 100_000, EngineOptions::default());
        let running = fake.call(&engine, "wait");
        gate.wait_for_somebody();
        let waiting: Vec<String> = (0..3).map(|_| fake.call(&engine, "echo")).collect();
        fake.settle();
        let asked = fake.send("control", &engine, "abort_request", &content(&waiting), &[]);
        let reply = Fake::receive(&fake.control);
        assert_eq!(
            (&*reply.msg_type, &reply.parent, &reply.content),
            ("abort_reply", &asked, &json!({"status": "ok"})),
            "{name}"
        );
        gate.open();
        let mut ran = Vec::new();
        let mut aborted = Vec::new();
        for _ in 0..4 {
            let reply = Fake::receive(&fake.shell);
            assert_eq!(reply.msg_type, "apply_reply", "{name}");
            assert_eq!(reply.metadata["status"], reply.content["status"], "{name}");
            assert_eq!((&reply.metadata["engine"], &reply.metadata["label"]), (&json!(engine.uuid()), &json!("x")), "{name}");
            match reply.content["status"].as_str() {
                Some("ok") => ran.push(reply.parent),
                Some("aborted") => aborted.push(reply.parent),
                other => panic!("{name}: {other:?}"),
            }
        }
        let chosen =
            |wanted: bool| waiting.iter().zip(dropped).filter(move |(_, dropped)| *dropped == wanted).map(|(id, _)| id.clone());
        assert_eq!(aborted, chosen(true).collect::<Vec<_>>(), "{name}");
        assert_eq!(ran, [running].into_iter().chain(chosen(false)).collect::<Vec<_>>(), "{name}");
        // An abort of all is over when it is answered: what comes later runs.
        let later = fake.call(&engine, "echo");
        let reply = Fake::receive(&fake.shell);
        assert_eq!((&reply.parent, &reply.buffers), (&later, &vec![b"argument".to_vec()]), "{name}");
        engine.stop();
        engine.join().unwrap();
        Fake::receive(&fake.registration);
    }
}

#[test]
fn an_id_that_was_aborted_before_its_request_came_is_dropped_when_it_comes() {
    let mut fake = Fake::new();
    let engine = fake.engine(&Arc::default(), 100_000, EngineOptions::default());
    // Ids are counted: the next but one of this session.
    let next = "fake_1_2";
    let asked = fake.send("control", &engine, "abort_request", &json!({"msg_ids": [next]}), &[]);
    assert_eq!((asked.as_str(), Fake::receive(&fake.control).content), ("fake_1_1", json!({"status": "ok"})));
    assert_eq!(fake.call(&engine, "echo"), next);
    assert_eq!(Fake::receive(&fake.shell).content, json!({"status": "aborted"}));
    engine.stop();
    engine.join().unwrap();
}

#[test]
fn a_shut_down_answers_for_everything_that_was_still_waiting() {
    let mut fake = Fake::new();
    let gate = Arc::new(Gate::default());
    let engine = fake.engine(&gate, 100_000, EngineOptions::default());
    let running = fake.call(&engine, "wait");
    gate.wait_for_somebody();
    // More than it reads ahead, so that some wait in its socket.
    let waiting: Vec<String> = (0..1500).map(|_| fake.call(&engine, "echo")).collect();
    fake.settle();
    let asked = fake.send("control", &engine, "shutdown_request", &json!({"restart": false}), &[]);
    let reply = Fake::receive(&fake.control);
    assert_eq!(
        (&*reply.msg_type, &reply.parent, &reply.content),
        ("shutdown_reply", &asked, &json!({"status": "ok", "restart": false}))
    );
    for id in &waiting {
        let reply = Fake::receive(&fake.shell);
        assert_eq!((&*reply.msg_type, &reply.parent, &reply.content), ("apply_reply", id, &json!({"status": "aborted"})));
    }
    let goodbye = Fake::receive(&fake.registration);
    assert_eq!((&*goodbye.msg_type, &goodbye.content["id"]), ("unregistration_request", &json!(7)));
    engine.join().unwrap();
    // The one that ran is not waited for: the controller says that its engine is gone.
    fake.shell.set_rcvtimeo(100).unwrap();
    assert!(fake.shell.recv_multipart(0).is_err(), "{running} was answered");
    gate.open();
}

#[test]
fn kernel_info_is_answered_on_both_channels_and_what_is_not_known_is_refused_on_both() {
    let mut fake = Fake::new();
    let engine = fake.engine(&Arc::default(), 100_000, EngineOptions::default());
    for channel in ["shell", "control"] {
        let asked = fake.send(channel, &engine, "kernel_info_request", &json!({}), &[]);
        let reply = Fake::receive(if channel == "shell" { &fake.shell } else { &fake.control });
        assert_eq!((&*reply.msg_type, &reply.parent), ("kernel_info_reply", &asked), "{channel}");
        let content = &reply.content;
        assert_eq!((&content["status"], &content["implementation"]), (&json!("ok"), &json!("pointsman")), "{channel}");
        for key in ["protocol_version", "implementation_version", "banner"] {
            assert!(content[key].is_string(), "{channel}: {key} of {content}");
        }
        for key in ["name", "version", "mimetype", "file_extension", "pygments_lexer", "codemirror_mode", "nbconvert_exporter"] {
            assert!(content["language_info"][key].is_string(), "{channel}: {key} of {content}");
        }
        assert!(content["help_links"].is_array() && content["supported_features"].is_array(), "{channel}: {content}");
        fake.send(channel, &engine, "history_request", &json!({}), &[]);
        let reply = Fake::receive(if channel == "shell" { &fake.shell } else { &fake.control });
        let seen = (&*reply.msg_type, &reply.content["status"], &reply.content["ename"]);
        assert_eq!(seen, ("history_reply", &json!("error"), &json!("NotImplementedError")), "{channel}");
    }
    engine.stop();
    engine.join().unwrap();
}

#[test]
fn code_publishes_its_states_and_its_output() {
    let mut fake = Fake::new();
    let engine = fake.engine(&Arc::default(), 100_000, EngineOptions::default());
    assert_eq!(Fake::receive(&fake.iopub).msg_type, "iopub_welcome");
    fake.send("shell", &engine, "execute_request", &json!({"code": "echo said"}), &[]);
    assert_eq!(Fake::receive(&fake.shell).content["status"], "ok");
    let published = Fake::receive(&fake.iopub);
    assert_eq!((&*published.msg_type, &published.content), ("stream", &json!({"name": "stdout", "text": "said\n"})));
    engine.stop();
    engine.join().unwrap();
}

#[test]
fn an_engine_leaves_a_controller_that_has_missed_so_many_beats_in_a_row() {
    let mut fake = Fake::new();
    let options = EngineOptions { max_heartbeat_misses: 1, ..EngineOptions::default() };
    let engine = fake.engine(&Arc::default(), 1, options);
    // Nobody pings any more.
    let goodbye = Fake::receive(&fake.registration);
    assert_eq!(goodbye.msg_type, "unregistration_request");
    engine.join().unwrap();
}

#[test]
fn a_file_of_another_packer_or_scheme_is_refused_by_name() {
    let fake = Fake::new();
    let start = |change: fn(&mut Common)| {
        let mut file = fake.file.clone();
        change(&mut file.common);
        Engine::start(&fake.context, &file, Arc::default(), None, Duration::from_millis(1)).map(|_| ()).unwrap_err()
    };
    for (change, words) in [
        ((|common| common.pack = "msgpack.packb".into()) as fn(&mut Common), ["msgpack.packb", "json"]),
        (|common| common.unpack = "pickle".into(), ["pickle", "json"]),
        (|common| common.unpack = "msgpack".into(), ["msgpack", "json"]),
        (|common| common.signature_scheme = "hmac-md5".into(), ["hmac-md5", "hmac-sha256"]),
        (|common| common.curve_serverkey = Some("short".into()), ["curve_serverkey", "Z85"]),
    ] {
        let error = start(change);
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("unreadable"), "{text}");
    }
    // As JSON is what it is, whoever writes it; and then nobody answers.
    let orjson = start(|common| (common.pack, common.unpack) = ("orjson".into(), "orjson".into()));
    assert!(matches!(orjson, PeerError::Timeout(_)), "{orjson}");
}
