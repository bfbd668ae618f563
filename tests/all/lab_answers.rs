//! What the lab says is so: a label names what ran, a key that has no effect is refused, a time of nothing is nothing, and the most is the most.

use std::path::Path;

use pointsman::lab::experiment::{Experiment, Outcome, run_point};

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
