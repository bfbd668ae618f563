//! The relay's own cost: CPU of the relaying thread for each message of a queue that is there already, beside pyzmq's algorithm and libzmq's
//! `zmq_proxy` with capture on the same libzmq, in turns within one run. Everything is in this process, so that no TCP and no other thread's
//! work is measured; `benches/peers` measures whole processes over TCP. Not a criterion benchmark: what counts is CPU time of one thread.
#![allow(missing_docs, unsafe_code)]

use std::ffi::c_void;
use std::os::unix::thread::JoinHandleExt as _;
use std::sync::mpsc;
use std::time::Duration;

use pointsman::controller::HubTap;
use pointsman::core::hub::driver::HubInput;
use pointsman::core::net::{Mailbox, Outbox};
use pointsman::core::relay::{Command, NoTap, Pairing, PublishTap, Relay};

/// Rounds of each contender; the median counts.
const ROUNDS: usize = 100;

/// CPU seconds of another thread so far.
fn cpu_s_of<T>(thread: &std::thread::JoinHandle<T>) -> f64 {
    let mut id: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the thread has not been joined, so its handle is good; both calls write the given variables.
    unsafe {
        libc::pthread_getcpuclockid(thread.as_pthread_t(), &mut id);
        libc::clock_gettime(id, &mut time);
    }
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Who relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    /// Ours, with a subscriber on the side.
    Watched,
    /// Ours, with an XPUB on the side that nobody has subscribed to.
    Unwatched,
    /// Ours, with whole messages for our own hub.
    Hub,
    /// Ours, without a side.
    Alone,
    /// pyzmq's monitored queue: one poll, then one message, frame by frame, with a copy of each to the side.
    Pyzmq,
    /// libzmq's proxy with capture: no prefix, no change of identities.
    Proxy,
}

/// A message of a client for an engine, or a plain one.
struct Message {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    /// Identities change places: ROUTER and ROUTER, instead of ROUTER and DEALER.
    swap: bool,
    count: usize,
}

fn socket(context: &zmq::Context, kind: zmq::SocketType) -> zmq::Socket {
    let socket = context.socket(kind).expect("a socket");
    socket.set_sndhwm(0).expect("no limit");
    socket.set_rcvhwm(0).expect("no limit");
    socket.set_linger(0).expect("no wait");
    socket
}

/// A relay on a thread of its own with peers around it, waiting for the next batch.
struct Bench {
    contender: Contender,
    source: zmq::Socket,
    sink: zmq::Socket,
    subscriber: Option<zmq::Socket>,
    hub: Mailbox<HubInput>,
    commands: Outbox<Command>,
    steering: zmq::Socket,
    go: mpsc::Sender<()>,
    relay: std::thread::JoinHandle<()>,
    _context: zmq::Context,
}

impl Bench {
    fn new(contender: Contender, message: &Message) -> Bench {
        let context = zmq::Context::new();
        let bound = |kind, name: &str| {
            let bound = socket(&context, kind);
            bound.bind(&format!("inproc://{name}")).expect("a name");
            bound
        };
        let dialled = |kind, name: &str, identity: &[u8]| {
            let dialled = socket(&context, kind);
            if !identity.is_empty() {
                dialled.set_identity(identity).expect("an identity");
            }
            dialled.connect(&format!("inproc://{name}")).expect("a connection");
            dialled
        };
        let front = bound(zmq::ROUTER, "front");
        let is_proxy = contender == Contender::Proxy;
        let back = bound(if message.swap && !is_proxy { zmq::ROUTER } else { zmq::DEALER }, "back");
        let side = bound(if contender == Contender::Unwatched { zmq::XPUB } else { zmq::PUB }, "side");
        let (source, sink) = (dialled(zmq::DEALER, "front", b"client"), dialled(zmq::DEALER, "back", b"engine"));
        let subscriber = (contender != Contender::Unwatched).then(|| {
            let subscriber = socket(&context, zmq::SUB);
            subscriber.set_subscribe(b"").expect("a subscription");
            subscriber.connect("inproc://side").expect("a connection");
            // A PUB takes note of subscriptions when it is used.
            side.send("hello", 0).expect("a send");
            while subscriber.recv_bytes(zmq::DONTWAIT).is_err() {
                side.send("hello", 0).expect("a send");
            }
            subscriber
        });
        let (commands, mailbox) = Mailbox::new(4, 100).expect("a mailbox");
        let (steering, steered) = (bound(zmq::PAIR, "steer"), dialled(zmq::PAIR, "steer", b""));
        let (to_hub, hub) = Mailbox::new(10_000_000, usize::MAX).expect("a mailbox");
        let pairing = if message.swap { Pairing::Swap } else { Pairing::Straight };
        let (go, gone) = mpsc::channel();
        let count = message.count;
        let relay = move || match contender {
            Contender::Watched | Contender::Unwatched => {
                let tap = PublishTap::new(side, b"in", b"out").expect("a tap");
                Relay::new(front, back, pairing, tap).expect("a relay").run(&mailbox).expect("a run");
            }
            Contender::Hub => {
                Relay::new(front, back, pairing, HubTap::new("task", to_hub, true))
                    .expect("a relay")
                    .run(&mailbox)
                    .expect("a run");
            }
            Contender::Alone => {
                Relay::new(front, back, pairing, NoTap).expect("a relay").run(&mailbox).expect("a run");
            }
            Contender::Pyzmq => {
                let (mut front, mut back, mut side) = (front, back, side);
                while gone.recv().is_ok() {
                    pyzmq([&mut front, &mut back, &mut side], pairing == Pairing::Swap, count);
                }
            }
            Contender::Proxy => {
                let (mut front, mut back, mut side, mut steered) = (front, back, side, steered);
                zmq::proxy_steerable_with_capture(&mut front, &mut back, &mut side, &mut steered).expect("a proxy");
            }
        };
        let relay = std::thread::Builder::new().name(format!("{contender:?}")).spawn(relay).expect("a thread");
        let bench = Bench { contender, source, sink, subscriber, hub, commands, steering, go, relay, _context: context };
        bench.tell(Command::Pause);
        bench
    }

