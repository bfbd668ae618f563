//! The relays' view of the hub: each message packed once, gathered for a burst, and put into its mailbox; or left out by a rule, and counted.

use std::sync::Arc;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{Copied, Topic};
use pointsman_core::net::{Frame, Outbox, pack};
use pointsman_core::relay::{Direction, Tap};
use pointsman_core::{DELIMITER, Multipart};

/// Frames of a message from its delimiter to its content.
const WITHOUT_BUFFERS: usize = 6;

/// Copies of what a relay passes on, for the hub. Once the mailbox is full they come without their buffers, and once it is twice as full not at
/// all.
#[derive(Debug)]
pub(super) struct HubTap {
    channel: &'static str,
    hub: Outbox<HubInput>,
    /// The hub keeps records, and wants buffers for them.
    keeps_records: bool,
    batch: Vec<Copied>,
    bytes: usize,
    shed: u64,
    lost: u64,
}

impl HubTap {
    /// Of the relay of a channel.
    pub(super) fn new(channel: &'static str, hub: Outbox<HubInput>, keeps_records: bool) -> Self {
        HubTap { channel, hub, keeps_records, batch: Vec::new(), bytes: 0, shed: 0, lost: 0 }
    }

    /// Says it at powers of two: a flood of losses must not become a flood of lines.
    fn say(&self, count: u64, what: &str) {
        if count.is_power_of_two() {
            tracing::warn!("{}: the hub is too slow, {count} messages not recorded {what} so far", self.channel);
        }
    }
}

/// How many frames the hub needs of a message of which it keeps no buffers.
fn needed(frames: &[Frame]) -> usize {
    let delimiter = frames.iter().take(4).position(|frame| frame.as_ref() == DELIMITER);
    delimiter.map_or(frames.len(), |at| (at + WITHOUT_BUFFERS).min(frames.len()))
}

impl Tap for HubTap {
    fn copy(&mut self, direction: Direction, frames: &mut [Frame]) {
        let topic = match (self.channel, direction) {
            ("iopub", _) => Topic::Iopub,
            (_, Direction::In) => Topic::In,
            (_, Direction::Out) => Topic::Out,
        };
        let wanted = if self.keeps_records { frames.len() } else { needed(frames) };
        let message = Arc::new(pack(&mut frames[..wanted]));
        self.bytes += message.size_bytes();
        self.batch.push(Copied { topic, message });
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        if self.hub.has_room(bytes) {
            self.hub.send(HubInput::Copied(std::mem::take(&mut self.batch)), bytes);
            return;
        }
        // One by one, so that each is counted.
        for Copied { topic, message } in std::mem::take(&mut self.batch) {
            let delimiter = message.frames().take(4).position(|frame| frame == DELIMITER);
            let wanted = delimiter.map_or(message.len(), |at| at + WITHOUT_BUFFERS);
            let lean = Arc::new(Multipart::pack(message.frames().take(wanted)));
            let bytes = lean.size_bytes();
            if self.hub.send_urgent(HubInput::Copied(vec![Copied { topic, message: lean }]), bytes) {
                self.shed += 1;
                self.say(self.shed, "with their buffers");
            } else {
                self.lost += 1;
                self.say(self.lost, "at all");
            }
        }
    }
}
