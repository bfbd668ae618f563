//! The lab held against theory: every formula of the oracle against a simulation by the shipping scheduler and policies, with the deviation in per
//! cent and in standard errors; and identities that hold event for event.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use comfy_table::{CellAlignment, Table, presets};
use pointsman_policies::{Registry, Rng};
use rayon::prelude::*;

use super::draw::Dist;
use super::experiment::{Point, Workload, run_point};
use super::graph::{Dag, Rule, Shape, list_schedule};
use super::{oracle, theory};
use crate::stats::Estimate;

/// A point and what theory says of it.
struct Case {
    name: String,
    point: Point,
    /// What is measured: seconds, or a share.
    measure: fn(&super::measure::Measures) -> f64,
    theory: f64,
    source: &'static str,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The system.
    pub name: String,
    /// The formula.
    pub source: String,
    /// What it says.
    pub theory: f64,
    /// What the simulation says.
    pub simulated: f64,
    /// Standard error of that.
    pub error: f64,
}

impl Verdict {
    /// Deviation from theory, relative.
    pub fn deviation(&self) -> f64 {
        self.simulated / self.theory - 1.0
    }

    /// The same in standard errors.
    pub fn sigmas(&self) -> f64 {
        (self.simulated - self.theory) / self.error.max(f64::MIN_POSITIVE)
    }

    /// Within one per cent, or three standard errors.
    pub fn holds(&self) -> bool {
        self.deviation().abs() <= 0.01 || self.sigmas().abs() <= 3.0
    }
}

fn response(placement: &str, n: usize, load: f64, hwm: u32, change: impl FnOnce(&mut Point)) -> Point {
    let mut point = Point { placement: placement.into(), engines: n, load: Some(load), hwm: Some(hwm), ..Point::default() };
    if point.reference().is_some() {
        point.hwm = None;
    }
    change(&mut point);
    point
}

