//! What a controller decides before anything is bound: which policies act, within which limits, and what the hub allows. It opens no
//! socket and writes no file, so whatever is wrong here leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pointsman_core::connection_file::EngineFile;
use pointsman_core::hub::HubConfig;
use pointsman_core::net::fresh_id;
use pointsman_policies::{Axis, NamedSchemes, Registry, Scheme};
use pointsman_schedulers::live::LiveChange;
use pointsman_schedulers::task::Limits;

use super::policies::{build, build_shadows};
use crate::config::{Config, Resolved, Store};

/// The policies of a start, built and named.
pub(super) struct Decided {
    /// What they are called, with every parameter.
    pub(super) policies: Resolved,
    /// Which engine gets a task.
    pub(super) scheme: Box<dyn Scheme>,
    /// The policies on the other axes.
    pub(super) others: Vec<LiveChange>,
    /// Schemes that decide without acting.
    pub(super) shadows: NamedSchemes,
    /// Of all random choices.
    pub(super) seed: u64,
}

impl Decided {
    /// Builds what the configuration names.
    ///
    /// # Errors
    /// If a policy is unknown or a parameter wrong.
    pub(super) fn new(config: &Config, registry: &Arc<Registry>) -> anyhow::Result<Self> {
        let policies = config.policy.resolve(registry)?;
        let scheme = registry.build(&policies.placement)?;
        let others = [Axis::Order, Axis::Admission, Axis::Rebalance];
        let others = others.map(|axis| build(registry, axis, policies.on(axis)));
        let others = others.into_iter().collect::<Result<Vec<_>, _>>()?;
        let shadows = build_shadows(registry, &config.policy.shadow)?;
        let seed = config.policy.seed.unwrap_or_else(|| u64::from_str_radix(&fresh_id()[..8], 16).unwrap_or(0));
        tracing::info!("policies: {policies}, seed {seed} ({})", pointsman_policies::Rng::NAME);
        for doubt in policies.doubts(registry) {
            tracing::warn!("{doubt}");
        }
        Ok(Decided { policies, scheme, others, shadows, seed })
    }

    /// The policies and the seed, as records keep them.
    pub(super) fn text(&self) -> String {
        format!("{}, seed {}", self.policies, self.seed)
    }
}

/// What the task scheduler holds at most.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        grace: Duration::from_millis(config.scheduler.grace_ms),
        queued_tasks: config.scheduler.max_queued_tasks,
        queued_bytes: config.scheduler.max_queued_bytes,
        ..Limits::default()
    }
}

/// What the hub goes by. Engines of a former life find the addresses that they know.
///
/// # Errors
/// If a time is impossible.
pub(super) fn hub_config(config: &Config, former: Option<&EngineFile>) -> anyhow::Result<HubConfig> {
    Ok(HubConfig {
        heartbeat: Duration::from_millis(config.heartbeat.period_ms),
        max_misses: config.heartbeat.max_misses,
        registration_timeout: Duration::try_from_secs_f64(config.controller.registration_timeout_s)
            .context("controller.registration_timeout_s")?,
        grace: Duration::from_millis(config.scheduler.grace_ms),
        connection_info: match former {
            Some(engine) => serde_json::to_value(engine)?,
            None => serde_json::json!({}),
        },
        allows_dask: config.dask.allow,
        keeps_records: config.records.store != Store::None,
    })
}
