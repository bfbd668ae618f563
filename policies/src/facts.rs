//! What is known of a task: what its request says, what its label hints, and what the graph around it implies. Facts are plain values,
//! filled once by whoever drives the scheduler; a policy sees only those that it has declared as [`Needs`].

use std::time::Duration;

use crate::{EngineIx, Time};

bitflags::bitflags! {
    /// What a policy looks at. Nothing else is shown to it, and nothing that no policy looks at is measured.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Needs: u32 {
        /// [`Outcome::latency`](crate::Outcome::latency): from dispatch to answer.
        const LATENCY = 1;
        /// [`Outcome::run`](crate::Outcome::run): what the engine measured.
        const RUN = 1 << 1;
        /// [`TaskView::class`]: which function a task calls.
        const CLASS = 1 << 2;
        /// [`Hints::cost_s`]: how long its client says it takes.
        const COST = 1 << 3;
        /// [`Learned::class`](crate::Learned::class): how long its class took so far.
        const ESTIMATE = 1 << 4;
        /// [`TaskView::inputs`]: where results that it depends on were made, and how large they are.
        const INPUTS = 1 << 5;
        /// [`TaskView::client`] and [`TaskView::session`]: who sent it.
        const CLIENT = 1 << 6;
        /// [`TaskView::hints`]: what its label says, apart from the cost.
        const HINTS = 1 << 7;
        /// [`Learned::speed`](crate::Learned::speed): how fast engines are.
        const SPEED = 1 << 8;
        /// [`Request::waiting`](crate::Request::waiting): how many ready tasks wait.
        const WAITING = 1 << 9;
        /// [`TaskView::level_s`]: the longest path from its start to the end of the graph.
        const LEVEL = 1 << 10;
        /// [`TaskView::descendants`]: how many tasks wait for it, directly or not.
        const DESCENDANTS = 1 << 11;
        /// A task's `follow` becomes a wish, seen as inputs, instead of a limit on candidates.
        const SOFT_FOLLOW = 1 << 12;
        /// [`Signal`](crate::Signal): what engines say of their load. ipyparallel's say nothing; those of a simulator may.
        const SIGNAL = 1 << 13;
    }
}

impl Needs {
    /// The names of what is in the set, in lower case, comma separated; `-` for nothing.
    pub fn describe(self) -> String {
        let names: Vec<String> = self.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    }
}

/// What clients say of a task in its label, so that they need no other way: `"fit #prio=5 #tenant=a #cost=2.5"`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Hints {
    /// `#prio=5`: more is more urgent; 0 unless said.
    pub priority: f64,
    /// `#tenant=a`, as [`hash_name`]; whose share of a cluster it is charged to. 0 unless said.
    pub tenant: u64,
    /// `#cost=2.5`: how long it runs on an engine of ordinary speed, in seconds; 0 is no time, not an unknown one.
    pub cost_s: Option<f64>,
    /// `#deadline=60`: how long after its submission it should have ended.
    pub deadline: Option<Duration>,
    /// `#key=x`, as [`hash_name`]: tasks of one key want the same engine. 0 unless said.
    pub key: u64,
    /// `#weight=2`: share of its tenant relative to others, from 0.001 to 1000.
    pub weight: Option<f64>,
    /// `#hedge`: it may run twice at once, because that does no harm.
    pub hedge: bool,
}

/// A word of a label that looks like a hint and is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label hint '#{hint}': {reason}")]
pub struct HintError {
    /// The word, without its `#`, shortened.
    pub hint: String,
    /// What is wrong with it.
    pub reason: &'static str,
    /// No hint has its name, rather than that its value is wrong.
    pub is_unknown: bool,
}

const KNOWN_HINTS: &str = "known are #prio=, #tenant=, #cost=, #deadline=, #key=, #weight= and #hedge";

