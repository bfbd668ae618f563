//! The relay next to libzmq's own `zmq_proxy` with capture, over TCP with a subscriber on the side socket, in turns within one run.
//! Prints messages per second, CPU of the relaying thread and of the process per message, and the ratios. Not a criterion benchmark:
//! what counts is the CPU of one thread of several, and the peer in the same minute.
#![allow(missing_docs, unsafe_code)]

use std::thread::JoinHandle;
use std::time::Instant;

use pointsman::core::net::Mailbox;
use pointsman::core::relay::{Command, Pairing, PublishTap, Relay};

const ROUNDS: usize = 5;

#[derive(Clone, Copy, Default)]
struct Cost {
    wall_s: f64,
    thread_s: f64,
    process_s: f64,
}

fn clock(id: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the given struct; these clocks always exist on Linux.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn bound(context: &zmq::Context, kind: zmq::SocketType) -> (zmq::Socket, String) {
    let socket = context.socket(kind).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.set_rcvhwm(0).unwrap();
    socket.set_linger(0).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let url = socket.get_last_endpoint().unwrap().unwrap();
    (socket, url)
}

fn dial(context: &zmq::Context, kind: zmq::SocketType, url: &str) -> zmq::Socket {
    let socket = context.socket(kind).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.set_rcvhwm(0).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(url).unwrap();
    socket
}

/// Relays `count` messages from a DEALER through ROUTER and DEALER to a DEALER, with a SUB on the copies.
fn round(ours: bool, message: &[Vec<u8>], count: usize) -> Cost {
    let context = zmq::Context::new();
    let (front, front_url) = bound(&context, zmq::ROUTER);
    let (back, back_url) = bound(&context, zmq::DEALER);
    let (copies, copies_url) = bound(&context, zmq::PUB);
    let subscriber = dial(&context, zmq::SUB, &copies_url);
    subscriber.set_subscribe(b"").unwrap();
    let source = dial(&context, zmq::DEALER, &front_url);
    let sink = dial(&context, zmq::DEALER, &back_url);
    std::thread::sleep(std::time::Duration::from_millis(100));

    let (commands, mailbox) = Mailbox::new(4, 100).unwrap();
    let steer_url = "inproc://steer";
    let steering = context.socket(zmq::PAIR).unwrap();
    steering.bind(steer_url).unwrap();
    let steered = context.socket(zmq::PAIR).unwrap();
    steered.connect(steer_url).unwrap();
    let relay: JoinHandle<f64> = std::thread::spawn(move || {
        let before = clock(libc::CLOCK_THREAD_CPUTIME_ID);
        if ours {
            let tap = PublishTap::new(copies, b"in", b"out").unwrap();
            Relay::new(front, back, Pairing::Straight, tap).unwrap().run(&mailbox).unwrap();
        } else {
            let (mut front, mut back, mut copies, mut steered) = (front, back, copies, steered);
            zmq::proxy_steerable_with_capture(&mut front, &mut back, &mut copies, &mut steered).unwrap();
        }
        clock(libc::CLOCK_THREAD_CPUTIME_ID) - before
    });
    let drain = std::thread::spawn(move || {
        for _ in 0..count {
            subscriber.recv_msg(0).unwrap();
            while subscriber.get_rcvmore().unwrap() {
                subscriber.recv_msg(0).unwrap();
            }
        }
    });
    let (process, start) = (clock(libc::CLOCK_PROCESS_CPUTIME_ID), Instant::now());
    let message = message.to_vec();
    let feed = std::thread::spawn(move || {
        for _ in 0..count {
            source.send_multipart(&message, 0).unwrap();
        }
        source
    });
    for _ in 0..count {
        sink.recv_msg(0).unwrap();
        while sink.get_rcvmore().unwrap() {
            sink.recv_msg(0).unwrap();
        }
    }
    let (wall_s, process_s) = (start.elapsed().as_secs_f64(), clock(libc::CLOCK_PROCESS_CPUTIME_ID) - process);
    drain.join().unwrap();
    let source = feed.join().unwrap();
    if ours {
        commands.send(Command::Terminate, 0);
    } else {
        steering.send("TERMINATE", 0).unwrap();
    }
    let thread_s = relay.join().unwrap();
    drop((source, sink));
    Cost { wall_s, thread_s, process_s }
}

/// The middle of a few.
fn median(costs: &[Cost], of: fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let part = |bytes: usize| vec![b'x'; bytes];
    let task = vec![part(9), part(64), part(208), part(2), part(75), part(2), part(150), part(150), part(150)];
    println!("{:>12} {:>12} {:>14} {:>14} {:>14}", "message", "relay", "msg/s", "us thread/msg", "us process/msg");
    for (name, message, count) in
        [("task", task, 60_000), ("1 frame", vec![part(100)], 150_000), ("1 MiB", vec![part(1 << 20)], 600)]
    {
        let count = if quick { 100 } else { count };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..if quick { 1 } else { ROUNDS } {
            ours.push(round(true, &message, count));
            theirs.push(round(false, &message, count));
        }
        let show = |relay: &str, costs: &[Cost]| {
            let per = |of| median(costs, of) / count as f64 * 1e6;
            let rate = count as f64 / median(costs, |cost| cost.wall_s);
            println!("{name:>12} {relay:>12} {rate:>14.0} {:>14.2} {:>14.2}", per(|c| c.thread_s), per(|c| c.process_s));
        };
        show("pointsman", &ours);
        show("zmq_proxy", &theirs);
        let ratio = |of: fn(&Cost) -> f64| median(&ours, of) / median(&theirs, of);
        println!(
            "{name:>12} {:>12} {:>14.2} {:>14.2} {:>14.2}",
            "ratio",
            1.0 / ratio(|c| c.wall_s),
            ratio(|c| c.thread_s),
            ratio(|c| c.process_s)
        );
    }
}
