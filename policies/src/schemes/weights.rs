//! How much of the work an engine should get relative to others, for schemes that share by weight.

use crate::{Cx, EngineIx, Needs};

/// Where an engine's weight comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WeightBy {
    /// All the same.
    Equal,
    /// Its hwm; 1 without a limit.
    Hwm,
    /// Its speed as learned.
    #[default]
    Speed,
}

impl WeightBy {
    pub(super) fn needs(self) -> Needs {
        if self == WeightBy::Speed { Needs::SPEED } else { Needs::empty() }
    }

    pub(super) fn weight(self, cx: &Cx<'_>, engine: EngineIx) -> f64 {
        match self {
            WeightBy::Equal => 1.0,
            WeightBy::Hwm => f64::from(cx.roster.hwm(engine).max(1)),
            WeightBy::Speed => cx.learned.speed(engine),
        }
    }
}

/// The parameter in words.
pub(super) const BY: (&str, &str) = ("by", "what an engine's weight is: speed (as learned), hwm, or equal");
