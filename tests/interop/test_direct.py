"""Direct views: what goes to engines by name."""

import os
import time
from concurrent.futures import wait

import ipyparallel as ipp
import pytest
from conftest import raises, wait_until
from gates import pass_through


def test_apply_map_push_pull_scatter_gather(rc):
    view = rc[:]
    pids = view.apply_sync(os.getpid)
    assert len(set(pids)) == 4
    assert view.map_sync(lambda x: x**2, range(20)) == [x**2 for x in range(20)]
    view.push({"a": 5, "b": list(range(3))}, block=True)
    assert view.pull(("a", "b"), block=True) == [[5, [0, 1, 2]]] * 4
    view.scatter("part", list(range(8)), block=True)
    assert view.gather("part", block=True) == list(range(8))
    assert rc[2].apply_sync(lambda x, y=1: x + y, 1, y=2) == 3


def test_a_megabyte_there_and_back(rc):
    data = os.urandom(1 << 20)
    assert rc[0].apply_sync(lambda d: d[::-1], data) == data[::-1]
    assert rc.load_balanced_view().apply_sync(lambda d: d[::-1], data) == data[::-1]


def test_execute_publishes_output_results_and_displays(rc):
    ar = rc[:].execute("print('hello'); import sys; print('oops', file=sys.stderr); 6 * 7", silent=False)
    ar.get(timeout=20)
    assert ar.wait_for_output(20)
    assert ar.stdout == ["hello\n"] * 4
    assert ar.stderr == ["oops\n"] * 4
    assert [out["data"]["text/plain"] for out in ar.execute_result] == ["42"] * 4
    ar = rc[0].execute("from IPython.display import display, HTML; display(HTML('<b>'))", silent=False)
    ar.get(timeout=20)
    assert ar.wait_for_output(20)
    assert ar.outputs[0]["data"]["text/html"] == "<b>"


def test_px_style_execution_of_blocks(rc):
    view = rc[:]
    view.activate("_interop")
    ar = view.execute("x = sum(range(10))\nprint(x)", block=False, silent=False)
    ar.get(timeout=20)
    ar.wait_for_output(20)
    assert ar.stdout == ["45\n"] * 4
    with pytest.raises(ipp.error.CompositeError):
        view.execute("1/0", block=True)


def test_errors_come_with_tracebacks(rc):
    def fail():
        raise IndexError("out of rope")

    ar = rc[1].apply_async(fail)
    with raises("IndexError") as caught:
        ar.get(timeout=20)
    assert "out of rope" in caught.value.traceback and "fail" in caught.value.traceback
    with pytest.raises(ipp.error.CompositeError) as caught:
        rc[:].apply_sync(fail)
    assert len(caught.value.elist) == 4


def test_abort_drops_what_has_not_started(rc, gate):
    view = rc[0]
    blocker = view.apply_async(pass_through, gate)
    wait_until(gate.reached)
    late = [view.apply_async(lambda: 1) for _ in range(3)]
    view.abort(late, block=True)
    gate.open()
    for ar in late:
        with pytest.raises(ipp.error.TaskAborted):
            ar.get(timeout=20)
    blocker.get(timeout=20)
    assert view.apply_sync(lambda: 2) == 2


def test_clear_empties_namespaces(rc):
    view = rc[:]
    view.push({"kept": 1}, block=True)
    rc.clear(block=True)
    with pytest.raises(ipp.error.CompositeError):
        view.pull("kept", block=True)


def test_broadcast_views_both_ways(rc):
    for gather in [False, True]:
        view = rc.broadcast_view(is_coalescing=gather)
        assert sorted(view.apply_sync(os.getpid)) == sorted(rc[:].apply_sync(os.getpid)), gather
        assert view.apply_sync(lambda x: x + 1, 1) == [2] * 4
    # In the order of the targets, gathered or not.
    view = rc.broadcast_view(targets=[3, 0, 2], is_coalescing=True)
    assert view.apply_sync(os.getpid) == rc[[3, 0, 2]].apply_sync(os.getpid)
    ar = rc.broadcast_view().execute("print('wide')", silent=False)
    ar.get(timeout=20)
    assert ar.wait_for_output(20)
    assert ar.stdout == ["wide\n"] * 4
    rc.broadcast_view().push({"b": 7}, block=True)
    assert rc[:].pull("b", block=True) == [7] * 4


def test_broadcast_errors_are_not_lost(rc):
    def fail_on(number, me):
        if me == number:
            raise ValueError(number)
        return me

    rc[:].execute("me = 0", block=True)
    for n in rc.ids:
        rc[n].push({"me": n}, block=True)
    fail_on_first = ipp.interactive(lambda: 1 / me)  # noqa: F821
    with pytest.raises(ipp.RemoteError):
        rc.broadcast_view(is_coalescing=True).apply_sync(fail_on_first)
    with pytest.raises(ipp.error.CompositeError):
        rc.broadcast_view().apply_sync(fail_on_first)


def test_executors(rc):
    with rc.executor() as executor:
        futures = [executor.submit(pow, 2, n) for n in range(30)]
        wait(futures, timeout=30)
        assert [future.result() for future in futures] == [2**n for n in range(30)]
        assert list(executor.map(lambda x: x + 1, range(10))) == list(range(1, 11))


def test_signals_reach_an_engine(rc, gate):
    ar = rc[3].apply_async(pass_through, gate)
    wait_until(gate.reached)
    rc.send_signal("SIGINT", targets=3, block=True)
    with raises("KeyboardInterrupt"):
        ar.get(timeout=20)
    wait_until(lambda: rc.queue_status(3)["queue"] == 0)
