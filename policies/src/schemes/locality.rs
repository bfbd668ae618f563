//! Soft locality: a task goes to the engine that holds most of what it depends on; if that is busy it waits for it, but not for long.
//! Source: Zaharia et al., Delay scheduling, EuroSys 2010. A task's `follow` is a wish here, with a price in waiting, and no limit.

use std::time::Duration;

use smallvec::SmallVec;

use super::LeastLoad;
use crate::registry::in_range;
use crate::{Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `locality`: where there is nothing to be near to, `leastload`.
#[derive(Clone, Debug, Default)]
pub struct Locality {
    wait: Duration,
    elsewhere: LeastLoad,
}

/// Parameters of [`Locality`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalityConfig {
    wait_ms: f64,
}

impl Default for LocalityConfig {
    fn default() -> Self {
        LocalityConfig { wait_ms: 100.0 }
    }
}

impl Scheme for Locality {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(self.wait.is_zero())
    }

    fn needs(&self) -> Needs {
        Needs::INPUTS | Needs::SOFT_FOLLOW
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let inputs = request.task.inputs();
        if inputs.is_empty() {
            return self.elsewhere.pick(cx, request);
        }
        // Bytes by engine; an empty result still counts as one, so that a place is a place.
        let mut held: SmallVec<[(EngineIx, u64); 8]> = SmallVec::new();
        for input in inputs {
            match held.iter_mut().find(|(engine, _)| *engine == input.engine) {
                Some((_, bytes)) => *bytes += input.bytes.max(1),
                None => held.push((input.engine, input.bytes.max(1))),
            }
        }
        let admitted = |&(engine, _): &(EngineIx, u64)| cx.roster.is_live(engine) && request.candidates.contains(engine);
        held.retain(|row| admitted(row));
        for &(engine, bytes) in &held {
            cx.consider(engine, |_| -(bytes as f64));
        }
        let open = held.iter().filter(|(engine, _)| cx.roster.is_open(*engine));
        let most =
            open.max_by_key(|&&(engine, bytes)| (bytes, std::cmp::Reverse((cx.roster.load(engine), cx.roster.stamp(engine)))));
        if let Some(&(engine, _)) = most {
            return Pick::Engine(engine);
        }
        let until = request.task.ready() + self.wait;
        if !held.is_empty() && cx.now < until {
            return Pick::Defer { until: Some(until) };
        }
        self.elsewhere.pick(cx, request)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.elsewhere.on_open(cx, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.elsewhere.on_close(cx, engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, request: &Request<'_>) -> Ticket {
        self.elsewhere.on_dispatch(cx, engine, request)
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        self.elsewhere.on_outcome(cx, engine, outcome);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.elsewhere.check(roster)
    }
}

impl Named for Locality {
    const NAME: &'static str = "locality";
    const SUMMARY: &'static str = "the engine that holds most of a task's inputs, waiting for it a while; follow is a wish";
    const SOURCE: &'static str = "Zaharia et al. 2010 (delay scheduling)";
    const PARAMETERS: &'static [(&'static str, &'static str)] =
        &[("wait_ms", "longest wait for a busy engine that holds inputs, milliseconds, 0 to 1e9")];
    type Config = LocalityConfig;
    fn build(config: LocalityConfig) -> Result<Self, PolicyError> {
        let wait_ms = in_range(Self::NAME, "wait_ms", config.wait_ms, 0.0..=1e9)?;
        Ok(Locality { wait: Duration::from_secs_f64(wait_ms / 1e3), ..Locality::default() })
    }
}
