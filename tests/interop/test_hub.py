"""What clients ask the hub, and what engines' lives and deaths do to it."""

import datetime
import os
import signal
import time

import ipyparallel as ipp
import pytest
from conftest import raises, wait_until
from gates import pass_through


def test_queue_status_counts_and_names(rc, gate):
    before = {n: rc.queue_status(n)["completed"] for n in rc.ids}
    ar = rc[:].apply_async(pass_through, gate)
    wait_until(lambda: all(rc.queue_status(n)["queue"] == 1 for n in rc.ids))
    verbose = rc.queue_status(verbose=True)
    assert {verbose[n]["queue"][0] for n in rc.ids} == set(ar.msg_ids)
    gate.open()
    ar.get(20)
    wait_until(lambda: all(rc.queue_status(n)["completed"] == before[n] + 1 for n in rc.ids))
    assert set(ar.msg_ids) <= {m for n in rc.ids for m in rc.queue_status(verbose=True)[n]["completed"]}


def test_a_second_client_fetches_results_and_output(cluster, rc, gate):
    ar = rc[:].execute("print('shared'); 11", silent=False)
    task = rc.load_balanced_view().apply_async(lambda: {"deep": [1, 2]})
    failed = rc[0].apply_async(lambda: 1 / 0)
    rc.wait([ar, task, failed], timeout=20)
    ar.wait_for_output(20)
    other = cluster.client()
    assert other.get_result(task.msg_ids[0], block=True).get(20) == {"deep": [1, 2]}
    with pytest.raises(ipp.RemoteError):
        other.get_result(failed.msg_ids, block=True).get(20)
    theirs = other.get_result(ar.msg_ids, block=True)
    theirs.get(20)
    assert theirs.stdout == ["shared\n"] * 4
    running = rc[0].apply_async(pass_through, gate, 5)
    wait_until(lambda: other.queue_status(0)["queue"] == 1)
    fetched = other.get_result(running.msg_ids[0], block=False)
    assert not fetched.ready()
    gate.open()
    assert fetched.get(20) == 5
    with raises("KeyError"):
        other.get_result(["nobody_1_1"], block=True).get(20)
    other.close()


def test_queries_of_records(rc):
    start = datetime.datetime.now(datetime.timezone.utc)
    view = rc.load_balanced_view()
    with view.temp_flags(label="mine"):
        tasks = [view.apply_async(lambda n=n: n) for n in range(5)]
    rc.wait(tasks, timeout=20)
    ids = [task.msg_ids[0] for task in tasks]
    wait_until(lambda: len(rc.db_query({"msg_id": {"$in": ids}, "completed": {"$ne": None}})) == 5)
    records = rc.db_query({"msg_id": {"$in": ids}})
    assert [record["msg_id"] for record in records] == ids
    assert all(record["queue"] == "task" and record["submitted"] >= start for record in records)
    assert [record["msg_id"] for record in rc.db_query({"label": "mine"})] == ids
    assert rc.db_query({"submitted": {"$gte": start}, "queue": "task"}, keys=["msg_id"])[0].keys() == {"msg_id"}
    # One more comparison than equal to the last: each key counts.
    assert rc.db_query({"msg_id": ids[0], "queue": "mux"}) == []
    assert len(rc.db_query({"msg_id": {"$glob": ids[0][:20] + "*"}, "completed": {"$gt": start}})) >= 5
    with_buffers = rc.db_query({"msg_id": ids[3]}, keys=["msg_id", "buffers", "result_buffers"])[0]
    assert with_buffers["buffers"] and with_buffers["result_buffers"]
    assert set(ids) <= set(rc.hub_history())
    for query in [{"nonsense": 1}, {"queue": {"$like": "x"}}]:
        with raises("KeyError"):
            rc.db_query(query)


def test_purge(rc, gate):
    ar = rc[:].apply_async(os.getpid)
    ar.get(20)
    wait_until(lambda: len(rc.db_query({"msg_id": {"$in": ar.msg_ids}, "completed": {"$ne": None}})) == 4)
    rc.purge_hub_results(ar.msg_ids[0])
    assert len(rc.db_query({"msg_id": {"$in": ar.msg_ids}})) == 3
    uuid = rc._engines[rc.ids[1]]
    rc.purge_hub_results(targets=rc.ids[1])
    assert rc.db_query({"engine_uuid": uuid, "completed": {"$ne": None}}) == []
    pending = rc[0].apply_async(pass_through, gate)
    wait_until(lambda: rc.queue_status(0)["queue"] == 1)
    with raises("IndexError"):
        rc.purge_hub_results(pending.msg_ids)
    gate.open()
    pending.get(20)
    wait_until(lambda: rc.queue_status(0)["queue"] == 0)
    rc.purge_everything()
    assert rc.db_query({}) == []


