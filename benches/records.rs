//! What task records cost a task: its latency while the store is locked by somebody else, while it answers a question about every record, and
//! while its server stands still, next to its latency before and after in the same run. `POINTSMAN_TEST_MONGOD` names a mongod for the last.
#![allow(missing_docs)]

mod shared;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pointsman::core::connection_file::ClientFile;
use pointsman::core::peer::Client;
use serde_json::json;
use shared::{Controller, Engines, PATIENCE, echo, run_tasks, take_result};

const OURS: [&str; 2] = [env!("CARGO_BIN_EXE_pointsman"), "controller"];

/// Runs `work` with a client and two engines of a controller with this configuration.
fn with_peers(config: &str, work: impl FnOnce(&Controller, &zmq::Context, &mut Client)) {
    let controller = Controller::start(&OURS, config);
    let context = zmq::Context::new();
    let _engines = Engines::start(&context, &controller.file("engine"), 2);
    let mut client = Client::connect(&context, &controller.file("client"), PATIENCE).expect("a client");
    client.wait_for_engines(2, PATIENCE).expect("engines");
    work(&controller, &context, &mut client);
}

/// How many tasks are under way while records are made.
const WINDOW: usize = 200;

/// One task at a time, about 700 per second, for so long: microseconds from submission to result.
fn latencies(client: &mut Client, duration: Duration) -> Histogram<u64> {
    let task = echo();
    let mut histogram = Histogram::new(3).expect("a histogram");
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let start = Instant::now();
        client.submit(&task).expect("a submission");
        take_result(client);
        histogram.record(start.elapsed().as_micros() as u64).expect("a latency");
        std::thread::sleep(Duration::from_millis(1));
    }
    histogram
}

/// Latencies before, during and after `trouble`, which is undone by dropping what it returns.
fn compare<T>(name: &str, client: &mut Client, duration: Duration, trouble: impl FnOnce() -> T) {
    let before = latencies(client, duration);
    let holding = trouble();
    let during = latencies(client, duration);
    drop(holding);
    std::thread::sleep(Duration::from_secs(3)); // to catch up
    let after = latencies(client, duration);
    let mut calm = before;
    calm.add(&after).expect("histograms of one kind");
    let at = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64;
    for (quantile, label) in [(0.5, "p50"), (0.99, "p99")] {
        let (calm, during) = (at(&calm, quantile), at(&during, quantile));
        println!("{name:>28} {label:>5} {calm:>10.0} {during:>10.0} {:>8.2}", during / calm);
    }
}

/// How many records are complete, as a client would ask.
fn completed(client: &mut Client) -> usize {
    let answer = client.ask("db_request", &json!({"query": {"completed": {"$ne": null}}, "keys": ["msg_id"]}), PATIENCE);
    answer.ok().and_then(|answer| Some(answer["records"].as_array()?.len())).unwrap_or(0)
}

fn wait_for_records(client: &mut Client, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while completed(client) < count {
        assert!(Instant::now() < deadline, "the records did not catch up");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Asks about every record, again and again, on a thread of its own.
struct Questions {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Questions {
    fn ask(context: &zmq::Context, file: &ClientFile) -> Questions {
        let mut client = Client::connect(context, file, PATIENCE).expect("a client");
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let question = json!({"query": {"header": {"$in": [1]}, "metadata": {"$ne": 1}}, "keys": ["msg_id"]});
            while !until.load(Ordering::Relaxed) {
                client.ask("db_request", &question, PATIENCE).expect("an answer");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Questions { stop, asked, thread: Some(thread) }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        println!("{:>28} {} answered", "questions:", self.asked.load(Ordering::Relaxed));
    }
}

fn sqlite(records: usize, duration: Duration) {
    with_peers("[records]\nstore = \"sqlite\"\n", |controller, context, client| {
        run_tasks(client, records, WINDOW);
        wait_for_records(client, records);
        compare("file locked by another", client, duration, || {
            let lock = rusqlite::Connection::open(controller.folder.path().join("tasks.db")).expect("the file");
            lock.busy_timeout(PATIENCE).expect("a timeout");
            lock.execute_batch("BEGIN IMMEDIATE").expect("a lock");
            lock
        });
        let file: ClientFile = controller.file("client");
        compare("questions about all records", client, duration, || Questions::ask(context, &file));
    });
}

/// A process that is killed at the end, whatever state it is in.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that stands still until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.0.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {name}");
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

fn mongodb(mongod: &str, records: usize, duration: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let command = Command::new(mongod)
        .args(["--quiet", "--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--dbpath"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let server = Server(command.expect("a mongod"));
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "mongod does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let config = format!("[records]\nstore = \"mongodb\"\nmongodb.uri = \"mongodb://127.0.0.1:{port}\"\n");
    with_peers(&config, |_, _, client| {
        run_tasks(client, records, WINDOW);
        wait_for_records(client, records);
        compare("mongod stopped by SIGSTOP", client, duration, || {
            let stopped = Stopped(server.0.id());
            stopped.signal("-STOP");
            stopped
        });
        wait_for_records(client, records + 1);
    });
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let (records, duration) = if quick { (1000, Duration::from_secs(1)) } else { (100_000, Duration::from_secs(30)) };
    println!("2 native engines, one task at a time, {records} records; microseconds from submission to result");
    println!("{:>28} {:>5} {:>10} {:>10} {:>8}", "", "", "calm", "trouble", "ratio");
    sqlite(records, duration);
    match std::env::var("POINTSMAN_TEST_MONGOD") {
        Ok(mongod) if cfg!(feature = "mongodb") => mongodb(&mongod, records / 10, duration),
        _ => println!("*** SKIPPED: MongoDB needs `--features mongodb` and POINTSMAN_TEST_MONGOD, the path of a mongod ***"),
    }
}
