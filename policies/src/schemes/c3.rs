//! C3's score over a few engines at random: mean response, plus mean run time times the cube of the queue: long queues weigh more than
//! proportionally. Source: Suresh, Canini, Schmid and Feldmann, C3: cutting tail latency in cloud data stores, NSDI 2015.

use super::{check_members, engine_or_defer, least_of};
use crate::index::{DenseSet, fresh_row};
use crate::registry::in_range;
use crate::{Cx, Ending, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme};

/// What an engine that has tasks and has never answered is taken for: worse than any known.
const UNKNOWN_S: f64 = 1e6;
/// Weight of a new observation, as in the paper.
const NEW_WEIGHT: f64 = 0.1;

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    response_s: f64,
    run_s: f64,
    known: bool,
}

/// The scheme `c3`.
#[derive(Clone, Debug, Default)]
pub struct C3 {
    d: usize,
    open: DenseSet,
    seen: Vec<Seen>,
}

/// Parameters of [`C3`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct C3Config {
    d: usize,
}

impl Default for C3Config {
    fn default() -> Self {
        C3Config { d: 3 }
    }
}

impl C3 {
    /// One scheduler sends everything, so the queue is known and needs no estimate: what is in flight, and this task.
    fn score(&self, cx: &Cx<'_>, engine: EngineIx) -> f64 {
        let (seen, queue) = (self.seen[engine.slot()], f64::from(cx.roster.load(engine)) + 1.0);
        if !seen.known {
            // One task finds out, and no more are sent before it has.
            return if queue > 1.0 { UNKNOWN_S + queue } else { 0.0 };
        }
        seen.response_s - seen.run_s + queue.powi(3) * seen.run_s
    }
}

impl Scheme for C3 {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::LATENCY | Needs::RUN
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let drawn = self.open.eligible(request.candidates).sample(self.d, cx.rng);
        engine_or_defer(least_of(cx, drawn, |cx, engine| self.score(cx, engine)))
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        fresh_row(&mut self.seen, engine);
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_outcome(&mut self, _cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        if !matches!(outcome.ending, Ending::Ok | Ending::Failed) {
            return;
        }
        let response_s = outcome.latency.as_secs_f64();
        let run_s = outcome.run.unwrap_or(outcome.latency).as_secs_f64();
        let seen = &mut self.seen[engine.slot()];
        let weight = if seen.known { NEW_WEIGHT } else { 1.0 };
        seen.response_s += weight * (response_s - seen.response_s);
        seen.run_s += weight * (run_s - seen.run_s);
        seen.known = true;
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)
    }
}

impl Named for C3 {
    const NAME: &'static str = "c3";
    const SUMMARY: &'static str = "d engines at random, the best by response time and the cube of the queue";
    const SOURCE: &'static str = "Suresh et al. 2015 (C3)";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[("d", "how many are drawn, 1 to 64")];
    type Config = C3Config;
    fn build(config: C3Config) -> Result<Self, PolicyError> {
        Ok(C3 { d: in_range(Self::NAME, "d", config.d, 1..=64)?, ..C3::default() })
    }
}
