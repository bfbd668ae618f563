//! The keys of a point: which there are, and which of them have an effect on a given point. A key without one is a mistake: results would carry a
//! label that says nothing.

use super::point::{Pace, Point, Workload};
use crate::lab::workload::ArrivalKind;

/// Every key of a point, in the order of the documentation.
pub const KEYS: [&str; 40] = [
    "placement",
    "order",
    "admission",
    "rebalance",
    "hwm",
    "workload",
    "engines",
    "speeds",
    "dispatchers",
    "report_every_s",
    "load",
    "arrivals",
    "size",
    "kinds",
    "estimate",
    "clients",
    "window",
    "think",
    "graph",
    "graphs",
    "edge_bytes",
    "trace",
    "columns",
    "latency_s",
    "jitter",
    "loss",
    "resend_s",
    "client_latency_s",
    "bandwidth_bytes_per_s",
    "lives",
    "repair",
    "detect_s",
    "slow_every",
    "slow_lasts",
    "slow_factor",
    "failing",
    "retries",
    "tasks",
    "warmup",
    "allow_unstable",
];

/// The key most like a word that is none.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    // Typing errors: letters that are wrong, missing, or have changed places; about one in three at most.
    let errors = |key: &&str| strsim::osa_distance(word, key);
    KEYS.into_iter().min_by_key(errors).filter(|key| errors(key) <= 1 + key.len() / 4)
}

/// Why a key has no effect on a point; nothing if it has one.
pub(super) fn why_needless(point: &Point, key: &str) -> Option<&'static str> {
    let (workload, one_graph) = (point.workload, point.graphs == 1);
    let of_shapes = point.graph.iter().any(|name| !name.ends_with(".json"));
    let at_once = matches!(point.pace(), Ok(Pace::Drawn(ArrivalKind::Batch)));
    const ONE_GRAPH: &str = "one graph comes at once; graphs = N says how many come";
    const TRACED: &str = "those of a trace are its own";
    const ONLY_GRAPHS: &str = "only for workload = \"graphs\"";
    match (key, workload) {
        ("load", Workload::Closed) => Some("a closed loop brings as much work as its clients keep under way"),
        ("load", Workload::Graphs) if one_graph => Some(ONE_GRAPH),
        ("load", _) if at_once => Some("all come at once"),
        ("arrivals", Workload::Closed) => Some("tasks of a closed loop come as earlier ones end"),
        ("arrivals", Workload::Graphs) if one_graph => Some(ONE_GRAPH),
        ("size", Workload::Stream | Workload::Closed) if !point.kinds.is_empty() => Some("kinds have sizes of their own"),
        ("size" | "kinds" | "clients", Workload::Trace) => Some(TRACED),
        ("size" | "edge_bytes", Workload::Graphs) if !of_shapes => Some("those of a graph in a file are its own"),
        ("kinds", Workload::Graphs) => Some("tasks of a graph are of one kind"),
        ("clients", Workload::Stream) => Some("the clients of a stream are those of its kinds: kinds = [{ client = 1, ... }]"),
        ("clients", Workload::Graphs) if one_graph => Some("one graph is of one client"),
        ("window" | "think", Workload::Stream | Workload::Graphs | Workload::Trace) => Some("only for workload = \"closed\""),
        ("graph" | "graphs" | "edge_bytes", Workload::Stream | Workload::Closed | Workload::Trace) => Some(ONLY_GRAPHS),
        ("bandwidth_bytes_per_s", Workload::Stream | Workload::Closed | Workload::Trace) => {
            Some("engines fetch results of earlier tasks: only for workload = \"graphs\"")
        }
        ("trace" | "columns", Workload::Stream | Workload::Closed | Workload::Graphs) => Some("only for workload = \"trace\""),
        ("tasks", Workload::Graphs) => Some("graphs bring the tasks that they have; graphs = N says how many come"),
        ("warmup", Workload::Graphs) if one_graph && point.warmup > 0.0 => Some("one graph has no warm-up"),
        ("repair" | "detect_s", _) if point.lives.is_none() => Some("engines live for ever without lives = ..."),
        ("slow_lasts" | "slow_factor", _) if point.slow_every.is_none() => Some("nothing slows engines without slow_every = ..."),
        ("resend_s", _) if point.loss == 0.0 => Some("nothing is lost without loss = ..."),
        ("retries", _) if point.failing == 0.0 && point.lives.is_none() => {
            Some("no run fails without failing = ... or lives = ...")
        }
        _ => None,
    }
}

/// A key that is not as it is by default and has no effect, with the reason.
pub(super) fn needless(point: &Point) -> Option<(String, &'static str)> {
    let [written, default] = [point, &Point::default()].map(|point| serde_json::to_value(point).unwrap_or_default());
    let fields = written.as_object()?;
    let changed = fields.iter().filter(|(key, value)| default.get(key) != Some(value));
    changed.map(|(key, _)| key).find_map(|key| Some((key.clone(), why_needless(point, key)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_point_is_a_key() {
        let point = serde_json::to_value(Point::default()).unwrap();
        let mut fields: Vec<&str> = point.as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys = KEYS.to_vec();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
    }

    #[test]
    fn the_default_has_no_needless_key_and_typing_errors_are_guessed() {
        assert_eq!(needless(&Point::default()), None);
        let (key, why) = needless(&Point { window: 3, ..Point::default() }).unwrap();
        assert_eq!((key.as_str(), why), ("window", "only for workload = \"closed\""));
        assert_eq!((nearest("lod"), nearest("egnines"), nearest("colour")), (Some("load"), Some("engines"), None));
    }

    #[test]
    fn the_documentation_names_every_key_and_no_other() {
        let page = include_str!("../../../docs/lab.md");
        let table: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("| keys |")).skip(2).collect();
        let rows = table.into_iter().take_while(|line| line.starts_with('|'));
        let cells: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
        let mut named: Vec<&str> = cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let mut keys = KEYS.to_vec();
        named.sort_unstable();
        keys.sort_unstable();
        assert_eq!(named, keys);
    }
}
