//! Where records are kept: the store that the configuration names, opened, and the file of decisions.

use anyhow::Context as _;
use pointsman_core::db::{MemoryDb, NoDb, SqliteDb, TaskDb};

use crate::config::{Config, Store};

/// Decisions that may wait to be written.
const DECISION_BACKLOG: usize = 65_536;

/// Opens the store of task records.
///
/// # Errors
/// If it can not be opened, or this build has it not.
pub(super) fn open_records(config: &Config) -> anyhow::Result<Box<dyn TaskDb>> {
    let records = &config.records;
    Ok(match records.store {
        Store::Memory => Box::new(MemoryDb::new(records.memory)),
        Store::None => Box::new(NoDb),
        #[cfg(feature = "mongodb")]
        Store::Mongodb => Box::new(pointsman_core::db::MongoDb::open(&records.mongodb.uri, &records.mongodb.database)?),
        #[cfg(not(feature = "mongodb"))]
        Store::Mongodb => anyhow::bail!(
            "records.store: this program was built without MongoDB: build it with `--features mongodb`, or use sqlite or memory"
        ),
        Store::Sqlite => {
            let folder = records.sqlite.location.clone().or_else(|| config.controller.profile_dir.clone()).unwrap_or_default();
            Box::new(SqliteDb::open(&folder.join(&records.sqlite.filename), &records.sqlite.table)?)
        }
    })
}

/// A thread that writes decisions to a file, a line each, behind a queue of bounded length.
pub(super) fn decision_file(path: &std::path::Path) -> anyhow::Result<std::sync::mpsc::SyncSender<serde_json::Value>> {
    use std::io::Write as _;
    let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let mut file = std::io::BufWriter::new(open.with_context(|| format!("policy.decision_file {}", path.display()))?);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<serde_json::Value>(DECISION_BACKLOG);
    let path = path.to_owned();
    std::thread::Builder::new().name("decisions".into()).spawn(move || {
        while let Ok(first) = receiver.recv() {
            // Whatever else has come is written before the file is brought up to date.
            let mut lines = std::iter::once(first).chain(std::iter::from_fn(|| receiver.try_recv().ok()));
            let written = lines.try_for_each(|line| writeln!(file, "{line}")).and_then(|()| file.flush());
            if let Err(error) = written {
                return tracing::error!("{}: no more decisions are written: {error}", path.display());
            }
        }
    })?;
    Ok(sender)
}
