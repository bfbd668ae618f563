//! What is measured of a run: every task that ends after the warm-up, in figures of a fixed set with names and units. Means and maxima are exact, and so
//! are percentiles of a few thousand values; those of more are to a thousandth. Memory does not grow with tasks.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::start_up::Series;
pub use super::start_up::StartUp;
use super::world::{Ended, Totals};

/// Histograms hold a thousandth of their value from a nanosecond up to thirty years.
const MOST_NS: u64 = 1_000_000_000_000_000_000;
/// Classes are names, and anybody may make up as many as there are tasks: the mean slowdowns of so many are kept.
const MOST_CLASSES: usize = 1024;
/// Slowdowns are kept in thousandths.
const MILLI: f64 = 1000.0;
/// So many values are kept as they are.
const MOST_EXACT: usize = 4096;

/// Figures of one quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The mean, exact.
    pub mean: f64,
    /// The median; exact of up to 4096 values, else to a thousandth, like the percentiles that follow.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// The most, exact.
    pub max: f64,
}

/// Values of one quantity as they come.
#[derive(Clone, Debug)]
struct Values {
    histogram: Histogram<u64>,
    /// The values themselves, as long as they are few.
    first: Vec<f64>,
    sum: f64,
    max: f64,
    scale: f64,
}

impl Values {
    fn new(scale: f64) -> Values {
        // Bounds and digits are constants that the library takes.
        let histogram = Histogram::new_with_bounds(1, MOST_NS, 3).unwrap_or_else(|_| unreachable!("bounds of a histogram"));
        Values { histogram, first: Vec::new(), sum: 0.0, max: 0.0, scale }
    }

    fn add(&mut self, value: f64) {
        self.sum += value;
        self.max = self.max.max(value);
        if self.first.len() < MOST_EXACT {
            self.first.push(value);
        }
        self.histogram.saturating_record((value * self.scale) as u64);
    }

    /// All values in order, if they are few enough to have been kept.
    fn exact(&self) -> Option<Vec<f64>> {
        (self.histogram.len() == self.first.len() as u64).then(|| {
            let mut values = self.first.clone();
            values.sort_by(f64::total_cmp);
            values
        })
    }

    fn spread(&self) -> Spread {
        let count = self.histogram.len();
        if count == 0 {
            return Spread::default();
        }
        let exact = self.exact();
        // The least value that so many are not above, of both.
        let at = |quantile: f64| match &exact {
            Some(values) => values[((quantile * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1],
            None => (self.histogram.value_at_quantile(quantile) as f64 / self.scale).min(self.max),
        };
        Spread { mean: self.sum / count as f64, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.max }
    }

    /// Shares above values, at some forty points: a tail curve.
    fn tail(&self) -> Vec<(f64, f64)> {
        let count = self.histogram.len() as f64;
        let mut seen = 0;
        let mut points: Vec<(f64, f64)> = Vec::new();
        for step in self.histogram.iter_recorded() {
            seen += step.count_since_last_iteration();
            let (value, share) = (step.value_iterated_to() as f64 / self.scale, 1.0 - seen as f64 / count);
            // A point for each tenth of a decade of the share is as much as an eye sees.
            if share > 0.0 && points.last().is_none_or(|last| share < last.1 * 0.85) {
                points.push((value, share));
            }
        }
        points
    }
}

/// Sees the tasks of a run.
#[derive(Clone, Debug)]
pub struct Collector {
    warmup: u64,
    response: Values,
    wait: Values,
    slowdown: Values,
    series: Series,
    by_client: Vec<(f64, u64)>,
    by_class: BTreeMap<u64, (f64, u64)>,
    first_at_ns: u64,
    last_end_ns: u64,
    measured: u64,
}

impl Collector {
    /// One that leaves out so many tasks, by their numbers.
    pub fn new(warmup: u64) -> Collector {
        Collector {
            warmup,
            response: Values::new(1e9),
            wait: Values::new(1e9),
            slowdown: Values::new(MILLI),
            series: Series::default(),
            by_client: Vec::new(),
            by_class: BTreeMap::new(),
            first_at_ns: u64::MAX,
            last_end_ns: 0,
            measured: 0,
        }
    }

    /// Takes note of an end.
    pub fn see(&mut self, ended: &Ended) {
        self.first_at_ns = self.first_at_ns.min(ended.at_ns);
        self.last_end_ns = self.last_end_ns.max(ended.ended_ns);
        if ended.number < self.warmup || !ended.ok {
            return;
        }
        self.measured += 1;
        self.response.add(ended.response_s());
        self.series.push(ended.response_s());
        self.wait.add(ended.wait_s());
        // Of what takes no time there is no slowdown.
        if ended.work_ns == 0 {
            return;
        }
        self.slowdown.add(ended.slowdown());
        let client = ended.client as usize;
        if self.by_client.len() <= client {
            self.by_client.resize(client + 1, (0.0, 0));
        }
        self.by_client[client].0 += ended.slowdown();
        self.by_client[client].1 += 1;
        if self.by_class.len() < MOST_CLASSES || self.by_class.contains_key(&ended.class) {
            let class = self.by_class.entry(ended.class).or_default();
            *class = (class.0 + ended.slowdown(), class.1 + 1);
        }
    }

    /// What it comes to.
    pub fn measures(&self, totals: &Totals, bound_s: Option<f64>) -> Measures {
        let busy: Vec<f64> = totals.busy_ns.iter().map(|&ns| ns as f64 / 1e9).collect();
        let length_s = totals.end_ns as f64 / 1e9;
        let all: f64 = busy.iter().sum();
        let most = busy.iter().copied().fold(0.0, f64::max);
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let by_client: Vec<(u64, f64)> = means((0..).zip(&self.by_client));
        let by_class: Vec<(u64, f64)> = means(self.by_class.iter().map(|(&class, values)| (class, values)));
        let clients: Vec<f64> = by_client.iter().map(|client| client.1).collect();
        let makespan_s = self.last_end_ns.saturating_sub(self.first_at_ns.min(self.last_end_ns)) as f64 / 1e9;
        Measures {
            tasks: self.measured,
            failed: totals.failed,
            response_s: self.response.spread(),
            wait_s: self.wait.spread(),
            slowdown: self.slowdown.spread(),
            makespan_s,
            makespan_over_bound: bound_s.map_or(f64::NAN, |bound_s| share(makespan_s, bound_s)),
            utilisation: share(all, length_s * busy.len() as f64),
            imbalance: share(most * busy.len() as f64, all),
            jain: jain(&clients),
            client_slowdown: least_and_most(&by_client),
            class_slowdown: least_and_most(&by_class),
            by_client,
            by_class,
            decisions_per_s: share(totals.counters.dispatched as f64, length_s),
            wasted: share(totals.wasted_ns as f64 / 1e9, all),
            busy_s: busy,
            tail: self.response.tail(),
            start_up: self.series.start_up(self.warmup),
            stretch: None,
        }
    }
}

/// Means by name of those that have any.
fn means<'v>(sums: impl Iterator<Item = (u64, &'v (f64, u64))>) -> Vec<(u64, f64)> {
    sums.filter(|(_, (_, count))| *count > 0).map(|(name, (sum, count))| (name, sum / *count as f64)).collect()
}

