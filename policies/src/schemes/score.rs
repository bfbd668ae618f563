//! A sum of weighted terms over a few engines at random, least wins: for those who want to mix what other schemes look at, or to tune it.
//! Source: the form is that of Kubernetes' and Nomad's scoring; sampling as in the power of d choices (Mitzenmacher 2001).

use super::{check_members, engine_or_defer, least_of};
use crate::index::{DenseSet, fresh_row};
use crate::registry::in_range;
use crate::{Cx, Ending, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme};

/// Weight of a new observation.
const NEW_WEIGHT: f64 = 0.1;

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    latency_s: f64,
    /// Share of attempts that failed or were lost.
    failures: f64,
    samples: u32,
}

/// The scheme `score`.
#[derive(Clone, Debug, Default)]
pub struct Score {
    config: ScoreConfig,
    open: DenseSet,
    seen: Vec<Seen>,
}

/// Parameters of [`Score`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreConfig {
    d: usize,
    load: f64,
    delay: f64,
    latency: f64,
    bytes: f64,
    failures: f64,
    random: f64,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig { d: 4, load: 1.0, delay: 0.0, latency: 0.0, bytes: 0.0, failures: 0.0, random: 0.0 }
    }
}

impl Score {
    fn score(&self, cx: &Cx<'_>, engine: EngineIx, request: &Request<'_>, expected_s: f64) -> f64 {
        let (config, seen) = (&self.config, self.seen[engine.slot()]);
        let load = f64::from(cx.roster.load(engine));
        let mut sum = config.load * load + config.latency * seen.latency_s + config.failures * seen.failures;
        if config.delay != 0.0 {
            sum += config.delay * (load + 1.0) * expected_s / cx.learned.speed(engine);
        }
        if config.bytes != 0.0 {
            let elsewhere = request.task.inputs().iter().filter(|input| input.engine != engine);
            sum += config.bytes * elsewhere.map(|input| input.bytes as f64).sum::<f64>() / (1024.0 * 1024.0);
        }
        sum
    }
}

impl Scheme for Score {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        let config = &self.config;
        let mut needs = Needs::empty();
        for (weight, need) in [
            (config.delay, Needs::COST | Needs::ESTIMATE | Needs::SPEED),
            (config.latency, Needs::LATENCY),
            (config.bytes, Needs::INPUTS),
        ] {
            needs.set(need, weight != 0.0);
        }
        needs
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let mut drawn = self.open.eligible(request.candidates).sample(self.config.d, cx.rng);
        if self.config.bytes != 0.0 {
            // Those that hold inputs would seldom be drawn.
            let open = |engine: &EngineIx| cx.roster.is_open(*engine) && request.candidates.contains(*engine);
            let holders = request.task.inputs().iter().take(16).map(|input| input.engine).filter(open);
            for engine in holders.collect::<smallvec::SmallVec<[EngineIx; 16]>>() {
                if !drawn.contains(&engine) {
                    drawn.push(engine);
                }
            }
        }
        let expected_s = if self.config.delay == 0.0 { 0.0 } else { cx.learned.expected_s(&request.task).unwrap_or(1.0) };
        if self.config.random == 0.0 {
            return engine_or_defer(least_of(cx, drawn, |cx, engine| self.score(cx, engine, request, expected_s)));
        }
        let noise: smallvec::SmallVec<[f64; 16]> = drawn.iter().map(|_| cx.rng.unit() * self.config.random).collect();
        let place = |engine: EngineIx| drawn.iter().position(|&other| other == engine).unwrap_or(0);
        let noisy = |cx: &Cx<'_>, engine| self.score(cx, engine, request, expected_s) + noise[place(engine)];
        engine_or_defer(least_of(cx, drawn.iter().copied(), noisy))
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
        let failed = match outcome.ending {
            Ending::Ok => 0.0,
            Ending::Failed | Ending::Lost => 1.0,
            Ending::Unmet | Ending::Cancelled => return,
        };
        let seen = &mut self.seen[engine.slot()];
        seen.samples = seen.samples.saturating_add(1);
        let weight = (1.0 / f64::from(seen.samples)).max(NEW_WEIGHT);
        seen.failures += weight * (failed - seen.failures);
        seen.latency_s += weight * (outcome.latency.as_secs_f64() - seen.latency_s);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)
    }
}

impl Named for Score {
    const NAME: &'static str = "score";
    const SUMMARY: &'static str = "weighted terms over d engines at random: load, delay, latency, bytes to move, failures";
    const SOURCE: &'static str = "Kubernetes, Nomad; Mitzenmacher 2001";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("d", "how many are drawn, 1 to 64"),
        ("load", "weight of each task in flight"),
        ("delay", "weight of each second until the task would be done, by its expected time and the engine's speed"),
        ("latency", "weight of each second of the engine's mean latency"),
        ("bytes", "weight of each MiB of inputs that is elsewhere; engines that hold some are looked at too"),
        ("failures", "weight of the share of attempts that failed there"),
        ("random", "weight of a uniform draw from 0 to 1"),
    ];
    type Config = ScoreConfig;
    fn build(config: ScoreConfig) -> Result<Self, PolicyError> {
        in_range(Self::NAME, "d", config.d, 1..=64)?;
        for (name, weight) in [
            ("load", config.load),
            ("delay", config.delay),
            ("latency", config.latency),
            ("bytes", config.bytes),
            ("failures", config.failures),
            ("random", config.random),
        ] {
            in_range(Self::NAME, name, weight, -1e9..=1e9)?;
        }
        Ok(Score { config, ..Score::default() })
    }
}
