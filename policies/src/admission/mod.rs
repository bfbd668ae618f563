//! The admission axis: how many tasks an engine may have in flight at once. The scheduler enforces the number; a policy sets it when an
//! engine joins and may change it with every outcome.

mod adaptive;
mod fixed;

pub use adaptive::Adaptive;
pub use fixed::{Fixed, PerEngine};

use crate::{EngineIx, Needs, Outcome, PolicyError, Registry, Roster, Time};

/// Sets how many tasks each engine may have in flight.
///
/// # Calling order
/// `on_join` when an engine joins, or for each engine when the policy takes over; `on_outcome` for each end of a task there;
/// `on_leave` when it has gone.
pub trait Admission: Send {
    /// What it looks at. Must not change.
    fn needs(&self) -> Needs {
        Needs::empty()
    }

    /// The hwm of an engine that joins; 0 for no limit.
    fn on_join(&mut self, cx: &AdmissionCx<'_>, engine: EngineIx) -> u32;

    /// A task ended on an engine. Returns the engine's new hwm, if it changes.
    fn on_outcome(&mut self, _cx: &AdmissionCx<'_>, _engine: EngineIx, _outcome: &Outcome) -> Option<u32> {
        None
    }

    /// An engine is gone; its index may be given to another.
    fn on_leave(&mut self, _cx: &AdmissionCx<'_>, _engine: EngineIx) {}
}

/// What an admission policy may look at during a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AdmissionCx<'a> {
    /// The time of the event being handled.
    pub now: Time,
    /// Every engine, as after the event.
    pub roster: &'a Roster,
}

impl<'a> AdmissionCx<'a> {
    /// At this moment, with these engines.
    pub const fn new(now: Time, roster: &'a Roster) -> Self {
        AdmissionCx { now, roster }
    }
}

pub(crate) fn register(registry: &mut Registry) -> Result<(), PolicyError> {
    registry.register_admission::<Fixed>()?.register_admission::<PerEngine>()?.register_admission::<Adaptive>()?;
    Ok(())
}
