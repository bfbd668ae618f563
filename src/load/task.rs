//! What a task of the load looks like on the wire: three buffers as a function's call has them. The first names the function, so that whoever tells tasks
//! apart by it sees as many functions as there are kinds; how long the task takes stands where arguments do.

use std::fmt::Write as _;

use pointsman_policies::Hints;
use pointsman_policies::facts::hash_name;

/// The duration of a task that never ends, and does not keep its engine either.
pub(super) const NEVER_NS: u64 = u64::MAX;
/// What the first buffer of every task begins with.
const FUNCTION: &[u8] = b"pointsman bench ";
/// Place of the arguments among the buffers.
pub(super) const ARGUMENTS: usize = 2;

/// The three buffers of a task, of a size that does not change.
pub(super) struct Buffers {
    all: [Vec<u8>; 3],
    function: u64,
}

impl Buffers {
    /// Buffers of so many bytes together, or the few that a task needs.
    pub(super) fn new(payload_bytes: usize) -> Buffers {
        let mut all = [0; 3].map(|_| vec![b'x'; payload_bytes / 3]);
        let least = [FUNCTION.len() + 8, 0, 8];
        all.iter_mut().zip(least).for_each(|(buffer, least)| buffer.resize(buffer.len().max(least), b'x'));
        all[0][..FUNCTION.len()].copy_from_slice(FUNCTION);
        Buffers { all, function: u64::from_le_bytes(*b"xxxxxxxx") }
    }

    /// Those of a task that calls a function and takes so long.
    pub(super) fn of(&mut self, function: u64, length_ns: u64) -> impl Iterator<Item = &[u8]> {
        if function != self.function {
            self.function = function;
            self.all[0][FUNCTION.len()..FUNCTION.len() + 8].copy_from_slice(&function.to_le_bytes());
        }
        self.all[ARGUMENTS][..8].copy_from_slice(&length_ns.to_le_bytes());
        self.all.iter().map(Vec::as_slice)
    }
}

/// How long a task takes, by its arguments.
pub(super) fn length_ns(arguments: &[u8]) -> u64 {
    arguments.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A label that says the same to a scheduler as these hints, times by a factor; none if they say nothing. Names are those of the label from which the hints
/// were read; where that is not there, or can not be sent as it is, others that are told apart in the same way.
pub(super) fn label(hints: &Hints, written: Option<&str>, unit_s: f64) -> Option<String> {
    let is_plain = |name: &&str| name.chars().all(|char| !char.is_control() && char != '"' && char != '\\');
    let name = |key: &str, hash: u64| {
        let words = written.into_iter().flat_map(str::split_ascii_whitespace);
        let mut names = words.filter_map(|word| word.strip_prefix('#')?.strip_prefix(key)?.strip_prefix('='));
        // Of several the last holds.
        names.rfind(|name| hash_name(name) == hash).filter(is_plain).map_or_else(|| format!("n{hash}"), str::to_owned)
    };
    let mut text = String::new();
    // Writing to memory does not fail.
    let mut say = |word: std::fmt::Arguments<'_>| {
        let _ = write!(text, "{}#{word}", if text.is_empty() { "" } else { " " });
    };
    if hints.priority != 0.0 {
        say(format_args!("prio={}", hints.priority));
    }
    if hints.tenant != 0 {
        say(format_args!("tenant={}", name("tenant", hints.tenant)));
    }
    if let Some(cost_s) = hints.cost_s {
        say(format_args!("cost={}", cost_s * unit_s));
    }
    if let Some(deadline) = hints.deadline {
        say(format_args!("deadline={}", deadline.as_secs_f64() * unit_s));
    }
    if hints.key != 0 {
        say(format_args!("key={}", name("key", hints.key)));
    }
    if let Some(weight) = hints.weight {
        say(format_args!("weight={weight}"));
    }
    if hints.hedge {
        say(format_args!("hedge"));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use pointsman_schedulers::live::FactReader;

    use super::*;

    #[test]
    fn a_scheduler_sees_as_many_functions_as_there_are_kinds() {
        for payload_bytes in [0, 24, 450, 100_000] {
            let (mut buffers, mut reader) = (Buffers::new(payload_bytes), FactReader::default());
            let mut classes = HashSet::new();
            for task in 0..100 {
                let told: Vec<Vec<u8>> = buffers.of(task % 3, 1000 * task).map(<[u8]>::to_vec).collect();
                assert_eq!(length_ns(&told[ARGUMENTS]), 1000 * task);
                classes.insert(reader.class_of(told.into_iter().map(Into::into)));
            }
            assert_eq!(classes.len(), 3, "{payload_bytes} bytes");
        }
    }

    #[test]
    fn every_hint_comes_back_from_the_label_that_says_it() {
        let label_of = |text: &str| label(&Hints::parse(text).0, None, 0.5);
        let whole = "first #tenant=a #prio=1 #key=x #tenant=b";
        assert_eq!(label(&Hints::parse(whole).0, Some(whole), 1.0).unwrap(), "#prio=1 #tenant=b #key=x");
        assert!(!label(&Hints::parse("#key=\"").0, Some("#key=\""), 1.0).unwrap().contains('"'));
        let (hints, wrong) =
            Hints::parse(&label_of("#prio=-2.5 #tenant=a #cost=3 #deadline=60 #key=x #weight=2 #hedge").unwrap());
        assert_eq!(wrong, None);
        assert_eq!((hints.priority, hints.cost_s, hints.weight, hints.hedge), (-2.5, Some(1.5), Some(2.0), true));
        assert_eq!(hints.deadline, Some(std::time::Duration::from_secs(30)));
        let told = |text: &str| Hints::parse(&label_of(text).unwrap()).0;
        assert!(told("#tenant=a").tenant == told("#tenant=a").tenant && told("#tenant=a").tenant != told("#tenant=b").tenant);
        assert!(told("#key=a").key != 0 && told("#key=a").key != told("#key=b").key);
        assert_eq!(label_of("nothing"), None);
    }
}
