//! `pointsman bench` as its users see it: loads of each kind on controllers of its own and on one that runs, results that read back, and
//! comparisons of them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use pointsman::lab::replay::{Recording, Replay};
use pointsman::load::{Report, compare};

fn bench(words: &[&str], json: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("bench");
    if let Some(path) = json {
        command.arg("--json").arg(path);
    }
    command.args(words).output().expect("the program")
}

fn load(words: &[&str]) -> (Report, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let output = bench(words, Some(&path));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap(), said)
}

const SHORT: [&str; 6] = ["--rounds=2", "--seconds=0.4", "--warmup=0.2", "--engines=3", "--clients=2", "--seed=7"];

#[test]
fn loads_of_each_kind_are_carried_and_every_task_is_answered() {
    let kinds: [&[&str]; 5] = [
        &["--window=16"],
        &["--rate=300", "--duration=exp:1"],
        &["--load=0.3"],
        &["--window=30", "--after=random:2", "--payload=10000", "--result=5000"],
        &["--window=12", "--after=chains:4", "--blocked=500", "--history=1000", "--duration=bimodal:0.1:2:0.2"],
    ];
    for kind in kinds {
        let (report, said) = load(&[&SHORT, kind, &["--", "--nodb"]].concat());
        assert_eq!(report.rounds.len(), 2, "{kind:?}");
        for round in &report.rounds {
            assert!(round.done > 0 && round.failed == 0, "{kind:?}: {round:?}");
            assert!(round.latency_us.p50 > 0 && round.latency_us.p50 <= round.latency_us.max, "{kind:?}: {round:?}");
            assert!(round.rss_bytes > 1 << 20 && round.processes == 1, "{kind:?}: {round:?}");
        }
        assert!(said.contains("tasks/s") && said.contains("latency p99"), "{said}");
        assert!(report.start_s.is_some_and(|seconds| seconds > 0.0));
        let same = compare(&report, &report);
        assert!(same.contains("no difference shown") && !same.contains("worse"), "{same}");
    }
}

/// A controller that runs, in a profile of its own, until this is dropped.
struct Running {
    controller: Child,
    folder: tempfile::TempDir,
}

impl Running {
    fn start(options: &[&str]) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let profile = format!("--profile-dir={}", folder.path().display());
        let controller = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["controller", &profile, "--ping=300", "--log-level=40"])
            .args(options)
            .spawn()
            .expect("a controller");
        let running = Running { controller, folder };
        let file = running.folder.path().join("security/ipcontroller-client.json");
        for _ in 0..500 {
            if file.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        running
    }

    fn file(&self) -> String {
        format!("--file={}", self.folder.path().join("security/ipcontroller-client.json").display())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.controller.kill();
        let _ = self.controller.wait();
    }
}

