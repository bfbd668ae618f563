"""The load-balanced view: dependencies, targets, retries, timeouts."""

import os
import time

import ipyparallel as ipp
import pytest
from conftest import raises, wait_until
from gates import pass_through
from graphs import run_random_graph


def fail():
    raise KeyError("on purpose")


def test_map_in_order_and_out_of_it(rc):
    view = rc.load_balanced_view()
    assert view.map_sync(lambda x: -x, range(50), chunksize=3) == [-x for x in range(50)]
    got = list(view.imap(lambda x: -x, range(20), ordered=False))
    assert sorted(got) == sorted(-x for x in range(20))


def test_idle_engines_take_turns(rc):
    view = rc.load_balanced_view()
    assert len({view.apply_sync(os.getpid) for _ in range(4)}) == 4


def test_after_and_follow(rc):
    view = rc.load_balanced_view()
    first = view.apply_async(lambda: (__import__("time").sleep(0.3), __import__("os").getpid())[1])
    with view.temp_flags(after=[first]):
        second = view.apply_async(time.time)
    with view.temp_flags(follow=[first]):
        third = view.apply_async(os.getpid)
    assert third.get(20) == first.get(20)
    second.get(20)
    assert second.started >= first.completed


def test_dependencies_on_success_failure_any(rc):
    view = rc.load_balanced_view()
    bad, good = view.apply_async(fail), view.apply_async(lambda: 1)
    forms = {
        "any": ipp.Dependency([bad, good], all=False),
        "failure": ipp.Dependency([bad], success=False, failure=True),
        "either": ipp.Dependency([bad, good], success=True, failure=True),
    }
    for name, after in forms.items():
        with view.temp_flags(after=after):
            assert view.apply_async(lambda: 2).get(20) == 2, name
    with view.temp_flags(after=[bad]):
        with raises("ImpossibleDependency"):
            view.apply_async(lambda: 2).get(20)
    with view.temp_flags(after=ipp.Dependency([good], success=False, failure=True)):
        with raises("ImpossibleDependency"):
            view.apply_async(lambda: 2).get(20)
    with view.temp_flags(after=["nobody_1_1"]):
        with raises("InvalidDependency"):
            view.apply_async(lambda: 2).get(20)


def test_follow_in_two_places_is_impossible(rc):
    a, b = [rc.load_balanced_view(targets=[n]).apply_async(os.getpid) for n in (0, 1)]
    a.get(20), b.get(20)
    view = rc.load_balanced_view()
    with view.temp_flags(follow=[a, b]):
        with raises("ImpossibleDependency"):
            view.apply_async(os.getpid).get(20)
    with view.temp_flags(follow=ipp.Dependency([a, b], all=False)):
        assert view.apply_async(os.getpid).get(20) in (a.get(), b.get())


def test_functional_dependencies_wander_until_met(rc):
    rc[:].push({"have_it": False}, block=True)
    rc[2].push({"have_it": True}, block=True)
    home = rc[2].apply_sync(os.getpid)

    def check():
        return globals()["have_it"]

    check.__module__ = "__main__"

    @ipp.depend(check)
    def where():
        import os

        return os.getpid()

    view = rc.load_balanced_view()
    assert {view.apply_async(where).get(20) for _ in range(5)} == {home}


def test_targets(rc):
    pids = rc[:].apply_sync(os.getpid)
    view = rc.load_balanced_view(targets=[1, 3])
    assert set(view.map_sync(lambda _: __import__("os").getpid(), range(12), chunksize=1)) <= {pids[1], pids[3]}


def test_retries_end_with_the_original_error(rc):
    view = rc.load_balanced_view()
    for retries in [1, 3, 4, 9]:  # fewer than, as many as, and more than engines
        view.retries = retries
        with raises("KeyError"):
            view.apply_async(fail).get(20)
    view = rc.load_balanced_view(targets=[0, 1])
    view.retries = 5
    with raises("KeyError"):
        view.apply_async(fail).get(20)


def test_a_retry_goes_elsewhere(rc, tmp_path):
    mark = str(tmp_path / "tried")

    def once(mark):
        import os

        if not os.path.exists(mark):
            open(mark, "w").write(str(os.getpid()))
            raise RuntimeError("first time")
        return os.getpid()

    view = rc.load_balanced_view()
    view.retries = 1
    second = view.apply_async(once, mark).get(20)
    assert str(second) != open(mark).read()


def test_timeouts_count_waiting_not_running(rc, gate):
    view = rc.load_balanced_view()
    blocker = view.apply_async(pass_through, gate)
    with view.temp_flags(after=[blocker], timeout=0.1):
        late = view.apply_async(time.time)
    with raises("TaskTimeout"):
        late.get(20)
    with view.temp_flags(timeout=0.2):
        assert view.apply_async(lambda: __import__("time").sleep(0.5) or 1).get(20) == 1
    gate.open()
    blocker.get(20)
    # Tried everywhere and failed, with a timeout: that is what ends it.
    with view.temp_flags(retries=4, timeout=0.1):
        with raises("TaskTimeout"):
            view.apply_async(fail).get(20)
    with view.temp_flags(retries=1, timeout=0.01):
        with raises("KeyError"):
            view.apply_async(lambda: __import__("time").sleep(0.25) or {}["x"]).get(20)


def test_a_random_graph_respects_every_edge(rc):
    tasks, _ = run_random_graph(rc, 100, timeout=60)
    assert len({task.engine_uuid for task in tasks}) == 4


def test_tasks_wait_for_engines(fresh):
    cluster, rc = fresh(0)
    # A view refuses to be made without engines, but tasks may wait once it is there.
    cluster.add_engines(1)
    rc.wait_for_engines(1, timeout=60)
    view = rc.load_balanced_view()
    rc[0].apply_sync(os.getpid)
    slow = [view.apply_async(time.sleep, 0.05) for _ in range(10)]
    cluster.add_engines(1)
    rc.wait(slow, timeout=30)
    assert all(ar.successful() for ar in slow)


def test_five_thousand_blocked_tasks_delay_nobody(rc, gate):
    view = rc.load_balanced_view()
    first = view.apply_async(pass_through, gate)
    with view.temp_flags(after=[first], track=False):
        blocked = [view.apply_async(lambda: None) for _ in range(5000)]
    with view.temp_flags(after=None):
        for _ in range(20):
            view.apply_async(lambda: 1).get(60)
    assert not first.ready()
    gate.open()
    assert first.get(20) is None
    wait_until(lambda: rc.queue_status()["unassigned"] == 0, timeout=60)
    rc.wait(blocked, timeout=60)
