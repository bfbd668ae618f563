//! Ids of requests that are to be dropped when they come, as clients have asked. Bounded: the oldest are forgotten, whatever is asked.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;
use serde_json::Value;

use crate::wire::MAX_ID_BYTES;

/// Most ids that are kept.
const MAX_IDS: usize = 100_000;
/// Most bytes of ids that are kept.
const MAX_BYTES: usize = 16 << 20;

/// What an `abort_request` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Whatever waits.
    All,
    /// These ids.
    Ids(Vec<String>),
}

/// Of its content: `msg_ids` is a list of ids or one id; an empty one, or none, means all. What is no id is nobody's.
pub(super) fn named(content: &mut Value) -> Named {
    let ids = match content["msg_ids"].take() {
        Value::Null => return Named::All,
        Value::Array(ids) if ids.is_empty() => return Named::All,
        Value::String(id) if id.is_empty() => return Named::All,
        Value::Array(ids) => ids,
        one => vec![one],
    };
    Named::Ids(ids.into_iter().filter_map(|id| if let Value::String(id) = id { Some(id) } else { None }).collect())
}

/// The ids, in the order in which they were named.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    ids: HashSet<Arc<str>, foldhash::fast::FixedState>,
    /// With those that have come since, which stay here until it is their turn to be forgotten.
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Aborted {
    /// Remembers an id. O(1), amortised.
    pub(super) fn insert(&mut self, id: String) {
        // No request has a longer one.
        if id.len() > MAX_ID_BYTES || self.ids.contains(id.as_str()) {
            return;
        }
        let id: Arc<str> = id.into();
        self.bytes += id.len();
        self.order.push_back(id.clone());
        self.ids.insert(id);
        while self.order.len() > MAX_IDS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= oldest.len();
            self.ids.remove(&oldest);
        }
    }

    /// Whether the id of a request that has come is one of them; from now on it is not.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.ids.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_nothing_grows_without_bound() {
        let mut aborted = Aborted::default();
        // In this order the alphabet would forget the newest.
        for n in (0..MAX_IDS + 10).rev() {
            aborted.insert(format!("{n:08}"));
        }
        assert_eq!((aborted.ids.len(), aborted.order.len()), (MAX_IDS, MAX_IDS));
        assert!(aborted.remove("00000000") && !aborted.remove("00000000"));
        assert!(!aborted.remove(&format!("{:08}", MAX_IDS + 9)));
        for n in 0..100_000 {
            aborted.insert(format!("{n:01024}"));
            aborted.insert(format!("{n:02048}"));
        }
        assert!(aborted.bytes <= MAX_BYTES && aborted.order.iter().map(|id| id.len()).sum::<usize>() == aborted.bytes);
        assert!(aborted.remove(&format!("{:01024}", 99_999)));
    }

    #[test]
    fn an_abort_names_a_list_a_string_or_all() {
        let ids = |ids: &[&str]| Named::Ids(ids.iter().map(|&id| id.to_owned()).collect());
        for (content, expected) in [
            (json!({"msg_ids": ["a", "b"]}), ids(&["a", "b"])),
            (json!({"msg_ids": "a"}), ids(&["a"])),
            (json!({"msg_ids": [1, null]}), ids(&[])),
            (json!({"msg_ids": null}), Named::All),
            (json!({"msg_ids": []}), Named::All),
            (json!({"msg_ids": 3}), ids(&[])),
            (json!({}), Named::All),
            (Value::Null, Named::All),
        ] {
            assert_eq!(named(&mut content.clone()), expected, "{content}");
        }
    }
}