/// The names of hints, and what to say of a word that is nearly one.
const NEAREST: [(&str, &str); 7] = [
    ("prio", "did you mean #prio=?"),
    ("tenant", "did you mean #tenant=?"),
    ("cost", "did you mean #cost=?"),
    ("deadline", "did you mean #deadline=?"),
    ("key", "did you mean #key=?"),
    ("weight", "did you mean #weight=?"),
    ("hedge", "did you mean #hedge?"),
];

/// What to say of a name that no hint has. O(its length), which the caller bounds.
fn nearest(name: &str) -> &'static str {
    let distance = |known: &str| strsim::osa_distance(known, name);
    let near = NEAREST.iter().filter(|(known, _)| !name.is_empty() && distance(known) <= 1 + known.len() / 4);
    near.min_by_key(|(known, _)| distance(known)).map_or(KNOWN_HINTS, |(_, reason)| reason)
}

impl Hints {
    /// Reads the hints in a label; other words are its owner's. What is wrong is left out, and the first such word returned. O(length).
    pub fn parse(label: &str) -> (Hints, Option<HintError>) {
        let (mut hints, mut wrong) = (Hints::default(), None);
        for word in label.split_ascii_whitespace().filter_map(|word| word.strip_prefix('#')) {
            if let Err(reason) = hints.read(word) {
                wrong.get_or_insert_with(|| {
                    let hint: String = word.chars().take(40).collect();
                    let is_unknown = reason == KNOWN_HINTS;
                    let name = hint.split('=').next().unwrap_or_default();
                    HintError { reason: if is_unknown { nearest(name) } else { reason }, is_unknown, hint }
                });
            }
        }
        (hints, wrong)
    }

    fn read(&mut self, word: &str) -> Result<(), &'static str> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or("it takes a number");
        let positive = |text: &str| number(text).and_then(|n| if n > 0.0 { Ok(n) } else { Err("it takes a number above 0") });
        let seconds = |text: &str| number(text).and_then(|n| if n >= 0.0 { Ok(n) } else { Err("it takes seconds, 0 or more") });
        match word.split_once('=').unwrap_or((word, "")) {
            ("prio", value) => self.priority = number(value)?,
            // -0 is 0: the two have different bits, by which costs are ordered.
            ("cost", value) => self.cost_s = Some(seconds(value)?.min(1e9).abs()),
            ("deadline", value) => {
                self.deadline = Some(Duration::try_from_secs_f64(seconds(value)?.min(1e9)).unwrap_or_default());
            }
            ("weight", value) => self.weight = Some(positive(value)?.clamp(1e-3, 1e3)),
            ("tenant", name) if !name.is_empty() => self.tenant = hash_name(name),
            ("key", name) if !name.is_empty() => self.key = hash_name(name),
            ("tenant" | "key", _) => return Err("it takes a name"),
            ("hedge", "") => self.hedge = true,
            ("hedge", _) => return Err("it takes no value"),
            _ => return Err(KNOWN_HINTS),
        }
        Ok(())
    }
}

/// A name as policies keep it: FNV-1a with a final mix, never 0, the same on every platform and in every release.
pub fn hash_name(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mix(hash).max(1)
}

/// Spreads a word over all 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What a request says of its task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TaskFacts {
    /// Which function it calls, as a hash of its buffer; 0 if that can not be told.
    pub class: u64,
    /// Who sent it, as a hash of the client's identity; 0 if nobody did.
    pub client: u64,
    /// The client's session, as a hash; 0 if it has none.
    pub session: u64,
    /// Size of the request, in bytes.
    pub bytes: u64,
    /// What its label says.
    pub hints: Hints,
}

/// A result that a task depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// The engine that made it, if it is still there.
    pub engine: EngineIx,
    /// Its size as sent, in bytes, to within a factor of two.
    pub bytes: u64,
}

/// A waiting task as a policy sees it: through accessors that show what the policy has declared, and neutral values otherwise.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TaskView<'a> {
    needs: Needs,
    facts: &'a TaskFacts,
    inputs: &'a [Input],
    submitted: Time,
    ready: Time,
    seq: u64,
    release: u64,
    level_s: f64,
    descendants: f64,
}

