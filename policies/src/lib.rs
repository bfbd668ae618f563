//! Scheduling policies: given the engines and a task, which engine takes it. Nothing here reads a clock, draws entropy, starts a
//! thread or does I/O, so the same compiled policy runs in a live controller, a simulator, a benchmark and a property test.
//!
//! Start from [`Scheme`], the trait that a policy implements, and [`Placement`], which keeps a scheme and its [`Roster`] in step.
//!
//! A scheme of one's own is a type, a configuration and a line of registration:
//!
//! ```
//! use pointsman_policies::{Candidates, Cx, EngineIx, Named, Pick, Registry, Request, Scheme, SchemeError};
//!
//! /// Always the open engine with the lowest index: fills the first engine before it uses the second.
//! #[derive(Debug)]
//! struct FillFirst;
//!
//! impl Scheme for FillFirst {
//!     fn pick(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Pick {
//!         let first = cx.roster.open_engines().find(|&engine| request.candidates.contains(engine));
//!         first.map_or(Pick::Defer { until: None }, Pick::Engine)
//!     }
//! }
//!
//! #[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct FillFirstConfig {}
//!
//! impl Named for FillFirst {
//!     const NAME: &'static str = "fillfirst";
//!     const SUMMARY: &'static str = "lowest index first";
//!     type Config = FillFirstConfig;
//!     fn build(_: FillFirstConfig) -> Result<Self, SchemeError> {
//!         Ok(FillFirst)
//!     }
//! }
//!
//! let mut registry = Registry::builtin();
//! registry.register::<FillFirst>()?;
//! let scheme = registry.build(&"fillfirst".parse()?)?;
//! # drop(scheme);
//! # let _ = (EngineIx::new(0), Candidates::All);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod conformance;
pub mod index;
mod placement;
mod registry;
mod rng;
mod roster;
mod scheme;
pub mod schemes;
mod spec;
mod time;

pub use placement::{Chosen, Placement};
pub use registry::{Entry, Named, Registry, SchemeError};
pub use rng::Rng;
pub use roster::{EngineIx, Roster};
pub use scheme::{Candidates, Cx, Ending, Needs, Outcome, Pick, Request, Scheme, Ticket};
pub use spec::{SchemeSpec, SpecError};
pub use time::Time;
