//! The relay on real sockets: swap, copies, order, and the messages that made the reference swallow the next one.

use std::time::Duration;

use std::thread::JoinHandle;

use pointsman_core::net::{Clock, Mailbox, Outbox, Tally};
use pointsman_core::relay::{Command, KnownPeers, NoTap, Pairing, PublishTap, Relay, Tap};

const WAIT_MS: i32 = 5000;

struct Running {
    commands: Outbox<Command>,
    tally: Tally,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start<T: Tap + Send + 'static>(relay: Relay<T>) -> Running {
        let (commands, mailbox) = Mailbox::new(10, 100).unwrap();
        let tally = Tally::default();
        let relay = relay.counted_as("relay", &tally);
        let thread = std::thread::spawn(move || relay.run(&mailbox).unwrap());
        Running { commands, tally, thread: Some(thread) }
    }

    fn count(&self, kind: &str) -> u64 {
        self.tally.counts().iter().find(|count| count.1 == kind).map_or(0, |count| count.2)
    }

    /// Waits until so many of a kind are counted.
    fn wait_for(&self, kind: &str, count: u64) {
        let clock = Clock::default();
        while self.count(kind) < count && clock.now() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.count(kind), count, "{kind}: {:?}", self.tally.counts());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.commands.send(Command::Terminate, 0);
        self.thread.take().map(JoinHandle::join);
    }
}

fn bound(context: &zmq::Context, kind: zmq::SocketType) -> (zmq::Socket, String) {
    let socket = context.socket(kind).unwrap();
    if kind == zmq::ROUTER {
        socket.set_identity(b"relay").unwrap();
    }
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let url = socket.get_last_endpoint().unwrap().unwrap();
    (socket, url)
}

fn peer(context: &zmq::Context, kind: zmq::SocketType, identity: &str, url: &str) -> zmq::Socket {
    let socket = context.socket(kind).unwrap();
    if !identity.is_empty() {
        socket.set_identity(identity.as_bytes()).unwrap();
    }
    socket.set_rcvtimeo(WAIT_MS).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(url).unwrap();
    socket
}

fn frames(socket: &zmq::Socket) -> Vec<String> {
    socket.recv_multipart(0).unwrap().into_iter().map(|frame| String::from_utf8(frame).unwrap()).collect()
}

/// Two ROUTERs, a client and an engine that is reached by name, the copies.
struct Swap {
    relay: Running,
    client: zmq::Socket,
    engine: zmq::Socket,
    copies: zmq::Socket,
    context: zmq::Context,
    back_url: String,
}

fn swap() -> Swap {
    let context = zmq::Context::new();
    let (front, front_url) = bound(&context, zmq::ROUTER);
    let (back, back_url) = bound(&context, zmq::ROUTER);
    let (publisher, copies_url) = bound(&context, zmq::XPUB);
    let copies = peer(&context, zmq::SUB, "", &copies_url);
    copies.set_subscribe(b"").unwrap();
    // The tap copies only once it knows of the subscription, so that has to be there.
    assert_eq!(publisher.poll(zmq::POLLIN, WAIT_MS.into()).unwrap(), 1);
    let tap = PublishTap::new(publisher, b"in", b"out").unwrap();
    let relay = Running::start(Relay::new(front, back, Pairing::Swap, tap).unwrap());
    let client = peer(&context, zmq::DEALER, "client", &front_url);
    let engine = peer(&context, zmq::ROUTER, "engine", &back_url);
    Swap { relay, client, engine, copies, context, back_url }
}

#[test]
fn identities_change_places_both_ways_and_each_side_is_copied() {
    let swap = swap();
    // Sent before the engine is surely connected: held, not lost.
    swap.client.send_multipart(["engine", "", "hello"], 0).unwrap();
    let got = frames(&swap.engine);
    assert_eq!(got[1..], ["client", "", "hello"]);
    swap.engine.send_multipart([got[0].as_str(), "client", "world"], 0).unwrap();
    assert_eq!(frames(&swap.client), ["engine", "world"]);
    let mut copies = [frames(&swap.copies), frames(&swap.copies)];
    copies.sort();
    assert_eq!(copies, [vec!["in", "engine", "client", "", "hello"], vec!["out", "client", "engine", "world"]]);
}

#[test]
fn d31_short_messages_are_dropped_and_do_not_merge_with_the_next() {
    let swap = swap();
    swap.client.send_multipart(["engine", "first"], 0).unwrap();
    assert_eq!(frames(&swap.engine)[1..], ["client", "first"]);
    swap.client.send("alone", 0).unwrap(); // two frames with its identity
    swap.engine.send_multipart(["relay", ""], 0).unwrap(); // what a probe is
    swap.client.send_multipart(["engine", "second"], 0).unwrap();
    assert_eq!(frames(&swap.engine)[1..], ["client", "second"]);
    // The two sides are not in any order.
    swap.relay.wait_for("malformed message", 2);
}

