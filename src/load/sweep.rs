//! One load after another with one of its numbers changed, and the curves that come of it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::plan::{Arrivals, Plan};
use super::report::{FIGURES, Report, table};
use super::{Which, run};
use crate::plot::{Look, Panel, Point, Scale, Series};
use crate::stats::Estimate;

/// Which number of a load is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// Engines.
    Engines,
    /// Clients.
    Clients,
    /// Tasks under way, of a closed loop.
    Window,
    /// Bytes of a task's buffers.
    Payload,
    /// Tasks that wait.
    Blocked,
    /// Tasks that have ended.
    History,
}

impl Factor {
    fn label(self) -> &'static str {
        match self {
            Factor::Engines => "engines",
            Factor::Clients => "clients",
            Factor::Window => "tasks under way",
            Factor::Payload => "payload of a task, bytes",
            Factor::Blocked => "tasks that wait",
            Factor::History => "tasks that have ended",
        }
    }

    fn set(self, plan: &mut Plan, value: u64) -> anyhow::Result<()> {
        let count = usize::try_from(value)?;
        match self {
            Factor::Engines => plan.engines = count,
            Factor::Clients => plan.clients = count,
            Factor::Window => match plan.arrivals {
                Arrivals::Window(_) => plan.arrivals = Arrivals::Window(count),
                _ => bail!("an open loop has no window to vary"),
            },
            Factor::Payload => plan.payload_bytes = count,
            Factor::Blocked => plan.blocked = count,
            Factor::History => plan.history = value,
        }
        Ok(())
    }
}

/// What is varied, and through which values: `engines=1,10,100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// Which number.
    pub factor: Factor,
    /// Its values, in order.
    pub values: Vec<u64>,
}

impl FromStr for Vary {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Vary> {
        let (name, values) = text.split_once('=').with_context(|| format!("'{text}' has no '='"))?;
        let factor = match name {
            "engines" => Factor::Engines,
            "clients" => Factor::Clients,
            "window" => Factor::Window,
            "payload" => Factor::Payload,
            "blocked" => Factor::Blocked,
            "history" => Factor::History,
            _ => bail!("'{name}' can not be varied: engines, clients, window, payload, blocked and history can"),
        };
        let read = |word: &str| word.parse().with_context(|| format!("'{word}' is not a whole number"));
        Ok(Vary { factor, values: values.split(',').map(read).collect::<anyhow::Result<_>>()? })
    }
}

/// Results for each value of a factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// What was varied.
    pub factor: Factor,
    /// Its values, in order.
    pub values: Vec<u64>,
    /// The result of each, as far as it went.
    pub reports: Vec<Report>,
}

impl Sweep {
    /// Runs a load for each value; `done` sees what there is after each. `progress` and `stop` as in [`run`].
    ///
    /// # Errors
    /// As [`run`], naming the value.
    pub fn run(
        plan: &Plan,
        vary: &Vary,
        which: &Which,
        progress: &dyn Fn(&str, f64),
        stop: &Arc<AtomicBool>,
        mut done: impl FnMut(&Sweep) -> anyhow::Result<()>,
    ) -> anyhow::Result<Sweep> {
        // Not after hours of the values before it.
        for &value in &vary.values {
            let mut plan = plan.clone();
            vary.factor.set(&mut plan, value).and_then(|()| plan.check()).with_context(|| format!("--vary {value}"))?;
        }
        let mut sweep = Sweep { factor: vary.factor, values: vary.values.clone(), reports: Vec::new() };
        for &value in &vary.values {
            let mut plan = plan.clone();
            vary.factor.set(&mut plan, value)?;
            let label = vary.factor.label();
            let report = run(&plan, which, &|what, share| progress(&format!("{label} {value}: {what}"), share), stop);
            sweep.reports.push(report.with_context(|| format!("{label} {value}"))?);
            done(&sweep)?;
        }
        Ok(sweep)
    }

