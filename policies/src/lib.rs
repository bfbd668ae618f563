//! Scheduling policies: which engine takes a task, which task goes next, how many an engine may have, whether a task is left where it was
//! sent. Nothing here reads a clock, draws entropy, starts a thread or does I/O, so the same compiled policy runs in a live controller,
//! a simulator, a benchmark and a property test.
//!
//! # Writing a policy
//! A scheme is a type that is told of engines as they come, go, open and close, and picks one for each task. What it must do is [`pick`];
//! the rest are hooks. The [`Roster`] it reads is always true; what it keeps itself is an index to answer fast. This one prefers engines
//! on which its last task ran well:
//!
//! ```
//! use pointsman_policies::index::DenseSet;
//! use pointsman_policies::{Cx, Ending, EngineIx, Named, Outcome, Pick, PolicyError, Request, Scheme, in_range};
//!
//! /// The engine of the last success while it has room; otherwise any at random.
//! #[derive(Debug, Default)]
//! struct Lucky {
//!     most: u32,
//!     open: DenseSet,
//!     last: Option<EngineIx>,
//! }
//!
//! impl Scheme for Lucky {
//!     fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
//!         // Limits of the task come as candidates; engines that may take nothing at all are not open.
//!         let usable = |engine: &EngineIx| {
//!             self.open.contains(*engine) && request.candidates.contains(*engine) && cx.roster.load(*engine) < self.most
//!         };
//!         let lucky = self.last.filter(usable);
//!         let found = lucky.or_else(|| self.open.eligible(request.candidates).draw(cx.rng));
//!         found.map_or(Pick::Defer { until: None }, Pick::Engine)
//!     }
//!
//!     fn on_open(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
//!         self.open.insert(engine);
//!     }
//!
//!     fn on_close(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
//!         self.open.remove(engine);
//!     }
//!
//!     fn on_leave(&mut self, _cx: &mut Cx<'_>, engine: EngineIx) {
//!         self.last = self.last.filter(|&last| last != engine); // its index may be another's soon
//!     }
//!
//!     fn on_outcome(&mut self, _cx: &mut Cx<'_>, engine: EngineIx, outcome: &Outcome) {
//!         self.last = if outcome.ending == Ending::Ok { Some(engine) } else { None };
//!     }
//! }
//! # impl Named for Lucky {
//! #     const NAME: &'static str = "lucky";
//! #     const SUMMARY: &'static str = "the engine of the last success";
//! #     type Config = LuckyConfig;
//! #     fn build(config: LuckyConfig) -> Result<Self, PolicyError> {
//! #         Ok(Lucky { most: in_range(Self::NAME, "most", config.most, 1..=100)?, ..Lucky::default() })
//! #     }
//! # }
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # #[serde(default, deny_unknown_fields)]
//! # struct LuckyConfig { most: u32 }
//! # impl Default for LuckyConfig { fn default() -> Self { LuckyConfig { most: 2 } } }
//!
//! // The suite that all built-in schemes run: it finds picks of closed or forbidden engines, indexes gone stale, hidden randomness.
//! let make = || Lucky { most: 2, ..Lucky::default() };
//! for seed in 0..20 {
//!     pointsman_policies::conformance::run(make, seed, 8, 300, false)?;
//! }
//! # Ok::<(), String>(())
//! ```
//!
//! A name, and parameters that are checked, make it a choice for configuration:
//!
//! ```
//! # use pointsman_policies::{Candidates, Cx, Pick, Request, Scheme};
//! use pointsman_policies::{Named, PolicyError, Registry, Room, in_range};
//! # #[derive(Debug)] struct Lucky { most: u32 }
//! # impl Scheme for Lucky {
//! #     fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
//! #         cx.roster.open_engines().find(|&e| request.candidates.contains(e)).map_or(Pick::Defer { until: None }, Pick::Engine)
//! #     }
//! # }
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct LuckyConfig {
//!     most: u32,
//! }
//!
//! impl Default for LuckyConfig {
//!     fn default() -> Self {
//!         LuckyConfig { most: 2 }
//!     }
//! }
//!
//! impl Named for Lucky {
//!     const NAME: &'static str = "lucky";
//!     const SUMMARY: &'static str = "the engine of the last success while it has room, else any";
//!     const SOURCE: &'static str = "win-stay, lose-shift (Robbins 1952)";
//!     const PARAMETERS: &'static [(&'static str, &'static str)] = &[("most", "tasks on the lucky engine, 1 to 100")];
//!     type Config = LuckyConfig;
//!     fn build(config: LuckyConfig) -> Result<Self, PolicyError> {
//!         Ok(Lucky { most: in_range(Self::NAME, "most", config.most, 1..=100)? })
//!     }
//! }
//!
//! let mut registry = Registry::builtin();
//! registry.register::<Lucky>()?;
//! assert!(registry.build(&"lucky[most=3]".parse()?).is_ok());
//! let refused = registry.build(&"lucky[most=0]".parse()?).err().map(|error| error.to_string());
//! assert_eq!(refused.as_deref(), Some("lucky: most must be from 1 to 100, not 0"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a policy may see
//! Beside the roster only what it declares as [`Needs`]: a task's class, what its label hints, how long its class took so far, where its
//! inputs are, who sent it, how fast engines are. All of it comes through [`TaskView`], [`Learned`] and [`Outcome`]; what no policy
//! declares is not measured.
//!
//! # The other axes
//! An [`Order`] gives each ready task a [`Rank`]; an [`Admission`] sets how many tasks an engine may have, and may change that with each
//! outcome; a [`Rebalance`] says when to look at a task again and what to do then. They are registered in the same way:
//!
//! ```
//! use pointsman_policies::{Order, OrderCx, Rank, TaskView};
//!
//! /// Large requests first.
//! struct LargeFirst;
//!
//! impl Order for LargeFirst {
//!     fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
//!         Rank::greatest(task.bytes() as f64)
//!     }
//! }
//! # let _ = LargeFirst;
//! ```
//!
//! [`pick`]: Scheme::pick

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
pub mod schemes;
mod shadow;
mod spec;
mod time;
mod wording;

pub use admission::{Admission, AdmissionCx};
pub use facts::{Hints, Input, Needs, TaskFacts, TaskView, hash_name};
pub use learned::{Class, Estimate, Learned};
pub use order::{Order, OrderCx, Rank};
pub use placement::{Chosen, InFlight, Placement};
pub use rebalance::{Flight, Move, Rebalance, RebalanceCx};
pub use registry::{Axis, Entry, Named, PolicyError, Registry, Room, in_range};
pub use rng::Rng;
pub use roster::{EngineIx, Joining, Roster};
pub use scheme::{Candidates, Considered, Cx, Ending, Outcome, Pick, Request, Scheme, Signal, Ticket};
pub use shadow::{NamedSchemes, ShadowReport, Stopwatch};
pub use spec::{PolicySpec, SpecError};
pub use time::Time;
pub use wording::{nearest, plain_words};
