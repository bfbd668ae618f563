//! The relays' view of the hub: each message packed once and put into its mailbox, or counted if that is full.

use std::sync::Arc;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{Copied, Topic};
use pointsman_core::net::{Frame, Outbox, pack};
use pointsman_core::relay::{Direction, Tap};

/// Copies of what a relay passes on, for the hub.
#[derive(Debug)]
pub(super) struct HubTap {
    channel: &'static str,
    hub: Outbox<HubInput>,
    lost: u64,
}

impl HubTap {
    /// Of the relay of a channel.
    pub(super) fn new(channel: &'static str, hub: Outbox<HubInput>) -> Self {
        HubTap { channel, hub, lost: 0 }
    }
}

impl Tap for HubTap {
    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        let topic = match (self.channel, direction) {
            ("iopub", _) => Topic::Iopub,
            (_, Direction::In) => Topic::In,
            (_, Direction::Out) => Topic::Out,
        };
        let message = Arc::new(pack(frames));
        let bytes = message.size_bytes();
        if !self.hub.send(HubInput::Copied(Copied { topic, message }), bytes) {
            self.lost += 1;
            // At powers of two: a flood of losses must not become a flood of lines.
            if self.lost.is_power_of_two() {
                tracing::warn!("{}: the hub is too slow, {} messages not recorded so far", self.channel, self.lost);
            }
        }
    }
}
