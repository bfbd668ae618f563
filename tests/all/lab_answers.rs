//! What the lab says is so: a label names what ran, a key that has no effect is refused, a time of nothing is nothing, and the most is the most.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use pointsman::lab::experiment::{
    Experiment, How, Outcome, Point, Prepared, Program, Results, Store, read_results, run_experiment, run_point,
    start_up_warnings,
};
use pointsman::lab::{summary, theory};
use pointsman::policies::{Cx, EngineIx, Named, Pick, PolicyError, Request, Scheme};

fn registry() -> pointsman::policies::Registry {
    pointsman::builtin()
}

/// An experiment of these keys.
fn experiment(text: &str, folder: &Path) -> Result<Experiment, String> {
    Experiment::parse(text, folder).map_err(|error| error.to_string())
}

/// The only point of an experiment of these base keys, run once.
fn run(base: &str, folder: &Path) -> Outcome {
    let text = format!("name = \"x\"\nreferences = false\n[base]\nwarmup = 0\n{base}");
    let experiment = experiment(&text, folder).unwrap();
    run_point(&experiment.points()[0], &registry(), folder, 3).unwrap()
}

/// Jobs of ten seconds in three bursts, ten seconds of work by a thousand seconds.
fn trace(folder: &Path) {
    let lines: String = (0..300).map(|n| format!("{n} {} 0 10 1\n", n / 100 * 10_000 + n % 100)).collect();
    std::fs::write(folder.join("bursts.swf"), lines).unwrap();
}

#[test]
fn a_trace_comes_as_its_label_says() {
    let folder = tempfile::tempdir().unwrap();
    trace(folder.path());
    let wait = |arrivals: &str| {
        let base = format!("workload = \"trace\"\ntrace = \"bursts.swf\"\nengines = 4\nplacement = \"leastload\"\n{arrivals}");
        run(&base, folder.path()).measures.wait_s.mean
    };
    let regular = wait("arrivals = \"deterministic\"\nload = 0.8");
    assert!(regular < 1e-6, "ten seconds each, one each 3.125 seconds, four engines: nobody waits, but {regular}");
    let batch = wait("arrivals = \"batch\"");
    assert!((batch - 370.0).abs() < 1.0, "300 tasks at once, 75 rounds of ten seconds: {batch}");
    let (poisson, recorded) = (wait("arrivals = \"poisson\"\nload = 0.8"), wait("arrivals = \"recorded\"\nload = 0.8"));
    assert!(poisson > 1.0 && recorded > 3.0 * poisson, "bursts wait longer than a Poisson stream: {recorded}, {poisson}");
    assert_eq!(wait("load = 0.8"), recorded, "a trace comes as it was recorded unless something else is said");
    let (own, named) = (wait(""), wait("arrivals = \"recorded\""));
    assert_eq!(own, named, "without a load it keeps its pace");
    // A burst of 100 a second apart on four engines that take ten seconds: the nth waits for 1.5 n seconds.
    assert!(own > 60.0 && own < recorded, "{own} at its own pace, {recorded} when faster");
}

