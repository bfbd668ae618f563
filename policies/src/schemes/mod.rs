//! The built-in schemes, one file each, with the source of the rule in its head. Those of ipyparallel choose exactly as there:
//! ties fall to the least recently used engine, and each sees the number of tasks in flight and nothing else.

mod boundedhash;
mod c3;
mod choices;
mod fillfirst;
mod jbt;
mod jiq;
mod leastload;
mod leastwork;
mod locality;
mod lru;
mod lsq;
mod maglev;
mod neverqueue;
mod oneplusbeta;
mod peakewma;
mod plainrandom;
mod prequal;
mod pure;
mod rendezvous;
mod roundrobin;
mod score;
mod sed;
mod sita;
mod slow;
mod swrr;
mod twobin;
mod weighted;
mod weights;

pub use boundedhash::BoundedHash;
pub use c3::C3;
pub use choices::Choices;
pub use fillfirst::FillFirst;
pub use jbt::Jbt;
pub use jiq::Jiq;
pub use leastload::LeastLoad;
pub use leastwork::LeastWork;
pub use locality::Locality;
pub use lru::Lru;
pub use lsq::Lsq;
pub use maglev::Maglev;
pub use neverqueue::NeverQueue;
pub use oneplusbeta::OnePlusBeta;
pub use peakewma::PeakEwma;
pub use plainrandom::PlainRandom;
pub use prequal::Prequal;
pub use pure::Pure;
pub use rendezvous::Rendezvous;
pub use roundrobin::RoundRobin;
pub use score::Score;
pub use sed::Sed;
pub use sita::Sita;
pub use swrr::Swrr;
pub use twobin::TwoBin;
pub use weighted::Weighted;

use crate::index::DenseSet;
use crate::{Cx, EngineIx, Pick, PolicyError, Registry, Roster, TaskView};

/// The configuration of a policy without parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

pub(crate) fn register(registry: &mut Registry) -> Result<(), PolicyError> {
    registry
        .register::<LeastLoad>()?
        .register::<Lru>()?
        .register::<PlainRandom>()?
        .register::<Pure>()?
        .register::<TwoBin>()?
        .register::<Weighted>()?
        .register::<RoundRobin>()?
        .register::<Swrr>()?
        .register::<Choices>()?
        .register::<OnePlusBeta>()?
        .register::<Jiq>()?
        .register::<Jbt>()?
        .register::<LeastWork>()?
        .register::<Lsq>()?
        .register::<Sed>()?
        .register::<NeverQueue>()?
        .register::<Sita>()?
        .register::<PeakEwma>()?
        .register::<C3>()?
        .register::<Prequal>()?
        .register::<BoundedHash>()?
        .register::<Maglev>()?
        .register::<Rendezvous>()?
        .register::<Locality>()?
        .register::<FillFirst>()?
        .register::<Score>()?;
    Ok(())
}

/// The roster's stamp as an unsigned key that sorts the same way.
fn stamp_key(roster: &Roster, engine: EngineIx) -> u128 {
    u128::from((roster.stamp(engine) as u64) ^ (1 << 63))
}

/// An engine if there is one, else nothing now.
fn engine_or_defer(found: Option<EngineIx>) -> Pick {
    found.map_or(Pick::Defer { until: None }, Pick::Engine)
}

/// Whether `set` holds exactly the open engines.
fn check_members(set: &DenseSet, roster: &Roster) -> Result<(), String> {
    let missing = roster.open_engines().find(|&engine| !set.contains(engine));
    match missing {
        Some(engine) => Err(format!("{engine:?} is open and not indexed")),
        None if set.len() != roster.open_count() => Err(format!("{} indexed, {} open", set.len(), roster.open_count())),
        None => Ok(()),
    }
}

/// What a task is hashed by: its label's `#key`, else its class, else its client; a draw if it has none of them.
fn hash_key(cx: &mut Cx<'_>, task: &TaskView<'_>) -> u64 {
    let known = [task.hints().key, task.class(), task.client()].into_iter().find(|&word| word != 0);
    known.unwrap_or_else(|| cx.rng.next_u64())
}

/// The least of the candidates by a number; ties uniformly at random.
fn least_of(
    cx: &mut Cx<'_>,
    candidates: impl IntoIterator<Item = EngineIx>,
    key: impl Fn(&Cx<'_>, EngineIx) -> f64,
) -> Option<EngineIx> {
    let mut best: Option<(f64, EngineIx)> = None;
    let mut ties = 1;
    for engine in candidates {
        let value = key(cx, engine);
        cx.consider(engine, |_| value);
        match best {
            Some((least, _)) if value > least => {}
            Some((least, held)) if value == least => {
                // Reservoir of one: each of the equals ends up held with the same probability.
                ties += usize::from(held != engine);
                if held != engine && cx.rng.below(ties) == 0 {
                    best = Some((value, engine));
                }
            }
            _ => {
                best = Some((value, engine));
                ties = 1;
            }
        }
    }
    best.map(|(_, engine)| engine)
}
