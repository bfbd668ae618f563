//! Experiments that can not show what they ask, noticed before they are run.

use super::file::Experiment;
use super::point::{Point, Workload};
use super::run::only_size;

/// References that make sense for a point.
pub(super) fn references_of(point: &Point) -> Vec<&'static str> {
    let plain_engines = point.speeds == "equal" && point.lives.is_none() && point.slow_every.is_none() && point.failing == 0.0;
    match point.workload {
        Workload::Stream if plain_engines => vec!["one-queue", "srpt", "gittins", "ps", "las"],
        // What is known of a trace's sizes beforehand would be the trace.
        Workload::Trace if plain_engines => vec!["one-queue", "srpt", "ps", "las"],
        Workload::Graphs if point.graphs == 1 && point.lives.is_none() => {
            if plain_engines {
                vec!["list", "heft"]
            } else {
                vec!["heft"]
            }
        }
        _ => Vec::new(),
    }
}

/// What is doubtful about an experiment, each with what would mend it.
pub fn warnings(experiment: &Experiment) -> Vec<String> {
    let mut all = Vec::new();
    let own: Vec<&Point> = experiment.points().iter().filter(|point| point.reference().is_none()).collect();
    let placements = {
        let mut names: Vec<&str> = own.iter().map(|point| point.placement.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    };
    let limited_to_one = |point: &&&Point| point.hwm.unwrap_or(1) == 1 && point.admission.is_none();
    let alike = |point: &&&Point| {
        point.speeds == "equal"
            && point.latency_s == 0.0
            && point.jitter.is_none()
            && point.dispatchers == 1
            && point.bandwidth_bytes_per_s.is_none()
            && point.lives.is_none()
            && point.slow_every.is_none()
    };
    let blind = own.iter().filter(limited_to_one).filter(alike).count();
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
    let estimated = |point: &&&Point| {
        ["leastwork", "lwl", "sita", "shortest", "longest"]
            .iter()
            .any(|name| point.placement.starts_with(name) || point.order.starts_with(name))
    };
    let untold = own
        .iter()
        .filter(estimated)
        .filter(|point| point.estimate == "none" && point.kinds.is_empty() && point.workload != Workload::Closed)
        .count();
    if untold > 0 {
        all.push(format!("{untold} points use a policy of sizes while labels say none (estimate = \"none\") and tasks are of one class: it can only guess"));
    }
    all
}
