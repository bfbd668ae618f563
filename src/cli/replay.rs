//! `pointsman lab replay`: a recorded run beside what its own and other policies make of it. It compares only where its own replay comes near what
//! happened, and says why not otherwise.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use comfy_table::{CellAlignment, Table, presets};
use pointsman_policies::{Axis, Registry};

use super::failed;
use crate::config::Resolved;
use crate::lab::experiment::Point;
use crate::lab::measure::Measures;
use crate::lab::replay::{Recording, Replay, hwm_of, point_of};
use crate::stats::Estimate;

/// Options of `pointsman lab replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The SQLite file of a controller's task records (--sqlitedb).
    records: PathBuf,
    /// Another placement to try; any number of them.
    #[arg(long, visible_alias = "scheme")]
    placement: Vec<String>,
    /// The order for those; as it was unless given.
    #[arg(long)]
    order: Option<String>,
    /// The limit of tasks in flight for those; as it was unless given.
    #[arg(long)]
    hwm: Option<u32>,
    /// Rebalance policy for those; as it was unless given.
    #[arg(long)]
    rebalance: Option<String>,
    /// The first seed of what policies draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds policies are replayed under that draw anything; others are replayed once.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    seeds: u32,
    /// How far the replay of what ran may be from what happened, in per cent of mean response and makespan; beyond that nothing is compared.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    tolerance: f64,
    /// Write the run as a workflow, in WfFormat.
    #[arg(long)]
    wfformat: Option<PathBuf>,
}

