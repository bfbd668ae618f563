//! A binary of its own, as it takes every core and others measure time. The lab: identities that hold event for event, schedules that others have computed, and experiments that give the same bytes however they are run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pointsman::lab::experiment::{
    Experiment, How, Point, Prepared, Program, Progress, Ran, Store, read_results, run_experiment, run_point,
};
use pointsman::lab::graph::{Costs, Dag, Rule, heft, list_schedule};
use pointsman::lab::workload::{Estimate, Kind, Stream};
use pointsman::lab::world::{Ended, Setup, World};
use pointsman::lab::{report, verify};

fn registry() -> pointsman::policies::Registry {
    pointsman::builtin()
}

/// Real workflows, if they are there.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("POINTSMAN_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    if folder.join("workflows/reference.json").exists() {
        return folder.canonicalize().ok();
    }
    eprintln!("*** no workflows in {}: set POINTSMAN_DATA to test schedules of real ones ***", folder.display());
    None
}

/// When each task started, by number.
fn starts(placement: &str, hwm: u32, size: &str) -> Vec<u64> {
    let point = Point { placement: placement.into(), hwm: Some(hwm), size: size.into(), ..Point::default() };
    let world = World::new(Setup::identical(4, 7), [point.build(&registry()).unwrap()]);
    let kinds = vec![Kind::of(size.parse().unwrap())];
    let mut source = Stream::new("poisson".parse().unwrap(), 3.4, kinds, Estimate::Exact, 20_000, 7);
    let mut starts = vec![0; 20_000];
    let totals = world.run(&mut source, |ended: &Ended| starts[ended.number as usize] = ended.started_ns);
    assert_eq!((totals.ended, totals.failed, totals.stuck), (20_000, 0, 0));
    starts
}

#[test]
fn identities_hold_event_for_event() {
    let one_queue = starts("lru", 1, "exponential");
    for placement in ["leastload", "plainrandom", "twobin", "weighted", "choices[d=3]", "prequal", "peakewma", "jiq"] {
        assert_eq!(starts(placement, 1, "exponential"), one_queue, "{placement}");
    }
    assert_eq!(starts("leastwork", 0, "exponential"), one_queue, "least work left with exact sizes");
    assert_eq!(starts("lru", 0, "exponential"), starts("roundrobin", 0, "exponential"));
    assert_eq!(starts("choices[d=4,tie=lru]", 0, "exponential"), starts("leastload", 0, "exponential"), "JSQ(n) is JSQ");
    // The reference queue is a program of its own.
    let reference = |size: &str, placement: &str| {
        let point = Point {
            placement: placement.into(),
            engines: 4,
            load: Some(0.85),
            size: size.into(),
            tasks: 20_000,
            ..Point::default()
        };
        run_point(&point, &registry(), Path::new("."), 7).unwrap().measures
    };
    let own = reference("exponential", "leastload");
    assert_eq!(own.response_s, reference("exponential", "~one-queue").response_s);
    let equal = reference("deterministic", "~srpt");
    assert_eq!(
        equal.response_s,
        reference("deterministic", "~one-queue").response_s,
        "SRPT with equal sizes is first come first served"
    );
    assert_eq!(reference("deterministic", "~gittins").response_s, equal.response_s, "whoever has begun ends first");
    // What engines report is what a scheduler knows that is alone; and many schedulers that hear it at once are as good as one.
    let shared = |placement: &str, dispatchers, report_every_s| {
        let placement = placement.into();
        let point = Point { placement, hwm: Some(0), dispatchers, report_every_s, tasks: 40_000, ..Point::default() };
        run_point(&point, &registry(), Path::new("."), 7).unwrap().measures.response_s
    };
    let alone = shared("leastload", 1, None);
    assert_eq!(shared("lsq", 1, None), alone);
    assert_eq!(shared("lsq", 1, Some(0.3)), alone);
    let (blind, told, late) = (shared("leastload", 8, None), shared("lsq", 8, Some(0.001)), shared("lsq", 8, Some(1.0)));
    assert!((told.mean / alone.mean - 1.0).abs() < 0.02, "{} among eight that are told, {} alone", told.mean, alone.mean);
    assert!(
        told.mean < late.mean && late.mean < blind.mean,
        "{} told, {} told late, {} not told",
        told.mean,
        late.mean,
        blind.mean
    );
}

