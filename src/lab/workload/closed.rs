//! A closed loop: each client keeps some tasks under way and thinks before it submits another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pointsman_policies::Rng;
use smallvec::SmallVec;

use super::stream::{Estimate, Kind, Mix, told};
use crate::lab::draw::Dist;
use crate::lab::world::{Ended, Job, Source};

/// Clients of a closed loop. Clients are numbered from 1.
#[derive(Debug)]
pub struct Closed {
    mix: Mix,
    think: Option<Dist>,
    estimate: Estimate,
    /// One generator for each client: what one does does not depend on how long another waits.
    rngs: Vec<Rng>,
    due: BinaryHeap<Reverse<(u64, u64, u32)>>,
    count: u64,
    left: u64,
}

impl Closed {
    /// So many clients with so many tasks under way each, until so many tasks were submitted. Each draws its tasks from the same kinds.
    ///
    /// # Panics
    /// Without a kind.
    pub fn new(
        kinds: Vec<Kind>,
        clients: u32,
        window: u32,
        think: Option<Dist>,
        estimate: Estimate,
        tasks: u64,
        seed: u64,
    ) -> Closed {
        let rngs = (0..clients).map(|client| Rng::stream(seed, &format!("client {client}"))).collect();
        let mut closed = Closed { mix: Mix::new(kinds), think, estimate, rngs, due: BinaryHeap::new(), count: 0, left: tasks };
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
        let kind = self.mix.draw(rng);
        let size_s = kind.size.draw(rng);
        let mut hints = kind.hints;
        hints.cost_s = told(self.estimate, size_s, rng).or(hints.cost_s);
        Job {
            at_ns,
            work_ns: ((size_s * 1e9) as u64).max(1),
            class: kind.class,
            client: client + 1,
            hints,
            label: kind.label.clone(),
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
