//! Whatever makes a scheduler send a task for a second time, the second message is the same request under another signature: engines drop
//! one that they have seen without a word, and would never answer it. The scheduler runs on its sockets, and engines are bare ones.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman_core::date::Date;
use pointsman_core::hub::driver::HubInput;
use pointsman_core::net::{Mailbox, Outbox};
use pointsman_core::{Envelope, Multipart, Packer, Session, Signer};
use pointsman_policies::{PolicySpec, Registry, Time};
use pointsman_schedulers::live::{TaskInput, TaskOptions, TaskSockets, run_tasks};
use pointsman_schedulers::task::{Limits, PolicyChange, TaskScheduler};
use serde_json::{Value, json};

const PATIENCE_MS: i32 = 60_000;

struct World {
    context: zmq::Context,
    session: Session,
    client: zmq::Socket,
    control: zmq::Socket,
    inputs: Outbox<TaskInput>,
    scheduler: Option<JoinHandle<()>>,
    // What the hub is told is not looked at here, and must have somewhere to go.
    _hub: Mailbox<HubInput>,
}

fn session(packer: Packer) -> Session {
    Session::new(Signer::new(b"key"), "s", "u", 1).packed_by(packer)
}

impl World {
    fn new(packer: Packer, rebalance: &str, hwm: u32) -> World {
        let context = zmq::Context::new();
        let bound = |kind, name: &str| {
            let socket = context.socket(kind).unwrap();
            socket.set_linger(0).unwrap();
            socket.set_rcvtimeo(PATIENCE_MS).unwrap();
            socket.bind(&format!("inproc://{name}")).unwrap();
            socket
        };
        let (clients, engines, control) =
            (bound(zmq::ROUTER, "clients"), bound(zmq::ROUTER, "engines"), bound(zmq::ROUTER, "control"));
        let to_control = context.socket(zmq::DEALER).unwrap();
        to_control.set_linger(0).unwrap();
        to_control.connect("inproc://control").unwrap();
        let registry = Registry::builtin();
        let spec = |text: &str| text.parse::<PolicySpec>().unwrap();
        let limits = Limits { hwm, grace: Duration::from_millis(20), ..Limits::default() };
        let mut machine = TaskScheduler::new(registry.build(&spec("leastload")).unwrap(), limits, 1);
        machine.change(Time::ZERO, vec![PolicyChange::Rebalance(registry.build_rebalance(&spec(rebalance)).unwrap())]);
        let (inputs, mailbox) = Mailbox::new(1000, 1 << 20).unwrap();
        let (to_hub, hub) = Mailbox::new(1000, 1 << 20).unwrap();
        let sockets = TaskSockets { clients, engines, control: to_control };
        let scheduler = std::thread::spawn(move || {
            run_tasks(machine, sockets, &mailbox, to_hub, session(packer), TaskOptions::default()).unwrap();
        });
        let client = context.socket(zmq::DEALER).unwrap();
        client.set_linger(0).unwrap();
        client.set_identity(b"client").unwrap();
        client.connect("inproc://clients").unwrap();
        World { context, session: session(packer), client, control, inputs, scheduler: Some(scheduler), _hub: hub }
    }

    /// An engine that is connected and up.
    fn engine(&self, uuid: &str) -> zmq::Socket {
        let engine = self.connected(uuid);
        self.inputs.send_always(TaskInput::EngineUp(uuid.into(), 0));
        engine
    }

    fn connected(&self, uuid: &str) -> zmq::Socket {
        let engine = self.context.socket(zmq::DEALER).unwrap();
        engine.set_linger(0).unwrap();
        engine.set_rcvtimeo(PATIENCE_MS).unwrap();
        engine.set_identity(uuid.as_bytes()).unwrap();
        engine.connect("inproc://engines").unwrap();
        engine
    }

    fn message(&mut self, metadata: &Value) -> Multipart {
        let metadata = metadata.to_string().into_bytes();
        let parts = self.session.compose("apply_request", Date::from_unix_us(1), b"{}", &metadata, b"{\"c\": 1}".to_vec());
        let large = vec![7; 100_000];
        Multipart::pack(parts.iter().map(Vec::as_slice).chain([&b"f"[..], b"", &large]))
    }

    fn submit(&mut self, metadata: &Value) {
        let message = self.message(metadata);
        self.client.send_multipart(message.frames(), 0).unwrap();
    }

    /// An engine answers a request.
    fn answer(&mut self, engine: &zmq::Socket, request: &Envelope, status: &str) {
        let metadata = json!({"status": status}).to_string().into_bytes();
        let content = json!({"status": status}).to_string().into_bytes();
        let parts = self.session.compose("apply_reply", Date::from_unix_us(2), request.header(), &metadata, content);
        let frames: Vec<&[u8]> = std::iter::once(request.identity(0)).chain(parts.iter().map(Vec::as_slice)).collect();
        engine.send_multipart(frames, 0).unwrap();
    }

    fn lose(&self, uuid: &str) {
        self.inputs.send_always(TaskInput::EngineDown(uuid.into()));
    }

