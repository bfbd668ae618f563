//! Never queue: the fastest idle engine, and only if none is idle the shortest expected delay.
//! Source: Shenker and Weinrib, The optimal control of heterogeneous queueing systems, IEEE Trans. Computers 38(12), 1989.

use super::sed::{SedConfig, check_tree, delay, key};
use super::slow::{self, SLOW_SERVER, SlowServer};
use super::{engine_or_defer, stamp_key};
use crate::index::{WinnerTree, sortable};
use crate::{Candidates, Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `neverqueue`.
#[derive(Clone, Debug, Default)]
pub struct NeverQueue {
    slow_server: bool,
    open: WinnerTree,
    /// Open engines with nothing in flight, fastest first.
    idle: WinnerTree,
    slow: SlowServer,
}

impl NeverQueue {
    fn refresh(&mut self, cx: &Cx<'_>, engine: EngineIx) {
        if cx.roster.is_open(engine) {
            self.open.set(engine, key(cx, engine));
        }
        if cx.roster.is_open(engine) && cx.roster.load(engine) == 0 {
            self.idle.set(engine, u128::from(sortable(-cx.learned.speed(engine))) << 64 | stamp_key(cx.roster, engine));
        } else {
            self.idle.remove(engine);
        }
        if self.slow_server {
            self.slow.refresh(cx.roster, engine, cx.learned.speed(engine));
        }
    }
}

impl Scheme for NeverQueue {
    fn needs(&self) -> Needs {
        Needs::SPEED | if self.slow_server { Needs::WAITING } else { Needs::empty() }
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::All => self.idle.min().or_else(|| self.open.min()),
            Candidates::Only(list) => {
                let idle = list.iter().filter_map(|&engine| Some((self.idle.key(engine)?, engine))).min();
                idle.map(|(_, engine)| engine).or_else(|| list.iter().copied().min_by_key(|&engine| key(cx, engine)))
            }
            Candidates::Except(list) => self.idle.min_except(list).or_else(|| self.open.min_except(list)),
        };
        if let Some(engine) = found {
            let value = delay(cx, engine);
            cx.consider(engine, |_| value);
        }
        engine_or_defer(found.filter(|&engine| !self.slow_server || !self.slow.is_too_slow(cx, engine, request)))
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.open.remove(engine);
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
        check_tree(&self.open, roster)?;
        for engine in (0..roster.slots() as u32).map(EngineIx::new) {
            let idle = roster.is_open(engine) && roster.load(engine) == 0;
            if self.idle.key(engine).is_some() != idle {
                return Err(format!("{engine:?}: idle {idle}, indexed otherwise"));
            }
        }
        if self.slow_server { slow::check(&self.slow, roster) } else { Ok(()) }
    }
}

impl Named for NeverQueue {
    const NAME: &'static str = "neverqueue";
    const SUMMARY: &'static str = "the fastest idle engine; the shortest expected delay if none is idle";
    const SOURCE: &'static str = "Shenker and Weinrib 1989; slow server: Larsen and Agrawala 1983";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[SLOW_SERVER];
    type Config = SedConfig;
    fn build(config: SedConfig) -> Result<Self, PolicyError> {
        Ok(NeverQueue { slow_server: config.slow_server, ..NeverQueue::default() })
    }
}
