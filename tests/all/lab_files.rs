//! No file and no spelling that a user gives to the lab can panic it: what starts out right and has been changed at random is read, or refused
//! with a reason. What is read can be used.

use std::path::Path;
use std::time::Duration;

use pointsman::lab::draw::Dist;
use pointsman::lab::experiment::Experiment;
use pointsman::lab::graph::{Dag, Rule, Shape, list_schedule};
use pointsman::lab::workload::{ArrivalKind, Columns, Estimate, Playback, read_csv, read_swf};
use pointsman::lab::world::Source as _;
use pointsman::policies::Rng;
use proptest::prelude::*;

/// What files and spellings are made of, and what does not belong there.
const PIECES: [&str; 34] = [
    "0",
    "-1",
    "1e308",
    "1e-320",
    "nan",
    "inf",
    "9223372036854775808",
    "0.5",
    "\"\"",
    "\"a\"",
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "=",
    "\n",
    " ",
    ";",
    "~srpt",
    "leastload",
    "graphs",
    "pareto[alpha=1.5]",
    "layered[tasks=9,width=3]",
    "[factors]",
    "load = [0.5]",
    "tasks = 3",
    "\u{e9}",
    "\u{0}",
    "parents",
    "runtimeInSeconds",
];

/// A text with a few places overwritten, cut out, doubled, or interrupted by a piece.
fn changed(right: &'static str) -> impl Strategy<Value = String> {
    let change = (0..5_u8, any::<prop::sample::Index>(), 0..12_usize, prop::sample::select(PIECES.to_vec()));
    prop::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut text: Vec<char> = right.chars().collect();
        for (how, at, length, piece) in changes {
            let from = at.index(text.len() + 1);
            let until = (from + length).min(text.len());
            let doubled: Vec<char> = text[from..until].to_vec();
            let piece = piece.chars();
            match how {
                0 => drop(text.drain(from..until)),
                1 => drop(text.splice(from..until, piece)),
                2 => drop(text.splice(from..from, piece)),
                3 => drop(text.splice(from..from, doubled)),
                _ => text.truncate(from),
            }
        }
        text.into_iter().collect()
    })
}

const EXPERIMENT: &str = r#"
name = "x"
seed = 3
replications = 2
precision = 0.1
metrics = ["response_mean_s", "jain"]
[base]
engines = 4
tasks = 100
size = "hyperexp[scv=4]"
arrivals = "poisson"
latency_s = 0.01
speeds = "equal"
client_latency_s = 0.001
[factors]
placement = ["leastload", "choices[d=2]"]
order = ["fifo", "fair"]
hwm = [0, 1]
load = [0.5, 0.9]
"#;

const WORKFLOW: &str = r#"{"name": "w", "schemaVersion": "1.5", "workflow": {"specification": {"tasks": [
{"name": "a", "id": "a_1", "parents": [], "children": ["b_2"], "inputFiles": [], "outputFiles": ["f"]},
{"name": "b", "id": "b_2", "parents": ["a_1"], "children": [], "inputFiles": ["f"], "outputFiles": []}],
"files": [{"id": "f", "sizeInBytes": 10}]},
"execution": {"tasks": [{"id": "a_1", "runtimeInSeconds": 1.5}, {"id": "b_2", "runtimeInSeconds": 2}]}}}"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn experiments(text in changed(EXPERIMENT)) {
        let Ok(experiment) = Experiment::parse(&text, Path::new(".")) else { return Ok(()) };
        prop_assert!(Experiment::parse(&experiment.to_toml(), Path::new(".")).is_ok(), "it can not read what it wrote:\n{text}");
        for (at, point) in experiment.points().iter().enumerate().take(20) {
            let _ = (point.check_stable(), point.kinds(), point.estimate(), experiment.describe(at));
            // What would take memory for a world of a billion engines is another question.
            if point.engines <= 1000 {
                let _ = point.setup(1);
            }
        }
    }

    #[test]
    fn workflows(text in changed(WORKFLOW)) {
        if let Ok(dag) = Dag::from_wfformat(&text) && !dag.is_empty() {
            let makespan_s = list_schedule(&dag, 2, Rule::CriticalPath);
            prop_assert!(makespan_s >= dag.lower_bound_s(&[1.0, 1.0]) * (1.0 - 1e-9), "{text}");
        }
    }

    #[test]
    fn traces(swf in changed("; head\n1 100 5 20 4 -1 -1 4 -1 -1 1 7 -1 3\n2 90.5 0 1 1\n"),
              csv in changed("when,tokens,who\n2023-11-16 18:15:46.5000000,10,a\n2023-11-16T18:15:47Z,4,b\n12.5,1,\n")) {
        let columns = Columns { at: "when".into(), run: "tokens".into(), client: Some("who".into()), class: None, unit_s: Some(0.03) };
        for recorded in [read_swf(swf.as_bytes()), read_csv(csv.as_bytes(), &columns)].into_iter().flatten() {
            let mut playback = Playback::new(recorded.into(), 10, 1.0, Estimate::Exact, 1);
            let mut last = 0;
            while let Some(at) = playback.next_at() {
                prop_assert!(at >= last);
                last = at;
                playback.take();
            }
        }
    }

    #[test]
    fn spellings(dist in changed("boundedpareto[alpha=1.5,low=0.5,high=10]"), arrivals in changed("mmpp[ratio=9,share=0.1,period=100]"),
                 shape in changed("layered[tasks=12,width=3,density=0.5]")) {
        if let Ok(dist) = dist.parse::<Dist>() {
            let mut rng = Rng::new(1);
            prop_assert!(dist.draw(&mut rng) >= 0.0 && dist.mean() >= 0.0, "{dist:?}");
            prop_assert!(Duration::try_from_secs_f64(dist.mean()).is_ok() || !dist.mean().is_finite());
        }
        let _ = arrivals.parse::<ArrivalKind>();
        if let Ok(shape) = shape.parse::<Shape>() {
            let _ = shape.build(|| 1.0, 0.0, &mut Rng::new(1));
        }
    }
}
