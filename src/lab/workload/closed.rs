//! A closed loop: each client keeps some tasks under way and thinks before it submits another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pointsman_policies::Rng;
use smallvec::SmallVec;

use super::stream::{Estimate, Kind, told};
use crate::lab::draw::Dist;
use crate::lab::world::{Ended, Job, Source};

/// Clients of a closed loop. Clients are numbered from 1.
#[derive(Debug)]
pub struct Closed {
    kind: Kind,
    think: Option<Dist>,
    estimate: Estimate,
    /// One generator for each client: what one does does not depend on how long another waits.
    rngs: Vec<Rng>,
    due: BinaryHeap<Reverse<(u64, u64, u32)>>,
    count: u64,
    left: u64,
}

impl Closed {
    /// So many clients with so many tasks under way each, until so many tasks were submitted.
    pub fn new(kind: Kind, clients: u32, window: u32, think: Option<Dist>, estimate: Estimate, tasks: u64, seed: u64) -> Closed {
        let rngs = (0..clients).map(|client| Rng::stream(seed, &format!("client {client}"))).collect();
        let mut closed = Closed { kind, think, estimate, rngs, due: BinaryHeap::new(), count: 0, left: tasks };
        for client in 0..clients {
            for _ in 0..window {
                closed.think(0, client);
            }
        }
        closed
    }

    fn think(&mut self, now_ns: u64, client: u32) {
        let pause_s = self.think.as_ref().map_or(0.0, |think| think.draw(&mut self.rngs[client as usize]));
        self.count += 1;
        self.due.push(Reverse((now_ns + (pause_s * 1e9) as u64, self.count, client)));
    }
}

impl Source for Closed {
    fn next_at(&mut self) -> Option<u64> {
        if self.left == 0 { None } else { self.due.peek().map(|Reverse((at, ..))| *at) }
    }

    fn take(&mut self) -> Job {
        let Some(Reverse((at_ns, _, client))) = self.due.pop() else { return Job::default() };
        self.left = self.left.saturating_sub(1);
        let rng = &mut self.rngs[client as usize];
        let size_s = self.kind.size.draw(rng);
        let mut hints = self.kind.hints;
        hints.cost_s = told(self.estimate, size_s, rng);
        Job {
            at_ns,
            work_ns: ((size_s * 1e9) as u64).max(1),
            class: self.kind.class,
            client: client + 1,
            hints,
            after: SmallVec::new(),
            result_bytes: 0,
        }
    }

    fn ended(&mut self, ended: &Ended) {
        if let Some(client) = ended.client.checked_sub(1) {
            self.think(ended.ended_ns, client);
        }
    }
}
