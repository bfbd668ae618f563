//! Pointsman: a controller for IPython Parallel clusters in which every decision is a policy that can be swapped.
//!
//! This crate is the application: configuration, command line, and the assembly of the rooms below it. A program with schemes of its own
//! is the same with a longer registry:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     let mut registry = pointsman::builtin();
//!     // registry.register::<my_schemes::MyScheme>().expect("a new name");
//!     # let _ = &mut registry;
//!     pointsman::cli::run(registry)
//! }
//! ```
//!
//! The rooms: [`core`] (the wire, the hub, native peers), [`policies`] (what a scheme is), [`schedulers`] (who places tasks).

pub use pointsman_core as core;
pub use pointsman_policies as policies;
pub use pointsman_schedulers as schedulers;

#[macro_use]
mod output;

pub mod cli;
pub mod config;
pub mod controller;
pub mod lab;
pub mod load;
pub mod plot;
mod scratch;
mod stats;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The registry of the schemes that ship with Pointsman.
pub fn builtin() -> policies::Registry {
    policies::Registry::builtin()
}
