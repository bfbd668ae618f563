//! What a run took: measured times, and the bounds that no scheduler can beat on them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use pointsman_core::date::Date;
use pointsman_core::peer::Reply;
use pointsman_schedulers::task::graph::Workflow;

/// Times of one run.
#[derive(Debug, Default)]
pub(super) struct Timing {
    pub(super) makespan_s: f64,
    tasks: HashMap<String, Times>,
    names: HashMap<String, String>,
}

#[derive(Debug)]
struct Times {
    submitted: Date,
    after: Vec<String>,
    started: Option<Date>,
    completed: Option<Date>,
    compute_s: f64,
    engine: String,
}

impl Timing {
    pub(super) fn submitted(&mut self, name: &str, id: &str, at: Date, after: &[String]) {
        let times =
            Times { submitted: at, after: after.to_vec(), started: None, completed: None, compute_s: 0.0, engine: String::new() };
        self.tasks.insert(name.to_owned(), times);
        self.names.insert(id.to_owned(), name.to_owned());
    }

    pub(super) fn replied(&mut self, reply: &Reply) -> anyhow::Result<()> {
        let name = self.names.get(&reply.msg_id).context("a reply to nobody's task")?;
        let result = match &reply.outcome {
            Ok(result) => result,
            Err(error) => bail!("{name} failed: {error}"),
        };
        let times = self.tasks.get_mut(name).context("a task without times")?;
        let ns: f64 = std::str::from_utf8(result).ok().and_then(|text| text.parse().ok()).context("a result without a time")?;
        times.compute_s = ns / 1e9;
        times.started = Date::parse(&reply.started);
        times.completed = Date::parse(&reply.completed);
        times.engine.clone_from(&reply.engine);
        Ok(())
    }

    /// From the moment when a task could have started to the moment when it did, in microseconds.
    fn waits_us(&self) -> impl Iterator<Item = u64> + '_ {
        self.tasks.values().filter_map(|times| {
            let ends = times.after.iter().filter_map(|name| self.tasks.get(name)?.completed);
            let ready = ends.chain([times.submitted]).max()?;
            Some(u64::try_from(times.started?.as_unix_us() - ready.as_unix_us()).unwrap_or(0))
        })
    }
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Row {
    scheme: String,
    tasks: usize,
    pub(super) makespan_s: f64,
    bound_s: f64,
    /// Share of tasks and of busy time of each engine, by number.
    shares: BTreeMap<u64, (f64, f64)>,
    wait_us: [u64; 3],
    pub(super) error: f64,
    pub(super) records: usize,
}

impl Row {
    pub(super) fn new(
        scheme: String,
        timing: &Timing,
        graph: &Workflow,
        numbers: &HashMap<String, u64>,
        error: f64,
        records: usize,
    ) -> anyhow::Result<Self> {
        let cost = |name: &str| timing.tasks.get(name).map_or(0.0, |times| times.compute_s);
        let mut waits = Histogram::<u64>::new(3)?;
        for wait in timing.waits_us() {
            waits.saturating_record(wait);
        }
        let mut shares: BTreeMap<u64, (f64, f64)> = numbers.values().map(|&number| (number, (0.0, 0.0))).collect();
        for times in timing.tasks.values() {
            if let Some(share) = numbers.get(&times.engine).and_then(|number| shares.get_mut(number)) {
                share.0 += 1.0 / timing.tasks.len() as f64;
                share.1 += times.compute_s / timing.makespan_s;
            }
        }
        Ok(Row {
            scheme,
            tasks: timing.tasks.len(),
            makespan_s: timing.makespan_s,
            bound_s: graph.makespan_bound(numbers.len(), cost),
            shares,
            wait_us: [0.5, 0.95, 0.99].map(|quantile| waits.value_at_quantile(quantile)),
            error,
            records,
        })
    }
}

/// The table of all runs. `bound` is the larger of the critical path and the work divided among the engines, of the run's own times.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "scheme",
        "tasks",
        "engines",
        "makespan s",
        "bound s",
        "ratio",
        "tasks/engine %",
        "busy/engine %",
        "wait ms p50",
        "p95",
        "p99",
    ]);
    for row in rows {
        let percent = |of: fn(&(f64, f64)) -> f64| -> String {
            row.shares.values().map(|share| format!("{:.0}", of(share) * 100.0)).collect::<Vec<_>>().join(" ")
        };
        let mut cells = vec![
            row.scheme.clone(),
            row.tasks.to_string(),
            row.shares.len().to_string(),
            format!("{:.3}", row.makespan_s),
            format!("{:.3}", row.bound_s),
            format!("{:.2}", row.makespan_s / row.bound_s),
            percent(|share| share.0),
            percent(|share| share.1),
        ];
        cells.extend(row.wait_us.iter().map(|&us| format!("{:.2}", us as f64 / 1000.0)));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