/// Replays a recording. Success means that the replay came near enough to what happened to be believed.
pub(super) fn run(options: &Options, registry: &Registry) -> ExitCode {
    match replay(options, registry) {
        Ok((text, None)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok((text, Some(reason))) => {
            println!("{text}");
            failed(&anyhow::anyhow!(reason))
        }
        Err(error) => failed(&error),
    }
}

/// What there is to say, and why nothing is compared if that is so.
fn replay(options: &Options, registry: &Registry) -> anyhow::Result<(String, Option<String>)> {
    if !(options.tolerance > 0.0 && options.tolerance.is_finite()) {
        bail!("--tolerance is per cent, above 0: not {}", options.tolerance);
    }
    let recording = Recording::read(&options.records)?;
    if let Some(to) = &options.wfformat {
        write_workflow(&recording, &options.records, to)?;
    }
    let segments = segments_of(&recording)?;
    let ran: Vec<Resolved> = segments.iter().map(|(_, point)| point.policies(registry)).collect::<anyhow::Result<_>>()?;
    let others = others(options, &segments)?;
    let tried: Vec<Resolved> = others.iter().map(|point| point.policies(registry)).collect::<anyhow::Result<_>>()?;
    let replay = Replay::of(&recording, hwm_of(&ran[recording.longest_segment()]));
    let seeds = || (0..u64::from(options.seeds)).map(|n| options.seed.wrapping_add(n));
    let own = replay.play_seeds(&segments, registry, seeds())?;
    let real = recording.real();
    let mut rows = Rows::new();
    rows.add("as it was", figures(&real).map(|value| format!("{value:.4}")));
    rows.add_runs("replayed", &own);
    let error = errors(&real, &own);
    rows.add("error, %", error.map(|error| format!("{:+.1}", error * 100.0)));
    let reason = match &replay.loops.unclear {
        Some(why) => Some(format!("nothing is compared: other policies would have been sent other tasks, as {why}")),
        None => doubt(&replay, &real, &own, options.tolerance),
    };
    let mut legend = format!("replayed: {}", in_turn(&segments, &ran));
    if reason.is_none() {
        for (n, (point, policies)) in others.iter().zip(&tried).enumerate() {
            rows.add_runs(&format!("[{}]", n + 1), &replay.play_seeds(&[(0, point.clone())], registry, seeds())?);
            let _ = write!(legend, "\nwould have been [{}]: {}", n + 1, what_differs(&ran, policies));
        }
    }
    Ok((format!("{}\n{}\n{legend}", assumptions(&replay), rows.0), reason))
}

fn write_workflow(recording: &Recording, records: &Path, to: &Path) -> anyhow::Result<()> {
    let name = records.file_stem().and_then(|name| name.to_str()).unwrap_or("run");
    let text = serde_json::to_string_pretty(&recording.to_dag()?.to_wfformat(name))?;
    std::fs::write(to, text).with_context(|| to.display().to_string())
}

/// The policies that ran; the defaults where records do not say.
fn segments_of(recording: &Recording) -> anyhow::Result<Vec<(u64, Point)>> {
    if recording.segments.is_empty() {
        return Ok(vec![(0, Point::default())]);
    }
    recording.segments.iter().map(|segment| Ok((segment.from_ns, point_of(&segment.policies)?))).collect()
}

/// The points to try: with each placement, or with the recorded one if only something else is changed. What is not given is as it was, if that was one
/// thing.
fn others(options: &Options, segments: &[(u64, Point)]) -> anyhow::Result<Vec<Point>> {
    if options.placement.is_empty() && options.order.is_none() && options.hwm.is_none() && options.rebalance.is_none() {
        return Ok(Vec::new());
    }
    let as_it_was = |option: &str, of: fn(&Point) -> &String| {
        let first = of(&segments[0].1);
        match segments.iter().map(|(_, point)| of(point)).find(|other| *other != first) {
            None => Ok(first.clone()),
            Some(other) => bail!("it was {first} first and {other} later: say which to try, with {option}"),
        }
    };
    let placements = match &options.placement[..] {
        [] => vec![as_it_was("--placement", |point| &point.placement)?],
        given => given.to_vec(),
    };
    let order = options.order.clone().map_or_else(|| as_it_was("--order", |point| &point.order), Ok)?;
    let rebalance = options.rebalance.clone().map_or_else(|| as_it_was("--rebalance", |point| &point.rebalance), Ok)?;
    let admission = match options.hwm {
        Some(_) => None,
        None if segments[0].1.admission.is_none() => None,
        None => Some(as_it_was("--hwm", |point| point.admission.as_ref().unwrap_or(&point.order))?),
    };
    let point = |placement| Point {
        placement,
        order: order.clone(),
        admission: admission.clone(),
        hwm: options.hwm,
        rebalance: rebalance.clone(),
        ..Point::default()
    };
    Ok(placements.into_iter().map(point).collect())
}

/// Figures of a run, in the order of columns.
fn figures(measures: &Measures) -> [f64; 6] {
    let response = measures.response_s;
    [response.mean, response.p50, response.p99, response.max, measures.wait_s.mean, measures.makespan_s]
}

fn estimate(runs: &[Measures], at: usize) -> Estimate {
    Estimate::of(&runs.iter().map(|run| figures(run)[at]).collect::<Vec<f64>>())
}

fn errors(real: &Measures, own: &[Measures]) -> [f64; 6] {
    let real = figures(real);
    std::array::from_fn(|at| estimate(own, at).mean / real[at].max(1e-12) - 1.0)
}

/// Why the replay is not to be believed, unless it is.
fn doubt(replay: &Replay<'_>, real: &Measures, own: &[Measures], tolerance: f64) -> Option<String> {
    let error = errors(real, own);
    let is_off = |at: usize| {
        let happened = figures(real)[at];
        let within = |least: f64, most: f64| (least..=most).contains(&happened);
        let draws = own.iter().map(|run| figures(run)[at]);
        // What happened is one draw of several that policies could have made.
        let is_one_of_them =
            own.len() > 1 && within(draws.clone().fold(f64::INFINITY, f64::min), draws.fold(f64::NEG_INFINITY, f64::max));
        error[at].abs() * 100.0 > tolerance && !is_one_of_them
    };
    let off: Vec<String> = [(0, "mean response"), (5, "makespan")]
        .into_iter()
        .filter(|(at, _)| is_off(*at))
        .map(|(at, name)| format!("{name} by {:+.1} %", error[at] * 100.0))
        .collect();
    (!off.is_empty()).then(|| {
        let mut why = suspects(replay);
        if why.is_empty() {
            why.push("engines may have been of different speed, or busy with other work".into());
        }
        format!(
            "nothing is compared: the replay of what ran is off in {}, more than {tolerance} %. Perhaps: {}. --tolerance says how much is bearable",
            off.join(" and "),
            why.join("; ")
        )
    })
}

/// What in the records a replay does not have.
fn suspects(replay: &Replay<'_>) -> Vec<String> {
    let recording = replay.recording;
    let count = recording.tasks.len();
    let percent = |part: usize| 100.0 * part as f64 / count as f64;
    let mut found = Vec::new();
    if recording.left_out * 100 > count {
        found.push(format!("{} tasks that failed or never ended took time too", recording.left_out));
    }
    if recording.bound > 0 {
        found.push(format!(
            "{:.0} % of the tasks were bound to some engines, and are not in the replay",
            percent(recording.bound)
        ));
    }
    if recording.segments.is_empty() {
        found.push("the records do not say which policies ran: the defaults are assumed".into());
    }
    let overlaps = replay.overlaps();
    if overlaps * 50 > count {
        found.push(format!("{:.0} % of the tasks began before the one before on the same engine had ended", percent(overlaps)));
    }
    let (median, mean) = replay.overheads.gap_s;
    if mean > 2.0 * median && mean > 1e-3 {
        found.push(format!(
            "engines stood by {:.2} ms between tasks on average, {:.2} ms as a rule: the machine was busy with other work",
            mean * 1e3,
            median * 1e3
        ));
    }
    found
}

/// What was read and what the replay takes for granted.
fn assumptions(replay: &Replay<'_>) -> String {
    let recording = replay.recording;
    let (clients, functions) = recording.clients_and_functions();
    let many = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (joined, left) = (
        replay.spans.iter().filter(|span| span.joins_ns > 0).count(),
        replay.spans.iter().filter(|span| span.leaves_ns.is_some()).count(),
    );
    let engines = match (joined, left) {
        (0, 0) => "alike, all there from start to end".to_owned(),
        _ => format!("alike; {joined} joined later and {left} left earlier, by their first and last tasks"),
    };
    let overheads = &replay.overheads;
    let (median, mean) = overheads.gap_s;
    let mut text = format!(
        "{} of {}, calling {}, on {}, {} left out\n\
         tasks    {}\n\
         engines  {engines}\n\
         beside   {:.2} ms one way to an engine, {:.2} ms to the client and back, {:.2} ms of an engine a task;\n         \
         between tasks {:.2} ms as a rule and {:.2} ms on average, to each task its own or one of these",
        many(recording.tasks.len(), "task"),
        many(clients, "client"),
        many(functions, "function"),
        many(recording.engines, "engine"),
        recording.left_out,
        replay.loops.describe(),
        overheads.link_s * 1e3,
        overheads.client_s * 1e3,
        overheads.engine_s * 1e3,
        median * 1e3,
        mean * 1e3,
    );
    if recording.bound > 0 {
        let _ = write!(text, "\nbound    {} to some engines; free in the replay", many(recording.bound, "task"));
    }
    if recording.segments.is_empty() {
        text.push_str("\npolicies not in the records: the defaults are assumed");
    }
    text
}

/// The policies that ran, with the moments of their changes.
fn in_turn(segments: &[(u64, Point)], ran: &[Resolved]) -> String {
    let mut text = ran[0].to_string();
    for ((from_ns, _), policies) in segments.iter().zip(ran).skip(1) {
        let _ = write!(text, "; from {:.3} s on {policies}", *from_ns as f64 / 1e9);
    }
    text
}

/// The policies on the axes on which they differ from those that ran.
fn what_differs(ran: &[Resolved], policies: &Resolved) -> String {
    let differs = |axis: &Axis| ran.iter().any(|ran| ran.on(*axis) != policies.on(*axis));
    let words: Vec<String> =
        Axis::ALL.into_iter().filter(differs).map(|axis| format!("{} {}", axis.name(), policies.on(axis))).collect();
    if words.is_empty() { "the same policies".into() } else { words.join(", ") }
}

/// The table: short names in the first column, so that it fits a terminal.
struct Rows(Table);

impl Rows {
    fn new() -> Rows {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["seconds", "response:\nmean", "\np50", "\np99", "\nlongest", "wait:\nmean", "\nmakespan"]);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        Rows(table)
    }

    fn add(&mut self, name: &str, values: [String; 6]) {
        self.0.add_row(std::iter::once(name.to_owned()).chain(values));
    }

    /// Means, and half of their intervals of 95 % below if there are several runs.
    fn add_runs(&mut self, name: &str, runs: &[Measures]) {
        let all: [Estimate; 6] = std::array::from_fn(|at| estimate(runs, at));
        self.add(name, all.map(|estimate| format!("{:.4}", estimate.mean)));
        if runs.len() > 1 {
            let half = all.map(|estimate| format!("±{:.4}", estimate.half_width.unwrap_or_default()));
            self.add(&format!("{} seeds", runs.len()), half);
        }
    }
}