    fn tell(&self, command: Command) {
        match self.contender {
            Contender::Pyzmq if command == Command::Resume => self.go.send(()).expect("a thread"),
            Contender::Pyzmq => {} // it waits by itself
            Contender::Proxy => {
                let word = ["PAUSE", "RESUME", "TERMINATE"][command as usize];
                self.steering.send(word, 0).expect("a send");
            }
            _ => drop(self.commands.send(command, 0)),
        }
    }

    /// CPU seconds of the relay's thread for a batch that is there when it begins. Nobody takes anything before it is done: being woken for
    /// that would be measured with it.
    /// Nothing if `zmq_proxy` had not paused, and was done too early.
    fn batch(&self, message: &Message) -> Option<f64> {
        for _ in 0..message.count {
            self.source.send_multipart(&message.frames, 0).expect("a send");
        }
        let before = cpu_s_of(&self.relay);
        self.tell(Command::Resume);
        let (mut used, mut still, mut looks) = (before, 0, 0);
        while still < 3 && looks < 5_000 {
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
            let now = cpu_s_of(&self.relay);
            still = if now == used && now != before { still + 1 } else { 0 };
            used = now;
        }
        self.tell(Command::Pause);
        let take_all = |from: &zmq::Socket| {
            let mut taken = 0;
            while from.recv_msg(zmq::DONTWAIT).is_ok() {
                taken += usize::from(!from.get_rcvmore().expect("an option"));
            }
            taken
        };
        assert_eq!(take_all(&self.sink), message.count, "{:?}: not all were relayed", self.contender);
        if let Some(subscriber) = &self.subscriber {
            take_all(subscriber);
        }
        self.hub.take(usize::MAX, &mut Vec::new());
        (used > before).then_some(used - before)
    }

    fn end(self) {
        if self.contender == Contender::Pyzmq {
            drop(self.go);
        } else {
            self.tell(Command::Resume);
            self.tell(Command::Terminate);
        }
        self.relay.join().expect("a relay");
    }
}

/// A frame of the C interface, closed when it goes out of scope.
struct Raw(zmq_sys::zmq_msg_t);

impl Raw {
    fn new() -> Raw {
        let mut message = zmq_sys::zmq_msg_t::default();
        // SAFETY: initialises what it is given.
        unsafe { zmq_sys::zmq_msg_init(&mut message) };
        Raw(message)
    }

    fn receive(&mut self, from: *mut c_void) -> bool {
        // SAFETY: an initialised message and a live socket, here and below.
        let received = unsafe { zmq_sys::zmq_msg_recv(&mut self.0, from, 0) };
        assert!(received >= 0, "a frame");
        let (mut more, mut size) = (0_i32, std::mem::size_of::<i32>());
        // SAFETY: writes an int of that size.
        unsafe { zmq_sys::zmq_getsockopt(from, 13, (&raw mut more).cast(), &mut size) };
        more != 0
    }

