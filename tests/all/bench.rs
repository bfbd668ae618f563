//! `pointsman bench` as its users see it: loads of each kind on controllers of its own and on one that runs, results that read back, and
//! comparisons of them.

use std::path::Path;
use std::process::{Command, Output};

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
            assert!(round.done > 20 && round.failed == 0, "{kind:?}: {round:?}");
            assert!(round.latency_us.p50 > 0 && round.latency_us.p50 <= round.latency_us.max, "{kind:?}: {round:?}");
            assert!(round.rss_bytes > 1 << 20 && round.processes == 1, "{kind:?}: {round:?}");
        }
        assert!(said.contains("tasks/s") && said.contains("latency p99"), "{said}");
        assert!(report.start_s.is_some_and(|seconds| seconds > 0.0));
        let same = compare(&report, &report);
        assert!(same.contains("no difference shown") && !same.contains("worse"), "{same}");
    }
}

#[test]
fn a_load_on_a_controller_that_runs_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let profile = format!("--profile-dir={}", folder.path().display());
    let controller = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["controller", &profile, "--nodb", "--ping=300", "--log-level=40"])
        .spawn()
        .expect("a controller");
    struct Ends(std::process::Child);
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let controller = Ends(controller);
    let file = folder.path().join("security/ipcontroller-client.json");
    for _ in 0..500 {
        if file.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let file = format!("--file={}", file.display());
    for _ in 0..2 {
        // The second finds no engines of the first.
        let (report, _) = load(&[&SHORT[..], &["--window=8", &file]].concat());
        assert!(report.rounds.iter().all(|round| round.done > 20 && round.failed == 0), "{report:?}");
        assert_eq!(report.start_s, None);
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    drop(controller);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let cases: [(&[&str], &str); 6] = [
        (&["--duration=long"], "'long' is not"),
        (&["--after=chains:0"], "chains:WIDTH"),
        (&["--load=1.5"], "between 0 and 1"),
        (&["--engines=0"], "needs an engine"),
        (&["--file=/nonexistent.json"], "/nonexistent.json"),
        (&["compare", "/nonexistent.json", "/nonexistent.json"], "/nonexistent.json"),
    ];
    for (words, reason) in cases {
        let output = bench(words, None);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{words:?}: {said}");
    }
}
