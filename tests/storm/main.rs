//! Thousands of engines that come at once: all are registered and all are served. A test binary of its own, since
//! it takes the whole machine for some seconds.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::core::connection_file::ClientFile;
use pointsman::core::net::files::read_json;
use pointsman::core::peer::{Call, Client, TaskRequest};

const ENGINES: u64 = 2000;
const PROCESSES: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Open files of the controller for an engine, and besides; see the options of `pointsman engine` for its side, which is split.
const FILES_EACH: u64 = 8;
const FILES_BASE: u64 = 400;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, log: &str, args: &[&str]) -> Killed {
    let log = std::fs::File::create(folder.join(log)).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Killed(command.unwrap())
}

#[test]
fn two_thousand_engines_register_at_once_and_are_all_served() {
    let (_, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    let count = ENGINES.min(hard.saturating_sub(FILES_BASE) / FILES_EACH) / PROCESSES * PROCESSES;
    if count < ENGINES {
        eprintln!("*** {count} engines instead of {ENGINES}: only {hard} open files are allowed (ulimit -Hn) ***");
    }
    let folder = tempfile::tempdir().unwrap();
    let _controller = start(folder.path(), "controller.log", &["controller", "--profile-dir=.", "--nodb"]);
    let client_file = folder.path().join("security/ipcontroller-client.json");
    let deadline = Instant::now() + PATIENCE;
    while !client_file.exists() {
        assert!(Instant::now() < deadline, "no connection file");
        std::thread::sleep(Duration::from_millis(10));
    }
    let context = zmq::Context::new();
    let mut client = Client::connect(&context, &read_json::<ClientFile>(&client_file).unwrap(), PATIENCE).unwrap();

    let began = Instant::now();
    let each = (count / PROCESSES).to_string();
    let args = ["engine", "--count", &each, "--timeout-s=60", "--file=security/ipcontroller-engine.json"];
    let mut processes: Vec<Killed> = (0..PROCESSES).map(|n| start(folder.path(), &format!("engines-{n}.log"), &args)).collect();
    if let Err(error) = client.wait_for_engines(count as usize, PATIENCE) {
        let log = std::fs::read_to_string(folder.path().join("engines-0.log")).unwrap();
        panic!("{error}: {} engines of {count}\n{log}", client.engines().unwrap().len());
    }
    println!("{count} engines after {:.1} s", began.elapsed().as_secs_f64());

    // A direct request to each, and tasks for all.
    let uuids: Vec<String> = client.engines().unwrap().values().cloned().collect();
    for uuid in &uuids {
        client.send_to(uuid, Call::Function("echo".into()), uuid.clone().into_bytes()).unwrap();
    }
    for _ in 0..2 * count {
        client.submit(&TaskRequest::function("sleep_ms", "20")).unwrap();
    }
    let (mut direct, mut by_task) = (HashSet::new(), HashSet::new());
    for _ in 0..3 * count {
        let reply = client.next_reply(PATIENCE).unwrap().expect("a reply");
        match reply.outcome.unwrap() {
            nothing if nothing.is_empty() => by_task.insert(reply.engine),
            uuid => direct.insert(uuid),
        };
    }
    assert_eq!(direct.len() as u64, count);
    assert!(by_task.len() as u64 > count / 2, "tasks were for all, and only {} engines had one", by_task.len());

    processes.clear(); // kill -9: nobody says goodbye
    drop(client);
    let mut client = Client::connect(&context, &read_json::<ClientFile>(&client_file).unwrap(), PATIENCE).unwrap();
    client.shutdown_controller(PATIENCE).unwrap();
}