static NOTHING_KNOWN: TaskFacts = TaskFacts {
    class: 0,
    client: 0,
    session: 0,
    bytes: 0,
    hints: Hints { priority: 0.0, tenant: 0, cost_s: None, deadline: None, key: 0, weight: None, hedge: false },
};

impl Default for TaskView<'_> {
    fn default() -> Self {
        TaskView::new(&NOTHING_KNOWN)
    }
}

impl<'a> TaskView<'a> {
    /// A task with these facts, of which a policy sees nothing until [`shown`](Self::shown) says what.
    pub const fn new(facts: &'a TaskFacts) -> Self {
        TaskView {
            needs: Needs::empty(),
            facts,
            inputs: &[],
            submitted: Time::ZERO,
            ready: Time::ZERO,
            seq: 0,
            release: 0,
            level_s: 0.0,
            descendants: 0.0,
        }
    }

    /// The same, showing what `needs` names.
    pub const fn shown(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// The same, with the results that it depends on.
    pub const fn with_inputs(mut self, inputs: &'a [Input]) -> Self {
        self.inputs = inputs;
        self
    }

    /// The same, with the moments of its submission and of its becoming ready.
    pub const fn at(mut self, submitted: Time, ready: Time) -> Self {
        (self.submitted, self.ready) = (submitted, ready);
        self
    }

    /// The same, with its number among submissions, and that of the end that released it among ends.
    pub const fn numbered(mut self, seq: u64, release: u64) -> Self {
        (self.seq, self.release) = (seq, release);
        self
    }

    /// The same, with its place in the graph.
    pub const fn in_graph(mut self, level_s: f64, descendants: f64) -> Self {
        (self.level_s, self.descendants) = (level_s, descendants);
        self
    }

    fn sees(&self, need: Needs) -> bool {
        self.needs.contains(need)
    }

    /// Everything that its request says. For those who fill a view, not for policies, which may look at what they declare.
    pub const fn facts(&self) -> &'a TaskFacts {
        self.facts
    }

    /// Which function it calls; 0 if unknown. Needs [`Needs::CLASS`] or [`Needs::ESTIMATE`].
    pub fn class(&self) -> u64 {
        if self.needs.intersects(Needs::CLASS.union(Needs::ESTIMATE)) { self.facts.class } else { 0 }
    }

    /// Who sent it; 0 if nobody did. Needs [`Needs::CLIENT`].
    pub fn client(&self) -> u64 {
        if self.sees(Needs::CLIENT) { self.facts.client } else { 0 }
    }

    /// The session it was sent in; 0 if none. Needs [`Needs::CLIENT`].
    pub fn session(&self) -> u64 {
        if self.sees(Needs::CLIENT) { self.facts.session } else { 0 }
    }

    /// What its label says; the cost needs [`Needs::COST`], the rest [`Needs::HINTS`].
    pub fn hints(&self) -> Hints {
        let mut hints = if self.sees(Needs::HINTS) { self.facts.hints } else { Hints::default() };
        hints.cost_s = self.facts.hints.cost_s.filter(|_| self.sees(Needs::COST));
        hints
    }