fn least_and_most(means: &[(u64, f64)]) -> (f64, f64) {
    means.iter().fold((f64::INFINITY, 0.0), |(least, most), &(_, one)| (least.min(one), f64::max(most, one)))
}

/// Jain's index of fairness: 1 if all are equal, 1/n if one has everything (Jain, Chiu and Hawe 1984).
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) = (values.iter().sum(), values.iter().map(|value| value * value).sum());
    if squares > 0.0 { sum * sum / (values.len() as f64 * squares) } else { 1.0 }
}

/// The figures of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// Tasks measured.
    pub tasks: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// From submission to answer, in seconds.
    pub response_s: Spread,
    /// From submission to start, in seconds.
    pub wait_s: Spread,
    /// Response by size, of tasks that take any time.
    pub slowdown: Spread,
    /// From the first submission to the last answer, in seconds.
    pub makespan_s: f64,
    /// The same by the lower bound, where there is one.
    pub makespan_over_bound: f64,
    /// Share of engine time at work.
    pub utilisation: f64,
    /// The busiest engine's time at work by the mean.
    pub imbalance: f64,
    /// Jain's index over the clients' mean slowdowns.
    pub jain: f64,
    /// The clients' mean slowdowns, the least and the most of them.
    pub client_slowdown: (f64, f64),
    /// The same of classes of tasks.
    pub class_slowdown: (f64, f64),
    /// Mean slowdowns by client.
    pub by_client: Vec<(u64, f64)>,
    /// Mean slowdowns by class of tasks.
    pub by_class: Vec<(u64, f64)>,
    /// Tasks sent to engines, each attempt counted, in a second of virtual time.
    pub decisions_per_s: f64,
    /// Share of the work that was for nothing.
    pub wasted: f64,
    /// Time at work of each engine, in seconds.
    pub busy_s: Vec<f64>,
    /// Shares of responses above values.
    pub tail: Vec<(f64, f64)>,
    /// How long the start of the run is felt in it.
    pub start_up: Option<StartUp>,
    /// How long tasks really ran, by what they should have taken: of live runs, where a busy machine stretches them.
    pub stretch: Option<f64>,
}

/// A figure by its name.
pub struct Metric {
    /// As experiments and columns name it; the unit is last.
    pub name: &'static str,
    /// What it is, with its unit, for axes.
    pub label: &'static str,
    /// Where it is.
    pub of: fn(&Measures) -> f64,
}

