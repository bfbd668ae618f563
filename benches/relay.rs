//! `cargo bench --bench relay`: what a relay passes on, in messages and bytes a second (group `relay`), and what its thread pays for a message
//! (group `relay-cpu`), in process and over TCP, for each pairing, with and without a subscriber on the side. An iteration is one message,
//! from a source that keeps a bounded number under way to a sink. `relay_peers` and `relay_tcp` stand beside other relays instead.
#![allow(missing_docs, unsafe_code)]

use std::fmt;
use std::os::unix::thread::JoinHandleExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman::core::net::{Frame, FrameBuf, Mailbox, Outbox, Port, wait};
use pointsman::core::relay::{Command, Pairing, PublishTap, Relay};

/// Messages and bytes that are under way at most: enough that nobody waits for another, too few to fill a cache of the last level.
const AHEAD: u64 = 512;
const AHEAD_BYTES: u64 = 8 << 20;
/// How long a peer sleeps at most before it looks for the end.
const TICK: Duration = Duration::from_millis(20);

/// CPU time of a thread, in nanoseconds: of the relay's, as [`Rig::cpu_ns`] reads it.
struct ThreadCpu;

impl Measurement for ThreadCpu {
    type Intermediate = f64;
    type Value = f64;

    /// Of the thread that calls, for benchmarks that do their work themselves.
    fn start(&self) -> f64 {
        cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID)
    }

    fn end(&self, start: f64) -> f64 {
        self.start() - start
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for ThreadCpu {
    fn scale_values(&self, typical_ns: f64, values: &mut [f64]) -> &'static str {
        let (divisor, unit) = if typical_ns < 1e3 { (1.0, "ns CPU") } else { (1e3, "µs CPU") };
        values.iter_mut().for_each(|value| *value /= divisor);
        unit
    }

    fn scale_throughputs(&self, _: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let (count, unit) = match *throughput {
            Throughput::Elements(count) | Throughput::ElementsAndBytes { elements: count, .. } => {
                (count as f64 / 1e3, "Kelem/CPU-s")
            }
            Throughput::Bytes(count) | Throughput::BytesDecimal(count) => (count as f64 / f64::from(1 << 20), "MiB/CPU-s"),
            Throughput::Bits(count) => (count as f64 / 1e6, "Mb/CPU-s"),
        };
        values.iter_mut().for_each(|value| *value = count * 1e9 / *value);
        unit
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}

fn cpu_ns(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the given variable.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

#[derive(Clone, Copy)]
struct Case {
    tcp: bool,
    pairing: Pairing,
    watched: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sockets = match self.pairing {
            Pairing::Swap => "router-router",
            Pairing::Straight => "router-dealer",
            Pairing::OneWay => "sub-pub",
        };
        let transport = if self.tcp { "tcp" } else { "inproc" };
        write!(f, "{transport}/{sockets}/{}", if self.watched { "watched" } else { "unwatched" })
    }
}

/// A message without the identity that a swap begins with.
struct Message {
    name: &'static str,
    frames: Vec<Bytes>,
}

fn messages() -> [Message; 4] {
    let one = |name, bytes: usize| Message { name, frames: vec![vec![b'x'; bytes].into()] };
    // Delimiter, signature, header, parent, metadata, content, and three buffers, as a task of a few numbers has them.
    let task = [9, 64, 208, 2, 75, 2, 150, 150, 150].map(|bytes| Bytes::from(vec![b'x'; bytes])).to_vec();
    [Message { name: "task", frames: task }, one("1 frame", 100), one("64 KiB", 64 << 10), one("1 MiB", 1 << 20)]
}

/// A relay on a thread of its own, a source on another, a sink, and a subscriber on a third if it is watched.
struct Rig {
    sink: Port,
    buffer: FrameBuf,
    go: Option<mpsc::Sender<u64>>,
    commands: Outbox<Command>,
    relay: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
    /// Messages that have come to the sink so far.
    arrived: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    _context: zmq::Context,
}

fn socket(context: &zmq::Context, kind: zmq::SocketType, identity: &[u8]) -> zmq::Socket {
    let socket = context.socket(kind).expect("a socket");
    socket.set_sndhwm(0).expect("no limit");
    socket.set_rcvhwm(0).expect("no limit");
    socket.set_linger(0).expect("no wait");
    if !identity.is_empty() {
        socket.set_identity(identity).expect("an identity");
    }
    if kind == zmq::SUB {
        socket.set_subscribe(b"").expect("a subscription");
    }
    socket
}

impl Rig {
    fn new(case: Case, message: &Message) -> Rig {
        let context = zmq::Context::new();
        let bound = |kind, name: &str| {
            let socket = socket(&context, kind, b"");
            let url = if case.tcp { "tcp://127.0.0.1:*".to_owned() } else { format!("inproc://{name}") };
            socket.bind(&url).expect("a name");
            let url = socket.get_last_endpoint().expect("an option").expect("text");
            (socket, url)
        };
        let dialled = |kind, url: &str, identity: &[u8]| {
            let socket = socket(&context, kind, identity);
            socket.connect(url).expect("a connection");
            Port::from(socket)
        };
        let (front, back, source, sink) = match case.pairing {
            Pairing::Swap => (zmq::ROUTER, zmq::ROUTER, zmq::DEALER, zmq::DEALER),
            Pairing::Straight => (zmq::ROUTER, zmq::DEALER, zmq::DEALER, zmq::DEALER),
            Pairing::OneWay => (zmq::SUB, zmq::PUB, zmq::PUB, zmq::SUB),
        };
        let ((front, front_url), (back, back_url), (side, side_url)) =
            (bound(front, "front"), bound(back, "back"), bound(zmq::XPUB, "side"));
        let tap = PublishTap::new(side, b"in", b"out").expect("a tap");
        let relay = Relay::new(front, back, case.pairing, tap).expect("a relay");
        let (commands, mailbox) = Mailbox::new(4, 100).expect("a mailbox");
        let relay = std::thread::spawn(move || relay.run(&mailbox).expect("a run"));
        let (source, sink) = (dialled(source, &front_url, b"client"), dialled(sink, &back_url, b"engine"));

        let mut rig = Rig {
            sink,
            buffer: FrameBuf::default(),
            go: None,
            commands,
            relay,
            others: Vec::new(),
            arrived: Arc::default(),
            over: Arc::default(),
            _context: context.clone(),
        };
        let frames: Vec<Bytes> = (case.pairing == Pairing::Swap)
            .then(|| Bytes::from_static(b"engine"))
            .into_iter()
            .chain(message.frames.clone())
            .collect();
        let seen = case.watched.then(|| rig.watch(dialled(zmq::SUB, &side_url, b""), &source, &frames));
        rig.connect(&source, &frames);
        rig.feed(source, frames, seen);
        rig
    }

    /// A subscriber that counts what it gets, once it gets something.
    fn watch(&mut self, subscriber: Port, source: &Port, frames: &[Bytes]) -> Arc<AtomicU64> {
        let mut buffer = FrameBuf::default();
        while !subscriber.take(&mut buffer).expect("a message") {
            send(source, frames);
            std::thread::sleep(Duration::from_millis(1));
        }
        let (seen, over) = (Arc::new(AtomicU64::new(0)), self.over.clone());
        let count = seen.clone();
        self.others.push(std::thread::spawn(move || {
            while !over.load(Ordering::Acquire) {
                while subscriber.take(&mut buffer).expect("a message") {
                    count.fetch_add(1, Ordering::Release);
                }
                wait(&[&subscriber], [], Some(TICK)).expect("a poll");
            }
        }));
        seen
    }

    /// Comes back when what is sent arrives, and nothing is under way.
    fn connect(&mut self, source: &Port, frames: &[Bytes]) {
        while !self.sink.take(&mut self.buffer).expect("a message") {
            send(source, frames);
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last of them; a PUB and the unconnected lose some before.
        let last: Vec<Bytes> = frames[..frames.len() - 1].iter().cloned().chain([Bytes::from_static(b"last")]).collect();
        send(source, &last);
        let is_last = |buffer: &FrameBuf| buffer.frames().last().is_some_and(|frame| frame.as_ref() == b"last");
        while !is_last(&self.buffer) {
            if !self.sink.take(&mut self.buffer).expect("a message") {
                wait(&[&self.sink], [], Some(TICK)).expect("a poll");
            }
        }
    }

    /// The source: as many as it is told, a bounded number ahead of the sink and of the subscriber.
    fn feed(&mut self, source: Port, frames: Vec<Bytes>, seen: Option<Arc<AtomicU64>>) {
        let (go, told) = mpsc::channel();
        self.go = Some(go);
        let size: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        let ahead = AHEAD.min(AHEAD_BYTES / size).max(4);
        let arrived = self.arrived.clone();
        // What the subscriber has had before does not count.
        let mut before = None;
        self.others.push(std::thread::spawn(move || {
            let mut sent = 0;
            while let Ok(count) = told.recv() {
                let end = sent + count;
                while sent < end {
                    let mut slowest = arrived.load(Ordering::Acquire);
                    if let Some(seen) = &seen {
                        let now = seen.load(Ordering::Acquire);
                        slowest = slowest.min(now - *before.get_or_insert(now));
                    }
                    if sent.saturating_sub(slowest) < ahead {
                        send(&source, &frames);
                        sent += 1;
                    } else {
                        std::thread::yield_now();
                    }
                }
            }
        }));
    }

    /// Passes on so many messages; wall time, and CPU of the relay's thread.
    fn pass(&mut self, count: u64) -> (Duration, f64) {
        let (start, cpu) = (Instant::now(), self.cpu_ns());
        if let Some(go) = &self.go {
            go.send(count).expect("a source");
        }
        let mut taken = 0;
        while taken < count {
            if self.sink.take(&mut self.buffer).expect("a message") {
                taken += 1;
                self.arrived.fetch_add(1, Ordering::Release);
            } else {
                wait(&[&self.sink], [], None).expect("a poll");
            }
        }
        (start.elapsed(), self.cpu_ns() - cpu)
    }

    fn cpu_ns(&self) -> f64 {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: the thread has not been joined, so its handle is good; the call writes the given variable.
        unsafe { libc::pthread_getcpuclockid(self.relay.as_pthread_t(), &mut clock) };
        cpu_ns(clock)
    }

    fn end(mut self) {
        self.go = None;
        self.over.store(true, Ordering::Release);
        self.commands.send_always(Command::Terminate);
        self.relay.join().expect("a relay");
        self.others.into_iter().for_each(|thread| thread.join().expect("a peer"));
    }
}

fn send(source: &Port, frames: &[Bytes]) {
    let frame = |frame: &Bytes| if frame.len() < 1024 { Frame::copy_of(frame) } else { Frame::of_bytes(frame.clone()) };
    source.send(&mut frames.iter().map(frame).collect::<Vec<_>>()).expect("a send");
}

/// Each case and message in a group, by what `value` makes of the time and the CPU of some of them.
fn measure<M: Measurement<Value = V>, V>(criterion: &mut Criterion<M>, name: &str, value: fn((Duration, f64)) -> V) {
    let mut group = criterion.benchmark_group(name);
    for tcp in [false, true] {
        for pairing in [Pairing::Swap, Pairing::Straight, Pairing::OneWay] {
            for watched in [false, true] {
                for message in &messages() {
                    let case = Case { tcp, pairing, watched };
                    let bytes = message.frames.iter().map(|frame| frame.len() as u64).sum();
                    group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes });
                    group.bench_with_input(BenchmarkId::new(case.to_string(), message.name), message, |bencher, message| {
                        let mut rig = Rig::new(case, message);
                        bencher.iter_custom(|count| value(rig.pass(count)));
                        rig.end();
                    });
                }
            }
        }
    }
    group.finish();
}

fn throughput(criterion: &mut Criterion<WallTime>) {
    measure(criterion, "relay", |(time, _)| time);
}

fn thread_cpu(criterion: &mut Criterion<ThreadCpu>) {
    measure(criterion, "relay-cpu", |(_, cpu_ns)| cpu_ns);
}

/// Short: the cases are many, and what matters is the difference between them.
fn short<M: Measurement>(criterion: Criterion<M>) -> Criterion<M> {
    criterion
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .without_plots()
}

criterion_group!(name = wall; config = short(Criterion::default()); targets = throughput);
criterion_group!(name = cpu; config = short(Criterion::default().with_measurement(ThreadCpu)); targets = thread_cpu);
criterion_main!(wall, cpu);
