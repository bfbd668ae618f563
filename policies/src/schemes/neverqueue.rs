//! Never queue: the fastest idle engine, and only if none is idle the shortest expected delay.
//! Source: Shenker and Weinrib, The optimal control of heterogeneous queueing systems, IEEE Trans. Computers 38(12), 1989.

use super::sed::{Sed, SedConfig};
use super::slow::SLOW_SERVER;
use super::stamp_key;
use crate::index::{WinnerTree, sortable};
use crate::{Candidates, Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `neverqueue`: `sed`, with idle engines first.
#[derive(Clone, Debug, Default)]
pub struct NeverQueue {
    sed: Sed,
    /// Open engines with nothing in flight, fastest first.
    idle: WinnerTree,
}

impl NeverQueue {
    fn refresh(&mut self, cx: &Cx<'_>, engine: EngineIx) {
        self.sed.refresh(cx, engine);
        if cx.roster.is_open(engine) && cx.roster.load(engine) == 0 {
            self.idle.set(engine, u128::from(sortable(-cx.learned.speed(engine))) << 64 | stamp_key(cx.roster, engine));
        } else {
            self.idle.remove(engine);
        }
    }
}

impl Scheme for NeverQueue {
    fn is_work_conserving(&self) -> Option<bool> {
        self.sed.is_work_conserving()
    }

    fn needs(&self) -> Needs {
        self.sed.needs()
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let idle = match request.candidates {
            Candidates::All => self.idle.min(),
            Candidates::Only(list) => {
                list.iter().filter_map(|&engine| Some((self.idle.key(engine)?, engine))).min().map(|(_, engine)| engine)
            }
            Candidates::Except(list) => self.idle.min_except(list),
        };
        let found = idle.or_else(|| self.sed.first(cx, request));
        self.sed.settle_for(cx, request, found)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_barred(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_leave(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _request: &Request<'_>) -> Ticket {
        self.refresh(cx, engine);
        Ticket::default()
    }

    fn on_outcome(&mut self, cx: &mut Cx<'_>, engine: EngineIx, _outcome: &Outcome) {
        self.refresh(cx, engine);
    }

    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.sed.check(roster)?;
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let idle = roster.is_open(engine) && roster.load(engine) == 0;
            if self.idle.key(engine).is_some() != idle {
                return Err(format!("{engine:?}: idle {idle}, indexed otherwise"));
            }
        }
        Ok(())
    }
}

impl Named for NeverQueue {
    const NAME: &'static str = "neverqueue";
    const SUMMARY: &'static str = "the fastest idle engine; the shortest expected delay if none is idle";
    const SOURCE: &'static str = "Shenker and Weinrib 1989; slow server: Larsen and Agrawala 1983";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[SLOW_SERVER];
    type Config = SedConfig;
    fn build(config: SedConfig) -> Result<Self, PolicyError> {
        Ok(NeverQueue { sed: Sed::build(config)?, ..NeverQueue::default() })
    }
}