#[test]
fn keys_that_have_no_effect_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    trace(folder.path());
    let graph = "workload = \"graphs\"\ngraph = [\"lu[tiles=3]\"]\n";
    let traced = "workload = \"trace\"\ntrace = \"bursts.swf\"\n";
    let cases = [
        ("trace = \"nothere.swf\"".to_owned(), "base.trace", "trace"),
        ("window = 4".to_owned(), "base.window", "closed"),
        ("think = \"exponential\"".to_owned(), "base.think", "closed"),
        ("graph = [\"lu[tiles=3]\"]".to_owned(), "base.graph", "graphs"),
        ("clients = 3".to_owned(), "base.clients", "kinds"),
        ("bandwidth_bytes_per_s = 1e6".to_owned(), "base.bandwidth_bytes_per_s", "graphs"),
        ("repair = \"exponential\"".to_owned(), "base.repair", "lives"),
        ("slow_factor = \"deterministic[mean=0.1]\"".to_owned(), "base.slow_factor", "slow_every"),
        ("resend_s = 1.0".to_owned(), "base.resend_s", "loss"),
        ("retries = 3".to_owned(), "base.retries", "failing"),
        ("arrivals = \"batch\"\nload = 0.5".to_owned(), "base.load", "at once"),
        ("size = \"exponential\"\nkinds = [{ size = \"exponential\" }]".to_owned(), "base.size", "kinds"),
        (format!("{graph}kinds = [{{ size = \"exponential\" }}]"), "base.kinds", "graph"),
        (format!("{graph}load = 0.5"), "base.load", "one graph"),
        (format!("{graph}arrivals = \"poisson\""), "base.arrivals", "one graph"),
        (format!("{graph}window = 2"), "base.window", "closed"),
        (format!("{graph}tasks = 500"), "base.tasks", "graphs"),
        (format!("{traced}size = \"exponential\""), "base.size", "trace"),
        (format!("{traced}kinds = [{{ size = \"exponential\" }}]"), "base.kinds", "trace"),
        ("workload = \"closed\"\nload = 0.5".to_owned(), "base.load", "closed"),
        ("workload = \"closed\"\narrivals = \"batch\"".to_owned(), "base.arrivals", "closed"),
        ("[factors]\nwindow = [1, 2]".to_owned(), "factors.window", "closed"),
        ("[factors]\ncase = [{ name = \"a\", window = 2 }]".to_owned(), "factors.case: window", "closed"),
        ("[factors]\nlod = [0.5]".to_owned(), "factors.lod", "did you mean `load`"),
        ("[factors]\ncase = [{ name = \"a\", egnines = 2 }]".to_owned(), "egnines", "did you mean `engines`"),
        ("lod = 0.5".to_owned(), "base.lod", "did you mean `load`"),
        ("[factors]\nload = [0.5]\ncase = [{ name = \"a\", load = 0.6 }]".to_owned(), "load", "factors.case and factors.load"),
    ];
    for (base, key, why) in cases {
        let refused = experiment(&format!("name = \"x\"\n[base]\n{base}\n"), folder.path());
        let error = refused.err().unwrap_or_else(|| panic!("taken: {base}"));
        assert!(error.contains(key) && error.contains(why), "{base}: {error}");
    }
    // A base is for all points: what some of them use is no mistake.
    let mixed = "name = \"x\"\n[base]\nwindow = 4\n[factors]\nworkload = [\"stream\", \"closed\"]\n";
    let mixed = experiment(mixed, folder.path()).unwrap();
    let windows: Vec<u32> = mixed.points().iter().map(|point| point.window).collect();
    assert_eq!(windows, [1, 4]);
    for name in ["q/../../x", "..", "", "a\\b", ".hidden", "a\u{0}b"] {
        let error = experiment(&format!("name = {name:?}\n").replace("\\0", "\\u0000"), folder.path()).unwrap_err();
        assert!(error.contains("name"), "{name:?}: {error}");
    }
}