#[test]
fn the_lab_agrees_with_theory() {
    let verdicts = verify::verify(&registry(), false, 3, &|_| ()).unwrap();
    let table = verify::table(&verdicts, false);
    assert!(verdicts.len() >= 25 && verdicts.iter().all(verify::Verdict::holds), "{table}");
    assert!((1..20).all(verify::graham_bound_holds));
}

/// The figures were computed by three other programs: lists on identical engines, ties by place in the file.
#[test]
fn real_workflows_take_as_long_as_others_have_computed() {
    let Some(data) = data() else { return };
    let text = std::fs::read_to_string(data.join("workflows/reference.json")).unwrap();
    let references: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for reference in references.as_array().unwrap() {
        let name = Path::new(reference["path"].as_str().unwrap()).file_name().unwrap();
        let path = data.join("workflows").join(name);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        seen += 1;
        let dag = Dag::from_wfformat(&text).unwrap();
        assert_eq!(
            (dag.len(), dag.edges().len()),
            (reference["n"].as_u64().unwrap() as usize, reference["e"].as_u64().unwrap() as usize)
        );
        let near = |value: f64, known: &serde_json::Value, what: &str| {
            let known = known.as_f64().unwrap();
            assert!((value - known).abs() <= 1e-6 * known.max(1.0), "{}: {what}: {value}, known {known}", path.display());
        };
        near(dag.total_s(), &reference["tot"], "work");
        near(dag.critical_path_s(), &reference["cp"], "critical path");
        for (engines, known) in reference["ref"].as_object().unwrap() {
            let engines: usize = engines.parse().unwrap();
            near(dag.lower_bound_s(&vec![1.0; engines]), &known["LB"], "lower bound");
            let rules = [
                (Rule::Fifo, "FIFO", "fifo"),
                (Rule::CriticalPath, "CP", "criticalpath"),
                (Rule::Longest, "LPT", "longest"),
                (Rule::Shortest, "SPT", "shortest"),
            ];
            for (rule, key, order) in rules {
                near(list_schedule(&dag, engines, rule), &known[key], key);
                // The shipping scheduler under the shipping policies.
                let point = Point {
                    workload: pointsman::lab::experiment::Workload::Graphs,
                    graph: vec![path.display().to_string()],
                    engines,
                    order: order.into(),
                    estimate: "exact".into(),
                    hwm: Some(1),
                    ..Point::default()
                };
                let outcome = run_point(&point, &registry(), Path::new("/"), 1).unwrap();
                near(outcome.measures.makespan_s, &known[key], &format!("{key} by the scheduler"));
            }
        }
    }
    assert_eq!(seen, references.as_array().unwrap().len(), "workflows are missing");
}

#[test]
fn heft_of_real_workflows_is_what_others_have_computed() {
    let Some(data) = data() else { return };
    let read = |name: &str| Dag::from_wfformat(&std::fs::read_to_string(data.join("workflows").join(name)).unwrap()).unwrap();
    let makespan = |dag: &Dag, speeds: &[f64], bytes_per_s: f64| {
        heft(dag, &Costs::of_speeds(dag, speeds, bytes_per_s)).iter().map(|placed| placed.end_s).fold(0.0, f64::max)
    };
    for (name, speeds, bytes_per_s, known) in [
        ("soykb-chameleon-10fastq-20ch-001.json", vec![1.0; 16], f64::INFINITY, 8509.80),
        ("1000genome-chameleon-22ch-100k-001.json", vec![1.0; 16], f64::INFINITY, 2430.27),
        ("montage-chameleon-dss-15d-001.json", vec![1.0; 16], f64::INFINITY, 4946.45),
        ("montage-chameleon-2mass-005d-001.json", vec![1.0, 1.0, 2.0, 4.0], 125e6, 30.8065),
        ("epigenomics-chameleon-hep-1seq-100k-001.json", vec![1.0, 1.0, 2.0, 4.0], 125e6, 76.8588),
        ("soykb-chameleon-10fastq-20ch-001.json", vec![1.0, 1.0, 2.0, 4.0], 125e6, 3693.657),
    ] {
        let value = makespan(&read(name), &speeds, bytes_per_s);
        assert!((value / known - 1.0).abs() < 5e-6, "{name} on {} engines: {value}, known {known}", speeds.len());
    }
}