    fn rows(&self) -> impl Iterator<Item = (u64, &Report)> {
        self.values.iter().copied().zip(&self.reports)
    }

    /// A table with a row for each value.
    pub fn to_text(&self) -> String {
        let rows = self.rows().map(|(value, report)| {
            let mean = |at: usize| {
                let values: Vec<f64> = report.rounds.iter().map(FIGURES[at].of).collect();
                format!("{:.*}", FIGURES[at].digits, Estimate::of(&values).mean)
            };
            let each = self.bytes_of_each(value, report).map_or_else(|| "-".into(), |bytes| format!("{bytes:.0}"));
            [value.to_string(), mean(0), mean(1), mean(2), mean(4), mean(6), each]
        });
        let head = [self.factor.label(), "tasks/s", "CPU us/task", "RSS MiB", "p50 us", "p99 us", "bytes each"];
        let marks = self.rows().filter_map(|(value, report)| Some(format!("\n{value}: {}", report.ran().mark()?)));
        table(head, rows.collect()).to_string() + &marks.collect::<String>()
    }

    /// What one of those that are varied takes in memory; for those that are many and there before anything is measured.
    fn bytes_of_each(&self, value: u64, report: &Report) -> Option<f64> {
        let more = match self.factor {
            Factor::Blocked | Factor::History => report.loaded_rss_bytes.checked_sub(report.idle_rss_bytes)?,
            // Without any engine it takes what the smallest of the sweep shows.
            Factor::Engines => report.idle_rss_bytes.checked_sub(self.reports.first()?.idle_rss_bytes)?,
            _ => return None,
        };
        (value >= 1000 && more > 0).then(|| more as f64 / value as f64)
    }
}

/// Charts of sweeps of the same factor, each with its name: tasks/s, CPU and memory against the factor.
///
/// # Errors
/// If they are not of the same factor, or there are none.
pub fn curves(sweeps: &[(String, Sweep)]) -> anyhow::Result<Vec<Panel>> {
    let Some((_, first)) = sweeps.first() else { bail!("no sweep to draw") };
    if sweeps.iter().any(|(_, sweep)| sweep.factor != first.factor) {
        bail!("the sweeps vary different numbers: draw them into files of their own");
    }
    let panel = |title: &str, at: usize, unit: &str| {
        let series = sweeps.iter().enumerate().map(|(style, (name, sweep))| Series {
            name: name.clone(),
            look: Look::Measured,
            style,
            points: sweep.rows().map(|(value, report)| point(value, report, at)).collect(),
        });
        Panel {
            title: title.to_owned(),
            x_label: first.factor.label().to_owned(),
            y_label: unit.to_owned(),
            x_scale: Scale::Log,
            y_scale: if sweeps.len() > 1 { Scale::Log } else { Scale::Linear },
            series: series.collect(),
            bars: Vec::new(),
        }
    };
    Ok(vec![
        panel("Throughput", 0, "tasks/s"),
        panel("CPU of the controller", 1, "µs a task"),
        panel("Memory of the controller", 2, "resident, MiB"),
        panel("Latency, 99th percentile", 6, "µs"),
    ])
}

fn point(value: u64, report: &Report, figure: usize) -> Point {
    let values: Vec<f64> = report.rounds.iter().map(FIGURES[figure].of).collect();
    let Estimate { mean, half_width, .. } = Estimate::of(&values);
    Point { x: value as f64, y: mean, range: half_width.map(|half| ((mean - half).max(0.0), mean + half)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_read_or_refused() {
        let vary: Vary = "engines=1,10".parse().unwrap();
        assert_eq!(vary, Vary { factor: Factor::Engines, values: vec![1, 10] });
        for (junk, says) in [("engines", "no '='"), ("speed=1", "history can"), ("payload=1,x", "'x' is not")] {
            assert!(format!("{:#}", junk.parse::<Vary>().unwrap_err()).contains(says), "{junk}");
        }
    }
}
