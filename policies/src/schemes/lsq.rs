//! Local shortest queue: the least load by the engines' own reports, however old they are, and by what was sent since.
//! Source: Vargaftik, Keslassy and Orda 2020 (LSQ); how old reports may be to be of use: Mitzenmacher 2000.
//! A report is as old as its way was long, and what was sent as long before it had not come when it was made.

use std::collections::VecDeque;

use super::{NoParameters, engine_or_defer, stamp_key};
use crate::index::WinnerTree;
use crate::{Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Signal, Ticket, Time};

/// The scheme `lsq`. Without reports it is `leastload`.
#[derive(Clone, Debug, Default)]
pub struct Lsq {
    /// Tasks on each engine that others sent, as far as it has told: what it reported less what was ours, which the roster counts.
    others: Vec<u32>,
    /// When our tasks on each engine were sent that no report can have counted; no more than are in flight there.
    unseen: Vec<VecDeque<Time>>,
    open: WinnerTree,
}

/// Tasks on an engine, ours and those of others.
fn load(others: &[u32], roster: &Roster, engine: EngineIx) -> u32 {
    roster.load(engine).saturating_add(others.get(engine.slot()).copied().unwrap_or(0))
}

fn key(others: &[u32], roster: &Roster, engine: EngineIx) -> u128 {
    u128::from(load(others, roster, engine)) << 64 | stamp_key(roster, engine)
}

impl Lsq {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) {
            self.open.set(engine, key(&self.others, roster, engine));
        } else {
            self.open.remove(engine);
        }
    }
}

impl Scheme for Lsq {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn needs(&self) -> Needs {
        Needs::SIGNAL
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let Lsq { others, open, .. } = self;
        let found = open.least(request.candidates, |engine| key(others, cx.roster, engine));
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(load(others, roster, engine)));
        }
        engine_or_defer(found)
    }

    fn on_join(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        if self.others.len() <= engine.slot() {
            self.others.resize(engine.slot() + 1, 0);
            self.unseen.resize_with(engine.slot() + 1, VecDeque::new);
        }
        self.others[engine.slot()] = 0;
        self.unseen[engine.slot()].clear();
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.unseen[engine.slot()].push_back(cx.now);
        self.refresh(cx.roster, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        let unseen = &mut self.unseen[engine.slot()];
        while unseen.len() > cx.roster.load(engine) as usize {
            unseen.pop_front(); // mostly what was sent first ends first
        }
        self.refresh(cx.roster, engine);
    }

    fn on_signal(&mut self, cx: &mut Cx<'_>, engine: EngineIx, signal: Signal) {
        let age = cx.now.since(signal.at);
        let unseen = &mut self.unseen[engine.slot()];
        while unseen.front().is_some_and(|&sent| sent + age <= signal.at) {
            unseen.pop_front();
        }
        let counted = cx.roster.load(engine).saturating_sub(unseen.len() as u32);
        self.others[engine.slot()] = signal.load.saturating_sub(counted);
        self.refresh(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.open.check(roster, |engine| key(&self.others, roster, engine))
    }
}

impl Named for Lsq {
    const NAME: &'static str = "lsq";
    const SUMMARY: &'static str = "least load by the engines' own reports and what was sent since: for several schedulers";
    const SOURCE: &'static str = "Vargaftik, Keslassy and Orda 2020; Mitzenmacher 2000";
    type Config = NoParameters;
    fn build(NoParameters {}: NoParameters) -> Result<Self, PolicyError> {
        Ok(Lsq::default())
    }
}
