//! A limit that keeps engines busy and no fuller: the least number of tasks in flight at which an engine, seen as a closed network of one
//! server and one delay, is used as much as asked. Source: the machine repairman model (Palm 1947); its idle share is Erlang's B formula.

use super::{Admission, AdmissionCx};
use crate::registry::in_range;
use crate::{Ending, EngineIx, Named, Needs, Outcome, PolicyError, Time};

/// How long a shortest round trip is believed before a new one is looked for, in nanoseconds.
const WINDOW_NS: u64 = 10_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Engine {
    hwm: u32,
    /// Mean run time, exponentially weighted.
    run_s: f64,
    samples: u32,
    /// The least time beyond the run in this window and the one before, of tasks that were sent to an idle engine: none of it is queueing.
    least_s: [f64; 2],
    window: Time,
}

impl Engine {
    const fn new(hwm: u32) -> Self {
        Engine { hwm, run_s: 0.0, samples: 0, least_s: [f64::INFINITY; 2], window: Time::ZERO }
    }

    fn observe(&mut self, now: Time, run_s: f64, beyond_s: Option<f64>) {
        self.samples += 1;
        self.run_s += (run_s - self.run_s) / f64::from(self.samples.min(20));
        let Some(beyond_s) = beyond_s else { return };
        if now.since(self.window).as_nanos() as u64 >= WINDOW_NS {
            self.least_s = [f64::INFINITY, self.least_s[0]];
            self.window = now;
        }
        self.least_s[0] = self.least_s[0].min(beyond_s);
    }
}

/// The admission policy `adaptive`.
#[derive(Clone, Debug)]
pub struct Adaptive {
    target: f64,
    min: u32,
    max: u32,
    engines: Vec<Engine>,
}

/// Parameters of [`Adaptive`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveConfig {
    target: f64,
    min: u32,
    max: u32,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        AdaptiveConfig { target: 0.95, min: 1, max: 64 }
    }
}

/// The least number of tasks in flight, from `min` to `max`, at which an engine is used for `target` of its time, when a task runs for `run_s`
/// and takes `delay_s` besides. O(result).
pub(super) fn least_hwm(target: f64, run_s: f64, delay_s: f64, min: u32, max: u32) -> u32 {
    let offered = delay_s / run_s.max(1e-9);
    let mut idle = 1.0; // Erlang's B, by its recursion
    for hwm in 1..=max {
        idle = offered * idle / (f64::from(hwm) + offered * idle);
        if hwm >= min && 1.0 - idle >= target {
            return hwm;
        }
    }
    max
}

impl Admission for Adaptive {
    fn needs(&self) -> Needs {
        Needs::LATENCY | Needs::RUN
    }

    fn on_join(&mut self, _cx: &AdmissionCx<'_>, engine: EngineIx) -> u32 {
        if self.engines.len() <= engine.slot() {
            self.engines.resize(engine.slot() + 1, Engine::new(self.min));
        }
        self.engines[engine.slot()] = Engine::new(self.min);
        self.min
    }

    fn on_outcome(&mut self, cx: &AdmissionCx<'_>, engine: EngineIx, outcome: &Outcome) -> Option<u32> {
        let run = outcome.run.filter(|_| matches!(outcome.ending, Ending::Ok | Ending::Failed))?;
        let row = self.engines.get_mut(engine.slot())?;
        let beyond_s = (outcome.ahead == 0).then(|| outcome.latency.saturating_sub(run).as_secs_f64());
        row.observe(cx.now, run.as_secs_f64(), beyond_s);
        let delay_s = row.least_s[0].min(row.least_s[1]);
        if delay_s.is_infinite() {
            return None; // nothing was ever sent to it while it was idle
        }
        let wanted = least_hwm(self.target, row.run_s, delay_s, self.min, self.max);
        // Down at once, up by one: a single odd measurement fills no queue.
        let hwm = wanted.min(row.hwm + 1);
        (hwm != row.hwm).then(|| {
            row.hwm = hwm;
            hwm
        })
    }
}

impl Named for Adaptive {
    const NAME: &'static str = "adaptive";
    const SUMMARY: &'static str = "as few tasks in flight as keep an engine busy, from measured round trips and run times";
    const SOURCE: &'static str = "Palm 1947 (machine repairman)";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("target", "share of its time that an engine is to be busy, 0.5 to 0.999"),
        ("min", "the least hwm, 1 or more"),
        ("max", "the greatest hwm, to 10000"),
    ];
    type Config = AdaptiveConfig;
    fn build(config: AdaptiveConfig) -> Result<Self, PolicyError> {
        let max = in_range(Self::NAME, "max", config.max, 1..=10_000)?;
        Ok(Adaptive {
            target: in_range(Self::NAME, "target", config.target, 0.5..=0.999)?,
            min: in_range(Self::NAME, "min", config.min, 1..=max)?,
            max,
            engines: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Roster, Ticket};
    use std::time::Duration;

    #[test]
    fn it_agrees_with_the_closed_network() {
        // With a delay as long as the run: 1 in flight uses half, 2 use 0.8, 4 use 64/65.
        for (target, hwm) in [(0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (0.984, 4), (0.985, 5)] {
            assert_eq!(least_hwm(target, 1.0, 1.0, 1, 64), hwm, "{target}");
        }
        assert_eq!(least_hwm(0.95, 1.0, 0.0, 1, 64), 1);
        assert_eq!(least_hwm(0.95, 1e-6, 1.0, 1, 64), 64);
        assert_eq!(least_hwm(0.5, 1.0, 0.0, 3, 64), 3);
    }

    #[test]
    fn queueing_is_not_taken_for_delay_and_a_change_is_followed() {
        let mut policy = Adaptive::build(AdaptiveConfig::default()).unwrap();
        let roster = Roster::default();
        let engine = EngineIx::new(0);
        let mut hwm = policy.on_join(&AdmissionCx::new(Time::ZERO, &roster), engine);
        let mut end = |policy: &mut Adaptive, at_s: f64, run_s: f64, latency_s: f64| {
            let cx = AdmissionCx::new(Time::ZERO + Duration::from_secs_f64(at_s), &roster);
            let mut outcome = Outcome::new(Ticket(0), Ending::Ok, Duration::from_secs_f64(latency_s));
            outcome.run = Some(Duration::from_secs_f64(run_s));
            outcome.ahead = u32::from(latency_s > 2.0 * run_s);
            if let Some(new) = policy.on_outcome(&cx, engine, &outcome) {
                hwm = new;
            }
            hwm
        };
        // Runs of 10 ms, round trips of 10 ms beside: three in flight reach 0.9375, four 0.98.
        for n in 0..50 {
            end(&mut policy, f64::from(n) * 0.02, 0.01, 0.02);
        }
        assert_eq!(end(&mut policy, 1.0, 0.01, 0.02), 4);
        // Others queue in front of it, for many windows: latency grows, the delay does not.
        for n in 0..5_000 {
            assert_eq!(end(&mut policy, 1.0 + f64::from(n) * 0.02, 0.01, 0.06), 4);
        }
        // Tasks become long: one is enough.
        for n in 0..60 {
            end(&mut policy, 102.0 + f64::from(n), 1.0, 1.01);
        }
        assert_eq!(end(&mut policy, 163.0, 1.0, 1.01), 1);
    }
}
