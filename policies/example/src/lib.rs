//! Two policies of a third party's: a scheme that fills engines up one after the other, fullest first, and an order that sends small requests
//! before large ones. The program beside this library has them next to the built-in ones.

use pointsman_policies::index::WinnerTree;
use pointsman_policies::{
    Candidates, Cx, EngineIx, Named, Order, OrderCx, Outcome, Pick, PolicyError, Rank, Registry, Request, Roster, Scheme,
    TaskView, Ticket, in_range,
};
use serde::{Deserialize, Serialize};

/// The scheme `bestfit`: the fullest engine that has room for one more, so that others run empty and can be switched off.
#[derive(Clone, Debug, Default)]
pub struct BestFit {
    /// The most tasks that it puts on one engine.
    room: u32,
    /// Engines with room, fullest first.
    with_room: WinnerTree,
}

/// Parameters of [`BestFit`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BestFitConfig {
    room: u32,
}

impl Default for BestFitConfig {
    fn default() -> Self {
        BestFitConfig { room: 4 }
    }
}

/// Fuller engines first, and the lower place of two.
fn key(roster: &Roster, engine: EngineIx) -> u128 {
    u128::from(u32::MAX - roster.load(engine)) << 32 | engine.slot() as u128
}

impl BestFit {
    fn refresh(&mut self, roster: &Roster, engine: EngineIx) {
        if roster.is_open(engine) && roster.load(engine) < self.room {
            self.with_room.set(engine, key(roster, engine));
        } else {
            self.with_room.remove(engine);
        }
    }
}

impl Scheme for BestFit {
    fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
        let found = match request.candidates {
            Candidates::All => self.with_room.min(),
            Candidates::Except(list) => self.with_room.min_except(list),
            Candidates::Only(list) => list
                .iter()
                .copied()
                .filter(|&engine| self.with_room.key(engine).is_some())
                .min_by_key(|&engine| key(cx.roster, engine)),
        };
        if let Some(engine) = found {
            cx.consider(engine, |roster| f64::from(roster.load(engine)));
        }
        found.map_or(Pick::Defer { until: None }, Pick::Engine)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, engine: EngineIx) {
        self.refresh(cx.roster, engine);
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
            let has_room = roster.is_open(engine) && roster.load(engine) < self.room;
            if self.with_room.key(engine) != has_room.then(|| key(roster, engine)) {
                return Err(format!("{engine:?}: room {has_room}, indexed otherwise"));
            }
        }
        Ok(())
    }
}

impl Named for BestFit {
    const NAME: &'static str = "bestfit";
    const SUMMARY: &'static str = "the fullest engine that has room for one more";
    const SOURCE: &'static str = "best fit, as in packing";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[("room", "the most tasks on one engine, 1 to 1000")];
    type Config = BestFitConfig;
    fn build(config: BestFitConfig) -> Result<Self, PolicyError> {
        Ok(BestFit { room: in_range(Self::NAME, "room", config.room, 1..=1000)?, ..BestFit::default() })
    }
}

/// The order `smallfirst`: the task with the smallest request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmallFirst;

/// [`SmallFirst`] has no parameters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallFirstConfig {}

impl Order for SmallFirst {
    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        Rank::key(task.bytes())
    }
}

impl Named for SmallFirst {
    const NAME: &'static str = "smallfirst";
    const SUMMARY: &'static str = "the task with the smallest request";
    const SOURCE: &'static str = "this example";
    type Config = SmallFirstConfig;
    fn build(_: SmallFirstConfig) -> Result<Self, PolicyError> {
        Ok(SmallFirst)
    }
}

/// Adds both to a registry.
///
/// # Errors
/// If a name is taken.
pub fn register(registry: &mut Registry) -> Result<(), PolicyError> {
    registry.register::<BestFit>()?.register_order::<SmallFirst>()?;
    Ok(())
}