/// All cases. The full set has more points.
fn cases(registry: &Registry, full: bool) -> Vec<Case> {
    let same = |_: &mut Point| {};
    let size = |text: &'static str| move |point: &mut Point| point.size = text.into();
    let exact = |text: &'static str| {
        move |point: &mut Point| {
            point.size = text.into();
            point.estimate = "exact".into();
        }
    };
    let heavy = "boundedpareto[alpha=1.5,low=0.3338,high=1000]";
    let mut points = vec![
        response("leastload", 4, 0.5, 1, same),
        response("leastload", 4, 0.9, 1, same),
        response("plainrandom", 4, 0.8, 0, same),
        response("roundrobin", 2, 0.8, 0, same),
        response("lru", 10, 0.9, 0, same),
        response("twobin", 2, 0.7, 0, same),
        response("leastload", 2, 0.8, 0, same),
        response("leastload", 3, 0.5, 0, same),
        response("weighted", 2, 0.8, 0, same),
        response("leastload", 4, 0.8, 2, same),
        response("plainrandom", 4, 0.8, 2, same),
        response("leastwork", 4, 0.8, 0, exact("exponential")),
        response("~one-queue", 4, 0.8, 1, same),
        response("~ps", 1, 0.8, 1, size("hyperexp[scv=4]")),
        response("~srpt", 1, 0.8, 1, same),
        response("~las", 1, 0.7, 1, size("hyperexp[scv=4]")),
        response("~gittins", 1, 0.7, 1, size("hyperexp[scv=4]")),
        response("~gittins", 1, 0.7, 1, size("erlang[k=4]")),
        response("leastload", 1, 0.8, 1, size("deterministic")),
        response("leastload", 1, 0.7, 1, size("erlang[k=4]")),
        response("leastload", 1, 0.7, 1, |point| {
            exact("hyperexp[scv=4]")(point);
            point.order = "shortest".into();
        }),
    ];
    if full {
        points.extend([
            response("leastload", 16, 0.9, 1, same),
            response("roundrobin", 10, 0.9, 0, same),
            response("twobin", 10, 0.8, 0, same),
            response("plainrandom", 10, 0.9, 0, same),
            response("leastload", 4, 0.8, 3, same),
            response("plainrandom", 3, 0.7, 3, same),
            response("choices[d=2]", 400, 0.9, 0, same),
            response("choices[d=3]", 400, 0.9, 0, same),
            response("plainrandom", 4, 0.7, 0, size("lognormal[scv=4]")),
            // The cutoff of equal load.
            response("sita[cutoffs=[1.2877]]", 2, 0.7, 0, exact(heavy)),
            response("sita[cutoffs=[2]]", 2, 0.5, 0, exact("exponential")),
            response("~srpt", 1, 0.9, 1, size(heavy)),
            response("~las", 1, 0.7, 1, size(heavy)),
            response("~ps", 1, 0.7, 1, size(heavy)),
            response("leastload", 1, 0.7, 1, size("lognormal[scv=4]")),
            response("leastload", 1, 0.7, 1, size("uniform[low=0.5,high=1.5]")),
        ]);
    }
    let mut cases: Vec<Case> = points
        .into_iter()
        .filter_map(|mut point| {
            let (theory, source) = theory::mean_response_s(&point, registry)?;
            let scv = Dist::scv(&point.size.parse().ok()?).max(1.0);
            // What one per cent takes grows with the square of 1 / (1 - load).
            let wanted = 6.0e4 * scv / (1.0 - point.load()).powi(2) * if full { 6.0 } else { 0.2 };
            point.tasks = (wanted.min(if full { 2.0e6 } else { 3.0e5 }) as u64).max(100_000);
            let policy = match point.order.as_str() {
                "fifo" => point.placement.clone(),
                order => format!("{}, {order}", point.placement),
            };
            let hwm = point.hwm.map_or(String::new(), |hwm| format!(", hwm {hwm}"));
            let name = format!("{policy}, {} engines, load {}{hwm}, {}", point.engines, point.load(), point.size);
            Some(Case { name, point, measure: |measures| measures.response_s.mean, theory, source })
        })
        .collect();
    for (hwm, delay_s) in [(1, 1.0), (2, 1.0), (4, 1.0), (2, 0.25)] {
        let point = Point {
            workload: Workload::Closed,
            engines: 2,
            clients: 20,
            window: 5,
            hwm: Some(hwm),
            latency_s: delay_s / 2.0,
            tasks: if full { 2_000_000 } else { 100_000 },
            ..Point::default()
        };
        cases.push(Case {
            name: format!("saturated, hwm {hwm}, round trip {delay_s}: utilisation"),
            point,
            measure: |measures| measures.utilisation,
            theory: oracle::saturated_utilisation(hwm, delay_s),
            source: "closed network",
        });
    }
    for (tasks, engines) in [(4_u64, 4_usize), (40, 4), (100, 16)] {
        let point = Point { arrivals: Some("batch".into()), engines, tasks, warmup: 0.0, hwm: Some(1), ..Point::default() };
        cases.push(Case {
            name: format!("{tasks} exponential tasks at once on {engines} engines: makespan"),
            point,
            measure: |measures| measures.makespan_s,
            theory: oracle::exponential_makespan(tasks as usize, engines),
            source: "(m-k)/k + H_k",
        });
    }
    cases
}

/// What is heard while cases are run.
#[derive(Clone, Copy, Debug)]
pub enum Step<'v> {
    /// A run is over: tasks of the runs that are, and of all.
    Run {
        /// Those that are over.
        done: u64,
        /// All.
        all: u64,
    },
    /// A case is over.
    Case(&'v Verdict),
}

impl Case {
    /// How often it is run: short systems need many runs, long ones few.
    fn runs(&self) -> usize {
        if self.point.arrivals.as_deref() == Some("batch") { 2000 } else { 8 }
    }

    fn tasks(&self) -> u64 {
        self.point.tasks * self.runs() as u64
    }
}

/// Tasks of all runs together: what it takes grows with them.
pub fn tasks(registry: &Registry, full: bool) -> u64 {
    cases(registry, full).iter().map(Case::tasks).sum()
}

