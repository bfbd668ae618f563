//! Experiments that can not show what they ask, noticed before they are run; and runs that are too short for it, noticed after.

use pointsman_policies::{Needs, Registry};

use super::file::Experiment;
use super::point::{Point, Workload};
use super::run::only_size;
use super::store::Detail;

/// References that make sense for a point.
pub(super) fn references_of(point: &Point) -> Vec<&'static str> {
    let plain_engines = point.speeds == "equal" && point.lives.is_none() && point.slow_every.is_none() && point.failing == 0.0;
    match point.workload {
        Workload::Stream if plain_engines => vec!["one-queue", "srpt", "gittins", "ps", "las"],
        // What is known of a trace's sizes beforehand would be the trace.
        Workload::Trace if plain_engines => vec!["one-queue", "srpt", "ps", "las"],
        Workload::Graphs if point.graphs == 1 && point.graph.len() == 1 => match plain_engines {
            true => vec!["list", "heft"],
            false if point.lives.is_none() && point.slow_every.is_none() && point.failing == 0.0 => vec!["heft"],
            false => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Whether a policy of a point looks at how long tasks take.
fn looks_at_sizes(point: &Point, registry: &Registry) -> bool {
    let sizes = Needs::COST | Needs::ESTIMATE;
    let policies = point.build(registry);
    policies.is_ok_and(|policies| (policies.scheme.needs() | policies.order.needs()).intersects(sizes))
}

/// What is doubtful about an experiment, each with what would mend it.
pub fn warnings(experiment: &Experiment, registry: &Registry) -> Vec<String> {
    let mut all = Vec::new();
    let own: Vec<&Point> = experiment.points().iter().filter(|point| point.reference().is_none()).collect();
    let placements = {
        let mut names: Vec<&str> = own.iter().map(|point| point.placement.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    };
    let alike = |point: &&&Point| {
        point.speeds == "equal"
            && point.latency_s == 0.0
            && point.jitter.is_none()
            && point.dispatchers == 1
            && point.bandwidth_bytes_per_s.is_none()
            && point.lives.is_none()
            && point.slow_every.is_none()
    };
    let blind = own
        .iter()
        .filter(alike)
        .filter(|point| point.policies(registry).is_ok_and(|policies| policies.fixed_hwm() == Some(1)))
        .count();
    if placements > 1 && blind > 0 {
        all.push(format!(
            "{blind} points compare placements with one task per engine (hwm 1) on identical engines without latency: every scheme starts each task at the same time there. Set hwm, latency_s or speeds"
        ));
    }
    if experiment.replications < 3 {
        all.push(format!("{} replications give no confidence interval worth the name: 5 do", experiment.replications));
    }
    if let Some(precision) = experiment.precision {
        // Mean responses of M/M/1 to one per cent take some 1.1e6 jobs at load 0.5 and 1.7e7 at 0.9, fewer by as many engines as share the load.
        let most = own.iter().filter(|point| point.workload == Workload::Stream && point.load() < 1.0);
        let short = most.filter(|point| {
            let scv = only_size(point).map_or(1.0, |size| size.scv().max(0.1));
            let wanted = 2.0e5 / (1.0 - point.load()).powi(2) * f64::midpoint(1.0, scv) * (0.01 / precision).powi(2)
                / (point.engines as f64).sqrt();
            !wanted.is_finite() || (point.tasks as f64 * f64::from(experiment.replications_max)) < wanted
        });
        let count = short.count();
        if count > 0 {
            all.push(format!(
                "{count} points will hardly be known to {precision} within {} replications of so few tasks: raise tasks or precision",
                experiment.replications_max
            ));
        }
    }
    let endless = own.iter().filter(|point| only_size(point).is_some_and(|size| size.second_moment().is_infinite())).count();
    if endless > 0 {
        all.push(format!("{endless} points have sizes of infinite variance: their means converge slowly, if at all. boundedpareto has the same body"));
    }
    let silent = own.iter().filter(|point| {
        let classes =
            !matches!(point.workload, Workload::Graphs) && (point.workload == Workload::Trace || !point.kinds.is_empty());
        point.estimate == "none" && !classes && looks_at_sizes(point, registry)
    });
    let untold = silent.count();
    if untold > 0 {
        all.push(format!("{untold} points use a policy of sizes while labels say none (estimate = \"none\") and tasks are of one class: it can only guess"));
    }
    all
}

/// Of a mean, the start may make up so much unnoticed.
const MOST_START: f64 = 0.01;

/// Points of which the runs are too short to tell their start from the rest, by their first replications.
pub fn start_up_warnings(experiment: &Experiment, details: &[Detail]) -> Vec<String> {
    let mut found: Vec<(&Detail, f64, f64)> = details
        .iter()
        .filter_map(|detail| Some((detail, detail.start_up?)))
        .filter(|(_, start_up)| start_up.share > MOST_START)
        .map(|(detail, start_up)| (detail, start_up.memory_tasks, start_up.share))
        .collect();
    found.sort_by(|a, b| b.2.total_cmp(&a.2));
    let Some(&(worst, memory_tasks, share)) = found.first() else { return Vec::new() };
    let point = &experiment.points()[worst.point];
    let (count, name) = (found.len(), experiment.describe(worst.point));
    let many = if point.workload == Workload::Graphs { "graphs" } else { "tasks" };
    vec![format!(
        "the warm-up of {count} {} is too short: the start of {name} is felt for some {memory_tasks:.0} {many}, and may be {:.0} % of the mean. Raise {many}, or warmup",
        if count == 1 { "point" } else { "points" },
        share * 100.0
    )]
}
