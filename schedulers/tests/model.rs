//! The task scheduler against a naive model of itself: the same rules as lists that are scanned, under random events. Also its
//! contracts under every scheme, and the promise that a seed gives the same bytes.

#[path = "model/naive.rs"]
mod naive;
#[path = "model/world.rs"]
mod world;

use pointsman_policies::{Axis, PolicySpec, Registry, Scheme};

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
    Registry::builtin().build(&name.parse::<PolicySpec>().unwrap()).unwrap()
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
    for seed in seeds(150) {
        play(seed, "leastload", 2_000, true);
    }
}

/// Every scheme, and those of their shapes that put tasks off. Each life also swaps to others, on every axis.
fn schemes() -> Vec<String> {
    let registry = Registry::builtin();
    let shapes = ["sed[slow_server=true]", "neverqueue[slow_server=true]", "sita[strict=true]"];
    registry.on(Axis::Placement).map(|entry| entry.name).chain(shapes).map(str::to_owned).collect()
}

#[test]
fn the_contracts_hold_under_every_scheme() {
    for name in schemes() {
        for seed in seeds(150) {
            play(seed, &name, 150, false);
        }
    }
}

#[test]
fn a_seed_gives_the_same_bytes() {
    for name in schemes() {
        for seed in seeds(30) {
            assert_eq!(play(seed, &name, 120, false), play(seed, &name, 120, false), "{name} seed {seed}");
        }
    }
}
