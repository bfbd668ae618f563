//! The limit of open files: raised as far as the system lets, and compared with what a controller and its peers take. The figures are those
//! of libzmq as it is built here; a test counts what is really open.

use anyhow::bail;

/// Connections of one engine: registration, direct, task and broadcast requests, control, output, heartbeats both ways.
const FILES_EACH: u64 = 8;
/// Connections of one client: registration, direct, task and broadcast requests, control, output, notifications.
const FILES_OF_CLIENT: u64 = 7;
/// Clients for which there is always room.
const CLIENTS: u64 = 9;
/// A leaf of the broadcast tree: where it listens, and how libzmq wakes it.
const FILES_OF_LEAF: u64 = 2;
/// What a controller opens besides: 14 sockets at two or three each, threads' mailboxes, the store, logs, and what opens and closes as peers come.
const FILES_OWN: u64 = 80;

/// How many files may be open, and what is spoken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFiles {
    limit: u64,
    /// Of the process before the controller, of the controller, of a few clients.
    spoken_for: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one, and compares it with what a controller with so many leaves needs.
    ///
    /// # Errors
    /// If it is not enough to serve one engine, with the number that is.
    pub(super) fn raise(leaves: usize) -> anyhow::Result<OpenFiles> {
        let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
            tracing::warn!("the limit of open files can not be raised: {error}");
            rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft)
        });
        // What was open before, in whatever process this is; one of them is this very look.
        let before = std::fs::read_dir("/proc/self/fd").map_or(3, |all| all.count() as u64);
        let files = OpenFiles::new(limit, before, leaves);
        let engines = files.engines();
        if engines == 0 {
            bail!(
                "{limit} open files are allowed, which is not enough to serve an engine: set `ulimit -Hn {}` or more (-Hn {} for 1000 engines)",
                files.needed(1),
                files.needed(1000)
            );
        }
        if engines < 1000 {
            tracing::warn!(
                "{limit} open files are allowed, enough for {engines} engines; for 1000 set `ulimit -Hn {}`",
                files.needed(1000)
            );
        } else {
            tracing::debug!("{limit} open files are allowed, enough for {engines} engines");
        }
        Ok(files)
    }

    fn new(limit: u64, before: u64, leaves: usize) -> OpenFiles {
        let spoken_for = before + FILES_OWN + leaves as u64 * FILES_OF_LEAF + CLIENTS * FILES_OF_CLIENT;
        OpenFiles { limit, spoken_for }
    }

    /// For how many engines there is room, beside nine clients.
    pub(super) fn engines(self) -> u64 {
        self.limit.saturating_sub(self.spoken_for) / FILES_EACH
    }

    /// The limit that so many engines need.
    pub(super) fn needed(self, engines: u64) -> u64 {
        self.spoken_for + engines * FILES_EACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_that_is_called_enough_is_enough_and_one_less_is_not() {
        for (before, leaves) in [(3, 1), (3, 2), (40, 512)] {
            let files = OpenFiles::new(0, before, leaves);
            for engines in [1, 2, 1000] {
                let needed = files.needed(engines);
                assert_eq!(OpenFiles::new(needed, before, leaves).engines(), engines);
                assert_eq!(OpenFiles::new(needed - 1, before, leaves).engines(), engines - 1);
            }
        }
    }
}
