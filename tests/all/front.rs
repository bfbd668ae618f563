//! A controller as a process among others: a log that nobody can write or read, a second controller, and tools that look for the one that runs.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use pointsman::core::connection_file::ClientFile;
use pointsman::core::net::files::read_json;
use pointsman::core::peer::Client;
use serde_json::{Value, json};

use crate::world::PATIENCE;

const BIN: &str = env!("CARGO_BIN_EXE_pointsman");

/// A controller that is killed when this is dropped.
struct Running {
    child: Child,
    file: PathBuf,
}

impl Running {
    fn start(profile: &Path, args: &[&str], stderr: Stdio) -> Running {
        let mut command = Command::new(BIN);
        command.arg("controller").args(args);
        Running::of(command, profile, args, stderr)
    }

    fn of(mut command: Command, profile: &Path, args: &[&str], stderr: Stdio) -> Running {
        let id = args.iter().find_map(|arg| arg.strip_prefix("--cluster-id=")).map(|id| format!("{id}-")).unwrap_or_default();
        let file = profile.join(format!("security/ipcontroller-{id}client.json"));
        let old = std::fs::read_to_string(&file).ok();
        command.env("IPP_PROFILE_DIR", profile).env_remove("RUST_LOG").stdin(Stdio::null()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        while !file.exists() || std::fs::read_to_string(&file).ok() == old {
            assert!(child.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE, "{args:?} did not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Running { child, file }
    }

    fn client(&self) -> Client {
        Client::connect(&zmq::Context::new(), &read_json::<ClientFile>(&self.file).unwrap(), PATIENCE).unwrap()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Tells it to end, and returns its exit code.
    fn end(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn errand(client: &mut Client, content: &Value) -> Value {
    client.ask("pointsman_request", content, PATIENCE).unwrap()
}

/// Has so many lines of more than a hundred bytes logged.
fn log_lines(client: &mut Client, count: usize) {
    for n in 0..count {
        let name = ["lru", "twobin"][n % 2];
        errand(client, &json!({"action": "set", "policies": [name]}));
    }
}

fn lost_lines(client: &mut Client) -> u64 {
    let shown = errand(client, &json!({"action": "show"}));
    let given_up = shown["given_up"].as_array().unwrap().clone();
    given_up.iter().find(|kind| kind["part"] == "log").map_or(0, |kind| kind["count"].as_u64().unwrap())
}

fn pipe() -> (BufReader<PipeReader>, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    (BufReader::new(reader), writer.into())
}

#[test]
fn a_controller_whose_log_nobody_reads_serves_on_and_ends_in_order() {
    // Read to its first line and then left, as by `2>&1 | head -1`.
    let folder = tempfile::tempdir().unwrap();
    let (mut reader, writer) = pipe();
    let mut left = Running::start(folder.path(), &[], writer);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("policies:"), "{first}");
    drop(reader);
    let mut client = left.client();
    log_lines(&mut client, 50);
    let started = Instant::now();
    while lost_lines(&mut client) < 50 {
        assert!(started.elapsed() < PATIENCE, "each lost line is counted");
    }
    left.signal("-HUP");
    log_lines(&mut client, 1);
    assert_eq!(left.end(), Some(0));

    // Never read: a pipe holds 64 KiB.
    let (_unread, writer) = pipe();
    let mut unread = Running::start(folder.path(), &[], writer);
    let mut client = unread.client();
    log_lines(&mut client, 1000);
    assert_eq!(unread.end(), Some(0));

    // A disk without room.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut full = Running::start(folder.path(), &[], full.into());
    let mut client = full.client();
    log_lines(&mut client, 50);
    assert!(lost_lines(&mut client) > 0);
    assert_eq!(full.end(), Some(0));

    // A file that may not grow.
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f 16; exec {BIN} controller --log-to-file")]);
    let mut small = Running::of(command, folder.path(), &[], Stdio::null());
    let mut client = small.client();
    log_lines(&mut client, 500);
    assert!(lost_lines(&mut client) > 0, "more than 16 KiB were logged");
    assert_eq!(small.end(), Some(0));
}

#[test]
fn a_second_controller_is_refused_and_takes_nothing_from_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let engines = folder.path().join("log/engines.json");
    let second = |args: &[&str]| -> Output {
        Command::new(BIN)
            .arg("controller")
            .args(args)
            .env("IPP_PROFILE_DIR", folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let first = Running::start(folder.path(), &[], Stdio::null());
    std::fs::write(&engines, "{\"mine\": 1}").unwrap();
    let before = std::fs::read_to_string(&first.file).unwrap();
    for args in [&[][..], &["--reuse"], &["--restore"]] {
        let refused = second(args);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{error}");
        let pid = format!("a controller (pid {}, since 20", first.child.id());
        assert!(error.contains(&pid) && error.contains("--cluster-id NAME"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&first.file).unwrap(), before);
    assert_eq!(std::fs::read_to_string(&engines).unwrap(), "{\"mine\": 1}");
    errand(&mut first.client(), &json!({"action": "show"}));

    // Another cluster id is another controller, and ends without harm to the first.
    let mut other = Running::start(folder.path(), &["--cluster-id=b"], Stdio::null());
    assert_eq!(other.end(), Some(0));
    assert!(first.file.exists() && !other.file.exists());

    // Killed, it locks nobody out.
    drop(first);
    let mut next = Running::start(folder.path(), &[], Stdio::null());
    // What another has put in place of its file is not removed.
    std::fs::write(&next.file, "another's").unwrap();
    assert_eq!(next.end(), Some(0));
    assert_eq!(std::fs::read_to_string(&next.file).unwrap(), "another's");
    assert!(!folder.path().join("security/ipcontroller-engine.json").exists());
    assert_eq!(std::fs::read_dir(folder.path().join("pid")).unwrap().count(), 0, "locks are removed");
}

#[test]
fn tools_find_the_one_controller_that_runs_and_tell_what_is_wrong_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let tool = |args: &[&str]| {
        let output = Command::new(BIN).args(args).env("IPP_PROFILE_DIR", folder.path()).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let one = Running::start(folder.path(), &["--cluster-id=one"], Stdio::null());
    let (ok, shown, said) = tool(&["policy", "show"]);
    assert!(ok && shown.contains("placement  leastload"), "{said}");
    assert!(said.contains("the only controller of this profile: --cluster-id one") && said.contains("since 20"), "{said}");

    let two = Running::start(folder.path(), &["--cluster-id=two"], Stdio::null());
    let (ok, _, said) = tool(&["policy", "show"]);
    assert!(!ok && said.contains("choose one with --cluster-id"), "{said}");
    for running in [&one, &two] {
        assert!(said.contains(&format!("pid {}, since 20", running.child.id())), "{said}");
    }
    let (ok, _, said) = tool(&["policy", "show", "--cluster-id=two"]);
    assert!(ok && said.is_empty(), "{said}");
    let (ok, _, said) = tool(&["policy", "show", "--cluster-id=three"]);
    assert!(!ok && said.contains("three: no such controller") && said.contains("--cluster-id one"), "{said}");

    // Changed on the run: what it was, that it can do nothing, and how long it lasts.
    let set = |policy: &str| tool(&["policy", "set", policy, "--cluster-id=two"]).1;
    let shown = set("choices[d=3]");
    assert!(shown.contains("placement  choices[d=3,") && shown.contains("   (was leastload[tie=lru])"), "{shown}");
    let shown = set("choices");
    assert!(
        shown.contains("d: 3 -> 2, the default") && shown.contains("note: placement choices: with one task per engine"),
        "{shown}"
    );
    assert!(shown.contains("in force until a reload (SIGHUP) or restart"), "{shown}");
    let (_, shown, _) = tool(&["policy", "shadow", "twobin", "--cluster-id=two"]);
    assert!(shown.contains("deciding without acting: twobin") && shown.contains("note: placement twobin"), "{shown}");
    let (ok, _, said) = tool(&["policy", "drain", "9", "--cluster-id=two"]);
    assert!(!ok && said.contains("there is no engine 9, and no other"), "{said}");
    let (ok, _, said) = tool(&["policy", "set", "leastlod", "--cluster-id=two"]);
    assert!(!ok && said.contains("did you mean 'leastload'?") && !said.contains("ValueError"), "{said}");

    // A file with another key, and one whose controller has died.
    let (text, strange) = (std::fs::read_to_string(&two.file).unwrap(), folder.path().join("strange.json"));
    let key = serde_json::from_str::<Value>(&text).unwrap()["key"].as_str().unwrap().to_owned();
    std::fs::write(&strange, text.replace(&key, "wrong")).unwrap();
    let strange = strange.display().to_string();
    let (ok, _, said) = tool(&["policy", "show", "--timeout-s=0.5", "--file", &strange]);
    assert!(!ok && said.contains("no answer in time; something listens at tcp://127.0.0.1:"), "{said}");
    let (file, pid) = (two.file.clone(), two.child.id());
    drop(two);
    let (ok, _, said) = tool(&["policy", "show", "--timeout-s=0.5", "--file", file.to_str().unwrap()]);
    assert!(
        !ok && said.contains("nobody listens at tcp://127.0.0.1:") && said.contains("has ended without removing its file"),
        "{said}"
    );
    assert!(tool(&["policy", "show"]).0, "the dead one is not counted");
    let (_, shown, _) = tool(&["list"]);
    assert!(
        shown.contains("gone: nobody listens there") && shown.contains("since 20") && !shown.contains(&pid.to_string()),
        "{shown}"
    );
    let (_, shown, _) = tool(&["list", "--json"]);
    let list: Value = serde_json::from_str(&shown).unwrap();
    let states: Vec<_> =
        list.as_array().unwrap().iter().map(|found| (found["cluster_id"].as_str(), found["state"].as_str())).collect();
    assert_eq!(states, [(Some("one"), Some("serves")), (Some("two"), Some("gone"))]);
}

#[test]
fn a_reload_names_what_needs_a_restart_and_what_can_have_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    let running = Running::start(folder.path(), &[], File::create(&log).unwrap().into());
    let toml = "[policy]\nplacement = \"sita\"\n[heartbeat]\nperiod_ms = 250\n[scheduler]\ngrace_ms = 1\n";
    std::fs::write(folder.path().join("pointsman.toml"), toml).unwrap();
    running.signal("-HUP");
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let told = [
            "in force when the controller is started again: heartbeat.period_ms, scheduler.grace_ms",
            "placement sita: with a limit (hwm 1)",
        ];
        if told.iter().all(|words| text.contains(words)) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // The same file is what `policy check` reads when none is named.
    let checked = Command::new(BIN).args(["policy", "check"]).env("IPP_PROFILE_DIR", folder.path()).output().unwrap();
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && text.contains("note: placement sita") && text.contains("\nok: "), "{text}");
}
