//! The built-in schemes, one file each, with the source of the rule in its head. Those of ipyparallel choose exactly as there:
//! ties fall to the least recently used engine, and each sees the number of tasks in flight and nothing else.

mod leastload;
mod lru;
mod plainrandom;
mod pure;
mod twobin;
mod weighted;

pub use leastload::LeastLoad;
pub use lru::Lru;
pub use plainrandom::PlainRandom;
pub use pure::Pure;
pub use twobin::TwoBin;
pub use weighted::Weighted;

use crate::{EngineIx, Roster};

/// The configuration of a scheme without parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// The roster's stamp as an unsigned key that sorts the same way.
fn stamp_key(roster: &Roster, engine: EngineIx) -> u128 {
    u128::from((roster.stamp(engine) as u64) ^ (1 << 63))
}
