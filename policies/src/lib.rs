//! Scheduling policies: given the engines and a task, which engine takes it. Nothing here reads a clock, draws entropy, starts a
//! thread or does I/O, so the same compiled policy runs in a live controller, a simulator, a benchmark and a property test.
//!
//! Start from [`Scheme`], the trait that a policy implements, and [`Placement`], which keeps a scheme and its [`Roster`] in step.
//!
//! A scheme of one's own is a type, a configuration and a line of registration:
//!
//! ```
//! use pointsman_policies::{Candidates, Cx, EngineIx, Named, Pick, Registry, Request, Scheme, PolicyError};
//!
//! /// Always the open engine with the lowest index: fills the first engine before it uses the second.
//! #[derive(Debug)]
//! struct Lowest;
//!
//! impl Scheme for Lowest {
//!     fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
//!         let first = cx.roster.open_engines().find(|&engine| request.candidates.contains(engine));
//!         first.map_or(Pick::Defer { until: None }, Pick::Engine)
//!     }
//! }
//!
//! #[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct LowestConfig {}
//!
//! impl Named for Lowest {
//!     const NAME: &'static str = "lowest";
//!     const SUMMARY: &'static str = "lowest index first";
//!     type Config = LowestConfig;
//!     fn build(_: LowestConfig) -> Result<Self, PolicyError> {
//!         Ok(Lowest)
//!     }
//! }
//!
//! let mut registry = Registry::builtin();
//! registry.register::<Lowest>()?;
//! let scheme = registry.build(&"lowest".parse()?)?;
//! # drop(scheme);
//! # let _ = (EngineIx::new(0), Candidates::All);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod admission;
pub mod conformance;
pub mod facts;
pub mod index;
mod learned;
pub mod order;
mod placement;
pub mod rebalance;
mod registry;
mod rng;
mod roster;
mod scheme;
mod shadow;
pub mod schemes;
mod spec;
mod time;

pub use admission::{Admission, AdmissionCx};
pub use facts::{Hints, Input, Needs, TaskFacts, TaskView, hash_name};
pub use learned::{Class, Estimate, Learned};
pub use order::{Order, OrderCx, Rank};
pub use placement::{Chosen, InFlight, Placement};
pub use rebalance::{Flight, Move, Rebalance, RebalanceCx};
pub use registry::{Axis, Entry, Named, PolicyError, Registry, in_range};
pub use rng::Rng;
pub use roster::{EngineIx, Joining, Roster};
pub use scheme::{Candidates, Considered, Cx, Ending, Outcome, Pick, Request, Scheme, Ticket};
pub use shadow::{ShadowReport, Stopwatch};
pub use spec::{PolicySpec, SpecError};
pub use time::Time;
