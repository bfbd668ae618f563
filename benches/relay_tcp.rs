//! Relays as processes, over TCP: messages per second, and CPU of the relaying thread and of the process for each message, for ours, libzmq's
//! `zmq_proxy` with capture, and pyzmq's monitored queue, in turns. The peers write and count bytes that were made before, so that they cost
//! next to nothing. `--python` names a Python with pyzmq; without it that one is left out.
#![allow(missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pointsman::controller::HubTap;
use pointsman::core::net::Mailbox;
use pointsman::core::relay::{Pairing, PublishTap, Relay};
use pointsman::core::zmtp::{Decoder, hello, push_message};

/// By how much the source may be ahead.
const AHEAD_BYTES: u64 = 8 << 20;

const CONTENDERS: [&str; 4] = ["pyzmq", "proxy", "ours", "hub"];

struct Message {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    swap: bool,
}

fn messages() -> [Message; 3] {
    let part = |bytes: usize| vec![b'x'; bytes];
    let task = [9, 64, 208, 2, 75, 2, 150, 150, 150].map(part);
    let task = std::iter::once(b"engine".to_vec()).chain(task).collect();
    [
        Message { name: "task", frames: task, swap: true },
        Message { name: "1 frame", frames: vec![part(100)], swap: false },
        Message { name: "1 MiB", frames: vec![part(1 << 20)], swap: false },
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| arguments.iter().position(|argument| argument == flag).and_then(|at| arguments.get(at + 1)).cloned();
    if let Some(contender) = after("--serve") {
        return serve(&contender, arguments.iter().any(|argument| argument == "--swap"));
    }
    let quick = arguments.iter().any(|argument| argument == "--test");
    let python = after("--python");
    let rounds = after("--rounds").and_then(|text| text.parse().ok()).unwrap_or(if quick { 1 } else { 5 });
    let seconds = if quick { 0.2 } else { 2.0 };
    let contenders = CONTENDERS.into_iter().filter(|contender| *contender != "pyzmq" || python.is_some());
    let contenders: Vec<&str> = contenders.collect();
    println!(
        "{:>8} {:>8} {:>10} {:>12} {:>12} {:>24}",
        "message", "relay", "msg/s", "us thread", "us process", "ratios to the first"
    );
    let mut results = Vec::new();
    for message in &messages() {
        let mut seen: Vec<Vec<[f64; 3]>> = vec![Vec::new(); contenders.len()];
        for _ in 0..rounds {
            for (at, contender) in contenders.iter().enumerate() {
                seen[at].push(round(contender, python.as_deref(), message, seconds));
            }
        }
        let median = |rows: &[[f64; 3]], at: usize| {
            let mut values: Vec<f64> = rows.iter().map(|row| row[at]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let first: Vec<f64> = (0..3).map(|at| median(&seen[0], at)).collect();
        for (contender, rows) in contenders.iter().zip(&seen) {
            let [rate, thread_us, process_us] = [0, 1, 2].map(|at| median(rows, at));
            let ratios = [rate / first[0], thread_us / first[1], process_us / first[2]];
            println!(
                "{:>8} {contender:>8} {rate:>10.0} {thread_us:>12.2} {process_us:>12.2} {:>8.2}{:>8.2}{:>8.2}",
                message.name, ratios[0], ratios[1], ratios[2]
            );
            results
                .push(serde_json::json!({"message": message.name, "relay": contender, "msg_per_s": rate, "thread_us": thread_us,
                "process_us": process_us, "rate_ratio": ratios[0], "thread_ratio": ratios[1], "process_ratio": ratios[2]}));
        }
    }
    if let Some(path) = after("--json") {
        std::fs::write(&path, serde_json::Value::from(results).to_string()).expect("a result file");
    }
}

/// Ends with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages per second, and microseconds of the relaying thread and of the process for each.
fn round(contender: &str, python: Option<&str>, message: &Message, seconds: f64) -> [f64; 3] {
    let mut command = match (contender, python) {
        ("pyzmq", Some(python)) => {
            let mut command = Command::new(python);
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/pyzmq_relay.py"));
            command
        }
        _ => {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["--serve", contender]);
            command
        }
    };
    if message.swap {
        command.arg("--swap");
    }
    let mut server = Server(command.stdout(Stdio::piped()).spawn().expect("a relay"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("its output")).read_line(&mut line).expect("its ports");
    let ports: Vec<u16> = line.split_whitespace().map(|word| word.parse().expect("a port")).collect();
    let [front, back, side] = ports[..] else { panic!("three ports, not '{line}'") };

    let mut sink = peer(back, "DEALER", b"engine");
    let mut side = peer(side, "SUB", b"");
    let mut subscription = Vec::new();
    push_message(&mut subscription, [&[1][..]]);
    side.write_all(&subscription).expect("a subscription");
    let mut source = peer(front, "DEALER", b"client");
    std::thread::sleep(Duration::from_millis(200));

    let mut one = Vec::new();
    push_message(&mut one, message.frames.iter().map(Vec::as_slice));
    // What comes out has the client's identity instead of the engine's, or before all else.
    let mut out = Vec::new();
    let rest = &message.frames[usize::from(message.swap)..];
    push_message(&mut out, std::iter::once(&b"client"[..]).chain(rest.iter().map(Vec::as_slice)));
    let chunk = one.repeat((64 << 10) / one.len() + 1);
    // Nobody limits what waits in a relay: the source goes ahead of the sink by so much and no more.
    let arrived = Arc::new(AtomicU64::new(0));
    let (seen, in_chunk, size) = (arrived.clone(), (chunk.len() / one.len()) as u64, one.len() as u64);
    let feed = std::thread::spawn(move || {
        let mut sent = 0;
        loop {
            match seen.load(Ordering::Relaxed) {
                u64::MAX => return,
                count if (sent - count.min(sent)) * size > AHEAD_BYTES => std::thread::sleep(Duration::from_micros(50)),
                _ if source.write_all(&chunk).is_err() => return,
                _ => sent += in_chunk,
            }
        }
    });
    let drain = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while side.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let mut buffer = vec![0; 1 << 20];
    let mut earlier = 0;
    let mut count_for = |duration: Duration| {
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < duration {
            bytes += sink.read(&mut buffer).expect("bytes");
            arrived.store((earlier + bytes) as u64 / out.len() as u64, Ordering::Relaxed);
        }
        earlier += bytes;
        (bytes as f64 / out.len() as f64, start.elapsed().as_secs_f64())
    };
    count_for(Duration::from_secs_f64(seconds / 4.0));
    let before = usage(server.0.id());
    let (count, elapsed) = count_for(Duration::from_secs_f64(seconds));
    let after = usage(server.0.id());
    arrived.store(u64::MAX, Ordering::Relaxed);
    drop((sink, server));
    let _ = (feed.join(), drain.join());
    [count / elapsed, (after.0 - before.0) * 1e6 / count, (after.1 - before.1) * 1e6 / count]
}

/// A connection whose handshake is done.
fn peer(port: u16, kind: &str, identity: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.write_all(&hello(kind, identity)).expect("a greeting");
    let mut decoder = Decoder::new(1 << 20);
    while !decoder.is_ready() {
        let bytes = stream.read(decoder.room(4096)).expect("a greeting");
        decoder.filled(bytes);
        decoder.next_message().expect("ZMTP");
    }
    stream
}

/// CPU seconds of the relaying thread, which is the one that is neither libzmq's nor idle, and of the process.
fn usage(pid: u32) -> (f64, f64) {
    let process = procfs::process::Process::new(pid as i32).expect("the relay");
    let ticks = procfs::ticks_per_second() as f64;
    let (mut relay, mut all) = (0.0_f64, 0.0);
    for task in process.tasks().expect("threads").flatten() {
        // In nanoseconds, where the kernel has them.
        let schedule = task.schedstat().map(|stat| stat.sum_exec_runtime as f64 / 1e9);
        let Ok(stat) = task.stat() else { continue };
        let cpu_s = schedule.unwrap_or((stat.utime + stat.stime) as f64 / ticks);
        all += cpu_s;
        if !stat.comm.starts_with("ZMQbg") {
            relay = relay.max(cpu_s);
        }
    }
    (relay, all)
}

/// Relays until it is killed; prints its ports.
fn serve(contender: &str, swap: bool) {
    let context = zmq::Context::new();
    let mut ports = Vec::new();
    let mut bound = |kind| {
        let socket = context.socket(kind).expect("a socket");
        socket.set_sndhwm(0).expect("no limit");
        socket.set_rcvhwm(0).expect("no limit");
        socket.bind("tcp://127.0.0.1:*").expect("a port");
        let url = socket.get_last_endpoint().expect("an option").expect("text");
        ports.push(url.rsplit(':').next().expect("a port").to_owned());
        socket
    };
    let (mut front, mut side) = (bound(zmq::ROUTER), None);
    let back = if swap && contender != "proxy" { zmq::ROUTER } else { zmq::DEALER };
    let mut back = bound(back);
    side.get_or_insert(bound(if contender == "proxy" { zmq::PUB } else { zmq::XPUB }));
    let mut side = side.expect("a socket");
    println!("{}", ports.join(" "));
    let pairing = if swap { Pairing::Swap } else { Pairing::Straight };
    let (_commands, mailbox) = Mailbox::new(4, 100).expect("a mailbox");
    match contender {
        "proxy" => {
            let mut control = context.socket(zmq::PAIR).expect("a socket");
            control.bind("inproc://control").expect("a name");
            zmq::proxy_steerable_with_capture(&mut front, &mut back, &mut side, &mut control).expect("a proxy");
        }
        "ours" => {
            let tap = PublishTap::new(side, b"in", b"out").expect("a tap");
            Relay::new(front, back, pairing, tap).expect("a relay").run(&mailbox).expect("a run");
        }
        "hub" => {
            let (hub, taken) = Mailbox::new(1_000_000, 1 << 30).expect("a mailbox");
            std::thread::spawn(move || {
                let mut inputs = Vec::new();
                loop {
                    taken.take(usize::MAX, &mut inputs);
                    inputs.clear();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let tap = HubTap::new("task", hub, true);
            Relay::new(front, back, pairing, tap).expect("a relay").run(&mailbox).expect("a run");
        }
        other => panic!("no relay is called {other}"),
    }
}
