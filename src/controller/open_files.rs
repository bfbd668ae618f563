//! The limit of open files: raised as far as the system lets, and compared with what engines need.

/// Connections of one engine: registration, direct, task and broadcast requests, control, output, heartbeats both ways.
pub(super) const FILES_EACH: u64 = 8;
/// Sockets, threads' mailboxes, the store, and clients.
const FILES_BASE: u64 = 256;

/// Raises the soft limit to the hard one and returns for how many engines it is enough.
pub(super) fn raise_limit() -> u64 {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!("the limit of open files can not be raised: {error}");
        rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft)
    });
    let engines = limit.saturating_sub(FILES_BASE) / FILES_EACH;
    if engines < 1000 {
        tracing::warn!(
            "{limit} open files are allowed, enough for {engines} engines; for 1000 set `ulimit -Hn {}`",
            needed(1000)
        );
    } else {
        tracing::debug!("{limit} open files are allowed, enough for {engines} engines");
    }
    engines
}

/// The limit that so many engines need.
pub(super) fn needed(engines: u64) -> u64 {
    FILES_BASE + engines * FILES_EACH
}