const EXPERIMENT: &str = r#"
    name = "small"
    replications = 3
    [base]
    engines = 3
    tasks = 2000
    [factors]
    placement = ["leastload", "plainrandom"]
    hwm = [0, 2]
    load = [0.5, 0.9]
"#;

/// Runs an experiment by a program of this name.
fn run_as(program: &str, text: &str, folder: &Path, threads: usize, stop_after: u64) -> anyhow::Result<Ran> {
    let (experiment, registry) = (Experiment::parse(text, Path::new("."))?, registry());
    let prepared = Prepared::new(&experiment, &registry)?;
    let mut store = Store::open(folder, &prepared, &Program::of("1", program.as_bytes())?, "")?;
    let stop = AtomicBool::new(false);
    let progress = |far: Progress| stop.store(far.finished >= stop_after, Ordering::Relaxed);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| run_experiment(&prepared, &mut store, How::Simulated, &stop, &progress))
}

fn run(folder: &Path, threads: usize, stop_after: u64) -> anyhow::Result<Ran> {
    run_as("a program", EXPERIMENT, folder, threads, stop_after)
}

#[test]
fn an_experiment_gives_the_same_bytes_on_any_threads_and_after_an_interruption() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(&at("one"), 1, u64::MAX).unwrap();
    run(&at("two"), 2, u64::MAX).unwrap();
    let interrupted = run(&at("three"), 2, 7).unwrap_err();
    let said = interrupted.to_string();
    assert!(said.contains("interrupted: ") && said.contains("of 54 runs are kept in "), "{said}");
    // As if the process had died in the middle of a line.
    let runs = at("three").join("runs.csv");
    let mut text = std::fs::read_to_string(&runs).unwrap();
    assert!(text.lines().count() >= 7);
    text.push_str("1+0123456789abcdef,0123,0.5");
    std::fs::write(&runs, text).unwrap();
    run(&at("three"), 2, u64::MAX).unwrap();
    let results = |name: &str| std::fs::read_to_string(at(name).join("results.csv")).unwrap();
    assert_eq!(results("one").lines().count(), 1 + (10 + 8) * 3);
    assert!(results("one") == results("two") && results("one") == results("three"));

    let page = report::page(&read_results(&at("one")).unwrap(), None, &registry()).unwrap();
    let path = report::write(&page, &at("one")).unwrap();
    let html = std::fs::read_to_string(path).unwrap();
    for word in ["<svg", "mean response, s", "M/M/1", "~srpt", "Paired comparisons", "plainrandom"] {
        assert!(html.contains(word), "{word}");
    }
    assert!(!html.contains("http://") || !html.contains("src=\"http"), "nothing is fetched");

    // Another experiment does not mix with these results.
    let other = run_as("a program", &EXPERIMENT.replace("small", "large"), &at("one"), 1, u64::MAX).unwrap_err();
    assert!(other.to_string().contains("another experiment, 'small'"), "{other}");
}

#[test]
fn a_program_that_was_changed_shows_no_result_of_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let results = || std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    let short = EXPERIMENT.replace("2000", "500");
    let ran = |program: &str| run_as(program, &short, folder.path(), 2, u64::MAX).unwrap();
    let first = ran("before");
    assert_eq!((first.made, first.found), (54, 0));
    let before = results();
    assert_eq!((ran("before").made, ran("before").found), (0, 54));
    assert!(results() == before);
    // What another program has found is not taken for its own, and not lost.
    std::fs::write(folder.path().join("results.csv"), "old").unwrap();
    let interrupted = run_as("after", &short, folder.path(), 1, 3).unwrap_err().to_string();
    assert!(interrupted.contains("interrupted"), "{interrupted}");
    assert!(!folder.path().join("results.csv").exists(), "what is shown is of the program that runs, or not there");
    assert_eq!(read_results(folder.path()).unwrap().rows.len(), 3);
    let second = ran("after");
    assert_eq!((second.made, second.found), (51, 3));
    let marks = |text: &str| text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().to_owned()).collect::<Vec<_>>();
    let (old, new) = (marks(&before), marks(&results()));
    assert!(old.iter().all(|mark| *mark == old[0]) && new.iter().all(|mark| *mark == new[0]) && old[0] != new[0]);
    assert_eq!(ran("before").found, 54);
    assert!(results() == before);
    let maker = read_results(folder.path()).unwrap().maker;
    assert_eq!((maker.version.as_str(), maker.mark.as_str()), ("1", old[0].as_str()));
    let source = maker.policies.iter().find(|(policy, _)| policy.starts_with("leastload")).map(|(_, source)| !source.is_empty());
    assert_eq!(source, Some(true));
}