#[test]
fn an_endless_message_and_a_reply_to_nobody_are_counted() {
    let swap = swap();
    swap.client.send_multipart(vec!["x"; 20_000], 0).unwrap();
    swap.relay.wait_for("malformed message", 1);
    swap.client.send_multipart(["engine", "hello"], 0).unwrap();
    assert_eq!(frames(&swap.engine)[1..], ["client", "hello"]);
    swap.engine.send_multipart(["relay", "a client that has gone", "world"], 0).unwrap();
    swap.relay.wait_for("reply to a client that has gone", 1);
}

#[test]
fn what_nobody_takes_is_given_up_and_counted_while_others_flow() {
    let swap = swap();
    swap.client.send_multipart(["nobody", "x"], 0).unwrap();
    for n in 0..100 {
        swap.client.send_multipart(["engine", &n.to_string()], 0).unwrap();
    }
    for n in 0..100 {
        assert_eq!(frames(&swap.engine)[2], n.to_string());
    }
    // An engine that connects within the patience gets what was held, in order.
    for n in 0..3 {
        swap.client.send_multipart(["late", &n.to_string()], 0).unwrap();
    }
    let late = peer(&swap.context, zmq::ROUTER, "late", &swap.back_url);
    for n in 0..3 {
        assert_eq!(frames(&late)[2], n.to_string());
    }
    swap.relay.wait_for("undelivered", 1);
    assert_eq!(swap.relay.tally.counts().len(), 1);
}

#[test]
fn a_flood_for_nobodies_takes_no_place_of_an_engine_that_comes_back() {
    let context = zmq::Context::new();
    let (front, front_url) = bound(&context, zmq::ROUTER);
    let (back, back_url) = bound(&context, zmq::ROUTER);
    for socket in [&front, &back] {
        socket.set_rcvhwm(0).unwrap();
        socket.set_sndhwm(0).unwrap();
    }
    let known = KnownPeers::default();
    known.add(b"engine");
    let relay = Running::start(Relay::new(front, back, Pairing::Swap, NoTap).unwrap().knowing(known));
    let stranger = context.socket(zmq::DEALER).unwrap();
    stranger.set_sndhwm(0).unwrap();
    stranger.connect(&front_url).unwrap();
    for n in 0..20_000 {
        stranger.send_multipart([format!("nobody{}", n % 20).as_str(), "bad"], 0).unwrap();
    }
    // Some must be refused before the honest message comes: the room is full then.
    let clock = Clock::default();
    while relay.count("no room to wait") < 1_000 && clock.now() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let client = peer(&context, zmq::DEALER, "client", &front_url);
    client.send_multipart(["engine", "honest"], 0).unwrap();
    let engine = peer(&context, zmq::DEALER, "engine", &back_url);
    assert_eq!(frames(&engine), ["client", "honest"]);
}

#[test]
fn large_and_many_frames_pass_unharmed_in_every_pairing() {
    let context = zmq::Context::new();
    for (pairing, kinds, ends) in [
        (Pairing::Straight, (zmq::ROUTER, zmq::DEALER), (zmq::DEALER, zmq::REP)),
        (Pairing::OneWay, (zmq::SUB, zmq::PUB), (zmq::PUB, zmq::SUB)),
    ] {
        let (front, front_url) = bound(&context, kinds.0);
        let (back, back_url) = bound(&context, kinds.1);
        if kinds.0 == zmq::SUB {
            front.set_subscribe(b"").unwrap();
        }
        let _relay = Running::start(Relay::new(front, back, pairing, NoTap).unwrap());
        let from = peer(&context, ends.0, "from", &front_url);
        let to = peer(&context, ends.1, "to", &back_url);
        if ends.1 == zmq::SUB {
            to.set_subscribe(b"").unwrap();
            to.set_rcvtimeo(50).unwrap();
        }
        let mut parts: Vec<Vec<u8>> = vec![vec![], vec![7; 3 << 20]];
        parts.extend((0..1000u32).map(|n| n.to_le_bytes().to_vec()));
        let mut got = None;
        for _ in 0..100 {
            from.send_multipart(&parts, 0).unwrap(); // again for a subscriber that joins late
            got = to.recv_multipart(0).ok();
            if got.is_some() {
                break;
            }
        }
        let skipped = usize::from(ends.1 == zmq::REP); // a REP takes the envelope off
        assert_eq!(got.unwrap(), &parts[skipped..], "{pairing:?}");
    }
}

#[test]
fn a_paused_relay_passes_nothing_and_loses_nothing() {
    let swap = swap();
    swap.client.send_multipart(["engine", "before"], 0).unwrap();
    assert_eq!(frames(&swap.engine)[2], "before");
    swap.relay.commands.send(Command::Pause, 0);
    std::thread::sleep(Duration::from_millis(50));
    swap.client.send_multipart(["engine", "during"], 0).unwrap();
    assert_eq!(swap.engine.poll(zmq::POLLIN, 200).unwrap(), 0);
    swap.relay.commands.send(Command::Resume, 0);
    assert_eq!(frames(&swap.engine)[2], "during");
}