#[test]
fn a_load_on_a_controller_that_runs_leaves_it_as_it_was_and_says_what_it_leaves() {
    let running = Running::start(&["--nodb"]);
    for round in 0..2 {
        // The second finds no engines of the first.
        let (report, said) = load(&[&SHORT[..], &["--window=8", &running.file()]].concat());
        assert!(report.rounds.iter().all(|round| round.done > 0 && round.failed == 0), "{report:?}");
        assert_eq!(report.start_s, None);
        let left = report.left_behind.unwrap();
        assert!(left.tasks > 8 && left.first_engine == 3 * round && left.engines == 3, "{left:?}");
        assert!(said.contains(&format!("engine numbers {} to {}", 3 * round, 3 * round + 2)), "{said}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[test]
fn a_recorded_load_calls_functions_and_does_one_thing_at_a_time() {
    let running = Running::start(&["--sqlitedb", "--hwm=4"]);
    let duration = "--duration=bimodal:5:40:0.3";
    let (report, said) = load(&[&SHORT[..], &["--window=40", duration, "--label=#prio=2 #hedge", &running.file()]].concat());
    for round in &report.rounds {
        // What the engines' stamps say is not what tasks asked for.
        assert!(round.ran.tasks > 0 && round.ran.real_s > round.ran.asked_s, "{:?}", round.ran);
    }
    assert_eq!(report.is_marked, said.contains("MARKED"), "{said}");
    // Records are written a little later.
    let records = running.folder.path().join("tasks.db");
    let mut recording = Recording::read(&records);
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        recording = Recording::read(&records);
        if recording.as_ref().is_ok_and(|recording| recording.tasks.len() as u64 == report.left_behind.unwrap().tasks) {
            break;
        }
    }
    let recording = recording.unwrap();
    assert_eq!(recording.clients_and_functions().1, 2);
    assert!(recording.tasks.iter().all(|task| task.hints.priority == 2.0 && task.hints.hedge));
    let replay = Replay::of(&recording, 4);
    assert_eq!(replay.overlaps(), 0);
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["lab", "replay", records.to_str().unwrap(), "--scheme=plainrandom", "--hwm=0", "--seeds=7", "--tolerance=1000"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for words in ["calling 2 functions, on 3 engines, 0 left out", "as it was", "error, %", "replayed: placement leastload"] {
        assert!(said.contains(words), "'{words}' in {said}");
    }
    assert!(said.lines().skip(6).all(|line| line.chars().count() <= 100 || line.contains(": ")), "{said}");
    // On a machine that is busy enough nobody knows what a client waits for.
    let compared =
        said.contains("7 seeds") && said.contains("would have been [1]: placement plainrandom, admission fixed[hwm=0]");
    let refused = String::from_utf8_lossy(&output.stderr).contains("nothing is compared");
    assert!(if output.status.success() { compared } else { refused && !said.contains("would have been") }, "{said}");
}

/// Two kinds of tasks at once on one engine: all of one run before the other's, if the scheduler hears what labels say.
#[test]
fn live_runs_tell_schedulers_what_labels_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.toml");
    let experiment = r##"
        name = "live"
        replications = 1
        [base]
        engines = 1
        tasks = 60
        warmup = 0
        arrivals = "batch"
        hwm = 1
        kinds = [
            { size = "deterministic", class = 1, client = 1 },
            { size = "deterministic", class = 2, client = 1, label = "#prio=9" },
        ]
        [factors]
        order = ["fifo", "priority"]
    "##;
    std::fs::write(&file, experiment).unwrap();
    let out = folder.path().join("results");
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["lab", "run", file.to_str().unwrap(), "--live", "--unit-s=0.01", "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(out.join("live/results.csv")).unwrap();
    let mut rows = text.lines().map(|line| line.split(',').collect::<Vec<&str>>());
    let head = rows.next().unwrap();
    let at = |name: &str| head.iter().position(|column| *column == name).unwrap();
    let by_order: Vec<f64> = rows
        .map(|row| {
            let value = |name: &str| row[at(name)].parse::<f64>().unwrap();
            value("class_slowdown_most") / value("class_slowdown_least")
        })
        .collect();
    assert!(by_order.len() == 2 && by_order[0] < 1.6 && by_order[1] > 2.0, "{by_order:?}: {text}");
}

#[test]
fn a_load_that_is_interrupted_says_so_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["bench", "--seconds=600", "--engines=2", "--", "--nodb"])
        .env("TMPDIR", temporary.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let files = || std::fs::read_dir(temporary.path()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let is_up = || files().iter().any(|folder| folder.join("security/ipcontroller-client.json").exists());
    for _ in 0..500 {
        if is_up() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(is_up());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("interrupted"), "{said}");
    assert_eq!(files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let cases: [(&[&str], &str); 16] = [
        (&["--duration=long"], "'long' is not"),
        (&["--after=chains:0"], "chains:WIDTH"),
        (&["--load=1.5"], "between 0 and 1"),
        (&["--engines=0"], "--engines must be at least 1"),
        (&["--clients=0"], "--clients must be at least 1"),
        (&["--rounds=0"], "--rounds must be at least 1"),
        (&["--seconds=0"], "--seconds must be above 0"),
        (&["--rate=-1"], "--rate must be above 0, not -1"),
        (&["--rate", "-1"], "--rate must be above 0, not -1"),
        (&["--payload=99999999999999"], "--payload must be at most"),
        (&["--label=#piro=1"], "did you mean #prio=?"),
        (&["--label=\"quoted\""], "may not have quotes"),
        (&["--vary=engines=4,0"], "--vary 0: --engines must be at least 1"),
        (&["--vary=window=0"], "--window must be at least 1"),
        (&["--file=/nonexistent.json"], "/nonexistent.json"),
        (&["compare", "/nonexistent.json", "/nonexistent.json"], "/nonexistent.json"),
    ];
    for (words, reason) in cases {
        let output = bench(words, None);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{words:?}: {said}");
    }
}
