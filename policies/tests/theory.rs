//! Schemes against queueing theory: means that exact chains give, with fixed seeds, and identities that hold event for event.

mod queueing;

use queueing::{System, mean_response, run};

/// Within two per cent: seeds are fixed, so this can not fail by luck; the runs are long enough that it would not for most others.
fn agrees(system: &System, exact: f64) {
    let mean = mean_response(system);
    let off = (mean / exact - 1.0).abs();
    assert!(
        off < 0.02,
        "{} n={} load={} hwm={}: {mean:.4}, exactly {exact}",
        system.scheme,
        system.engines,
        system.load,
        system.hwm
    );
}

fn plain(scheme: &'static str, engines: usize, load: f64) -> System {
    System::new(scheme, engines, load)
}

#[test]
fn random_splits_are_m_m_1() {
    for scheme in ["plainrandom", "choices[d=1]", "oneplusbeta[beta=0]", "jbt[threshold=1000000]"] {
        agrees(&plain(scheme, 5, 0.5), 2.0);
    }
}

#[test]
fn turns_are_e_n_m_1() {
    // sigma solves sigma = (n load / (n load + 1 - sigma))^n; T = 1 / (1 - sigma).
    for scheme in ["roundrobin", "lru", "pure", "swrr[by=equal]"] {
        agrees(&plain(scheme, 2, 0.8), 3.843_980);
        agrees(&plain(scheme, 10, 0.9), 5.660_276);
    }
}

#[test]
fn twobin_is_a_renewal_split() {
    agrees(&plain("twobin", 2, 0.7), 2.857_143);
}

#[test]
fn the_shortest_queue_agrees_with_its_chain() {
    for scheme in ["leastload", "leastload[tie=random]", "leastload[tie=first]", "leastload[tie=round]", "choices[d=2]"] {
        agrees(&plain(scheme, 2, 0.8), 2.955_737);
    }
    agrees(&plain("leastload", 3, 0.5), 1.244_836);
    agrees(&plain("sed", 3, 0.5), 1.244_836); // equal speeds
    agrees(&plain("neverqueue", 3, 0.5), 1.244_836);
    agrees(&plain("weighted", 2, 0.8), 2.988_386);
}

#[test]
fn two_choices_agree_with_what_was_published_for_finite_systems() {
    // Mean queue length per server, by load: Gast, SIGMETRICS 2017.
    agrees(&plain("choices[d=2,replacement=true]", 10, 0.9), 2.804 / 0.9);
    agrees(&plain("oneplusbeta[beta=1]", 50, 0.9), 2.434 / 0.9);
}

#[test]
fn a_limit_with_one_queue_before_it_agrees_with_its_chain() {
    agrees(&System { hwm: 2, ..plain("leastload", 4, 0.8) }, 1.907_831);
    agrees(&System { hwm: 2, ..plain("plainrandom", 4, 0.8) }, 2.127_173);
    agrees(&System { hwm: 1, ..plain("twobin", 4, 0.9) }, 2.969_383); // M/M/4
}

#[test]
fn idle_engines_first_is_between_one_queue_and_chance() {
    // Exact for n = 1; in between otherwise: M/M/4 at .8 takes 1.745669 (Erlang), chance 5.
    for scheme in ["jiq", "jbt[threshold=1]"] {
        agrees(&plain(scheme, 1, 0.5), 2.0);
        let mean = mean_response(&plain(scheme, 4, 0.8));
        let shortest = mean_response(&plain("leastload", 4, 0.8));
        assert!(mean > shortest && mean < 3.0, "{scheme}: {mean} beside {shortest}");
    }
}

#[test]
fn size_intervals_are_queues_of_their_own() {
    // Sizes 0.5 and 4 with equal work: 8 short ones to one long. Each engine is M/D/1: T = S + load S / (2 (1 - load)).
    let size = |rng: &mut pointsman_policies::Rng| if rng.below(9) < 8 { 9.0 / 16.0 } else { 9.0 / 2.0 };
    let system = System { size, told: true, ..plain("sita[cutoffs=[1.0]]", 2, 0.6) };
    let each = |s: f64| s + 0.6 * s / (2.0 * 0.4);
    agrees(&system, 8.0 / 9.0 * each(9.0 / 16.0) + each(9.0 / 2.0) / 9.0);
    // Measured boundaries waver, and a few tasks of the size at the boundary go to the other engine.
    let exact = 8.0 / 9.0 * each(9.0 / 16.0) + each(9.0 / 2.0) / 9.0;
    let mean = mean_response(&System { scheme: "sita", ..system });
    assert!((mean / exact - 1.0).abs() < 0.04, "{mean}, exactly {exact}");
}

#[test]
fn identities_hold_event_for_event() {
    let short = |scheme, hwm| System { hwm, jobs: 50_000, ..plain(scheme, 4, 0.85) };
    let starts = |system: &System| run(system).into_iter().map(|(_, start, _)| start).collect::<Vec<_>>();
    // At hwm 1 all engines are alike: whatever the scheme, a task starts when the first engine is free.
    let one_queue = starts(&short("lru", 1));
    for scheme in [
        "leastload",
        "plainrandom",
        "twobin",
        "weighted",
        "roundrobin",
        "choices",
        "jiq",
        "prequal",
        "c3",
        "peakewma",
        "maglev",
        "rendezvous",
        "boundedhash",
        "fillfirst",
        "score",
        "sed[slow_server=true]",
        "swrr",
        "sita",
    ] {
        assert_eq!(starts(&short(scheme, 1)), one_queue, "{scheme}");
    }
    // With exact sizes, least work left starts each task when one queue for all would.
    assert_eq!(starts(&System { told: true, ..short("leastwork", 0) }), one_queue);
    assert_eq!(starts(&short("lru", 0)), starts(&short("pure", 0)));
    assert_eq!(starts(&short("choices[d=4,tie=lru]", 0)), starts(&short("leastload", 0)), "JSQ(n) is JSQ");
}