#[test]
fn what_takes_no_time_is_known_to_take_none() {
    // Two tasks of nothing behind two that are longer than the mean is, in the order of the file.
    let task = |name: &str, seconds: f64| {
        (
            format!(r#"{{"name":"{name}","id":"{name}","parents":[],"children":[],"inputFiles":[],"outputFiles":[]}}"#),
            format!(r#"{{"id":"{name}","runtimeInSeconds":{seconds}}}"#),
        )
    };
    let (specs, runs): (Vec<String>, Vec<String>) = [("a", 9.0), ("b", 4.0), ("c", 1.0), ("d", 0.0), ("e", 0.0)]
        .map(|(name, seconds)| task(name, seconds))
        .into_iter()
        .unzip();
    let text = format!(
        r#"{{"name":"w","schemaVersion":"1.5","workflow":{{"specification":{{"tasks":[{}],"files":[]}},"execution":{{"tasks":[{}]}}}}}}"#,
        specs.join(","),
        runs.join(",")
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("zeros.json"), text).unwrap();
    let base =
        "workload = \"graphs\"\ngraph = [\"zeros.json\"]\nengines = 1\nhwm = 1\norder = \"shortest\"\nestimate = \"exact\"";
    let outcome = run(base, folder.path());
    let mut ends: Vec<f64> = outcome.gantt.iter().map(|bar| bar.2).collect();
    ends.sort_by(f64::total_cmp);
    assert_eq!(ends, [0.0, 0.0, 1.0, 5.0, 14.0], "those that take nothing first");
    let (hints, wrong) = pointsman::policies::Hints::parse("#cost=0");
    assert_eq!((hints.cost_s, wrong), (Some(0.0), None));
    assert!(pointsman::policies::Hints::parse("#cost=-1").1.is_some());
}

#[test]
fn the_most_is_the_most_and_few_values_have_exact_percentiles() {
    let folder = tempfile::tempdir().unwrap();
    let base = "engines = 1\nsize = \"deterministic[mean=39171.564]\"\ntasks = 1\narrivals = \"batch\"";
    let measures = run(base, folder.path()).measures;
    let response = measures.response_s;
    assert_eq!((response.max, response.p50, response.p99), (measures.makespan_s, measures.makespan_s, measures.makespan_s));
    // Three at once, one after the other.
    let measures = run(&base.replace("tasks = 1", "tasks = 3"), folder.path()).measures;
    let near = |value: f64, known: f64| assert!((value / known - 1.0).abs() < 1e-9, "{value}, not {known}");
    near(measures.response_s.p50, 2.0 * 39171.564);
    near(measures.slowdown.max, 3.0);
    near(measures.wait_s.max, 2.0 * 39171.564);
    // Of many the percentiles are those of a histogram, and the most is still the most.
    let many = run(&base.replace("tasks = 1", "tasks = 20000"), folder.path()).measures;
    near(many.response_s.max, many.makespan_s);
}

/// Runs an experiment, and reads what it has left.
fn results(text: &str, how: How<'_>) -> Results {
    let (folder, registry) = (tempfile::tempdir().unwrap(), registry());
    let experiment = Experiment::parse(text, Path::new(".")).unwrap();
    let prepared = Prepared::new(&experiment, &registry).unwrap();
    let mut store = Store::open(folder.path(), &prepared, &Program::of("1", &b"p"[..]).unwrap(), "").unwrap();
    run_experiment(&prepared, &mut store, how, &AtomicBool::new(false), &|_| ()).unwrap();
    read_results(folder.path()).unwrap()
}

#[test]
fn a_run_that_is_too_short_for_its_start_is_said_to_be() {
    let told = |base: &str, seed: u64| {
        let text = format!("name = \"x\"\nseed = {seed}\nreplications = 2\nreferences = false\n[base]\nengines = 1\n{base}");
        let results = results(&text, How::Simulated);
        start_up_warnings(&results.experiment, &results.details)
    };
    // M/M/1 of which the mean over so few tasks is a tenth too low.
    let short = (1..=10).filter(|&seed| !told("load = 0.95\ntasks = 2000", seed).is_empty()).count();
    assert!(short >= 9, "{short} of 10");
    let warning = told("load = 0.95\ntasks = 2000", 1).remove(0);
    assert!(warning.contains("warm-up") && warning.contains("Raise tasks"), "{warning}");
    for long in ["load = 0.5\ntasks = 20000", "load = 0.8\ntasks = 100000", "load = 0.7\ntasks = 50000\nsize = \"deterministic\""]
    {
        assert_eq!(told(long, 1), Vec::<String>::new(), "{long}");
    }
    // What comes at once never settles, and need not.
    assert_eq!(told("arrivals = \"batch\"\ntasks = 500", 1), Vec::<String>::new());
}

/// A scheme from elsewhere, which says nothing of whether it leaves engines idle: it does.
#[derive(Default)]
struct Shy;

impl Scheme for Shy {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let open = cx.roster.open_engines().find(|&engine: &EngineIx| request.candidates.contains(engine));
        match open {
            Some(engine) if cx.rng.unit() < 0.5 => Pick::Engine(engine),
            _ => Pick::Defer { until: None },
        }
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl Named for Shy {
    const NAME: &'static str = "shy";
    const SUMMARY: &'static str = "sometimes none";
    type Config = Nothing;
    fn build(_: Nothing) -> Result<Self, PolicyError> {
        Ok(Shy)
    }
}

#[test]
fn theory_speaks_of_schemes_that_say_that_it_may() {
    let mut registry = registry();
    registry.register::<Shy>().unwrap();
    let formula = |placement: &str, engines, hwm| {
        let point = Point { placement: placement.into(), engines, hwm: Some(hwm), load: Some(0.7), ..Point::default() };
        theory::mean_response_s(&point, &registry).map(|(_, name)| name)
    };
    assert_eq!((formula("shy", 4, 1), formula("shy", 1, 1), formula("shy", 1, 0)), (None, None, None));
    // By what they say and not by their names: a task may wait for a place here.
    assert_eq!((formula("sed[slow_server=true]", 4, 1), formula("sed", 4, 1)), (None, Some("M/M/n")));
    assert_eq!((formula("sita[strict=true]", 4, 1), formula("fillfirst", 4, 1)), (None, Some("M/M/n")));
    assert_eq!(formula("leastload", 1, 1), Some("M/G/1"));
}

#[test]
fn a_closed_loop_has_all_kinds_and_a_label_keeps_its_cost() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = "workload = \"closed\"\nclients = 2\ntasks = 4000\nengines = 2\nkinds = [{ weight = 3, size = \"deterministic\", class = 1 }, { size = \"deterministic[mean=9]\", class = 2 }]";
    let classes = run(kinds, folder.path()).measures;
    assert_eq!(classes.by_class.iter().map(|class| class.0).collect::<Vec<_>>(), [1, 2]);
    assert!((classes.response_s.mean / 3.0 - 1.0).abs() < 0.1, "three of one second to one of nine: {}", classes.response_s.mean);
    // The label says which is short, and shortest hears it: all come at once to one engine.
    let batch = "arrivals = \"batch\"\ntasks = 200\nengines = 1\nhwm = 1\norder = \"shortest\"\nkinds = [{ size = \"deterministic[mean=9]\", label = \"#cost=9\" }, { size = \"deterministic\", label = \"#cost=1\" }]";
    let told = run(batch, folder.path()).measures.response_s.mean;
    let untold = run(&batch.replace(", label = \"#cost=9\"", "").replace(", label = \"#cost=1\"", ""), folder.path())
        .measures
        .response_s
        .mean;
    assert!(told < 0.75 * untold, "{told} when told, {untold} when not");
}

#[test]
fn live_results_of_a_busy_machine_are_marked() {
    let text =
        "name = \"x\"\nreplications = 2\n[base]\nengines = 1\ntasks = 100\n[factors]\nplacement = [\"leastload\", \"lru\"]";
    let with = |stretch: f64| {
        let live = move |point: &Point, seed: u64| {
            let mut outcome = run_point(point, &registry(), Path::new("."), seed)?;
            outcome.measures.stretch = Some(if point.placement == "lru" { stretch } else { 1.001 });
            Ok(outcome)
        };
        let results = results(text, How::OneByOne(&live));
        assert_eq!(results.rows.len(), 4, "references are no programs that could run");
        summary::stretched(&results)
    };
    assert_eq!(with(1.01), None);
    let marked = with(1.07).unwrap();
    assert!(marked.contains("1 points") && marked.contains("lru") && marked.contains("+7 %"), "{marked}");
}

#[test]
fn every_example_can_be_run() {
    let registry = registry();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lab/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let experiment = Experiment::parse(&text, Path::new(".")).unwrap();
        let prepared = Prepared::new(&experiment, &registry).unwrap();
        assert!(prepared.cost(0).tasks > 0);
        seen += 1;
    }
    assert!(seen >= 6);
    // And what the page about the lab shows.
    let page = include_str!("../../docs/lab.md");
    let shown: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(shown.len() >= 2);
    for text in shown {
        let experiment = Experiment::parse(text, Path::new(".")).unwrap();
        Prepared::new(&experiment, &registry).unwrap();
    }
}

/// What the program says when it is told to run an experiment.
fn lab(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("lab").args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.success(), out, err)
}

