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

    /// Takes note of a reply; the name of its task.
    pub(super) fn replied(&mut self, reply: &Reply) -> anyhow::Result<&str> {
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
        Ok(name)
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

/// Of some runs the one in the middle by makespan, the lower of two.
fn median(rows: &[Row]) -> Option<&Row> {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by(|a, b| a.makespan_s.total_cmp(&b.makespan_s));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// The shortest and the longest makespan.
fn range(rows: &[Row]) -> (f64, f64) {
    let makespans = || rows.iter().map(|row| row.makespan_s);
    (makespans().fold(f64::INFINITY, f64::min), makespans().fold(0.0, f64::max))
}

/// Seconds with three digits that count.
pub(super) fn seconds(value: f64) -> String {
    let decimals = if value >= 100.0 { 0 } else { (2.0 - value.max(1e-6).log10().floor()) as usize };
    format!("{value:.decimals$}")
}

/// Beyond so many times the bound, what was measured is not work.
const MOSTLY_WORK: f64 = 10.0;

/// What may be said about the schemes after these runs of each: only what held in all of them.
pub(super) fn conclusion(results: &[Vec<Row>]) -> String {
    let mut middles: Vec<(&[Row], &Row)> = results.iter().filter_map(|rows| Some((rows.as_slice(), median(rows)?))).collect();
    middles.sort_by(|a, b| a.1.makespan_s.total_cmp(&b.1.makespan_s));
    let [(rows, first), others @ ..] = middles.as_slice() else { return "nothing was run".into() };
    if first.makespan_s > MOSTLY_WORK * first.bound_s {
        return "The tasks are so small that what was measured is messages, not work: take a larger --tile-rows or --tiles to compare schemes.".into();
    }
    let Some((second_rows, second)) = others.first() else {
        return format!("{}: {:.2} times the bound.", first.scheme, first.makespan_s / first.bound_s);
    };
    let apart = rows.len() > 1 && second_rows.len() > 1 && range(rows).1 < range(second_rows).0;
    if apart {
        let gain = (1.0 - first.makespan_s / second.makespan_s) * 100.0;
        format!(
            "{} was first: each of its runs took less than each of {}, {gain:.0} % less in the middle.",
            first.scheme, second.scheme
        )
    } else {
        let why = if rows.len() > 1 { "their runs overlap" } else { "one run of each says nothing about the next" };
        format!("No difference between {} and {}: {why}. More --rounds may tell.", first.scheme, second.scheme)
    }
}

/// The table of all runs, for each scheme of that in the middle. `bound` is the larger of the critical path and the work divided among the
/// engines, of that run's own times; no order of the tasks takes less.
pub(super) fn table(results: &[Vec<Row>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "scheme",
        "tasks",
        "engines",
        "makespan s",
        "from, to s",
        "bound s",
        "ratio",
        "tasks/engine %",
        "busy/engine %",
        "wait ms p50",
        "p95",
        "p99",
    ]);
    for (rows, row) in results.iter().filter_map(|rows| Some((rows, median(rows)?))) {
        let (shortest, longest) = range(rows);
        let percent = |of: fn(&(f64, f64)) -> f64| -> String {
            row.shares.values().map(|share| format!("{:.0}", of(share) * 100.0)).collect::<Vec<_>>().join(" ")
        };
        let mut cells = vec![
            row.scheme.clone(),
            row.tasks.to_string(),
            row.shares.len().to_string(),
            seconds(row.makespan_s),
            format!("{}, {}", seconds(shortest), seconds(longest)),
            seconds(row.bound_s),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(scheme: &str, makespans_s: &[f64], bound_s: f64) -> Vec<Row> {
        let row = |&makespan_s: &f64| Row {
            scheme: scheme.into(),
            tasks: 1,
            makespan_s,
            bound_s,
            shares: BTreeMap::new(),
            wait_us: [0; 3],
            error: 0.0,
            records: 1,
        };
        makespans_s.iter().map(row).collect()
    }

    #[test]
    fn only_what_held_in_every_run_is_concluded() {
        let conclude = |a: &[f64], b: &[f64]| conclusion(&[runs("a", a, 2.0), runs("b", b, 2.0)]);
        assert!(conclude(&[3.0, 3.1, 3.2], &[4.0, 4.1, 4.2]).starts_with("a was first"));
        assert!(
            conclude(&[5.0, 5.5, 6.0], &[4.0, 4.1, 4.2])
                .contains("b was first: each of its runs took less than each of a, 25 % less")
        );
        // What one run of each had called 44 % faster.
        assert!(conclude(&[6.36, 2.97], &[3.54, 3.6]).starts_with("No difference"));
        assert!(conclude(&[6.36], &[3.54]).contains("one run of each says nothing"));
        assert!(conclusion(&[runs("a", &[0.05, 0.05], 0.0001), runs("b", &[0.09, 0.09], 0.0001)]).contains("messages, not work"));
        assert_eq!(conclusion(&[runs("a", &[3.0], 2.0)]), "a: 1.50 times the bound.");
    }

    #[test]
    fn seconds_keep_three_digits_however_small_they_are() {
        for (value, text) in [(123.4, "123"), (12.34, "12.3"), (3.0, "3.00"), (0.0456, "0.0456"), (0.000_123_4, "0.000123")] {
            assert_eq!(seconds(value), text);
        }
        assert!(seconds(0.0).starts_with("0.0000"));
    }
}
