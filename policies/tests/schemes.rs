//! ipyparallel's six schemes against the list algorithm that they come from.

use pointsman_policies::{Candidates, Chosen, Ending, EngineIx, Outcome, Placement, PolicySpec, Registry, Request, Rng, Time};
use proptest::prelude::*;

/// The reference: a list of (engine, load) in least-recently-used order, scanned for each task.
#[derive(Default)]
struct List(Vec<(EngineIx, u32)>);

impl List {
    fn dispatch(&mut self, engine: EngineIx) {
        let at = self.0.iter().position(|row| row.0 == engine).unwrap();
        let (engine, load) = self.0.remove(at);
        self.0.push((engine, load + 1));
    }

    /// The engines that the scheme may answer with: one for the exact rules.
    fn expected(&self, scheme: &str, hwm: u32, admitted: impl Fn(EngineIx) -> bool) -> Option<EngineIx> {
        let open = self.0.iter().filter(|(engine, load)| admitted(*engine) && (hwm == 0 || *load < hwm));
        match scheme {
            "lru" | "pure" => open.map(|row| row.0).next(),
            "leastload" => open.min_by_key(|row| row.1).map(|row| row.0), // the first of equal minima
            _ => unreachable!(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// lru, pure and leastload choose what a scan of ipyparallel's list would choose, under joins, ends and restrictions.
    #[test]
    fn the_exact_schemes_choose_as_the_list_does(
        scheme in prop::sample::select(vec!["lru", "leastload", "pure"]),
        hwm in 0u32..4,
        ops in prop::collection::vec((0u8..8, any::<u64>()), 1..200),
    ) {
        let mut placement = Placement::new(Registry::builtin().build(&PolicySpec::named(scheme)).unwrap(), 1);
        let mut list = List::default();
        let mut running = Vec::new();
        let now = Time::ZERO;
        for (op, word) in ops {
            match op {
                0 => list.0.insert(0, (placement.join(now, hwm), 0)),
                1 | 2 if !running.is_empty() => {
                    let (engine, ticket) = running.swap_remove(word as usize % running.len());
                    placement.outcome(now, engine, &Outcome::new(ticket, Ending::Ok, Default::default()));
                    list.0.iter_mut().find(|row| row.0 == engine).unwrap().1 -= 1;
                }
                _ => {
                    let marked: Vec<EngineIx> =
                        list.0.iter().map(|row| row.0).filter(|e| word >> (e.slot() % 64) & 1 == 1).collect();
                    let open: Vec<EngineIx> = marked.iter().copied().filter(|&e| placement.roster().is_open(e)).collect();
                    let candidates = match op {
                        3 => Candidates::Only(&open),
                        4 => Candidates::Except(&marked),
                        _ => Candidates::All,
                    };
                    let request = Request::new(candidates);
                    let expected = list.expected(scheme, hwm, |e| candidates.contains(e));
                    let chosen = placement.pick(now, &request);
                    prop_assert_eq!(chosen, expected.map_or(Chosen::NoneOpen, Chosen::Engine));
                    if let Some(engine) = expected {
                        running.push((engine, placement.dispatch(now, engine, &request)));
                        list.dispatch(engine);
                    }
                }
            }
        }
    }
}

/// Shares of picks over engines with loads 0, 1, 2, 3 (oldest first), without dispatching.
fn shares(scheme: &str, candidates: Candidates<'_>) -> [f64; 4] {
    let mut placement = Placement::new(Registry::builtin().build(&PolicySpec::named(scheme)).unwrap(), 42);
    let engines: Vec<EngineIx> = (0..4).map(|_| placement.join(Time::ZERO, 0)).collect();
    let everyone = Request::new(Candidates::All);
    for (load, &engine) in engines.iter().enumerate() {
        for _ in 0..load {
            placement.dispatch(Time::ZERO, engine, &everyone);
        }
    }
    let mut counts = [0.0; 4];
    for _ in 0..200_000 {
        let Chosen::Engine(engine) = placement.pick(Time::ZERO, &Request::new(candidates)) else { panic!("nothing picked") };
        counts[engine.slot()] += 1.0 / 200_000.0;
    }
    counts
}

fn close(got: [f64; 4], want: [f64; 4]) {
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 0.006), "got {got:?}, want {want:?}");
}

#[test]
fn the_random_schemes_have_the_shares_their_rules_imply() {
    let e = |slot| EngineIx::new(slot);
    close(shares("plainrandom", Candidates::All), [0.25; 4]);
    close(shares("plainrandom", Candidates::Except(&[e(0), e(2)])), [0.0, 0.5, 0.0, 0.5]);
    close(shares("plainrandom", Candidates::Only(&[e(1), e(2)])), [0.0, 0.5, 0.5, 0.0]);
    // Position i of n in the list, two draws with replacement, the lower: ((n-i)^2 - (n-i-1)^2) / n^2. Engine 0 was never used.
    close(shares("twobin", Candidates::All), [7.0 / 16.0, 5.0 / 16.0, 3.0 / 16.0, 1.0 / 16.0]);
    close(shares("twobin", Candidates::Except(&[e(0)])), [0.0, 5.0 / 9.0, 3.0 / 9.0, 1.0 / 9.0]);
    close(shares("twobin", Candidates::Only(&[e(0), e(3)])), [0.75, 0.0, 0.0, 0.25]);
    // An idle engine wins all but a few of a million; without it the weights are 6 : 3 : 2 of 11, the better of two draws.
    close(shares("weighted", Candidates::All), [1.0, 0.0, 0.0, 0.0]);
    let (b, c): (f64, f64) = (3.0 / 11.0, 2.0 / 11.0);
    let want = [0.0, 1.0 - (b + c).powi(2), (b + c).powi(2) - c * c, c * c];
    close(shares("weighted", Candidates::Except(&[e(0)])), want);
    close(shares("weighted", Candidates::Only(&[e(1), e(2), e(3)])), want);
    let mut rng = Rng::new(0);
    assert!(rng.unit() < 1.0);
}
