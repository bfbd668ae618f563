//! Heartbeats: one ping to all each period, an answer from each engine, and a count of those that were missed.
//! It knows only the hearts it was told to watch, so strangers can not make it grow.

use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

#[derive(Debug, Default)]
struct Heart {
    /// The number of the last ping that it answered; nothing before its first answer, for which it may take its time.
    answered: Option<u64>,
    misses: u32,
}

/// Who answers and who does not.
#[derive(Debug)]
pub struct Hearts {
    max_misses: u32,
    hearts: HashMap<Box<str>, Heart, FixedState>,
    /// Number and text of the current ping; the one before it still counts.
    beat: u64,
    text: String,
    previous: String,
}

impl Hearts {
    /// Nobody yet. An engine is lost when it misses more than `max_misses` pings in a row.
    pub fn new(max_misses: u32) -> Self {
        Hearts { max_misses, hearts: HashMap::default(), beat: 0, text: String::new(), previous: String::new() }
    }

    /// Begins to watch an engine. It can not miss a ping before it has answered one: whoever watches decides how long that may take.
    pub fn watch(&mut self, uuid: &str) {
        self.hearts.insert(uuid.into(), Heart::default());
    }

    /// Watches an engine that has answered before, in a former life of the controller: it can miss pings at once.
    pub fn resume(&mut self, uuid: &str) {
        self.hearts.insert(uuid.into(), Heart { answered: Some(self.beat), misses: 0 });
    }

    /// Stops watching an engine.
    pub fn forget(&mut self, uuid: &str) {
        self.hearts.remove(uuid);
    }

    /// A period has passed: counts who missed the last ping, returns who is lost, and makes the next ping. O(engines).
    pub fn beat(&mut self, now: Duration) -> Vec<Box<str>> {
        let mut lost = Vec::new();
        for (uuid, heart) in &mut self.hearts {
            let Some(answered) = heart.answered else { continue };
            if answered < self.beat {
                heart.misses += 1;
                if heart.misses > self.max_misses {
                    lost.push(uuid.clone());
                }
            } else {
                heart.misses = 0;
            }
        }
        lost.sort();
        for uuid in &lost {
            self.hearts.remove(uuid);
        }
        self.beat += 1;
        self.previous = std::mem::replace(&mut self.text, format!("{:?}", now.as_secs_f64()));
        lost
    }

    /// The current ping.
    pub fn ping(&self) -> &str {
        &self.text
    }

    /// An answer. True if it is from an engine that is watched and to one of the last two pings.
    pub fn pong(&mut self, uuid: &str, text: &[u8]) -> bool {
        let number = if text == self.text.as_bytes() {
            self.beat
        } else if text == self.previous.as_bytes() {
            self.beat.saturating_sub(1)
        } else {
            return false;
        };
        match self.hearts.get_mut(uuid) {
            Some(heart) => {
                // An answer that comes one beat late takes back the miss that its lateness caused.
                if number < self.beat && heart.answered.is_some_and(|answered| answered < number) {
                    heart.misses = heart.misses.saturating_sub(1);
                }
                heart.answered = heart.answered.max(Some(number));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_miss_in_a_row_is_the_end() {
        let mut hearts = Hearts::new(10);
        hearts.beat(Duration::from_secs(1));
        hearts.watch("e");
        assert!(hearts.pong("e", hearts.ping().to_owned().as_bytes()));
        let mut beats = 0;
        while hearts.beat(Duration::from_secs(2 + beats)).is_empty() {
            beats += 1;
        }
        assert_eq!(beats, 11); // the first of these beats finds the last answer
        assert!(!hearts.pong("e", hearts.ping().to_owned().as_bytes()), "a lost engine is not watched");
    }

    #[test]
    fn late_answers_count_and_old_or_strange_ones_do_not() {
        let mut hearts = Hearts::new(1);
        hearts.beat(Duration::from_secs(1));
        hearts.watch("e");
        for second in 2..50 {
            let ping = hearts.ping().to_owned();
            assert!(hearts.beat(Duration::from_secs(second)).is_empty());
            assert!(hearts.pong("e", ping.as_bytes()), "one beat late");
        }
        assert!(
            !hearts.pong("e", b"1.0")
                && !hearts.pong("e", b"\xff")
                && !hearts.pong("stranger", hearts.ping().to_owned().as_bytes())
        );
    }
}
