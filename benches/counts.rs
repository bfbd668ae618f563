//! Instructions for each operation, counted by callgrind: a regression that noise can not hide. Each case runs twice under valgrind, for so
//! many operations and for twice as many, and the difference is what one costs. Compared with `benches/counts.toml`; `--save` writes it.
#![allow(missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pointsman::core::date::Date;
use pointsman::core::net::Mailbox;
use pointsman::core::relay::{Command as Steer, NoTap, Pairing, PublishTap, Relay, Tap};
use pointsman::core::wire::{Header, ReplyMetadata, object};
use pointsman::core::{Envelope, Multipart, Session, Signer};
use pointsman::policies::schemes::LeastLoad;
use pointsman::policies::{
    Axis, Candidates, Chosen, Ending, Hints, Outcome, Placement, PolicySpec, Registry, Request, TaskFacts, TaskView, Time,
};
use pointsman::schedulers::task::{Action, Dependency, Event, Limits, Measured, ReplyKind, TaskScheduler, TaskSpec};
use serde::{Deserialize, Serialize};

/// What a count may differ from its baseline by.
const TOLERANCE: f64 = 0.03;
/// The same for what other threads have a part in.
const TOLERANCE_RELAY: f64 = 0.15;

/// What inlining alone may add: whether two small functions share an instantiation changes with code elsewhere.
const SLACK: f64 = 150.0;

/// The counts that are kept, and by which compiler: another one generates other code.
#[derive(Default, Serialize, Deserialize)]
struct Baseline {
    rustc: String,
    counts: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, count] = &arguments[..]
        && flag == "--case"
    {
        let count = count.parse().expect("a number");
        run(name, count);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--test") {
        cases().iter().for_each(|(name, _)| run(name, 3));
        return ExitCode::SUCCESS;
    }
    if !Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("*** SKIPPED: valgrind is not installed ***");
        return ExitCode::SUCCESS;
    }
    measure(arguments.iter().any(|argument| argument == "--save"))
}

