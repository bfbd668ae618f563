//! Shortest expected delay: fewest tasks, its own included, by speed; faster engines may have longer queues.
//! Source: Banawan and Zahorjan 1989; Whitt 1986. With the slow-server threshold it leaves an engine idle that would only hold a task up.

use super::slow::{self, SLOW_SERVER, SlowServer};
use super::{engine_or_defer, stamp_key};
use crate::index::{WinnerTree, sortable};
use crate::{Cx, EngineIx, Named, Needs, Outcome, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// Tasks there, with this one, by speed.
fn delay(cx: &Cx<'_>, engine: EngineIx) -> f64 {
    f64::from(cx.roster.load(engine) + 1) / cx.learned.speed(engine)
}

fn key(cx: &Cx<'_>, engine: EngineIx) -> u128 {
    u128::from(sortable(delay(cx, engine))) << 64 | stamp_key(cx.roster, engine)
}

/// The scheme `sed`.
#[derive(Clone, Debug, Default)]
pub struct Sed {
    slow_server: bool,
    open: WinnerTree,
    slow: SlowServer,
}

/// Parameters of [`Sed`] and [`NeverQueue`](super::NeverQueue).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SedConfig {
    slow_server: bool,
}

impl Sed {
    /// Indexes an engine as it is now.
    pub(super) fn refresh(&mut self, cx: &Cx<'_>, engine: EngineIx) {
        if cx.roster.is_open(engine) {
            self.open.set(engine, key(cx, engine));
        } else {
            self.open.remove(engine);
        }
        if self.slow_server {
            self.slow.refresh(cx.roster, engine, cx.learned.speed(engine));
        }
    }

    /// The candidate with the shortest expected delay.
    pub(super) fn first(&mut self, cx: &Cx<'_>, request: &Request<'_>) -> Option<EngineIx> {
        self.open.least(request.candidates, |engine| key(cx, engine))
    }

    /// An engine that was found, unless it is worth waiting for a faster one.
    pub(super) fn settle_for(&self, cx: &mut Cx<'_>, request: &Request<'_>, found: Option<EngineIx>) -> Pick {
        if let Some(engine) = found {
            let value = delay(cx, engine);
            cx.consider(engine, |_| value);
        }
        engine_or_defer(found.filter(|&engine| !self.slow_server || !self.slow.is_too_slow(cx, engine, request)))
    }
}

impl Scheme for Sed {
    fn is_work_conserving(&self) -> Option<bool> {
        Some(!self.slow_server)
    }

    fn needs(&self) -> Needs {
        Needs::SPEED | if self.slow_server { Needs::WAITING } else { Needs::empty() }
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = self.first(cx, request);
        self.settle_for(cx, request, found)
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
        check_tree(&self.open, roster)?;
        if self.slow_server { slow::check(&self.slow, roster) } else { Ok(()) }
    }
}

/// Whether exactly the open engines are in the tree, under their present stamps.
fn check_tree(tree: &WinnerTree, roster: &Roster) -> Result<(), String> {
    for engine in (0..roster.slots() as u32).map(EngineIx::new) {
        let expected = roster.is_open(engine).then(|| stamp_key(roster, engine) as u64);
        let indexed = tree.key(engine).map(|key| key as u64);
        if indexed != expected {
            return Err(format!("{engine:?}: stamp {indexed:?} indexed, roster says {expected:?}"));
        }
    }
    Ok(())
}

impl Named for Sed {
    const NAME: &'static str = "sed";
    const SUMMARY: &'static str = "shortest expected delay: tasks in flight by the engine's speed";
    const SOURCE: &'static str = "Banawan and Zahorjan 1989; slow server: Larsen and Agrawala 1983";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[SLOW_SERVER];
    type Config = SedConfig;
    fn build(config: SedConfig) -> Result<Self, PolicyError> {
        Ok(Sed { slow_server: config.slow_server, ..Sed::default() })
    }
}
