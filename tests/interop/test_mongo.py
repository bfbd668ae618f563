"""Task records in MongoDB. Needs a binary built with that feature and a real server: POINTSMAN_TEST_MONGOD is the path of its mongod."""

import os
import signal
import socket
import subprocess
import time

import ipyparallel as ipp
import pytest
from conftest import raises, wait_until

MONGOD = os.environ.get("POINTSMAN_TEST_MONGOD")
if not MONGOD:
    pytest.skip("*** POINTSMAN_TEST_MONGOD names no mongod ***", allow_module_level=True)


class Server:
    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = [MONGOD, "--dbpath", str(folder), "--bind_ip", "127.0.0.1", "--port", str(self.port), "--quiet"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_until(self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stock_store(self):
        """ipyparallel's own store."""
        from ipyparallel.controller.mongodb import MongoDB

        return MongoDB(connection_kwargs={"host": "127.0.0.1", "port": self.port}, database="shared")


@pytest.fixture
def server(tmp_path):
    (tmp_path / "db").mkdir()
    server = Server(tmp_path / "db")
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.process.kill()
    server.process.wait()


@pytest.fixture
def start(server, fresh, tmp_path):
    """A maker of clusters whose records go there; they end before the server does."""
    (tmp_path / "pointsman.toml").write_text(
        f'[records.mongodb]\nuri = "mongodb://127.0.0.1:{server.port}"\ndatabase = "shared"\n'
    )
    return lambda engines: fresh(engines, "--mongodb")


def test_both_read_what_the_other_wrote(server, start):
    stock = server.stock_store()
    stock.add_record("old_1_1", {"msg_id": "old_1_1", "header": {"msg_id": "old_1_1", "n": 1}, "metadata": {}, "content": {},
                                 "buffers": [b"x"], "submitted": ipp.util.utcnow(), "completed": ipp.util.utcnow(),
                                 "engine_uuid": "e", "client_uuid": "c", "queue": "task", "stdout": "said",
                                 "result_content": {"status": "ok"}, "result_buffers": []})  # fmt: skip
    cluster, rc = start(1)
    [old] = rc.db_query({"msg_id": "old_1_1"}, keys=["header", "stdout", "buffers"])
    assert (old["header"]["n"], old["stdout"], bytes(old["buffers"][0])) == (1, "said", b"x")
    view = rc.load_balanced_view()
    # One after the other: dates have milliseconds there, and the history is ordered by them.
    sent = [view.apply_async(lambda x: x * 2, 21)]
    rc.wait(sent, timeout=20)
    sent.append(rc[0].execute("print('hello'); 6*7", silent=False))
    rc.wait(sent, timeout=20)
    ids = [ar.msg_ids[0] for ar in sent]
    wait_until(lambda: all(r["completed"] for r in rc.db_query({"msg_id": {"$in": ids}}, keys=["completed"])))
    assert rc.hub_history() == ["old_1_1", *ids]
    doubled, printed = (stock.get_record(msg_id) for msg_id in ids)
    assert ipp.serialize.deserialize_object([bytes(b) for b in doubled["result_buffers"]])[0] == 42
    assert doubled["submitted"] <= doubled["started"] <= doubled["completed"] and doubled["queue"] == "task"
    assert printed["stdout"] == "hello\n" and printed["execute_result"]["data"]["text/plain"] == "42"
    assert set(stock.find_records({"completed": {"$ne": None}}, ["msg_id"])[0]) == {"msg_id"}
    assert stock.get_history() == ["old_1_1", *ids]
    rc.purge_hub_results("old_1_1")
    assert rc.hub_history() == ids


def test_a_server_that_stands_still_delays_no_task_and_catches_up(server, start):
    cluster, rc = start(2)
    view = rc.load_balanced_view()
    view.map_sync(lambda x: x, range(4))
    time.sleep(1)
    loud = rc[0].execute("import time\nfor n in range(120): print(n, flush=True); time.sleep(0.1)", silent=False)
    time.sleep(1)
    server.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with view.temp_flags(targets=1):
        while time.monotonic() - started < 8:
            assert view.apply_async(lambda x: x, 1).get(timeout=5) == 1
    with raises("OSError"):
        rc.db_query({}, keys=["completed"])
    count = len(rc.history)
    server.process.send_signal(signal.SIGCONT)

    def all_completed():
        try:
            return sum(r["completed"] is not None for r in rc.db_query({}, keys=["completed"])) == count
        except ipp.RemoteError as error:
            assert error.ename == "OSError"
            return False

    wait_until(all_completed, timeout=30, every=0.5)
    # What was printed meanwhile is there once, and in order.
    lines = "".join(f"{n}\n" for n in range(120))
    wait_until(lambda: rc.db_query({"msg_id": loud.msg_ids[0]}, keys=["stdout"])[0]["stdout"] == lines, timeout=20)


def test_what_is_too_large_for_a_record_is_an_error_not_silence(server, start):
    cluster, rc = start(1)
    sent = rc[0].apply_async(lambda b: b, b"x" * (9 << 20))
    assert len(sent.get(timeout=30)) == 9 << 20
    other = cluster.client()
    wait_until(lambda: other.db_query({"msg_id": sent.msg_ids[0]}, keys=["completed"])[0]["completed"])
    with raises("OSError"):
        other.get_result(sent.msg_ids[0], owner=False).get(timeout=10)


def test_without_a_server_it_says_so_and_ends(server, tmp_path):
    server.process.kill()
    server.process.wait()
    (tmp_path / "pointsman.toml").write_text(f'[records]\nstore = "mongodb"\nmongodb.uri = "mongodb://127.0.0.1:{server.port}"\n')
    command = [os.environ["POINTSMAN_BIN"], "controller", f"--profile-dir={tmp_path}"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1 and str(server.port) in refused.stderr, refused.stderr
