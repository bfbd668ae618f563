//! What a task scheduler shows to whoever watches it, as ipcontroller's shows it to its hub: requests, where each was sent, and answers.
//! While nobody watches, that is a branch for each; it never waits.

use pointsman_core::net::{Clock, Frame};
use pointsman_core::relay::Watch;
use pointsman_core::{Envelope, Session};
use serde_json::json;

/// How often to look whether anybody watches: it costs a system call.
const REFRESH: std::time::Duration = std::time::Duration::from_millis(1);

/// Copies under the topics `intask`, `outtask` and `tracktask`.
#[derive(Debug)]
pub struct TaskWatch {
    watch: Watch,
    requests: Frame,
    answers: Frame,
    destinations: Frame,
    refresh_at: std::time::Duration,
}

impl TaskWatch {
    /// To this publisher.
    pub fn new(watch: Watch) -> Self {
        let topic = Frame::copy_of;
        TaskWatch {
            watch,
            requests: topic(b"intask"),
            answers: topic(b"outtask"),
            destinations: topic(b"tracktask"),
            refresh_at: std::time::Duration::ZERO,
        }
    }

    /// Looks whether anybody watches, now and then.
    pub(super) fn refresh(&mut self, clock: &Clock) {
        let now = clock.now();
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            self.watch.refresh();
        }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_watched()
    }

    /// A request as it was received.
    pub(super) fn request(&mut self, frames: &mut [Frame]) {
        self.watch.copy(&mut self.requests, frames);
    }

    /// A request of the hub's.
    pub(super) fn request_again(&mut self, request: &Envelope) {
        self.watch.copy_bytes(&mut self.requests, request.message().frames());
    }

    /// An answer as it was received.
    pub(super) fn answer(&mut self, frames: &mut [Frame]) {
        self.watch.copy(&mut self.answers, frames);
    }

    /// An answer that was kept, or is the scheduler's own.
    pub(super) fn answer_in<'b>(&mut self, frames: impl IntoIterator<Item = &'b [u8]>) {
        self.watch.copy_bytes(&mut self.answers, frames);
    }

    /// A task has been sent to an engine.
    pub(super) fn sent(&mut self, session: &mut Session, id: &str, engine: &str) {
        let content = json!({"msg_id": id, "engine_id": engine}).to_string().into_bytes();
        let parts = session.compose("task_destination", Clock::date(), b"{}", b"{}", content);
        let name = session.id().as_bytes().to_vec();
        let frames = std::iter::once(name.as_slice()).chain(parts.iter().map(Vec::as_slice));
        self.watch.copy_bytes(&mut self.destinations, frames);
    }
}
