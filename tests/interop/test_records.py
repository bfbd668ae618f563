"""Task records in SQLite, read and written by both sides."""

import contextlib
import datetime
import json
import os
import sqlite3
import subprocess
import time

import ipyparallel as ipp
import pytest
from conftest import BIN, committed, raises, wait_until
from ipyparallel.controller.sqlitedb import SQLiteDB


@contextlib.contextmanager
def stock_store(folder):
    """ipyparallel's own store, without the event loop that commits for it."""
    import tornado.ioloop

    class NoCallback:
        def __init__(self, *args):
            pass

        def start(self):
            pass

        stop = start

    before, tornado.ioloop.PeriodicCallback = tornado.ioloop.PeriodicCallback, NoCallback
    try:
        db = SQLiteDB(location=str(folder))
        # With newer SQLite it does not recognise its own table and would start another.
        db.table = "ipython-tasks"
        yield db
        db.close()
    finally:
        tornado.ioloop.PeriodicCallback = before


def run_some(rc):
    view = rc.load_balanced_view()
    sent = [
        view.apply_async(lambda x: x * 2, 21),
        rc[0].apply_async(lambda a, b: a + b, b"x" * 100_000, b"y"),
        rc[0].execute("print('hello'); 6*7", silent=False),
        view.apply_async(lambda: 1 / 0),
    ]
    view.set_flags(retries=0)
    rc.wait(sent, timeout=30)
    return [ar.msg_ids[0] for ar in sent]


def test_ipyparallel_reads_what_pointsman_wrote(fresh, tmp_path):
    cluster, rc = fresh(1, "--sqlitedb")
    ids = run_some(rc)
    wait_until(lambda: all(r["completed"] for r in rc.db_query({"msg_id": {"$in": ids}}, keys=["completed"])))
    wait_until(lambda: committed(tmp_path, "completed IS NOT NULL") == 4)
    with stock_store(tmp_path) as db:
        assert db.get_history() == ids
        doubled, joined, printed, failed = (db.get_record(msg_id) for msg_id in ids)
        assert doubled["header"]["msg_type"] == "apply_request" and doubled["queue"] == "task"
        assert ipp.serialize.deserialize_object(doubled["result_buffers"])[0] == 42
        assert ipp.serialize.deserialize_object(joined["result_buffers"])[0] == b"x" * 100_000 + b"y"
        assert printed["stdout"] == "hello\n" and '"42"' in printed["execute_result"]
        assert failed["result_content"]["ename"] == "ZeroDivisionError"
        assert isinstance(doubled["completed"], datetime.datetime) and doubled["submitted"] <= doubled["completed"]
        assert len(db.find_records({"completed": {"$lt": ipp.util.utcnow()}}, keys=["msg_id"])) == 4


def test_pointsman_reads_what_ipyparallel_wrote(fresh, tmp_path):
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.timezone.utc)
    with stock_store(tmp_path) as db:
        for number in range(3):
            from ipyparallel.controller.hub import empty_record

            msg_id = f"old_1_{number}"
            db.add_record(
                msg_id,
                {
                    **empty_record(),
                    "msg_id": msg_id,
                    "header": {"msg_id": msg_id, "msg_type": "apply_request", "session": "old", "date": when},
                    "metadata": {},
                    "content": {},
                    "buffers": [b"", b"", os.urandom(10)],
                    "submitted": when + datetime.timedelta(seconds=number),
                    "completed": when + datetime.timedelta(minutes=number),
                    "received": when,
                    "engine_uuid": "gone",
                    "result_header": {"msg_type": "apply_reply", "msg_id": "r", "date": when},
                    "result_metadata": {"status": "ok", "engine": "gone"},
                    "result_content": {"status": "ok"},
                    "result_buffers": ipp.serialize.serialize_object(number * 11),
                    "queue": "task",
                    "stdout": "",
                    "stderr": "",
                    "label": {"n": number},
                },
            )
    cluster, rc = fresh(1, "--sqlitedb")
    assert rc.hub_history() == ["old_1_0", "old_1_1", "old_1_2"]
    found = rc.db_query({"completed": {"$gt": when + datetime.timedelta(seconds=30)}}, keys=["label", "buffers", "completed"])
    assert [r["label"] for r in found] == [{"n": 1}, {"n": 2}]
    assert [len(b) for b in found[0]["buffers"]] == [0, 0, 10]
    assert found[0]["completed"] == when + datetime.timedelta(minutes=1)
    assert [rc.get_result(f"old_1_{n}").get(timeout=10) for n in range(3)] == [0, 11, 22]
    rc.purge_hub_results("old_1_0")
    assert rc.hub_history() == ["old_1_1", "old_1_2"]


