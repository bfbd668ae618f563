//! The relays' view of the hub: each message packed once, gathered for a burst, and put into its mailbox; or left out by a rule, and counted.

use std::sync::Arc;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{Copied, Topic};
use pointsman_core::net::{Frame, Outbox, Taken, pack};
use pointsman_core::relay::{Direction, Tap};
use pointsman_core::{BUFFERS_AT, Envelope, find_delimiter};

/// Copies of what a relay passes on, for the hub. Once the mailbox is full they come without their buffers, and once it is twice as full not at
/// all.
#[derive(Debug)]
pub struct HubTap {
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
    /// Of the relay of a channel: `iopub`, or one of requests and replies.
    pub fn new(channel: &'static str, hub: Outbox<HubInput>, keeps_records: bool) -> Self {
        HubTap { channel, hub, keeps_records, batch: Vec::new(), bytes: 0, shed: 0, lost: 0 }
    }
}

/// How many frames the hub needs of a message of which it keeps no buffers.
fn needed(frames: &[Frame]) -> usize {
    let delimiter = find_delimiter(frames.iter().map(AsRef::as_ref));
    delimiter.map_or(frames.len(), |at| (at + BUFFERS_AT).min(frames.len()))
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
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        let taken = self.hub.send_or_shed(HubInput::Copied(batch), bytes, |mut input| {
            let HubInput::Copied(batch) = &mut input else { return (input, bytes) };
            batch.iter_mut().for_each(leave_out_buffers);
            let bytes = batch.iter().map(|copied| copied.message.size_bytes()).sum();
            (input, bytes)
        });
        match taken {
            Taken::Whole => {}
            Taken::Shed => {
                say(self.channel, self.shed, count, "with their buffers");
                self.shed += count;
            }
            Taken::Lost => {
                say(self.channel, self.lost, count, "at all");
                self.lost += count;
            }
        }
    }
}

/// What has no buffers to leave out stays as it is.
fn leave_out_buffers(copied: &mut Copied) {
    if let Ok(envelope) = Envelope::open(copied.message.clone()) {
        copied.message = envelope.without_buffers().message().clone();
    }
}

/// Says it when a power of two is reached: a flood of losses must not become a flood of lines.
fn say(channel: &str, before: u64, more: u64, what: &str) {
    let now = before + more;
    if before == 0 || before.ilog2() < now.ilog2() {
        tracing::warn!("{channel}: the hub is too slow, {now} messages not recorded {what} so far");
    }
}
