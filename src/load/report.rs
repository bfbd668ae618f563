//! What came of a load: figures for each stretch and over all of them, as JSON and as a table.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use procfs::Current as _;
use serde::{Deserialize, Serialize};

use super::plan::{Arrivals, Plan};
use crate::stats::Estimate;

/// The result of a load, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program that made the load.
    pub version: String,
    /// When, ISO 8601.
    pub date: String,
    /// On what.
    pub machine: Machine,
    /// The controller's command, or its connection file.
    pub controller: String,
    /// Seconds from its start to its connection files, if the load has started it.
    pub start_s: Option<f64>,
    /// The load.
    pub plan: Plan,
    /// Tasks per second that a closed loop had reached, for a plan that says a share of it.
    pub saturation_per_s: Option<f64>,
    /// Resident bytes before any task, with all engines connected.
    pub idle_rss_bytes: u64,
    /// Share of a core that the controller took in the second before the first task.
    pub idle_cores: f64,
    /// Resident bytes after blocked tasks and history, before the measured tasks.
    pub loaded_rss_bytes: u64,
    /// The measured stretches.
    pub rounds: Vec<Round>,
    /// Tasks ran so much longer or shorter than they were to that all of it is to be taken with care; how much is in each round.
    #[serde(default)]
    pub is_marked: bool,
    /// What a controller that was there before keeps of the load; nothing is kept of one that was started for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<LeftBehind>,
}

/// What a load leaves in a controller that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// Tasks that were submitted: each has a record, if the controller keeps any.
    pub tasks: u64,
    /// The lowest of the numbers that its engines had; the controller gives none a second time.
    pub first_engine: u64,
    /// How many engines there were.
    pub engines: usize,
}

/// On what a load was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that it may use.
    pub cores: usize,
    /// Kernel.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Machine {
        let info = procfs::CpuInfo::current().ok();
        Machine {
            cpu: info.and_then(|info| info.model_name(0).map(str::to_owned)).unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// One stretch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// How long it was.
    pub seconds: f64,
    /// Tasks answered well.
    pub done: u64,
    /// Tasks answered with an error.
    pub failed: u64,
    /// Answered tasks per second.
    pub tasks_per_s: f64,
    /// CPU of all the controller's processes for each answered task, in microseconds.
    pub cpu_us_per_task: f64,
    /// The same by names of threads, as far as they matter.
    pub threads_us_per_task: BTreeMap<String, f64>,
    /// The same of each process, the busiest first.
    pub processes_us_per_task: Vec<f64>,
    /// Resident bytes at its end.
    pub rss_bytes: u64,
    /// Share of the machine's time that its host gave to others meanwhile (steal): beyond some per cent, latencies are the host's.
    #[serde(default)]
    pub stolen: f64,
    /// The controller's processes.
    pub processes: usize,
    /// Latency in microseconds by percentile.
    pub latency_us: Latency,
    /// How long its tasks were to run, and ran.
    #[serde(default)]
    pub ran: Ran,
}

/// Tasks that ran this share longer or shorter than they were to are marked: what is measured then is the machine too.
pub const MOST_DRIFT: f64 = 0.02;

/// How long tasks were to run, and how long their engines really took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// Tasks that were to take any time and have been answered well.
    pub tasks: u64,
    /// What they were to take together, in seconds.
    pub asked_s: f64,
    /// What they took together, in seconds, by their engines' stamps.
    pub real_s: f64,
}

impl Ran {
    /// Counts a task.
    pub(super) fn add(&mut self, asked_s: f64, real_s: f64) {
        self.and(Ran { tasks: 1, asked_s, real_s });
    }

    /// Adds those of another stretch.
    pub(super) fn and(&mut self, other: Ran) {
        self.tasks += other.tasks;
        self.asked_s += other.asked_s;
        self.real_s += other.real_s;
    }

    /// How much longer they ran than they were to, as a share; 0 if there is nothing to compare.
    pub fn drift(&self) -> f64 {
        if self.asked_s > 0.0 { self.real_s / self.asked_s - 1.0 } else { 0.0 }
    }

    /// What is to be said of it, if anything.
    pub fn mark(&self) -> Option<String> {
        (self.drift().abs() > MOST_DRIFT).then(|| {
            let mean_ms = |sum_s: f64| sum_s * 1e3 / self.tasks.max(1) as f64;
            format!(
                "MARKED: tasks ran {:.3} ms on average instead of {:.3} ms ({:+.1} %): this machine was busy with other work, and what is measured is that too",
                mean_ms(self.real_s),
                mean_ms(self.asked_s),
                self.drift() * 100.0
            )
        })
    }
}

/// Latency in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// Nine of ten are below.
    pub p90: u64,
    /// 99 of 100 are below.
    pub p99: u64,
    /// 999 of 1000 are below.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency { mean: histogram.mean(), p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
    }
}

/// A figure of a stretch that reports show and comparisons compare.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) of: fn(&Round) -> f64,
    pub(super) digits: usize,
    pub(super) more_is_better: bool,
}

