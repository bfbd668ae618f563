//! The relays' view of the hub: each message packed once, gathered for a burst, and put into its mailbox; or left out by a rule, and counted.

use std::sync::Arc;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{Copied, Topic};
use pointsman_core::net::{Clock, Complaints, Frame, Outbox, Taken, Tally, pack};
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
    clock: Clock,
    complaints: Complaints,
}

impl HubTap {
    /// Of the relay of a channel: `iopub`, or one of requests and replies.
    pub fn new(channel: &'static str, hub: Outbox<HubInput>, keeps_records: bool) -> Self {
        let complaints = Complaints::new(channel, &Tally::default());
        HubTap { channel, hub, keeps_records, batch: Vec::new(), bytes: 0, clock: Clock::default(), complaints }
    }

    /// Counts what the hub does not get in this tally.
    #[must_use]
    pub fn counted_in(mut self, tally: &Tally) -> Self {
        self.complaints = Complaints::new(self.channel, tally);
        self
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
        let (kind, detail) = match taken {
            Taken::Whole => return,
            Taken::Shed => ("record without buffers", "the hub is too slow; what passes by is not affected"),
            Taken::Lost => ("record lost", "the hub is much too slow; what passes by is not affected"),
        };
        self.complaints.note_many(self.clock.now(), kind, count, detail);
    }
}

/// What has no buffers to leave out stays as it is.
fn leave_out_buffers(copied: &mut Copied) {
    if let Ok(envelope) = Envelope::open(copied.message.clone()) {
        copied.message = envelope.without_buffers().message().clone();
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::net::Mailbox;

    use super::*;

    #[test]
    fn what_a_slow_hub_does_not_get_is_counted_by_messages() {
        let (outbox, mailbox) = Mailbox::new(1_000, 10_000).unwrap();
        let tally = Tally::default();
        let mut tap = HubTap::new("mux", outbox, true).counted_in(&tally);
        let parts: [&[u8]; 9] = [b"e", b"c", pointsman_core::DELIMITER, b"s", b"{}", b"{}", b"{}", b"{}", &[0; 3_000]];
        for _ in 0..2_000 {
            for _ in 0..2 {
                tap.copy(Direction::In, &mut parts.map(Frame::copy_of));
            }
            tap.flush();
        }
        let mut inputs = Vec::new();
        mailbox.take(usize::MAX, &mut inputs);
        let come: usize = inputs
            .iter()
            .map(|input| match input {
                HubInput::Copied(batch) => batch.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        let counts = tally.counts();
        let of_kind = |kind: &str| counts.iter().find(|count| count.1 == kind).map_or(0, |count| count.2);
        assert!(of_kind("record without buffers") > 0 && of_kind("record lost") > 0, "{counts:?}");
        assert_eq!(come as u64 + of_kind("record lost"), 4_000, "each has come or is counted");
    }
}
