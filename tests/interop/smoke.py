"""What a user does on a day, against a controller of ours, in old Python too: the compatibility matrix runs it for each version.

    POINTSMAN_BIN=... python smoke.py

Prints a line for each thing that worked and ends with "all N worked"; the first failure ends it.
"""

import os
import signal
import sys
import tempfile
import time

import ipyparallel as ipp

done = []


def worked(what):
    done.append(what)
    print("  " + what)
    sys.stdout.flush()


def wait_until(condition, timeout=30):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "waited too long"
        time.sleep(0.05)


def fails(call, ename):
    try:
        call()
    except Exception as error:
        assert getattr(error, "ename", type(error).__name__) == ename, error
    else:
        raise AssertionError("no %s" % ename)


def pid():
    import os

    return os.getpid()


def use(rc):
    wait_until(lambda: len(rc.ids) == 3)
    view, lview = rc[:], rc.load_balanced_view()
    pids = view.apply_sync(pid)
    assert len(set(pids)) == 3
    worked("apply to all")
    view.push({"a": 7})
    assert view.pull("a", block=True) == [7] * 3
    view.scatter("part", list(range(9)), block=True)
    assert view.gather("part", block=True) == list(range(9))
    worked("push, pull, scatter, gather")
    big = os.urandom(1 << 20)
    assert rc[0].apply_sync(lambda x: x[::-1], big) == big[::-1]
    worked("a megabyte there and back")
    assert lview.map_sync(lambda x: x * x, range(40)) == [x * x for x in range(40)]
    worked("map")
    tasks, edges = [], []
    for n in range(30):
        before = list(range(max(0, n - 3), n))
        with lview.temp_flags(after=[tasks[b] for b in before]):
            tasks.append(lview.apply_async(time.sleep, 0.005))
        edges += [(b, n) for b in before]
    rc.wait(tasks, timeout=60)
    assert all(tasks[b].completed <= tasks[n].started for b, n in edges)
    worked("tasks in a graph, each after its predecessors")
    with lview.temp_flags(follow=[tasks[0]]):
        place = lview.apply_async(pid)
    place.get(20)
    assert place.engine_id == tasks[0].engine_id
    worked("follow")
    printed = rc[0].execute("print('hello'); 6*7", silent=False)
    printed.get(20)
    wait_until(lambda: printed.stdout == "hello\n" and printed.execute_result)
    worked("execute with output and result")
    fails(lambda: lview.apply_sync(lambda: 1 / 0), "ZeroDivisionError")
    worked("errors with their names")
    with lview.temp_flags(retries=2):
        assert lview.apply_sync(lambda: 5) == 5
    # An engine may be busy with what it has, and hear of the abort between two requests only.
    waiting = [rc[0].apply_async(time.sleep, 0.2) for _ in range(5)] + [rc[0].apply_async(pid)]
    rc[0].abort(waiting[-1], block=True)
    fails(lambda: waiting[-1].get(20), "TaskAborted")
    worked("abort")
    if hasattr(rc, "broadcast_view"):
        assert sorted(rc.broadcast_view().apply_sync(pid)) == sorted(pids)
        worked("broadcast")
    status = rc.queue_status()
    assert status["unassigned"] == 0 and status[0]["queue"] == 0
    worked("queue_status")
    wait_until(lambda: all(r["completed"] for r in rc.db_query({"msg_id": {"$in": tasks[0].msg_ids}}, keys=["completed"])))
    assert rc.get_result(tasks[0].msg_ids[0]).get(10) is None
    rc.purge_results(tasks[1])
    worked("db_query, get_result, purge_results")
    executor = lview.executor if hasattr(lview, "executor") else rc.executor()
    assert list(executor.map(lambda x: x + 1, range(5))) == [1, 2, 3, 4, 5]
    worked("executor")
    doomed = rc[2].apply_async(time.sleep, 60)
    time.sleep(0.3)
    os.kill(pids[2], signal.SIGKILL)
    fails(lambda: doomed.get(60), "EngineError")
    worked("the death of an engine, told to who waits for it")
    wait_until(lambda: rc.ids == [0, 1])
    rc[1].shutdown() if hasattr(rc[1], "shutdown") else rc.shutdown(targets=[1])
    wait_until(lambda: rc.ids == [0])
    worked("shutdown of an engine")


def main():
    from traitlets.config import Config

    config = Config()
    command = [os.path.abspath(os.environ["POINTSMAN_BIN"]), "controller"]
    config.ControllerLauncher.controller_cmd = command
    config.ControllerLauncher.controller_args = ["--ping=250"]
    config.LocalControllerLauncher.controller_cmd = command
    print("ipyparallel %s, Python %s" % (ipp.__version__, sys.version.split()[0]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IPYTHONDIR"] = folder
        cluster = ipp.Cluster(n=3, config=config, profile_dir=folder, log_level=40)
        with cluster as rc:
            worked("ipp.Cluster")
            use(rc)
    print("all %d worked" % len(done))


if __name__ == "__main__":
    main()
