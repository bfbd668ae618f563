//! The task scheduler against a naive model of itself: the same rules as lists that are scanned, under random events. Also its
//! contracts under every scheme, and the promise that a seed gives the same bytes.

#[path = "model/naive.rs"]
mod naive;
#[path = "model/world.rs"]
mod world;

use pointsman_policies::{Registry, Scheme, SchemeSpec};

use world::World;

/// How many seeds each test plays; the environment can ask for more, or for one that failed.
fn seeds(count: u64) -> Vec<u64> {
    let from_env = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match from_env("POINTSMAN_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("POINTSMAN_SEEDS").unwrap_or(count)).collect(),
    }
}

fn scheme(name: &str) -> Box<dyn Scheme> {
    Registry::builtin().build(&SchemeSpec::named(name)).unwrap()
}

/// Plays a seed and panics with the command that replays it.
fn play(seed: u64, name: &str, steps: usize, with_model: bool) -> String {
    let mut world = World::new(seed, scheme(name), name, with_model);
    let replay = format!("replay: POINTSMAN_SEED={seed} cargo test -p pointsman-schedulers --test model");
    for step in 0..steps {
        if let Err(reason) = world.step() {
            panic!("{name}, step {step}: {reason}\n{}\n{replay}", world.story());
        }
    }
    if let Err(reason) = world.finish() {
        panic!("{name}, finish: {reason}\n{}\n{replay}", world.story());
    }
    world.story()
}

#[test]
fn ten_thousand_seeds_agree_with_the_naive_model() {
    for seed in seeds(10_000) {
        play(seed, if seed % 2 == 0 { "leastload" } else { "lru" }, 70, true);
        if seed % 1000 == 999 {
            println!("{} seeds agree", seed + 1);
        }
    }
}

#[test]
fn long_lives_agree_with_the_naive_model() {
    for seed in seeds(20) {
        play(seed, "leastload", 2_000, true);
    }
}

#[test]
fn the_contracts_hold_under_every_scheme() {
    for entry in Registry::builtin().entries() {
        for seed in seeds(200) {
            play(seed, entry.name, 150, false);
        }
    }
}

#[test]
fn a_seed_gives_the_same_bytes() {
    for entry in Registry::builtin().entries() {
        for seed in seeds(50) {
            assert_eq!(play(seed, entry.name, 120, false), play(seed, entry.name, 120, false), "{} seed {seed}", entry.name);
        }
    }
}