#[test]
fn an_experiment_grows_and_what_is_there_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let small = EXPERIMENT.replace("2000", "500");
    let grown = small.replace("[0.5, 0.9]", "[0.5, 0.7, 0.9]").replace("replications = 3", "replications = 5");
    run_as("p", &small, &at("grown"), 2, u64::MAX).unwrap();
    let ran = run_as("p", &grown, &at("grown"), 2, u64::MAX).unwrap();
    assert_eq!((ran.made, ran.found), (27 * 5 - 54, 54));
    run_as("p", &grown, &at("at once"), 2, u64::MAX).unwrap();
    let results = |name: &str| std::fs::read_to_string(at(name).join("results.csv")).unwrap();
    assert!(results("grown") == results("at once"), "it does not matter how it has come about");
    // And shrinks.
    run_as("p", &small, &at("small"), 2, u64::MAX).unwrap();
    assert_eq!(run_as("p", &small, &at("grown"), 2, u64::MAX).unwrap().made, 0);
    assert!(results("grown") == results("small"));
    // Other files are another experiment, though nothing in the text has changed.
    let trace = |seconds: u32| std::fs::write(at("t.swf"), format!("1 0 0 {seconds} 1\n2 5 0 1 1\n")).unwrap();
    let text = "name = \"t\"\nreplications = 3\n[base]\nworkload = \"trace\"\ntrace = \"t.swf\"\nengines = 1\n";
    let made = || {
        let (experiment, registry) = (Experiment::parse(text, folder.path()).unwrap(), registry());
        let prepared = Prepared::new(&experiment, &registry).unwrap();
        let program = Program::of("1", &b"p"[..]).unwrap();
        let mut store = Store::open(&at("traced"), &prepared, &program, "").unwrap();
        run_experiment(&prepared, &mut store, How::Simulated, &AtomicBool::new(false), &|_| ()).unwrap().made
    };
    trace(10);
    assert_eq!((made(), made()), (3, 0));
    trace(20);
    assert_eq!((made(), made()), (3, 0));
}

/// Every value is read before the first run: a mistake in the last level does not show after hours.
#[test]
fn what_is_wrong_in_the_last_level_is_found_before_the_first_run() {
    for (base, factor, says) in [
        ("", "arrivals = [\"poisson\", \"possion\"]", "arrivals: "),
        ("workload = \"closed\"", "think = [\"exponential\", \"exponental\"]", "think: "),
        ("workload = \"graphs\"", "graph = [[\"lu[tiles=3]\"], [\"lou[tiles=3]\"]]", "graph: "),
        ("workload = \"graphs\"", "graph = [[\"lu[tiles=3]\"], [\"nothere.json\"]]", "nothere.json"),
        ("workload = \"trace\"", "trace = [\"nothere.swf\"]", "nothere.swf"),
        ("", "size = [\"exponential\", \"exponental\"]", "size: "),
        ("", "placement = [\"leastload\", \"choices[d=0]\"]", "d must be"),
        ("", "placement = [\"leastload\", \"~best\"]", "~best"),
        ("", "order = [\"fifo\", \"fiffo\"]", "did you mean 'fifo'"),
        ("lives = \"exponential\"", "repair = [\"exponential\", \"x\"]", "repair: "),
        ("", "kinds = [[{ size = \"exponential\", label = \"#prio=high\" }]]", "kinds[0]"),
        ("estimate = \"exact\"", "kinds = [[{ size = \"exponential\", label = \"#cost=2\" }]]", "#cost"),
        ("", "speeds = [\"equal\", \"two[fast=4]\"]", "share"),
        ("", "load = [0.5, 1.5]", "allow_unstable"),
        ("", "tasks = [10, 0]", "tasks must be at least 1"),
        ("workload = \"closed\"", "window = [1, 0]", "window must be at least 1"),
        ("", "speeds = [\"two[fast=4,share=0.25,slow=2]\"]", "slow is none of fast, share"),
    ] {
        let text = format!("name = \"x\"\n[base]\n{base}\n[factors]\n{factor}\n");
        let experiment = Experiment::parse(&text, Path::new(".")).unwrap_or_else(|error| panic!("{factor}: {error}"));
        let error = format!("{:#}", Prepared::new(&experiment, &registry()).unwrap_err());
        assert!(error.contains(says) && error.contains("point "), "{factor}: {error}");
    }
}

