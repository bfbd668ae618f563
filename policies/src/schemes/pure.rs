//! Round robin without limit, the order of ipyparallel's `pure` (a ZeroMQ DEALER), which gave up dependencies, targets and
//! retries for it. Here it is a scheme like any other and gives up nothing; only its default hwm of 0 tells it from `lru`.

use super::{Lru, NoParameters};
use crate::{Cx, EngineIx, Named, Pick, PolicyError, Request, Roster, Scheme, Ticket};

/// The scheme `pure`.
#[derive(Clone, Debug, Default)]
pub struct Pure(Lru);

impl Scheme for Pure {
    fn is_work_conserving(&self) -> Option<bool> {
        self.0.is_work_conserving()
    }

    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        self.0.pick(cx, request)
    }
    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.0.on_open(cx, engine);
    }
    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.0.on_close(cx, engine);
    }
    fn on_dispatch(&mut self, cx: &mut Cx<'_>, engine: EngineIx, request: &Request<'_>) -> Ticket {
        self.0.on_dispatch(cx, engine, request)
    }
    fn check(&self, roster: &Roster) -> Result<(), String> {
        self.0.check(roster)
    }
}

impl Named for Pure {
    const NAME: &'static str = "pure";
    const SUMMARY: &'static str = "round robin without a limit on tasks in flight (hwm 0 unless set)";
    const DEFAULT_HWM: Option<u32> = Some(0);
    const SOURCE: &'static str = "ipyparallel (a ZeroMQ DEALER)";
    type Config = NoParameters;
    fn build(_: NoParameters) -> Result<Self, PolicyError> {
        Ok(Pure::default())
    }
}
