//! What the scheduler tells the hub, gathered for a turn of the loop and handed over in one piece. The hub may be slow or dead, and the tasks
//! flow on: what waits for it is bounded, and what it can not take is left out by a rule, counted and said.

use std::sync::Arc;

use pointsman_core::Envelope;
use pointsman_core::hub::TaskNews;
use pointsman_core::hub::driver::HubInput;
use pointsman_core::net::{Outbox, Taken};
use pointsman_core::wire::Status;

/// The way to the hub. Once the mailbox is full, messages come without their buffers; once it is twice as full, they do not come at all.
pub(super) struct HubFeed {
    hub: Outbox<HubInput>,
    /// Records are kept, so that the hub wants the messages.
    keeps_records: bool,
    batch: Vec<TaskNews>,
    bytes: usize,
}

/// What the hub did not get: the kind, how many, and why.
pub(super) type NotTaken = (&'static str, u64, &'static str);

impl HubFeed {
    pub(super) fn new(hub: Outbox<HubInput>, keeps_records: bool) -> Self {
        HubFeed { hub, keeps_records, batch: Vec::new(), bytes: 0 }
    }

    pub(super) fn submitted(&mut self, id: &str, request: &Envelope) {
        let request = self.keeps_records.then(|| request.clone());
        self.push(TaskNews::Submitted { id: id.into(), request });
    }

    pub(super) fn sent(&mut self, id: &str, engine: &Arc<str>) {
        self.push(TaskNews::Sent { id: id.into(), engine: engine.clone() });
    }

    pub(super) fn ended(&mut self, id: &str, status: Status, reply: Option<&Envelope>) {
        let reply = reply.filter(|_| self.keeps_records).cloned();
        self.push(TaskNews::Ended { id: id.into(), status, reply });
    }

    fn push(&mut self, news: TaskNews) {
        self.bytes += news.size_bytes();
        self.batch.push(news);
    }

    /// Hands over what was gathered. Returns what is to be counted if not all of it could be.
    pub(super) fn flush(&mut self) -> Option<NotTaken> {
        if self.batch.is_empty() {
            return None;
        }
        let next = Vec::with_capacity(self.batch.len().min(256));
        let batch = std::mem::replace(&mut self.batch, next);
        let bytes = std::mem::take(&mut self.bytes);
        let count = batch.len() as u64;
        let taken = self.hub.send_or_shed(HubInput::Tasks(batch), bytes, |mut input| {
            let HubInput::Tasks(batch) = &mut input else { return (input, bytes) };
            batch.iter_mut().for_each(TaskNews::shed);
            let bytes = batch.iter().map(TaskNews::size_bytes).sum();
            (input, bytes)
        });
        match taken {
            Taken::Whole => None,
            Taken::Shed => Some(("record without buffers", count, "the hub is too slow; tasks are not affected")),
            Taken::Lost => Some(("record lost", count, "the hub is much too slow; tasks are not affected")),
        }
    }

    /// Whether the hub wants messages.
    pub(super) fn keeps_records(&self) -> bool {
        self.keeps_records
    }

    /// The hub, for what has nothing to do with records.
    pub(super) fn hub(&self) -> &Outbox<HubInput> {
        &self.hub
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::Multipart;
    use pointsman_core::net::Mailbox;

    use super::*;

    #[test]
    fn a_slow_hub_gets_less_and_then_nothing() {
        let frames: [&[u8]; 8] = [b"c", pointsman_core::DELIMITER, b"s", b"{}", b"{}", b"{}", b"{}", &[0; 3000]];
        let request = Envelope::open(Arc::new(Multipart::pack(frames))).unwrap();
        let (outbox, mailbox) = Mailbox::new(1000, 10_000).unwrap();
        let mut feed = HubFeed::new(outbox, true);
        let mut said = Vec::new();
        for n in 0..100 {
            feed.submitted(&format!("a_1_{n}"), &request);
            said.extend(feed.flush());
        }
        let mut inputs = Vec::new();
        mailbox.take(usize::MAX, &mut inputs);
        let buffers: Vec<usize> = inputs
            .iter()
            .map(|input| match input {
                HubInput::Tasks(news) => match &news[0] {
                    TaskNews::Submitted { request: Some(request), .. } => request.buffers().len(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((buffers[..3].to_vec(), buffers[3]), (vec![1; 3], 0), "{buffers:?}");
        assert!(buffers.len() < 100 && buffers[3..].iter().all(|&count| count == 0), "{buffers:?}");
        let of_kind = |kind: &str| said.iter().filter(|said| said.0 == kind).map(|said| said.1).sum::<u64>();
        assert_eq!(of_kind("record without buffers"), buffers[3..].len() as u64, "each is counted");
        assert_eq!(of_kind("record lost"), 100 - buffers.len() as u64);
        feed.submitted("a_1_1000", &request);
        assert_eq!(feed.flush(), None, "there is room again");
    }
}
