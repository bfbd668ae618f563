//! Results as a table for a terminal: a line for each point, with the metrics that its experiment asks for.

use comfy_table::{CellAlignment, Table, presets};
use pointsman_policies::Registry;

use super::experiment::Results;
use super::measure::metric;
use super::report::{Known, digits, with_spread};
use super::theory;

/// Tasks of a live run that took so much longer than they should have say something of the machine, not of policies.
const MOST_STRETCH: f64 = 1.02;

/// The table. Of more than so many points the last are left out, and said to be.
pub fn table(results: &Results, registry: &Registry, most_rows: usize) -> String {
    let (known, experiment) = (Known::new(results), &results.experiment);
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let labels = experiment.metrics.iter().map(|name| metric(name).map_or("", |metric| metric.label));
    let heads: Vec<&str> = experiment.factors().iter().map(String::as_str).chain(labels).collect();
    let has_runs = |point: &usize| !known.values(*point, "tasks").is_empty();
    let shown: Vec<usize> = (0..experiment.points().len()).filter(has_runs).collect();
    let theories: Vec<_> = shown.iter().map(|&at| theory::mean_response_s(&experiment.points()[at], registry)).collect();
    let has_theory = theories.iter().any(Option::is_some);
    table.set_header(heads.iter().copied().chain(has_theory.then_some("theory, mean response, s")).chain(["runs"]));
    for (&point, theory) in shown.iter().zip(&theories).take(most_rows) {
        let figures = experiment.metrics.iter().map(|name| known.of(point, name).map_or("–".into(), |one| with_spread(&one)));
        let theory = theory.map_or(String::new(), |(value, name)| format!("{} ({name})", digits(value)));
        let cells = experiment.levels(point).iter().cloned().chain(figures).chain(has_theory.then_some(theory));
        table.add_row(cells.chain([known.values(point, "tasks").len().to_string()]));
    }
    let factors = experiment.factors().len();
    table.column_iter_mut().skip(factors).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let more = shown.len().saturating_sub(most_rows);
    let more = if more > 0 { format!("\n{more} more points are in results.csv and in the report") } else { String::new() };
    format!("{table}{more}")
}

/// Points of which tasks ran longer than they should have, on average of their runs: what a live cluster on a busy machine does.
pub fn stretched(results: &Results) -> Option<String> {
    let known = Known::new(results);
    let of_point = |point: usize| known.of(point, "stretch").map(|estimate| (point, estimate.mean));
    let all = (0..results.experiment.points().len()).filter_map(of_point);
    let stretched: Vec<(usize, f64)> =
        all.filter(|(_, stretch)| !(2.0 - MOST_STRETCH..=MOST_STRETCH).contains(stretch)).collect();
    let worst = stretched.iter().max_by(|a, b| (a.1 - 1.0).abs().total_cmp(&(b.1 - 1.0).abs()))?;
    Some(format!(
        "tasks of {} points did not run for as long as they should have, by more than two per cent: those of {} took {:+.0} %. The machine was busy with something else: its figures are of that, too",
        stretched.len(),
        results.experiment.describe(worst.0),
        (worst.1 - 1.0) * 100.0
    ))
}
