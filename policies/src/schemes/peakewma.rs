//! Two engines at random, the one with less of (peak-sensitive mean latency, decayed since last heard of) times (tasks in flight and one).
//! Source: Finagle's `p2c` with `PeakEwma` (Twitter): a slow answer counts at once, fast ones only over time.

use super::{check_members, engine_or_defer, least_of};
use crate::index::{DenseSet, fresh_row};
use crate::registry::in_range;
use crate::{Cx, Ending, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Time};

/// What an engine that has tasks and has never answered is taken for: worse than any known, so that one task finds out.
const UNKNOWN_S: f64 = 1e6;

#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    latency_s: f64,
    heard: Time,
    known: bool,
}

/// The scheme `peakewma`.
#[derive(Clone, Debug, Default)]
pub struct PeakEwma {
    decay_s: f64,
    open: DenseSet,
    peaks: Vec<Peak>,
}

/// Parameters of [`PeakEwma`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeakEwmaConfig {
    decay_s: f64,
}

impl Default for PeakEwmaConfig {
    fn default() -> Self {
        PeakEwmaConfig { decay_s: 10.0 }
    }
}

impl PeakEwma {
    fn kept(&self, since: Time, now: Time) -> f64 {
        (-now.since(since).as_secs_f64() / self.decay_s).exp()
    }

    fn cost(&self, cx: &Cx<'_>, engine: EngineIx) -> f64 {
        let (peak, load) = (self.peaks[engine.slot()], f64::from(cx.roster.load(engine)));
        match (peak.known, load > 0.0) {
            // However long ago it was, load still tells engines apart.
            (true, _) => (peak.latency_s * self.kept(peak.heard, cx.now)).max(1e-9) * (load + 1.0),
            (false, true) => UNKNOWN_S + load,
            (false, false) => 0.0,
        }
    }
}

impl Scheme for PeakEwma {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::LATENCY
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let drawn = self.open.eligible(request.candidates).sample(2, cx.rng);
        engine_or_defer(least_of(cx, drawn, |cx, engine| self.cost(cx, engine)))
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        fresh_row(&mut self.peaks, engine);
    }

    fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
        if !matches!(outcome.ending, Ending::Ok | Ending::Failed) {
            return;
        }
        let peak = self.peaks[engine.slot()];
        let latency_s = outcome.latency.as_secs_f64();
        let kept = self.kept(peak.heard, cx.now);
        let mean = if latency_s > peak.latency_s { latency_s } else { peak.latency_s * kept + latency_s * (1.0 - kept) };
        self.peaks[engine.slot()] = Peak { latency_s: mean, heard: cx.now, known: true };
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)
    }
}

impl Named for PeakEwma {
    const NAME: &'static str = "peakewma";
    const SUMMARY: &'static str = "two engines at random, the one with less latency times load; slow answers count at once";
    const SOURCE: &'static str = "Finagle (Twitter): p2c with PeakEwma";
    const PARAMETERS: &'static [(&'static str, &'static str)] =
        &[("decay_s", "seconds in which what is known of an engine fades to 1/e, 0.001 to 1e6")];
    type Config = PeakEwmaConfig;
    fn build(config: PeakEwmaConfig) -> Result<Self, PolicyError> {
        Ok(PeakEwma { decay_s: in_range(Self::NAME, "decay_s", config.decay_s, 1e-3..=1e6)?, ..PeakEwma::default() })
    }
}