def nap(seconds):
    import time

    time.sleep(seconds)


def twice(number):
    return 2 * number


def test_a_run_is_played_again_from_its_records(fresh, tmp_path):
    cluster, rc = fresh(2, "--sqlitedb", "--order=shortest[size=estimated]")
    view = rc.load_balanced_view()
    sent = [view.apply_async(nap, 0.05) for _ in range(10)] + [view.apply_async(twice, n) for n in range(10)]
    with view.temp_flags(after=sent[:3]):
        sent.append(view.apply_async(nap, 0.05))
    failed = view.apply_async(lambda: 1 / 0)
    mapped = view.map_async(twice, range(5), chunksize=1)
    rc.wait([*sent, failed, mapped], timeout=30)
    wait_until(lambda: committed(tmp_path, "completed IS NOT NULL") == 27)
    workflow = tmp_path / "run.json"
    command = ["lab", "replay", str(tmp_path / "tasks.db"), "--scheme=plainrandom", "--hwm=0", f"--wfformat={workflow}"]
    # Most of these tasks take less than a Python engine takes over them: how near a replay comes is not the question here.
    command.append("--tolerance=10000")
    told = subprocess.run([BIN, *command], capture_output=True, text=True, check=True, timeout=60).stdout
    # What maps is a function like any other, whatever it maps.
    assert "26 tasks of 1 client, calling 2 functions, on 2 engines, 1 left out" in told, told
    assert "replayed: placement leastload[tie=lru], order shortest[size=estimated]" in told, told
    assert "would have been [1]: placement plainrandom" in told, told
    tasks = json.loads(workflow.read_text())["workflow"]["specification"]["tasks"]
    [last] = [task for task in tasks if task["parents"]]
    assert len(tasks) == 26 and sorted(last["parents"]) == sorted(ar.msg_ids[0] for ar in sent[:3])


