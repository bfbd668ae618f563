//! Join the idle queue: the engine that has been idle longest, or, if none is, one at random.
//! Source: Lu, Xie, Kliot, Geller, Larus and Greenberg, Join-Idle-Queue, Performance Evaluation 68(11), 2011.

use super::{NoParameters, check_members, engine_or_defer};
use crate::index::{DenseSet, WinnerTree};
use crate::{Candidates, Cx, EngineIx, Named, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `jiq`.
#[derive(Clone, Debug, Default)]
pub struct Jiq {
    open: DenseSet,
    /// Open engines with nothing in flight, in the order in which they became so.
    idle: WinnerTree,
    next: u64,
}

impl Jiq {
    fn note_if_idle(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) && roster.load(engine) == 0 && self.idle.key(engine).is_none() {
            self.next += 1;
            self.idle.set(engine, u128::from(self.next));
        }
    }
}

impl Scheme for Jiq {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(true)
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let idle = match request.candidates {
            Candidates::All => self.idle.min(),
            Candidates::Only(list) => {
                let waiting = list.iter().filter_map(|&engine| Some((self.idle.key(engine)?, engine)));
                waiting.min().map(|(_, engine)| engine)
            }
            Candidates::Except(list) => self.idle.min_except(list),
        };
        let found = idle.or_else(|| self.open.eligible(request.candidates).draw(cx.rng));
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        engine_or_defer(found)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.insert(engine);
        self.note_if_idle(cx.roster, engine);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
        self.idle.remove(engine);
    }

    fn on_dispatch(&mut self, _cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.idle.remove(engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.note_if_idle(cx.roster, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        check_members(&self.open, roster)?;
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let idle = roster.is_open(engine) && roster.load(engine) == 0;
            if self.idle.key(engine).is_some() != idle {
                return Err(format!("{engine:?}: idle {idle}, indexed otherwise"));
            }
        }
        Ok(())
    }
}

impl Named for Jiq {
    const NAME: &'static str = "jiq";
    const SUMMARY: &'static str = "the engine idle longest, or any at random if none is idle";
    const SOURCE: &'static str = "Lu et al. 2011 (join idle queue)";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Jiq::default())
    }
}
