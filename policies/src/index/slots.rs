//! A set of engines in the order of their slots: the next one from any slot on in O(log n), the k-th likewise.
//! A bitmap with counts above it; it never allocates after it has grown to the number of engines.

use crate::EngineIx;

/// Engines as bits, 64 to a word, with a Fenwick tree of the words' counts (Fenwick, 1994) for rank and selection.
#[derive(Clone, Debug, Default)]
pub struct SlotSet {
    words: Vec<u64>,
    /// `counts[i]` sums the words `i & (i + 1) ..= i`.
    counts: Vec<u32>,
    len: usize,
}

impl SlotSet {
    /// Adds an engine; no effect if it is there. O(log n).
    pub fn insert(&mut self, engine: EngineIx) {
        let (word, bit) = (engine.slot() / 64, 1 << (engine.slot() % 64));
        if word >= self.words.len() {
            self.grow(word + 1);
        }
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.add(word, 1);
        }
    }

    /// Removes an engine; no effect if it is not there. O(log n).
    pub fn remove(&mut self, engine: EngineIx) {
        let (word, bit) = (engine.slot() / 64, 1 << (engine.slot() % 64));
        if self.contains(engine) {
            self.words[word] &= !bit;
            self.add(word, u32::MAX);
        }
    }

    /// Whether the engine is in the set.
    pub fn contains(&self, engine: EngineIx) -> bool {
        self.words.get(engine.slot() / 64).is_some_and(|word| word >> (engine.slot() % 64) & 1 == 1)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many are in slots below this one. O(log n).
    pub fn rank(&self, slot: usize) -> usize {
        let word = slot / 64;
        if word >= self.words.len() {
            return self.len;
        }
        let (mut sum, mut end) = (0_u32, word);
        while end > 0 {
            sum = sum.wrapping_add(self.counts[end - 1]);
            end &= end - 1;
        }
        sum as usize + (self.words[word] & ((1 << (slot % 64)) - 1)).count_ones() as usize
    }

    /// The member with `rank` others below it. O(log n).
    pub fn select(&self, rank: usize) -> Option<EngineIx> {
        if rank >= self.len {
            return None;
        }
        let (mut word, mut left) = (0, rank as u32);
        let mut step = self.counts.len().next_power_of_two();
        while step > 0 {
            if word + step <= self.counts.len() && self.counts[word + step - 1] <= left {
                word += step;
                left -= self.counts[word - 1];
            }
            step /= 2;
        }
        let mut bits = self.words[word];
        for _ in 0..left {
            bits &= bits - 1;
        }
        Some(EngineIx::new((word * 64) as u32 + bits.trailing_zeros()))
    }

    /// The first member in this slot or a later one, without wrapping. O(log n).
    pub fn next_from(&self, slot: usize) -> Option<EngineIx> {
        let word = slot / 64;
        let here = self.words.get(word)? & (u64::MAX << (slot % 64));
        if here != 0 {
            return Some(EngineIx::new((word * 64) as u32 + here.trailing_zeros()));
        }
        self.select(self.rank(slot))
    }

    /// The first member in this slot or a later one that is admitted, without wrapping. O(log n) for each that is not.
    pub fn next_where(&self, slot: usize, admitted: impl Fn(EngineIx) -> bool) -> Option<EngineIx> {
        let mut found = self.next_from(slot);
        while let Some(engine) = found.filter(|&engine| !admitted(engine)) {
            found = self.next_from(engine.slot() + 1);
        }
        found
    }

    /// The first member in this slot or a later one, else the first of all. O(log n).
    pub fn next_around(&self, slot: usize) -> Option<EngineIx> {
        self.next_from(slot).or_else(|| self.select(0))
    }

    fn add(&mut self, word: usize, by: u32) {
        self.len = self.len.wrapping_add(by as i32 as usize);
        let mut at = word;
        while at < self.counts.len() {
            self.counts[at] = self.counts[at].wrapping_add(by);
            at |= at + 1;
        }
    }

    fn grow(&mut self, words: usize) {
        self.words.resize(words.next_power_of_two(), 0);
        self.counts = vec![0; self.words.len()];
        for word in 0..self.words.len() {
            self.counts[word] += self.words[word].count_ones();
            let above = word | (word + 1);
            if above < self.counts.len() {
                self.counts[above] += self.counts[word];
            }
        }
    }
}
