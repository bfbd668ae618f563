//! Two engines at random, each with probability proportional to 1 / (1e-6 + load); the less loaded of them, ties to the first draw.
//! Source: ipyparallel's `weighted`, whose weights make an idle engine a million times likelier than one with a task.

use super::NoParameters;
use crate::index::SumTree;
use crate::{Candidates, Cx, EngineIx, Named, Outcome, Pick, PolicyError, Request, Rng, Roster, Scheme, Ticket};

/// The scheme `weighted`.
#[derive(Clone, Debug, Default)]
pub struct Weighted {
    open: SumTree,
}

fn weight(roster: &Roster, engine: EngineIx) -> f64 {
    1.0 / (1e-6 + f64::from(roster.load(engine)))
}

/// One draw from a short list, by walking its running sum.
fn draw_only(list: &[EngineIx], roster: &Roster, rng: &mut Rng) -> Option<EngineIx> {
    let total: f64 = list.iter().map(|&engine| weight(roster, engine)).sum();
    let mut left_over = rng.unit() * total;
    for &engine in list {
        left_over -= weight(roster, engine);
        if left_over < 0.0 {
            return Some(engine);
        }
    }
    list.last().copied()
}

impl Weighted {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) {
            self.open.set(engine, weight(roster, engine));
        }
    }
}

impl Scheme for Weighted {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let rng = &mut *cx.rng;
        let (a, b) = match request.candidates {
            Candidates::All => (self.open.draw(rng), self.open.draw(rng)),
            Candidates::Only(list) => (draw_only(list, cx.roster, rng), draw_only(list, cx.roster, rng)),
            Candidates::Except(list) => self.open.with_except(list, |tree| (tree.draw(rng), tree.draw(rng))),
        };
        for engine in [a, b].into_iter().flatten() {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        match (a, b) {
            (Some(a), Some(b)) if cx.roster.load(b) < cx.roster.load(a) => Pick::Engine(b),
            (Some(a), Some(_)) => Pick::Engine(a),
            _ => Pick::Defer { until: None },
        }
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.set(engine, 0.0);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.refresh(cx.roster, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let expected = if roster.is_open(engine) { weight(roster, engine) } else { 0.0 };
            if self.open.weight(engine) != expected {
                return Err(format!("{engine:?}: weight {}, roster says {expected}", self.open.weight(engine)));
            }
        }
        Ok(())
    }
}

impl Named for Weighted {
    const NAME: &'static str = "weighted";
    const SUMMARY: &'static str = "two engines drawn with weight 1/load, the less loaded of them";
    const SOURCE: &'static str = "ipyparallel";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Weighted::default())
    }
}