def test_a_map_of_many_tasks_is_replayed_as_it_was(fresh, tmp_path):
    cluster, rc = fresh(2, "--sqlitedb")
    view = rc.load_balanced_view()
    rc[:].apply_sync(lambda: None)  # engines have imported what they need
    view.map_sync(nap, [0.01 + 0.002 * (n % 10) for n in range(200)], chunksize=1)
    wait_until(lambda: committed(tmp_path, "completed IS NOT NULL AND queue = 'task'") == 200)
    command = ["lab", "replay", str(tmp_path / "tasks.db"), "--order=lifo"]
    told = subprocess.run([BIN, *command], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told
    assert "whatever becomes of earlier ones" in told.stdout, told.stdout
    assert "would have been [1]: order lifo" in told.stdout, told.stdout


def test_a_locked_file_delays_no_task_and_catches_up(fresh, tmp_path):
    cluster, rc = fresh(2, "--sqlitedb")
    view = rc.load_balanced_view()
    view.map_sync(lambda x: x, range(4))
    wait_until(lambda: committed(tmp_path, "completed IS NOT NULL") == 4)
    lock = sqlite3.connect(os.path.join(tmp_path, "tasks.db"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    while time.monotonic() - started < 4:
        assert view.apply_async(lambda x: x, 1).get(timeout=5) == 1
    with raises("OSError"):
        rc.db_query({"queue": "task"})
    count = len(rc.history)
    lock.execute("ROLLBACK")
    wait_until(lambda: sum(r["completed"] is not None for r in rc.db_query({}, keys=["completed"])) == count)


def test_what_is_removed_is_gone_for_others_too_and_nothing_stays_locked(fresh, tmp_path):
    cluster, rc = fresh(1, "--sqlitedb")
    done = rc[:].apply_async(os.getpid)
    done.get(timeout=10)
    wait_until(lambda: rc.db_query({"completed": {"$ne": None}}))
    rc.purge_hub_results("all")
    wait_until(lambda: committed(tmp_path) == 0)
    other = sqlite3.connect(os.path.join(tmp_path, "tasks.db"), isolation_level=None, timeout=5)
    other.execute("BEGIN IMMEDIATE")
    other.close()


@pytest.mark.parametrize("how", ["client", "signal"])
def test_it_ends_while_the_store_can_not_be_had(fresh, tmp_path, how):
    cluster, rc = fresh(1, "--sqlitedb")
    rc[:].apply_sync(os.getpid)
    wait_until(lambda: committed(tmp_path, "completed IS NOT NULL") == 1)
    lock = sqlite3.connect(os.path.join(tmp_path, "tasks.db"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert rc.load_balanced_view().map_sync(lambda x: x, range(20)) == list(range(20))
    if how == "client":
        rc.shutdown(hub=True)
    else:
        cluster.controller.terminate()
    cluster.ends_with = 1
    assert cluster.controller.wait(15) == 1
    assert "stopped, but up to 20 task records are not written, or not in full: " in cluster.read_log()
    assert "database is locked" in cluster.read_log()
    lock.close()


def test_a_damaged_file_is_refused_at_the_start_with_what_to_do(tmp_path):
    (tmp_path / "tasks.db").write_text("no database " * 500)
    command = [BIN, "controller", "--sqlitedb", f"--profile-dir={tmp_path}"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1, refused
    assert all(part in refused.stderr for part in (f"{tmp_path}/tasks.db", "not a database", "Move it away", "--dictdb")), refused.stderr
    assert (tmp_path / "tasks.db").read_text().startswith("no database"), "it is left as it was"


def test_a_file_that_is_deleted_while_it_is_used_is_told_and_made_anew(fresh, tmp_path):
    cluster, rc = fresh(1, "--sqlitedb")
    view = rc.load_balanced_view()
    view.apply_sync(os.getpid)
    wait_until(lambda: committed(tmp_path, "completed IS NOT NULL") == 1)
    os.remove(tmp_path / "tasks.db")
    cluster.ends_with = 1
    later = [view.apply_async(lambda n: n, n) for n in range(5)]
    assert [ar.get(timeout=20) for ar in later] == list(range(5))
    ids = [ar.msg_ids[0] for ar in later]
    wait_until(lambda: len(rc.db_query({"msg_id": {"$in": ids}, "completed": {"$ne": None}}, keys=["queue"])) == 5)
    assert committed(tmp_path, "completed IS NOT NULL") == 5
    assert f"{tmp_path}/tasks.db has been deleted while records were written to it" in cluster.read_log()


def test_bad_questions_get_answers(fresh):
    cluster, rc = fresh(1, "--sqlitedb")
    with raises("KeyError"):
        rc.db_query({"nonsense": 1})
    with raises("KeyError"):
        rc.db_query({"msg_id": {"$near": 1}})
    with raises("TypeError"):
        rc.db_query({"msg_id": {"$in": 5}})
    with raises("KeyError"):
        rc.db_query({}, keys=["nonsense"])
    with raises("KeyError"):
        rc.get_result("nobody").get(timeout=10)
    # What the client library would not let through.
    for msg_type, content, ename in [
        ("purge_request", {"engine_ids": [99], "msg_ids": []}, "IndexError"),
        ("purge_request", {"engine_ids": "x", "msg_ids": {"a": 1}}, "TypeError"),
        ("queue_request", {"targets": []}, "IndexError"),
        ("queue_request", {"targets": [{"strange": 1}]}, "IndexError"),
        ("result_request", {"msg_ids": 7}, "TypeError"),
        ("resubmit_request", {"msg_ids": ["nobody"]}, "KeyError"),
        ("registration_request", {"uuid": 5}, "TypeError"),
        ("nonsense_request", {}, "KeyError"),
        ("db_request", {"query": []}, "TypeError"),
    ]:
        reply = rc._send_recv(rc._query_stream, msg_type, content=content)
        assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", ename), (msg_type, reply["content"])