/// All of them.
pub(super) const FIGURES: [Figure; 8] = [
    Figure { name: "tasks/s", of: |round| round.tasks_per_s, digits: 0, more_is_better: true },
    Figure { name: "CPU us/task", of: |round| round.cpu_us_per_task, digits: 1, more_is_better: false },
    Figure { name: "RSS MiB", of: |round| round.rss_bytes as f64 / 1048576.0, digits: 1, more_is_better: false },
    Figure { name: "latency mean us", of: |round| round.latency_us.mean, digits: 0, more_is_better: false },
    Figure { name: "latency p50 us", of: |round| round.latency_us.p50 as f64, digits: 0, more_is_better: false },
    Figure { name: "latency p90 us", of: |round| round.latency_us.p90 as f64, digits: 0, more_is_better: false },
    Figure { name: "latency p99 us", of: |round| round.latency_us.p99 as f64, digits: 0, more_is_better: false },
    Figure { name: "latency p99.9 us", of: |round| round.latency_us.p999 as f64, digits: 0, more_is_better: false },
];

/// A table of figures under headings, all but the first column to the right.
pub(super) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(head);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

impl Report {
    /// Run times over all stretches.
    pub(super) fn ran(&self) -> Ran {
        let mut all = Ran::default();
        self.rounds.iter().for_each(|round| all.and(round.ran));
        all
    }

    /// What it says, for people.
    pub fn to_text(&self) -> String {
        let plan = &self.plan;
        let how = match plan.arrivals {
            Arrivals::Window(window) => format!("closed loop, {window} under way"),
            Arrivals::Rate(rate) => format!("open loop, {rate:.0} tasks/s"),
            Arrivals::Load(load) => {
                format!("open loop at {load} of {:.0} tasks/s", self.saturation_per_s.unwrap_or_default())
            }
        };
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        let mut text = format!(
            "{}\n{} engines, {} clients, {how}, {} + {} bytes, tasks of {} ms that wait for {}\n",
            self.controller, plan.engines, plan.clients, plan.payload_bytes, plan.result_bytes, plan.duration, plan.after
        );
        text += &format!(
            "idle: {:.1} MiB, {:.2} % of a core; with {} blocked and {} ended tasks: {:.1} MiB; {}\n",
            mib(self.idle_rss_bytes),
            self.idle_cores * 100.0,
            plan.blocked,
            plan.history,
            mib(self.loaded_rss_bytes),
            self.start_s.map_or_else(String::new, |s| format!("started in {:.0} ms", s * 1e3)),
        );
        let rows = FIGURES.iter().map(|figure| {
            let values: Vec<f64> = self.rounds.iter().map(figure.of).collect();
            let Estimate { mean, half_width, .. } = Estimate::of(&values);
            let digits = figure.digits;
            let spread = half_width.map_or_else(|| "-".into(), |half| format!("± {half:.digits$}"));
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            [figure.name.to_owned(), format!("{mean:.digits$}"), spread, format!("{least:.digits$}"), format!("{most:.digits$}")]
        });
        text += &table(["", "mean", "95 %", "least", "most"], rows.collect()).to_string();
        let mut threads: BTreeMap<&str, f64> = BTreeMap::new();
        for round in &self.rounds {
            for (name, us) in &round.threads_us_per_task {
                *threads.entry(name).or_default() += us / self.rounds.len() as f64;
            }
        }
        let mut threads: Vec<_> = threads.into_iter().collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        let shown: Vec<String> = threads.iter().map(|(name, us)| format!("{name} {us:.1}")).collect();
        text += &format!("\nCPU us/task by thread: {}", shown.join(", "));
        let stolen = self.rounds.iter().map(|round| round.stolen).sum::<f64>() / self.rounds.len().max(1) as f64;
        if stolen > 0.01 {
            text += &format!(
                "\nthe host took {:.0} % of this machine's time away meanwhile: trust ratios, not times",
                stolen * 100.0
            );
        }
        let ran = self.ran();
        match ran.mark() {
            Some(mark) => text += &format!("\n{mark}"),
            None if ran.tasks > 0 => text += &format!("\ntasks ran {:+.2} % longer than they were to", ran.drift() * 100.0),
            None => {}
        }
        if let Some(LeftBehind { tasks, first_engine, engines }) = self.left_behind {
            let last = first_engine + engines as u64 - 1;
            text += &format!(
                "\nleft behind in that controller: records of {tasks} tasks, if it keeps any, and engine numbers {first_engine} to {last}, which it gives to no other"
            );
        }
        let failed: u64 = self.rounds.iter().map(|round| round.failed).sum();
        if failed > 0 {
            text += &format!("\n{failed} tasks FAILED");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_took_more_than_two_per_cent_longer_are_marked() {
        let mut ran = Ran::default();
        assert_eq!((ran.drift(), ran.mark()), (0.0, None));
        ran.add(0.100, 0.102);
        ran.add(0.300, 0.305); // 407 ms instead of 400: 1.75 %
        assert!((ran.drift() - 0.0175).abs() < 1e-9 && ran.mark().is_none());
        ran.add(0.100, 0.104); // 511 instead of 500: 2.2 %
        assert!(ran.mark().unwrap().contains("170.333 ms on average instead of 166.667 ms (+2.2 %)"), "{:?}", ran.mark());
    }
}