fn measure(save: bool) -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let before: Baseline = toml::from_str(&text).unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let mut now = Baseline { rustc: rustc.unwrap_or_default(), counts: BTreeMap::new() };
    let is_comparable = before.rustc == now.rustc && !save;
    if !is_comparable && !save {
        println!("the baseline is of {}, this is {}: shown, not judged", before.rustc, now.rustc);
    }
    let mut worse = 0;
    println!("{:>44} {:>14} {:>14} {:>8}", "instructions for one", "baseline", "now", "ratio");
    for (name, count) in cases() {
        let (once, twice) = (instructions(&name, count), instructions(&name, 2 * count));
        let each = (twice.saturating_sub(once)) as f64 / count as f64;
        let tolerance = if name.starts_with("relay") { TOLERANCE_RELAY } else { TOLERANCE };
        let (shown, ratio) = before.counts.get(&name).map_or((f64::NAN, f64::NAN), |&baseline| (baseline, each / baseline));
        let is_worse = is_comparable && ratio > 1.0 + tolerance && each > shown + SLACK;
        worse += usize::from(is_worse);
        println!("{name:>44} {shown:>14.0} {each:>14.0} {ratio:>8.3}{}", if is_worse { "  WORSE" } else { "" });
        now.counts.insert(name, each.round());
    }
    if save {
        std::fs::write(&path, toml::to_string(&now).expect("a table")).expect("the baseline");
    }
    if worse > 0 {
        println!("{worse} cases take more instructions than they did; if that is right, `cargo bench --bench counts -- --save`");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn instructions(name: &str, count: u64) -> u64 {
    let out = tempfile::NamedTempFile::new().expect("a file");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.path().display()))
        .arg(std::env::current_exe().expect("this program"))
        .args(["--case", name, &count.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{name} under valgrind");
    let text = std::fs::read_to_string(out.path()).expect("a profile");
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    total.and_then(|total| total.trim().parse().ok()).expect("a total")
}

/// Every case, and how many operations tell enough.
fn cases() -> Vec<(String, u64)> {
    let registry = Registry::builtin();
    let picks = registry.on(Axis::Placement).map(|entry| (format!("pick {}", entry.name), 2_000));
    let others = [
        ("pump one, 10000 engines", 2_000),
        ("pump queued, 1000 engines", 5_000),
        ("pump chain, 1000 engines", 5_000),
        ("pump two dependencies, 1000 engines", 5_000),
        ("wire pack", 2_000),
        ("wire verify", 2_000),
        ("wire sign", 2_000),
        ("wire header", 2_000),
        ("wire task metadata", 2_000),
        ("wire reply metadata", 2_000),
        ("relay task, alone", 2_000),
        ("relay task, published", 2_000),
    ];
    picks.chain(others.map(|(name, count)| (name.to_owned(), count))).collect()
}

fn run(name: &str, count: u64) {
    match name.split_once(' ') {
        Some(("pick", scheme)) => pick(scheme, count),
        Some(("pump", what)) => pump(what, count),
        Some(("wire", what)) => wire(what, count),
        Some(("relay", "task, alone")) => relay(NoTap, count),
        Some(("relay", _)) => {
            let context = zmq::Context::new();
            let side = context.socket(zmq::PUB).expect("a socket");
            side.set_sndhwm(0).expect("no limit");
            side.bind("inproc://side").expect("a name");
            let subscriber = context.socket(zmq::SUB).expect("a socket");
            subscriber.set_rcvhwm(0).expect("no limit");
            subscriber.set_subscribe(b"").expect("a subscription");
            subscriber.connect("inproc://side").expect("a connection");
            relay(PublishTap::new(side, b"in", b"out").expect("a tap"), count);
        }
        _ => panic!("no case is called '{name}'"),
    }
}

fn pick(scheme: &str, count: u64) {
    let mut placement = Placement::new(Registry::builtin().build(&PolicySpec::named(scheme)).expect("built in"), 1);
    let (hints, _) = Hints::parse("#key=k #cost=0.5");
    let mut facts = TaskFacts::default();
    (facts.class, facts.hints) = (7, hints);
    let request = Request::new(Candidates::All).task(TaskView::new(&facts));
    for n in 0..1000 {
        let engine = placement.join(Time::ZERO, 0);
        for _ in 0..n % 2 {
            placement.dispatch(Time::ZERO, engine, &request);
        }
    }
    for _ in 0..count {
        let Chosen::Engine(engine) = black_box(placement.pick(Time::ZERO, &request)) else { continue };
        let ticket = placement.dispatch(Time::ZERO, engine, &request);
        placement.outcome(Time::ZERO, engine, &Outcome::new(ticket, Ending::Ok, Duration::from_millis(1)));
    }
}

fn pump(what: &str, count: u64) {
    let engines = if what.contains("10000") { 10_000 } else { 1000 };
    let limits = Limits { queued_tasks: usize::MAX, ..Limits::default() };
    let mut machine: TaskScheduler<LeastLoad, ()> = TaskScheduler::new(LeastLoad::default(), limits, 1);
    for n in 0..engines {
        machine.handle(Time::ZERO, Event::EngineUp { uuid: &format!("14f511c4-c071177869277c35a846{n:06}"), number: n });
    }
    let id = |n: u64| format!("16f43436-8457fd95b32b1fb3fb111d03_13193_{n}");
    let answer = |machine: &mut TaskScheduler<LeastLoad, ()>, action: &Action<()>| {
        let Action::Dispatch { task, engine, .. } = action else { return };
        let (id, uuid) = (machine.task_id(*task).unwrap_or_default().to_owned(), machine.shared_uuid(*engine).clone());
        let measured = Measured::default();
        let event = Event::Result { id: &id, engine: &uuid, kind: ReplyKind::Ok, payload: (), measured };
        machine.handle(Time::ZERO, event);
    };
    let mut sent = VecDeque::new();
    for n in 0..count {
        let after = match what.split_once(',').map_or(what, |(graph, _)| graph) {
            "chain" if n > 0 => Dependency::on([id(n - 1)]),
            "two dependencies" if n > 50 => Dependency::on([id(n - 1 - n * 7 % 40), id(n - 1 - n * 13 % 50)]),
            _ => Dependency::default(),
        };
        let spec = Ok(TaskSpec { after, ..TaskSpec::default() });
        machine.handle(Time::ZERO, Event::Submit { id: &id(n), spec, payload: (), bytes: 1000 });
        if what.starts_with("one") {
            while let Some(action) = machine.poll_action() {
                answer(&mut machine, &action);
            }
        }
    }
    loop {
        while let Some(action) = machine.poll_action() {
            sent.push_back(action);
        }
        let Some(action) = sent.pop_front() else { break };
        answer(&mut machine, &action);
    }
    assert_eq!(machine.live_tasks(), 0);
}

fn wire(what: &str, count: u64) {
    let mut session =
        Session::new(Signer::new(b"c8a26bde-323a3fc84006137c3c739507"), "16f43436-8457fd95b32b1fb3fb111d03", "user", 1);
    let metadata = br#"{"after": [], "follow": [], "timeout": 0.0, "targets": [], "retries": 0, "label": null}"#;
    let now = Date::from_unix_us(1_790_000_000_239_356);
    let parts = session.compose("apply_request", now, b"{}", metadata, b"{}".to_vec());
    let buffer = [7u8; 150];
    let frames = || std::iter::once(&b"client"[..]).chain(parts.iter().map(Vec::as_slice)).chain([&buffer[..]; 3]);
    let envelope = Envelope::open(Arc::new(Multipart::pack(frames()))).expect("well formed");
    let signer = session.signer().clone();
    let reply = br#"{"started": "2026-11-21T03:01:46.239356Z", "dependencies_met": true, "engine": "14f511c4-c071177869277c35a8465708", "is_broadcast": false, "is_coalescing": false, "original_msg_id": "", "label": null, "status": "ok"}"#;
    for _ in 0..count {
        match what {
            "pack" => drop(black_box(Multipart::pack(frames()))),
            "verify" => drop(black_box(signer.verify(envelope.signature(), envelope.parts()))),
            "sign" => drop(black_box(signer.sign(envelope.parts()))),
            "header" => drop(black_box(Header::parse(black_box(envelope.header())))),
            "task metadata" => drop(black_box(TaskSpec::parse(black_box(envelope.metadata())))),
            "reply metadata" => drop(black_box(object::<ReplyMetadata<'_>>(black_box(reply)))),
            other => panic!("no case is called 'wire {other}'"),
        }
    }
}

fn relay(tap: impl Tap + Send + 'static, count: u64) {
    let context = zmq::Context::new();
    let socket = |kind| {
        let socket = context.socket(kind).expect("a socket");
        socket.set_sndhwm(0).expect("no limit");
        socket.set_rcvhwm(0).expect("no limit");
        socket
    };
    let (front, back, source, sink) = (socket(zmq::ROUTER), socket(zmq::ROUTER), socket(zmq::DEALER), socket(zmq::DEALER));
    front.bind("inproc://front").expect("a name");
    back.bind("inproc://back").expect("a name");
    sink.set_identity(b"engine").expect("an identity");
    source.connect("inproc://front").expect("a connection");
    sink.connect("inproc://back").expect("a connection");
    let frames: Vec<Vec<u8>> = [9, 64, 208, 2, 75, 2, 150, 150, 150].map(|bytes| vec![b'x'; bytes]).to_vec();
    for _ in 0..count {
        source.send("engine", zmq::SNDMORE).expect("a send");
        source.send_multipart(&frames, 0).expect("a send");
    }
    let (commands, mailbox) = Mailbox::new(4, 100).expect("a mailbox");
    let relay = Relay::new(front, back, Pairing::Swap, tap).expect("a relay");
    let counters = relay.counters();
    let thread = std::thread::spawn(move || relay.run(&mailbox).expect("a run"));
    while counters.passed_in.load(std::sync::atomic::Ordering::Relaxed) < count {
        std::thread::sleep(Duration::from_millis(50));
    }
    commands.send(Steer::Terminate, 0);
    thread.join().expect("a thread");
    drop((source, sink));
}