#[test]
fn what_takes_a_day_is_not_begun_by_mistake_and_what_is_there_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, _, said) = lab(folder.path(), &["run", "schemes", "--live"]);
    assert!(
        !begun && said.contains("300 live runs") && said.contains("it would take about 30 h") && said.contains("--yes"),
        "{said}"
    );
    let text = "name = \"small\"\nreplications = 3\nreferences = false\n[base]\nengines = 2\ntasks = 300\n[factors]\nload = [0.5, 0.7]\n";
    std::fs::write(folder.path().join("small.toml"), text).unwrap();
    let (ran, out, err) = lab(folder.path(), &["run", "small.toml"]);
    assert!(ran && out.contains("6 of 6 runs made, 0 were there") && err.contains("6 runs of 0.0 M tasks: "), "{out}{err}");
    assert!(out.contains("mean response, s") && out.contains("M/M/n"), "a table: {out}");
    std::fs::write(folder.path().join("small.toml"), text.replace("[0.5, 0.7]", "[0.5, 0.6, 0.7]")).unwrap();
    let (ran, out, _) = lab(folder.path(), &["run", "small.toml"]);
    assert!(ran && out.contains("3 of 9 runs made, 6 were there"), "{out}");
    let (ran, out, _) = lab(folder.path(), &["report", "results/small"]);
    assert!(ran && out.contains("report.html"), "{out}");
    // Results of another build: as if this one had been another.
    let runs = folder.path().join("results/small/runs.csv");
    let others = std::fs::read_to_string(&runs).unwrap().replace(concat!(env!("CARGO_PKG_VERSION"), "+"), "0.0.1+");
    std::fs::write(&runs, others).unwrap();
    let (ran, out, err) = lab(folder.path(), &["run", "small.toml"]);
    assert!(
        ran && out.contains("9 of 9 runs made, 0 were there") && err.contains("9 results in") && err.contains("another build"),
        "{out}{err}"
    );
    for (arguments, says) in [
        (&["run", "small.toml", "--threads", "0"][..], "1 to 4096"),
        (&["run", "small.toml", "--live", "--unit-s", "0"], "--unit-s must be above 0"),
        (&["run", "speeds", "--live"], "speeds"),
    ] {
        let (ran, _, err) = lab(folder.path(), arguments);
        assert!(!ran && err.contains(says), "{arguments:?}: {err}");
    }
}