    /// The wish to drop a task is passed on, and noted.
    fn note_abort(&mut self) {
        let frames = self.control.recv_multipart(0).expect("an abort");
        let request = Envelope::open(Arc::new(Multipart::pack(&frames[1..]))).unwrap();
        let parts = self.session.compose("abort_reply", Date::from_unix_us(3), request.header(), b"{}", b"{}".to_vec());
        let frames: Vec<&[u8]> = std::iter::once(&frames[0][..]).chain(parts.iter().map(Vec::as_slice)).collect();
        self.control.send_multipart(frames, 0).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.inputs.send_always(TaskInput::Stop);
        let ended = self.scheduler.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// What an engine gets next: `[client] message`.
fn get(engine: &zmq::Socket) -> Envelope {
    let frames = engine.recv_multipart(0).expect("a task");
    Envelope::open(Arc::new(Multipart::pack(&frames))).unwrap()
}

/// Ways to be sent for a second time. Each gives the two messages.
type Way = fn(&mut World) -> (Envelope, Envelope);

/// Two engines, and a task that may be tried again: at which of them it is, and what that got.
fn at_one_of_two(world: &mut World) -> ([zmq::Socket; 2], usize, Envelope) {
    let engines = [world.engine("e0"), world.engine("e1")];
    world.submit(&json!({"retries": 1}));
    let mut items = [engines[0].as_poll_item(zmq::POLLIN), engines[1].as_poll_item(zmq::POLLIN)];
    zmq::poll(&mut items, i64::from(PATIENCE_MS)).unwrap();
    let at = usize::from(!items[0].is_readable());
    let first = get(&engines[at]);
    (engines, at, first)
}

fn after_a_failure(world: &mut World) -> (Envelope, Envelope) {
    let (engines, at, first) = at_one_of_two(world);
    world.answer(&engines[at], &first, "error");
    (first, get(&engines[1 - at]))
}

fn after_an_engines_death(world: &mut World) -> (Envelope, Envelope) {
    let (engines, at, first) = at_one_of_two(world);
    world.lose(["e0", "e1"][at]);
    (first, get(&engines[1 - at]))
}

fn as_a_second_copy(world: &mut World) -> (Envelope, Envelope) {
    let first = world.engine("e0");
    world.submit(&json!({"label": "#hedge"}));
    let before = get(&first);
    let second = world.engine("e1");
    (before, get(&second))
}

fn after_it_was_taken_back(world: &mut World) -> (Envelope, Envelope) {
    let first = world.engine("e0");
    world.submit(&json!({}));
    get(&first); // it is at this one
    world.submit(&json!({}));
    let before = get(&first);
    let second = world.engine("e1");
    world.note_abort();
    (before, get(&second))
}

#[test]
fn whatever_is_sent_again_has_another_signature_and_the_same_id() {
    let ways: [(&str, Way, &str, u32); 4] = [
        ("a failure", after_a_failure, "none", 1),
        ("a death", after_an_engines_death, "none", 1),
        ("a second copy", as_a_second_copy, "hedge[min_ms=20]", 1),
        ("a task taken back", after_it_was_taken_back, "replace[min_ms=20]", 2),
    ];
    for packer in [Packer::Json, Packer::Msgpack] {
        for (what, way, rebalance, hwm) in ways {
            let (first, second) = way(&mut World::new(packer, rebalance, hwm));
            let signer = Signer::new(b"key");
            for message in [&first, &second] {
                assert!(signer.verify(message.signature(), message.parts()).is_ok(), "{what}");
            }
            assert_ne!(first.signature(), second.signature(), "{what}");
            let header = |message: &Envelope| packer.read_map(message.header()).unwrap();
            let (mut before, mut after) = (header(&first), header(&second));
            assert_ne!(before.remove("date"), after.remove("date"), "{what}");
            assert_eq!((before, first.parts()[1..].to_vec()), (after, second.parts()[1..].to_vec()), "{what}");
            assert_eq!(first.buffers().collect::<Vec<_>>(), second.buffers().collect::<Vec<_>>(), "{what}");
            assert_eq!(first.identity(0), second.identity(0), "{what}");
        }
    }
}

#[test]
fn what_never_got_out_is_sent_once_when_its_engine_is_connected() {
    let mut world = World::new(Packer::Json, "none", 1);
    world.inputs.send_always(TaskInput::EngineUp("e0".into(), 0));
    world.submit(&json!({}));
    // Another engine's task has gone round: the first one has been tried by then.
    let other = world.engine("e1");
    world.submit(&json!({"targets": ["e1"]}));
    let asked = get(&other);
    world.answer(&other, &asked, "ok");
    let late = world.connected("e0");
    world.client.recv_multipart(0).unwrap();
    let message = if other.poll(zmq::POLLIN, 200).unwrap() > 0 { get(&other) } else { get(&late) };
    assert!(Signer::new(b"key").verify(message.signature(), message.parts()).is_ok());
    assert_eq!(late.poll(zmq::POLLIN, 100).unwrap() + other.poll(zmq::POLLIN, 0).unwrap(), 0, "once");
}