    fn send(&mut self, to: *mut c_void, more: bool) {
        // SAFETY: as above; the message is empty afterwards.
        let sent = unsafe { zmq_sys::zmq_msg_send(&mut self.0, to, if more { 2 } else { 0 }) };
        assert!(sent >= 0, "sent");
    }

    fn copy_from(&mut self, other: &mut Raw) {
        // SAFETY: both are initialised.
        unsafe { zmq_sys::zmq_msg_copy(&mut self.0, &mut other.0) };
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: it is initialised.
        unsafe { zmq_sys::zmq_msg_close(&mut self.0) };
    }
}

/// What pyzmq's monitored queue does (its documented behaviour): waits for either side, relays one message, begins anew.
fn pyzmq([front, back, side]: [&mut zmq::Socket; 3], swap: bool, count: usize) {
    let prefix = [&b"in"[..], b"out"];
    let (mut frame, mut copy, mut first) = (Raw::new(), Raw::new(), Raw::new());
    let mut relayed = 0;
    while relayed < count {
        let mut items = [front.as_poll_item(zmq::POLLIN), back.as_poll_item(zmq::POLLIN)];
        zmq::poll(&mut items, -1).expect("a poll");
        let readable = items.map(|item| item.is_readable());
        let (front, back, side) = (front.as_mut_ptr(), back.as_mut_ptr(), side.as_mut_ptr());
        for (at, (from, to)) in [(front, back), (back, front)].into_iter().enumerate() {
            if !readable[at] {
                continue;
            }
            relayed += 1;
            // SAFETY: a live socket and bytes of that length.
            unsafe { zmq_sys::zmq_send(side, prefix[at].as_ptr().cast(), prefix[at].len(), 2) };
            if swap {
                first.receive(from);
                frame.receive(from);
                for identity in [&mut frame, &mut first] {
                    copy.copy_from(identity);
                    copy.send(side, true);
                    identity.send(to, true);
                }
            }
            loop {
                let more = frame.receive(from);
                copy.copy_from(&mut frame);
                frame.send(to, more);
                copy.send(side, more);
                if !more {
                    break;
                }
            }
        }
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let part = |bytes: usize| vec![b'x'; bytes];
    let task = |first: &[u8]| {
        let rest = [part(9), part(64), part(208), part(2), part(75), part(2), part(150), part(150), part(150)];
        std::iter::once(first.to_vec()).chain(rest).collect::<Vec<_>>()
    };
    let count = |full: usize| if quick { 50 } else { full };
    let messages = [
        Message { name: "task", frames: task(b"engine"), swap: true, count: count(500) },
        Message { name: "1 frame", frames: vec![part(100)], swap: false, count: count(2_000) },
        Message { name: "1 MiB", frames: vec![part(1 << 20)], swap: false, count: count(100) },
    ];
    let contenders =
        [Contender::Watched, Contender::Unwatched, Contender::Hub, Contender::Alone, Contender::Proxy, Contender::Pyzmq];
    println!("{:>8} {:>10} {:>12} {:>10} {:>10}", "message", "relay", "ns/message", "to pyzmq", "to proxy");
    let mut results = Vec::new();
    for message in &messages {
        let benches: Vec<Bench> = contenders.into_iter().map(|contender| Bench::new(contender, message)).collect();
        let mut costs = vec![Vec::new(); contenders.len()];
        for round in 0..if quick { 1 } else { ROUNDS } {
            for (at, bench) in benches.iter().enumerate() {
                let Some(cpu_s) = bench.batch(message) else { continue };
                let ns = cpu_s / message.count as f64 * 1e9;
                // The first batches meet cold memory.
                if quick || round >= ROUNDS / 10 {
                    costs[at].push(ns);
                }
            }
        }
        benches.into_iter().for_each(Bench::end);
        let median = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let medians: Vec<f64> = costs.iter_mut().map(median).collect();
        let at = |contender| contenders.iter().position(|other| *other == contender).map_or(0.0, |at| medians[at]);
        let (pyzmq, proxy) = (at(Contender::Pyzmq), at(Contender::Proxy));
        for (contender, ns) in contenders.iter().zip(&medians) {
            let name = format!("{contender:?}").to_lowercase();
            println!("{:>8} {name:>10} {ns:>12.0} {:>10.2} {:>10.2}", message.name, ns / pyzmq, ns / proxy);
            results.push(serde_json::json!({"message": message.name, "relay": name, "ns": ns, "to_pyzmq": ns / pyzmq, "to_proxy": ns / proxy}));
        }
    }
    if let Some(path) = std::env::args().skip_while(|arg| arg != "--json").nth(1) {
        std::fs::write(&path, serde_json::Value::from(results).to_string()).expect("a result file");
    }
}