    /// Results that it depends on, one entry for each. Needs [`Needs::INPUTS`].
    pub fn inputs(&self) -> &'a [Input] {
        if self.sees(Needs::INPUTS) { self.inputs } else { &[] }
    }

    /// Size of the request, in bytes.
    pub fn bytes(&self) -> u64 {
        self.facts.bytes
    }

    /// When it was submitted.
    pub fn submitted(&self) -> Time {
        self.submitted
    }

    /// When it became ready, the last time it did.
    pub fn ready(&self) -> Time {
        self.ready
    }

    /// Its number in the order of submission.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The number, among all ends of tasks, of the one that released it; 0 if it waited for none.
    pub fn release(&self) -> u64 {
        self.release
    }

    /// The longest path through the graph from its start to the last end, in seconds as estimated. Needs [`Needs::LEVEL`].
    pub fn level_s(&self) -> f64 {
        if self.sees(Needs::LEVEL) { self.level_s } else { 0.0 }
    }

    /// About how many tasks wait for it, directly or not: exact up to 32. Needs [`Needs::DESCENDANTS`].
    pub fn descendants(&self) -> f64 {
        if self.sees(Needs::DESCENDANTS) { self.descendants } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_that_nobody_knows_is_told_with_the_nearest_that_there_is() {
        for (label, said) in [
            ("#piro=5", "label hint '#piro=5': did you mean #prio=?"),
            ("x #priority=5 y", "label hint '#priority=5': known are"),
            ("#pri=1", "label hint '#pri=1': did you mean #prio=?"),
            ("#tennant=a", "label hint '#tennant=a': did you mean #tenant=?"),
            ("#hegde", "label hint '#hegde': did you mean #hedge?"),
            ("#bogus=3", "label hint '#bogus=3': known are #prio="),
            ("#=3", "label hint '#=3': known are"),
        ] {
            let wrong = Hints::parse(label).1.unwrap();
            assert!(wrong.to_string().starts_with(said) && wrong.is_unknown, "{label}: {wrong}");
        }
        let wrong = Hints::parse("#prio=x").1.unwrap();
        assert!(!wrong.is_unknown && wrong.to_string() == "label hint '#prio=x': it takes a number");
        assert!(Hints::parse(&"#piro=5 ".repeat(100_000)).1.is_some(), "only the first is looked at closely");
    }

    #[test]
    fn hints_are_read_from_any_label_and_nonsense_is_named() {
        let (hints, wrong) = Hints::parse("fit model #prio=5 #tenant=a #cost=2.5 #deadline=60 #key=x #weight=2 #hedge");
        assert_eq!(wrong, None);
        assert_eq!((hints.priority, hints.cost_s, hints.weight, hints.hedge), (5.0, Some(2.5), Some(2.0), true));
        assert_eq!((hints.tenant, hints.key), (hash_name("a"), hash_name("x")));
        assert_eq!(hints.deadline, Some(Duration::from_secs(60)));
        for (label, says) in [
            ("#prio=high", "'#prio': it takes"),
            ("#prio=nan", "a number"),
            ("#cost=-1", "0 or more"),
            ("#weight=0", "above 0"),
            ("#deadline=-1", "0 or more"),
            ("#tenant=", "a name"),
            ("#hedge=2", "no value"),
            ("#color=red #prio=3", "known are #prio="),
        ] {
            let (hints, wrong) = Hints::parse(label);
            let wrong = wrong.unwrap().to_string();
            assert!(wrong.contains(says.trim_start_matches("'#prio': ")), "{label}: {wrong}");
            assert_eq!(hints.priority, if label.ends_with("#prio=3") { 3.0 } else { 0.0 });
        }
        assert_eq!(Hints::parse("#cost=-0").0.cost_s.map(f64::to_bits), Some(0), "no time is no time, and known");
        assert_eq!(Hints::parse("plain words, a#b and 5"), (Hints::default(), None));
    }

    #[test]
    fn a_policy_sees_what_it_declares_and_nothing_else() {
        let (hints, _) = Hints::parse("#prio=2 #cost=3");
        let facts = TaskFacts { class: 7, client: 8, session: 9, bytes: 10, hints };
        let inputs = [Input { engine: EngineIx::new(1), bytes: 64 }];
        let view = TaskView::new(&facts).with_inputs(&inputs).in_graph(4.0, 5.0);
        assert_eq!((view.class(), view.client(), view.inputs().len(), view.level_s()), (0, 0, 0, 0.0));
        assert_eq!((view.hints().priority, view.hints().cost_s), (0.0, None));
        let view = view.shown(Needs::all());
        assert_eq!((view.class(), view.client(), view.inputs().len(), view.level_s()), (7, 8, 1, 4.0));
        assert_eq!((view.hints().priority, view.hints().cost_s, view.descendants()), (2.0, Some(3.0), 5.0));
        assert_eq!((Needs::CLASS | Needs::COST).describe(), "class, cost");
    }
}