/// All of them, in the order of columns.
pub const METRICS: [Metric; 33] = [
    Metric { name: "response_mean_s", label: "mean response, s", of: |m| m.response_s.mean },
    Metric { name: "response_p50_s", label: "median response, s", of: |m| m.response_s.p50 },
    Metric { name: "response_p90_s", label: "90th percentile of response, s", of: |m| m.response_s.p90 },
    Metric { name: "response_p99_s", label: "99th percentile of response, s", of: |m| m.response_s.p99 },
    Metric { name: "response_p999_s", label: "99.9th percentile of response, s", of: |m| m.response_s.p999 },
    Metric { name: "response_max_s", label: "longest response, s", of: |m| m.response_s.max },
    Metric { name: "wait_mean_s", label: "mean wait, s", of: |m| m.wait_s.mean },
    Metric { name: "wait_p50_s", label: "median wait, s", of: |m| m.wait_s.p50 },
    Metric { name: "wait_p90_s", label: "90th percentile of wait, s", of: |m| m.wait_s.p90 },
    Metric { name: "wait_p99_s", label: "99th percentile of wait, s", of: |m| m.wait_s.p99 },
    Metric { name: "wait_p999_s", label: "99.9th percentile of wait, s", of: |m| m.wait_s.p999 },
    Metric { name: "wait_max_s", label: "longest wait, s", of: |m| m.wait_s.max },
    Metric { name: "slowdown_mean", label: "mean slowdown", of: |m| m.slowdown.mean },
    Metric { name: "slowdown_p50", label: "median slowdown", of: |m| m.slowdown.p50 },
    Metric { name: "slowdown_p90", label: "90th percentile of slowdown", of: |m| m.slowdown.p90 },
    Metric { name: "slowdown_p99", label: "99th percentile of slowdown", of: |m| m.slowdown.p99 },
    Metric { name: "slowdown_p999", label: "99.9th percentile of slowdown", of: |m| m.slowdown.p999 },
    Metric { name: "slowdown_max", label: "largest slowdown", of: |m| m.slowdown.max },
    Metric { name: "makespan_s", label: "makespan, s", of: |m| m.makespan_s },
    Metric { name: "makespan_over_bound", label: "makespan by lower bound", of: |m| m.makespan_over_bound },
    Metric {
        name: "speed_up",
        label: "speed-up: work done in a second of makespan, s",
        of: |m| m.busy_s.iter().sum::<f64>() / m.makespan_s,
    },
    Metric { name: "utilisation", label: "utilisation", of: |m| m.utilisation },
    Metric { name: "imbalance", label: "busiest engine by mean", of: |m| m.imbalance },
    Metric { name: "jain", label: "Jain's index of slowdowns", of: |m| m.jain },
    Metric { name: "client_slowdown_least", label: "mean slowdown of the client served best", of: |m| m.client_slowdown.0 },
    Metric { name: "client_slowdown_most", label: "mean slowdown of the client served worst", of: |m| m.client_slowdown.1 },
    Metric { name: "class_slowdown_least", label: "mean slowdown of the class served best", of: |m| m.class_slowdown.0 },
    Metric { name: "class_slowdown_most", label: "mean slowdown of the class served worst", of: |m| m.class_slowdown.1 },
    Metric { name: "decisions_per_s", label: "decisions in a second", of: |m| m.decisions_per_s },
    Metric { name: "wasted", label: "share of work wasted", of: |m| m.wasted },
    Metric { name: "stretch", label: "real run times by nominal ones", of: |m| m.stretch.unwrap_or(f64::NAN) },
    Metric { name: "tasks", label: "tasks measured", of: |m| m.tasks as f64 },
    Metric { name: "failed", label: "tasks failed", of: |m| m.failed as f64 },
];

/// The metric of a name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_what_ended_after_the_warm_up() {
        let mut collector = Collector::new(1);
        let ended = |number, at_s: u64, start_s: u64, end_s: u64, client, ok| Ended {
            number,
            class: 0,
            client,
            at_ns: at_s * 1_000_000_000,
            started_ns: start_s * 1_000_000_000,
            ended_ns: end_s * 1_000_000_000,
            work_ns: (end_s - start_s) * 1_000_000_000,
            engine: Some(0),
            ok,
        };
        collector.see(&ended(0, 0, 0, 100, 0, true));
        collector.see(&ended(1, 10, 11, 12, 1, true));
        collector.see(&ended(2, 10, 12, 14, 2, true));
        collector.see(&ended(3, 10, 12, 19, 2, false));
        let totals = Totals { end_ns: 100_000_000_000, busy_ns: vec![50_000_000_000, 0], failed: 1, ..Totals::default() };
        let measures = collector.measures(&totals, Some(50.0));
        assert_eq!((measures.tasks, measures.failed, measures.response_s.mean, measures.wait_s.mean), (2, 1, 3.0, 1.5));
        assert_eq!((measures.makespan_s, measures.makespan_over_bound), (100.0, 2.0));
        assert_eq!((measures.utilisation, measures.imbalance, measures.jain), (0.25, 2.0, 1.0));
        assert!(measures.response_s.max == 4.0 && measures.slowdown.mean == 2.0);
        assert_eq!((&measures.by_client[..], measures.class_slowdown), (&[(1, 2.0), (2, 2.0)][..], (2.0, 2.0)));
        assert_eq!(jain(&[1.0, 0.0]), 0.5);
    }
}
