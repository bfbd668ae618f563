//! The shared structures against sets and scans.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_policies::index::{DenseSet, MinTree, SlotSet, SumTree, WinnerTree, sortable};
use pointsman_policies::{Candidates, EngineIx, Rng};
use proptest::prelude::*;

fn e(slot: usize) -> EngineIx {
    EngineIx::new(slot as u32)
}

proptest! {
    #[test]
    fn a_slot_set_is_a_sorted_set(ops in prop::collection::vec((any::<bool>(), 0usize..700), 1..200), probes in prop::collection::vec(0usize..800, 20)) {
        let (mut set, mut model) = (SlotSet::default(), BTreeSet::new());
        for (insert, slot) in ops {
            if insert {
                set.insert(e(slot));
                model.insert(slot);
            } else {
                set.remove(e(slot));
                model.remove(&slot);
            }
        }
        prop_assert_eq!(set.len(), model.len());
        for probe in probes {
            prop_assert_eq!(set.contains(e(probe)), model.contains(&probe));
            prop_assert_eq!(set.rank(probe), model.range(..probe).count());
            prop_assert_eq!(set.select(probe % 70), model.iter().nth(probe % 70).map(|&slot| e(slot)));
            prop_assert_eq!(set.next_from(probe), model.range(probe..).next().map(|&slot| e(slot)));
            let around = model.range(probe..).next().or(model.first());
            prop_assert_eq!(set.next_around(probe), around.map(|&slot| e(slot)));
        }
    }

    #[test]
    fn trees_of_minima_find_what_a_scan_finds(
        ops in prop::collection::vec((0usize..100, prop::option::of(0u64..8)), 1..200),
        from in 0usize..130, bound in 0u64..9, out in prop::collection::vec(0usize..110, 0..5),
    ) {
        let (mut tree, mut winner, mut model) = (MinTree::default(), WinnerTree::default(), BTreeMap::new());
        for (slot, key) in ops {
            match key {
                Some(key) => {
                    tree.set(e(slot), key);
                    winner.set(e(slot), u128::from(key) << 64 | slot as u128);
                    model.insert(slot, key);
                }
                None => {
                    tree.remove(e(slot));
                    winner.remove(e(slot));
                    model.remove(&slot);
                }
            }
        }
        let check = |tree: &MinTree, model: &BTreeMap<usize, u64>| {
            let least = model.values().min().copied();
            let minima: Vec<usize> = model.iter().filter(|(_, key)| Some(**key) == least).map(|(slot, _)| *slot).collect();
            assert_eq!(tree.min(), least.map(|key| (key, minima.len() as u32)));
            for n in 0..minima.len() + 2 {
                assert_eq!(tree.nth_min(n as u32), minima.get(n).copied());
            }
            let first = |from: usize| model.range(from..).find(|(_, key)| **key <= bound).map(|(slot, _)| *slot);
            assert_eq!(tree.first_at_most(from, bound), first(from));
            assert_eq!(tree.first_at_most_around(from, bound), first(from).or_else(|| first(0)));
        };
        check(&tree, &model);
        let winner_of = |model: &BTreeMap<usize, u64>| model.iter().min_by_key(|(slot, key)| (**key, **slot)).map(|(slot, _)| e(*slot));
        prop_assert_eq!(winner.min(), winner_of(&model));
        let mut left = model.clone();
        left.retain(|slot, _| !out.contains(slot));
        tree.without(out.iter().copied(), |tree| check(tree, &left));
        let excluded: Vec<EngineIx> = out.iter().map(|&slot| e(slot)).collect();
        prop_assert_eq!(winner.min_except(&excluded), winner_of(&left));
        check(&tree, &model);
        prop_assert_eq!(winner.min(), winner_of(&model));
    }

    #[test]
    fn eligible_engines_are_those_of_the_request(
        members in prop::collection::btree_set(0usize..60, 0..40), listed in prop::collection::btree_set(0usize..60, 0..10), count in 0usize..50, seed: u64,
    ) {
        let mut set = DenseSet::default();
        (0..60).for_each(|slot| set.insert(e(slot)));
        (0..60).filter(|slot| !members.contains(slot)).for_each(|slot| set.remove(e(slot)));
        let listed: Vec<EngineIx> = listed.into_iter().map(e).collect();
        let mut rng = Rng::new(seed);
        for candidates in [Candidates::All, Candidates::Except(&listed)] {
            let eligible = set.eligible(candidates);
            let model: BTreeSet<EngineIx> = members.iter().map(|&slot| e(slot)).filter(|&engine| candidates.contains(engine)).collect();
            let all: BTreeSet<EngineIx> = (0..eligible.len()).map(|index| eligible.get(index)).collect();
            prop_assert_eq!(&all, &model);
            let sample = eligible.sample(count, &mut rng);
            let distinct: BTreeSet<EngineIx> = sample.iter().copied().collect();
            prop_assert_eq!(sample.len(), count.min(model.len()));
            prop_assert!(distinct.len() == sample.len() && distinct.is_subset(&model));
            prop_assert_eq!(eligible.draw(&mut rng).is_none(), model.is_empty());
        }
    }

    #[test]
    fn sortable_numbers_sort(a in -1e12f64..1e12, b in -1e12f64..1e12) {
        prop_assert_eq!(sortable(a).cmp(&sortable(b)), a.total_cmp(&b));
    }
}

#[test]
fn samples_are_uniform() {
    let mut set = DenseSet::default();
    (0..6).for_each(|slot| set.insert(e(slot)));
    let (mut rng, mut counts) = (Rng::new(3), [0_u32; 6]);
    for _ in 0..60_000 {
        for engine in set.eligible(Candidates::Except(&[e(5)])).sample(2, &mut rng) {
            counts[engine.slot()] += 1;
        }
    }
    assert!(counts[..5].iter().all(|&count| count.abs_diff(24_000) < 600) && counts[5] == 0, "{counts:?}");
}

#[test]
fn draws_by_weight_follow_the_weights_whatever_is_left_out() {
    let (mut tree, mut rng) = (SumTree::default(), Rng::new(4));
    for (slot, weight) in [(0, 1.0), (3, 2.0), (9, 5.0)] {
        tree.set(e(slot), weight);
    }
    let mut counts = BTreeMap::new();
    for _ in 0..60_000 {
        *counts.entry(tree.with_except(&[e(9), e(40)], |tree| tree.draw(&mut rng)).unwrap().slot()).or_insert(0_u32) += 1;
    }
    assert!(counts[&0].abs_diff(20_000) < 600 && counts.len() == 2 && tree.weight(e(9)) == 5.0, "{counts:?}");
}
