"""Policies as stock clients and engines see them: shares, labels, learned durations, second copies, tasks taken back."""

import json
import os
import subprocess
import time

import ipyparallel as ipp
import pytest
from conftest import BIN, wait_until
from gates import Gate, pass_through


def nap(seconds):
    import time

    time.sleep(seconds)
    return seconds


def ask(cluster, *args):
    command = [BIN, *args, "--file", cluster.client_file]
    return subprocess.run(command, env=cluster.env, check=True, capture_output=True, text=True, timeout=20).stdout


def engines_and_tasks(cluster):
    state = json.loads(ask(cluster, "policy", "show", "--json"))["state"]
    return state["engines"], state["tasks"]


def waiting(cluster):
    """How many tasks have come and are on no engine."""
    engines, tasks = engines_and_tasks(cluster)
    return tasks["live"] - sum(engine["in_flight"] for engine in engines)


def wait_s(result):
    return (result.started - result.submitted).total_seconds()


def test_a_single_task_does_not_wait_behind_anothers_thousands(fresh):
    cluster, a = fresh(2, "--order=fair")
    b = cluster.client(engines=2)
    run_s = 0.25
    a.load_balanced_view().map_async(nap, [run_s] * 3_000, chunksize=1)
    wait_until(lambda: engines_and_tasks(cluster)[1]["live"] >= 2_900, timeout=60)
    for _ in range(3):
        single = b.load_balanced_view().apply_async(nap, run_s)
        assert single.get(20) == run_s
        # Those before it would take six minutes.
        assert wait_s(single) < 12 * run_s, f"it waited {wait_s(single)} s, and runs {run_s} s"
        time.sleep(0.3)


def test_shares_follow_tenants_and_their_weights(fresh, gate):
    cluster, rc = fresh(1, '--order=fair[weights={"gold": 3}]')
    view = rc.load_balanced_view()
    first = view.apply_async(pass_through, gate)
    with view.temp_flags(label="#tenant=plain"):
        plain = [view.apply_async(nap, 0.1) for _ in range(24)]
    with view.temp_flags(label="#tenant=gold"):
        gold = [view.apply_async(nap, 0.1) for _ in range(24)]
    wait_until(lambda: waiting(cluster) == 48)
    gate.open()
    for result in [first, *plain, *gold]:
        result.get(30)
    started = sorted((result.started, kind) for kind, results in [("plain", plain), ("gold", gold)] for result in results)
    first = [kind for _, kind in started[:24]]
    # Shares are of time, and one nap may last longer than another: equal weights would make it 12.
    assert 14 <= first.count("gold") <= 23, f"three of four should be gold: {first}"


def test_a_label_with_prio_overtakes(fresh, gate):
    cluster, rc = fresh(1, "--order=priority")
    view = rc.load_balanced_view()
    first = view.apply_async(pass_through, gate)
    others = [view.apply_async(nap, 0.01) for _ in range(20)]
    with view.temp_flags(label="urgent #prio=5"):
        urgent = view.apply_async(nap, 0.01)
    with view.temp_flags(label="later #prio=-1"):
        later = view.apply_async(nap, 0.01)
    wait_until(lambda: waiting(cluster) == 22)
    gate.open()
    for result in [first, *others, urgent, later]:
        result.get(30)
    assert urgent.started < min(other.started for other in others)
    assert later.started > max(other.started for other in others)


def test_a_wrong_hint_is_left_out_and_said(fresh):
    cluster, rc = fresh(1, "--order=priority")
    with rc.load_balanced_view().temp_flags(label="#prio=high #colour=red"):
        assert rc.load_balanced_view().apply_sync(nap, 0) == 0
    view = rc.load_balanced_view()
    with view.temp_flags(label="#prio=high"):
        assert view.apply_sync(nap, 0) == 0
    with view.temp_flags(label="#piro=5"):
        sent = view.apply_async(nap, 0)
        assert sent.get(20) == 0
    wait_until(lambda: "label hint '#prio=high': it takes a number" in cluster.read_log())
    told = f"label hint '#piro=5': did you mean #prio=? (task {sent.msg_ids[0]}, client session {rc.session.session})"
    wait_until(lambda: told in cluster.read_log())


