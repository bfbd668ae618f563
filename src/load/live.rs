//! A workload of the lab on a live cluster: a controller of our own with engines that do nothing for as long as each task says.

use std::time::Duration;

use super::clients::Clients;
use super::plan::{After, Arrivals, Durations, Plan};
use super::{Site, Which};
use crate::lab::world::{Ended, Source};

/// What a live cluster is.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Engines.
    pub engines: usize,
    /// Connections of clients.
    pub clients: usize,
    /// Options of the controller: its policies.
    pub options: Vec<String>,
    /// What a second of the workload takes, in seconds.
    pub unit_s: f64,
}

/// Runs the jobs of a source; `watch` sees each end in the source's time. `progress` as in [`run`](super::run).
///
/// # Errors
/// If the controller does not start, or stops answering.
pub fn run_live(
    live: &Live,
    source: &mut dyn Source,
    progress: &dyn Fn(&str, f64),
    watch: &mut dyn FnMut(&Ended),
) -> anyhow::Result<Duration> {
    let plan = Plan {
        engines: live.engines,
        clients: live.clients.max(1),
        arrivals: Arrivals::Window(1),
        payload_bytes: 24,
        result_bytes: 8,
        duration: Durations::Zero,
        after: After::Nothing,
        blocked: 0,
        history: 0,
        rounds: 1,
        round_s: 0.0,
        warmup_s: 0.0,
        seed: 1,
    };
    let Site { target, mut farm } = Site::open(&plan, &Which::Own(live.options.clone()), progress)?;
    let mut clients = Clients::connect(&target.client, &plan)?;
    let from = clients.now();
    clients.drive_source(source, live.unit_s, watch, || farm.check())?;
    Ok(clients.now() - from)
}