/// Runs a few of the cases briefly, so that one may see how long that takes here; returns how many tasks those were.
///
/// # Errors
/// As [`verify`].
pub fn try_out(registry: &Registry) -> anyhow::Result<u64> {
    let mut tasks = 0;
    for case in cases(registry, false).iter().step_by(7) {
        let point = Point { tasks: case.point.tasks.min(3000), ..case.point.clone() };
        run_point(&point, registry, Path::new("."), 1)?;
        tasks += point.tasks;
    }
    Ok(tasks.max(1))
}

/// Runs every case, several times each, on all cores. `watch` hears how far it is, and each case as it is over.
///
/// # Errors
/// If a case can not be run.
pub fn verify(registry: &Registry, full: bool, seed: u64, watch: &(impl Fn(Step<'_>) + Sync)) -> anyhow::Result<Vec<Verdict>> {
    let cases = cases(registry, full);
    let all: u64 = cases.iter().map(Case::tasks).sum();
    let done = AtomicU64::new(0);
    let verdict = |case: &Case| {
        let run = |n: usize| {
            let seed = Rng::stream(seed, &format!("{} {n}", case.name)).next_u64();
            let measures = run_point(&case.point, registry, Path::new("."), seed)?.measures;
            watch(Step::Run { done: done.fetch_add(case.point.tasks, Ordering::Relaxed) + case.point.tasks, all });
            Ok((case.measure)(&measures))
        };
        let estimate = Estimate::of(&(0..case.runs()).into_par_iter().map(run).collect::<anyhow::Result<Vec<f64>>>()?);
        let verdict = Verdict {
            name: case.name.clone(),
            source: case.source.to_owned(),
            theory: case.theory,
            simulated: estimate.mean,
            error: estimate.standard_error.unwrap_or(f64::NAN),
        };
        watch(Step::Case(&verdict));
        Ok(verdict)
    };
    cases.par_iter().map(verdict).collect()
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.holds() { "holds" } else { "DEVIATES" };
        let (by, sigmas) = (self.deviation() * 100.0, self.sigmas());
        write!(
            f,
            "{}: {} {:.5}, simulated {:.5}, {by:+.2} %, {sigmas:+.1} standard errors: {word}",
            self.name, self.source, self.theory, self.simulated
        )
    }
}

/// The table of verdicts.
pub fn table(verdicts: &[Verdict], markdown: bool) -> String {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::UTF8_HORIZONTAL_ONLY });
    table.set_header(["system", "formula", "theory", "simulated", "deviation", "in standard errors", ""]);
    for verdict in verdicts {
        table.add_row([
            verdict.name.clone(),
            verdict.source.clone(),
            format!("{:.5}", verdict.theory),
            format!("{:.5} ± {:.5}", verdict.simulated, verdict.error),
            format!("{:+.2} %", verdict.deviation() * 100.0),
            format!("{:+.1}", verdict.sigmas()),
            if verdict.holds() { "holds" } else { "DEVIATES" }.to_owned(),
        ]);
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Every graph of known shape keeps within Graham's bound of (2 - 1/m) times the best.
pub fn graham_bound_holds(seed: u64) -> bool {
    let shapes = [
        "lu[tiles=6]",
        "cholesky[tiles=7]",
        "fft[stages=5]",
        "layered[tasks=300,width=12,density=0.2]",
        "stencil[width=16,steps=12]",
    ];
    shapes.iter().all(|text| {
        let mut rng = Rng::stream(seed, text);
        let mut sizes = Rng::stream(seed, "sizes");
        let dag: Option<Dag> = text
            .parse::<Shape>()
            .ok()
            .and_then(|shape| shape.build(|| super::draw::exponential(&mut sizes, 1.0), 0.0, &mut rng).ok());
        dag.is_some_and(|dag| {
            [2, 4, 8].into_iter().all(|m| {
                let speeds = vec![1.0; m];
                let bound = dag.lower_bound_s(&speeds);
                Rule::ALL.iter().all(|&rule| {
                    let makespan = list_schedule(&dag, m, rule);
                    // The bound is on the best, which is at least the lower bound: it holds for the sum of both terms.
                    makespan <= dag.total_s() / m as f64 + dag.critical_path_s() * (1.0 - 1.0 / m as f64) + 1e-9
                        && makespan >= bound - 1e-9
                })
            })
        })
    })
}