def slow_one(n):
    import time

    time.sleep(0.3)
    return n


def fast_one(n):
    return n


@pytest.mark.parametrize("how", ["apply", "map"])
def test_durations_are_learned_for_each_function(fresh, gate, how):
    cluster, rc = fresh(1, "--order=shortest[size=estimated]")
    view = rc.load_balanced_view()

    def submit(function, count):
        if how == "apply":
            return [view.apply_async(function, n) for n in range(count)]
        return [view.map_async(function, [n], chunksize=1) for n in range(count)]

    for result in submit(slow_one, 2) + submit(fast_one, 2):
        result.get(20)
    first = view.apply_async(pass_through, gate)
    slow, fast = submit(slow_one, 3), submit(fast_one, 3)
    wait_until(lambda: waiting(cluster) == 6)
    gate.open()
    for result in [first, *slow, *fast]:
        result.get(30)
    started = lambda result: result.started if how == "apply" else result.metadata[0]["started"]
    assert max(map(started, fast)) < min(map(started, slow))


def straggle_once(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "second"
    return pass_through(path, "first")


def test_a_straggler_gets_a_second_copy_and_the_first_answer_counts(fresh, tmp_path):
    cluster, rc = fresh(2, "--rebalance=hedge[min_ms=300]")
    view = rc.load_balanced_view()
    a, b = Gate(tmp_path / "a"), Gate(tmp_path / "b")
    with view.temp_flags(label="#hedge"):
        assert view.apply_async(straggle_once, a).get(20) == "second"
    # Its engine is still at it, and counts as busy until it has answered.
    assert sorted(engine["in_flight"] for engine in engines_and_tasks(cluster)[0]) == [0, 1]
    alone = view.apply_async(straggle_once, b)
    wait_until(b.reached)
    time.sleep(1)  # three times as long as what is labelled waits for its copy
    a.open(), b.open()
    assert alone.get(20) == "first", "without the label there is no copy"
    wait_until(lambda: all(engine["in_flight"] == 0 for engine in engines_and_tasks(cluster)[0]))


def test_tasks_queued_behind_a_slow_one_are_placed_anew_and_run_once(fresh, gate, tmp_path):
    cluster, rc = fresh(2, "--rebalance=replace[min_ms=300]", "--scheme=roundrobin", "--hwm=6")
    view = rc.load_balanced_view()
    slow = view.apply_async(pass_through, gate)
    wait_until(gate.reached)
    others = [Gate(tmp_path / f"quick{n}") for n in range(8)]
    for other in others:
        other.open()
    for result in [view.apply_async(pass_through, other) for other in others]:
        result.get(20)
    assert not slow.ready()
    gate.open()
    slow.get(20)
    for path in [gate, *others]:
        assert not path.reached(2), f"{path} ran more than once"
    wait_until(lambda: all(engine["in_flight"] == 0 for engine in engines_and_tasks(cluster)[0]))


@pytest.mark.parametrize("policies", [["locality"], ["criticalpath", "leastwork"], ["heft", "sed"], ["mostdescendants"], ["depthfirst"]])
def test_graphs_run_under_policies_that_look_at_them(fresh, policies):
    cluster, rc = fresh(2)
    ask(cluster, "policy", "set", *policies)
    view = rc.load_balanced_view()
    made = []
    for n in range(30):
        with view.temp_flags(after=made[-3:], follow=made[-1:] if n % 5 == 4 else None):
            made.append(view.apply_async(fast_one, n))
    assert [result.get(30) for result in made] == list(range(30))
    told = ask(cluster, "explain", made[7].msg_ids[0])
    assert told.startswith("ended: it succeeded on engine"), told