/// The lab is pure: what a live run needs is handed in.
#[test]
fn the_lab_knows_no_socket() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lab")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                seen += 1;
                for word in ["crate::load", "crate::controller", "zmq::", "std::net", "Instant::now", "SystemTime"] {
                    assert!(!text.contains(word), "{}: {word}", path.display());
                }
            }
        }
    }
    assert!(seen > 30);
}

#[test]
fn a_world_in_which_things_go_wrong_loses_nothing() {
    let base = Point { engines: 5, tasks: 5_000, load: Some(0.7), ..Point::default() };
    let points = [
        Point {
            lives: Some("exponential[mean=50]".into()),
            repair: "deterministic".into(),
            detect_s: 0.5,
            retries: 20,
            ..base.clone()
        },
        Point {
            slow_every: Some("exponential[mean=20]".into()),
            slow_factor: "uniform[low=0.1,high=0.9]".into(),
            ..base.clone()
        },
        Point { failing: 0.2, retries: 50, ..base.clone() },
        Point {
            latency_s: 0.05,
            jitter: Some("exponential[mean=0.1]".into()),
            loss: 0.1,
            client_latency_s: 0.2,
            hwm: Some(2),
            ..base.clone()
        },
        Point { dispatchers: 4, hwm: Some(0), ..base.clone() },
        Point {
            rebalance: "replace".into(),
            hwm: Some(4),
            estimate: "exact".into(),
            slow_every: Some("exponential[mean=20]".into()),
            slow_factor: "deterministic[mean=0.05]".into(),
            latency_s: 0.001,
            ..base.clone()
        },
        Point {
            workload: pointsman::lab::experiment::Workload::Closed,
            clients: 7,
            window: 3,
            think: Some("exponential".into()),
            load: None,
            ..base
        },
    ];
    for point in points {
        let first = run_point(&point, &registry(), Path::new("."), 5).unwrap();
        assert_eq!(first.totals.ended, 5_000, "{point:?}");
        assert!(first.totals.failed <= 5, "{} failed: {point:?}", first.totals.failed);
        let debug = |outcome: &pointsman::lab::experiment::Outcome| format!("{outcome:?}"); // NaN is equal to nothing, itself included
        assert_eq!(
            debug(&first),
            debug(&run_point(&point, &registry(), Path::new("."), 5).unwrap()),
            "the same seed, the same run"
        );
        assert_ne!(debug(&first), debug(&run_point(&point, &registry(), Path::new("."), 6).unwrap()));
    }
}

#[test]
fn what_can_not_be_is_refused_with_its_key() {
    for (change, says) in [
        (Point { load: Some(1.2), ..Point::default() }, "allow_unstable"),
        (Point { size: "pareto[alpha=0.5]".into(), ..Point::default() }, "size: 'pareto[alpha=0.5]': alpha must be above 1"),
        (Point { placement: "leastlod".into(), ..Point::default() }, "leastload"),
        (Point { speeds: "fast".into(), ..Point::default() }, "speeds"),
        (Point { loss: 1.0, ..Point::default() }, "loss must be"),
        (Point { placement: "~best".into(), ..Point::default() }, "~srpt"),
        (Point { workload: pointsman::lab::experiment::Workload::Graphs, ..Point::default() }, "needs graph"),
        (
            Point {
                workload: pointsman::lab::experiment::Workload::Graphs,
                graph: vec!["intree[degree=0,depth=3]".into()],
                ..Point::default()
            },
            "has no task",
        ),
        (
            Point { workload: pointsman::lab::experiment::Workload::Trace, trace: Some("none.swf".into()), ..Point::default() },
            "none.swf",
        ),
    ] {
        let error = format!("{:#}", run_point(&change, &registry(), Path::new("."), 1).unwrap_err());
        assert!(error.contains(says), "{says}: {error}");
    }
    // Unstable on purpose is allowed.
    let point = Point { load: Some(1.5), allow_unstable: true, tasks: 1000, ..Point::default() };
    assert!(run_point(&point, &registry(), Path::new("."), 1).is_ok());
}