def test_resubmit_keeps_targets_and_retries(rc):
    pids = rc[:].apply_sync(os.getpid)
    view = rc.load_balanced_view(targets=[2])
    view.retries = 3
    original = view.apply_async(lambda: (__import__("os").getpid(), __import__("random").random()))
    assert original.get(20)[0] == pids[2]
    wait_until(lambda: rc.db_query({"msg_id": original.msg_ids[0], "completed": {"$ne": None}}))
    again = [rc.resubmit(original.msg_ids[0]) for _ in range(4)]
    for ar in again:
        [(pid, _)] = ar.get(20)
        assert pid == pids[2]
    record = rc.db_query({"msg_id": again[0].msg_ids[0]})[0]
    assert record["metadata"]["retries"] == 3 and record["metadata"]["targets"]
    assert rc.db_query({"msg_id": original.msg_ids[0]})[0]["resubmitted"] == again[-1].msg_ids[0]
    with raises("KeyError"):
        rc.resubmit(["nobody_1_1"]).get(20)


def test_sqlite_records_outlive_the_controller(fresh, tmp_path):
    cluster, rc = fresh(1, "--sqlitedb")
    task = rc.load_balanced_view().apply_async(lambda: 42)
    assert task.get(20) == 42
    rc.shutdown(hub=True, block=True)
    assert cluster.controller.wait(5) == 0
    import sqlite3

    rows = sqlite3.connect(str(tmp_path / "tasks.db")).execute('SELECT msg_id, completed FROM "ipython-tasks"').fetchall()
    assert (task.msg_ids[0] in [row[0] for row in rows]) and rows[0][1]


def test_an_engine_killed_with_tasks_on_it(fresh):
    cluster, rc = fresh(3)
    pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid)))
    victim = rc.ids[0]
    direct = rc[victim].apply_async(time.sleep, 60)
    view = rc.load_balanced_view(targets=[victim])
    stuck = view.apply_async(time.sleep, 60)
    view.retries = 2
    ghost = rc.load_balanced_view(targets=[victim]).apply_async(os.getpid)
    wait_until(lambda: rc.queue_status(victim)["queue"] == 1)
    lv = rc.load_balanced_view()
    os.kill(pids[victim], signal.SIGKILL)
    for ar, name in [(direct, "EngineError"), (stuck, "EngineError"), (ghost, "ImpossibleDependency")]:
        with raises(name):
            ar.get(timeout=20)
    wait_until(lambda: victim not in rc.ids)
    status = rc.queue_status()
    assert victim not in status and status["unassigned"] == 0
    assert lv.map_sync(lambda x: x, range(10)) == list(range(10))
    # Following a task that ran on the dead engine can never be.
    other = cluster.client()
    with raises("EngineError"):
        other.get_result(direct.msg_ids, block=True).get(20)
    with lv.temp_flags(follow=stuck):
        with raises("ImpossibleDependency"):
            lv.apply_async(os.getpid).get(20)


def test_retries_survive_the_death_of_an_engine(fresh):
    cluster, rc = fresh(2)
    view = rc.load_balanced_view()
    view.retries = 1

    def die_once(path):
        import os
        import signal
        import time

        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return "survived"

    assert view.apply_async(die_once, os.path.join(cluster.folder, "mark")).get(timeout=30) == "survived"


def test_shutdown_of_one_engine_and_of_all(fresh):
    cluster, rc = fresh(3)
    rc.shutdown(targets=[1], block=True)
    wait_until(lambda: rc.ids == [0, 2])
    assert len(rc[:].apply_sync(os.getpid)) == 2
    # A new engine gets a new number.
    cluster.add_engines(1)
    wait_until(lambda: 3 in rc.ids, timeout=60)
    rc.shutdown(hub=True, block=True)
    assert cluster.controller.wait(5) == 0
    for engine in cluster.engines:
        engine.wait(10)
    assert not os.path.exists(cluster.client_file)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order(fresh, sig):
    cluster, rc = fresh(1)
    cluster.controller.send_signal(sig)
    assert cluster.controller.wait(5) == 0
    assert os.listdir(os.path.join(cluster.folder, "security")) == []


def test_reuse_keeps_files_and_addresses(fresh, tmp_path):
    cluster, rc = fresh(0, "--reuse")
    with open(cluster.client_file) as file:
        before = file.read()
    cluster.controller.terminate()
    assert cluster.controller.wait(5) == 0
    with open(cluster.client_file) as file:
        assert file.read() == before
    again, rc = fresh(1, "--reuse")
    with open(cluster.client_file) as file:
        assert file.read() == before
    assert rc[:].apply_sync(lambda: 1) == [1]


@pytest.mark.parametrize("scheme", ["lru", "plainrandom", "twobin", "weighted", "pure"])
def test_every_scheme_runs_tasks_with_dependencies(fresh, scheme):
    cluster, rc = fresh(2, f"--scheme={scheme}", "--hwm=2")
    view = rc.load_balanced_view()
    first = view.apply_async(os.getpid)
    with view.temp_flags(follow=[first], after=[first]):
        assert view.apply_async(os.getpid).get(20) == first.get(20)
    assert view.map_sync(lambda x: x, range(20), chunksize=1) == list(range(20))
