//! Which formula speaks of which point of an experiment: the bridge from parameters to the oracle. Where nothing is known, nothing is said: of a scheme
//! that comes from elsewhere only what it declares.

use pointsman_policies::{Axis, Registry};

use super::draw::Dist;
use super::experiment::{Pace, Point, Workload};
use super::oracle;
use super::workload::{ArrivalKind, Estimate};

/// The mean response in seconds that theory gives for a point, and what it is called.
pub fn mean_response_s(point: &Point, registry: &Registry) -> Option<(f64, &'static str)> {
    let plain = point.workload == Workload::Stream
        && matches!(point.pace(), Ok(Pace::Drawn(ArrivalKind::Poisson)))
        && point.speeds == "equal"
        && point.dispatchers == 1
        && point.latency_s == 0.0
        && point.jitter.is_none()
        && point.loss == 0.0
        && point.client_latency_s == 0.0
        && point.lives.is_none()
        && point.slow_every.is_none()
        && point.failing == 0.0
        && point.load() < 1.0;
    if !plain {
        return None;
    }
    let [kind] = &point.kinds().ok()?[..] else { return None };
    let (size, mean_s) = (&kind.size, kind.size.mean());
    let unit = |response: f64, name| Some((response * mean_s, name));
    let (n, load) = (point.engines, point.load());
    let exponential = matches!(size, Dist::Exponential { .. });
    if let Some(reference) = point.reference() {
        let law = || oracle::SizeLaw::of(size);
        return match (reference, n) {
            ("one-queue", _) if exponential => unit(oracle::mmn_response(n, load), "M/M/n"),
            ("one-queue", 1) => Some((oracle::fcfs_response(load, size), "M/G/1")),
            ("ps", 1) => Some((oracle::ps_response(load, mean_s), "M/G/1 PS")),
            ("srpt", 1) => Some((oracle::srpt_response(load, &law()?), "M/G/1 SRPT")),
            // Of sizes of which what has run longer lasts longer, the index falls with age; of those of which it ends sooner, it rises.
            ("gittins", 1) if matches!(size, Dist::Hyperexponential { .. }) => {
                Some((oracle::foreground_background_response(load, &law()?), "M/G/1 FB, as hazards fall"))
            }
            ("gittins", 1) if matches!(size, Dist::Deterministic { .. } | Dist::Erlang { .. } | Dist::Uniform { .. }) => {
                Some((oracle::fcfs_response(load, size), "M/G/1, as hazards rise"))
            }
            ("las", 1) => Some((oracle::foreground_background_response(load, &law()?), "M/G/1 FB")),
            _ => None,
        };
    }
    let policies = point.policies(registry).ok()?;
    let hwm = policies.fixed_hwm()?;
    let (order, placement) = (policies.on(Axis::Order), policies.on(Axis::Placement));
    let parameter = |key: &str| placement.parameters().get(key);
    if policies.on(Axis::Rebalance).name() != "none" {
        return None;
    }
    // A scheme that may leave an engine idle, or does not say, is none of which these formulas speak.
    let conserves = registry.build(placement).ok()?.is_work_conserving() == Some(true);
    if order.name() == "shortest" && n == 1 && hwm == 1 && conserves && point.estimate().ok()? == Estimate::Exact {
        return Some((oracle::sjf_response(load, &oracle::SizeLaw::of(size)?), "M/G/1 SJF"));
    }
    if order.name() != "fifo" {
        return None;
    }
    if n == 1 || hwm == 1 {
        return match (conserves, n) {
            (false, _) => None,
            (true, 1) => Some((oracle::fcfs_response(load, size), "M/G/1")),
            (true, _) if exponential => unit(oracle::mmn_response(n, load), "M/M/n"),
            (true, _) => None,
        };
    }
    if placement.name() == "sita" && hwm == 0 && point.estimate().ok()? == Estimate::Exact {
        // Cutoffs that are learned move with what comes, and do better than those of equal load where tails are heavy.
        let cutoffs: Vec<f64> = serde_json::from_value(parameter("cutoffs")?.clone()).ok()?;
        let law = oracle::SizeLaw::of(size)?;
        let response = if cutoffs.len() + 1 == n { oracle::sita_response(&cutoffs, load, &law) } else { f64::INFINITY };
        return Some((response, "SITA")).filter(|(response, _)| response.is_finite());
    }
    if !exponential {
        return match (placement.name(), hwm) {
            ("plainrandom", 0) => Some((oracle::fcfs_response(load, size), "M/G/1")),
            _ => None,
        };
    }
    let least = matches!(placement.name(), "leastload");
    match (placement.name(), hwm) {
        ("plainrandom", 0) => unit(oracle::random_response(load), "M/M/1"),
        ("roundrobin" | "pure" | "lru", 0) => unit(oracle::round_robin_response(n, load), "E_n/M/1"),
        ("twobin", 0) => unit(oracle::twobin_response(n, load), "renewal split"),
        ("leastload", 0) if n <= 3 => unit(oracle::jsq_response(n, load), "JSQ, chain"),
        ("weighted", 0) if n == 2 => unit(oracle::weighted_response(load), "weighted, chain"),
        ("leastwork", 0) if point.estimate().ok()? == Estimate::Exact => unit(oracle::mmn_response(n, load), "M/M/n"),
        ("choices", 0) if n >= 50 && parameter("memory").is_none_or(|memory| *memory == serde_json::Value::Bool(false)) => {
            let d = parameter("d").and_then(serde_json::Value::as_u64)?;
            unit(oracle::power_of_d_response(d as u32, load), "power of d, n → ∞")
        }
        ("leastload" | "plainrandom", 2..=3) if n <= 6 => unit(oracle::hwm_response(n, load, hwm as u16, least), "chain"),
        _ => None,
    }
}
