"""A cluster whose messages are packed as msgpack: stock clients and engines follow the connection files, and all is as with JSON."""

import datetime
import json
import os
import subprocess

import ipyparallel as ipp
import pytest
from conftest import BIN, Cluster, raises, wait_until
from gates import pass_through


def fail():
    raise KeyError("on purpose")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("profile"), "--Session.packer=msgpack")
    cluster.add_engines(4)
    cluster.client(engines=4)
    yield cluster
    cluster.close()


def test_peers_speak_msgpack_because_the_files_say_so(cluster, rc):
    for role in ("client", "engine"):
        with open(os.path.join(cluster.folder, "security", f"ipcontroller-{role}.json")) as file:
            told = json.load(file)
        assert (told["pack"], told["unpack"]) == ("msgpack", "msgpack")
    assert rc.session.packer == "msgpack"
    assert rc[:].apply_sync(lambda: __import__("IPython").get_ipython().kernel.session.packer) == ["msgpack"] * 4


def test_direct_views_apply_map_and_execute(rc):
    view = rc[:]
    assert len(set(view.apply_sync(os.getpid))) == 4
    assert view.map_sync(lambda x: x**2, range(20)) == [x**2 for x in range(20)]
    view.push({"a": 5}, block=True)
    assert view.pull("a", block=True) == [5] * 4
    ar = view.execute("print('hello'); import sys; print('oops', file=sys.stderr); 6 * 7", silent=False)
    ar.get(timeout=20)
    assert ar.wait_for_output(20)
    assert (ar.stdout, ar.stderr) == (["hello\n"] * 4, ["oops\n"] * 4)
    with raises("KeyError"):
        rc[0].apply_sync(fail)


def test_load_balanced_views_depend_fail_retry_and_time_out(rc, gate):
    view = rc.load_balanced_view()
    assert view.map_sync(lambda x: -x, range(50), chunksize=3) == [-x for x in range(50)]
    first = view.apply_async(os.getpid)
    with view.temp_flags(follow=[first]):
        assert view.apply_async(os.getpid).get(20) == first.get(20)
    bad = view.apply_async(fail)
    with view.temp_flags(after=[bad]), raises("ImpossibleDependency"):
        view.apply_async(os.getpid).get(20)
    with view.temp_flags(after=ipp.Dependency([bad], success=False, failure=True)):
        assert view.apply_async(lambda: 2).get(20) == 2
    with view.temp_flags(after=["nobody_1_1"]), raises("InvalidDependency"):
        view.apply_async(os.getpid).get(20)
    with view.temp_flags(retries=1), raises("KeyError"):
        view.apply_async(fail).get(20)
    held = view.apply_async(pass_through, gate, "through")
    wait_until(gate.reached)
    with view.temp_flags(after=[held], timeout=0.2), raises("TaskTimeout"):
        view.apply_async(os.getpid).get(20)
    gate.open()
    assert held.get(20) == "through"


def test_a_task_that_waits_is_aborted(rc, gate):
    view = rc.load_balanced_view(targets=[1])
    held = view.apply_async(pass_through, gate)
    wait_until(gate.reached)
    waiting = rc[1].apply_async(os.getpid)
    rc.abort(waiting, block=True)
    gate.open()
    held.get(20)
    with pytest.raises(ipp.error.TaskAborted):
        waiting.get(20)


def test_broadcasts_one_by_one_and_gathered(rc):
    for is_coalescing in (False, True):
        view = rc.broadcast_view(is_coalescing=is_coalescing)
        assert sorted(view.apply_sync(os.getpid)) == sorted(rc[:].apply_sync(os.getpid))
        with pytest.raises(ipp.RemoteError if is_coalescing else ipp.error.CompositeError):
            view.apply_sync(fail)


def test_the_hub_answers_and_its_records_are_as_with_json(cluster, rc):
    view = rc.load_balanced_view()
    with view.temp_flags(label="a word"):
        good = view.apply_async(lambda: {"x": 1})
    good.get(20)
    bad = rc[0].apply_async(fail)
    bad.wait(20)
    shown = rc[0].execute("print('hello')", silent=False)
    shown.get(timeout=20)
    ids = [good.msg_ids[0], bad.msg_ids[0], shown.msg_ids[0]]
    wait_until(lambda: not rc.queue_status()["unassigned"])
    wait_until(lambda: len(rc.db_query({"msg_id": {"$in": ids}, "completed": {"$ne": None}})) == 3)
    wait_until(lambda: rc.db_query({"msg_id": ids[2]}, keys=["stdout"])[0]["stdout"] == "hello\n")
    record = rc.db_query({"msg_id": ids[0]})[0]
    assert record["header"]["msg_id"] == ids[0] and record["header"]["msg_type"] == "apply_request"
    assert (record["metadata"]["label"], record["label"], record["queue"]) == ("a word", "a word", "task")
    assert (record["client_uuid"], record["result_content"]) == (rc.session.session, {"status": "ok"})
    assert record["result_metadata"]["status"] == "ok" and "leastload" in record["result_metadata"]["policies"]
    assert isinstance(record["submitted"], datetime.datetime) and record["submitted"] <= record["completed"]
    assert rc.db_query({"msg_id": ids[1]}, keys=["result_content"])[0]["result_content"]["ename"] == "KeyError"
    assert rc.db_query({"label": "a word"}, keys=["msg_id"])[0]["msg_id"] == ids[0]
    assert set(ids) <= set(rc.hub_history())
    other = cluster.client(engines=4)
    assert other.get_result(ids[0]).get(20) == {"x": 1}
    with raises("KeyError"):
        other.get_result(ids[1]).get(20)
    again = rc.resubmit(ids[0])
    assert again.get(20) == [{"x": 1}]
    status = rc.queue_status()
    assert all(set(status[n]) == {"queue", "completed", "tasks"} for n in range(4))
    rc.purge_results("all")
    assert rc.db_query({"msg_id": ids[0]}) == []


def test_our_own_tools_and_engines_speak_it_too(cluster, rc):
    out = subprocess.run([BIN, "policy", "show"], env=cluster.env, capture_output=True, text=True, timeout=30)
    assert out.returncode == 0 and "leastload" in out.stdout, out
    file = os.path.join(cluster.folder, "security", "ipcontroller-engine.json")
    native = subprocess.Popen([BIN, "engine", "--file", file], stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(rc.ids) == 5)
        native_id = max(rc.ids)
        with raises("NotImplementedError"):
            rc[native_id].apply_sync(os.getpid)
    finally:
        native.terminate()
        native.wait(10)
    wait_until(lambda: len(rc.ids) == 4)


def test_restarted_with_its_files_it_still_speaks_it_and_told_otherwise_it_says_so(fresh):
    cluster, rc = fresh(1, "--Session.packer=msgpack", "--reuse")
    assert rc.load_balanced_view().apply_sync(lambda: 1) == 1
    rc.close()
    cluster.clients.remove(rc)
    starts = 1
    for args, packer, warned in [
        (["--reuse"], "msgpack", False),
        (["--reuse", "--Session.packer=json"], "json", True),
        (["--reuse"], "json", False),
    ]:
        cluster.controller.terminate()
        assert cluster.controller.wait(15) == 0
        for engine in cluster.engines:
            engine.kill()
            engine.wait()
        cluster.engines.clear()
        cluster.controller = subprocess.Popen(
            [BIN, "controller", "--ping=250", *args], env=cluster.env, stderr=cluster.log, stdin=subprocess.DEVNULL
        )
        starts += 1
        wait_until(lambda: cluster.read_log().count("listening; clients") == starts)
        with open(cluster.client_file) as file:
            assert json.load(file)["pack"] == packer
        assert ("messages are packed by msgpack, and it is json now" in cluster.read_log()) == (warned or packer == "json")
        cluster.add_engines(1)
        client = cluster.client(engines=1)
        assert client.session.packer == packer
        assert client.load_balanced_view().apply_sync(lambda: 1) == 1
        client.close()
        cluster.clients.remove(client)


def test_pickle_and_import_strings_are_refused_with_the_reason(tmp_path):
    for packer, reason in [("pickle", "would run the code of whoever sends"), ("my.packer", "there are json and msgpack")]:
        env = dict(os.environ, IPP_PROFILE_DIR=str(tmp_path))
        command = [BIN, "controller", f"--Session.packer={packer}"]
        out = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        assert out.returncode != 0 and reason in out.stderr, out
        assert not os.path.exists(tmp_path / "security" / "ipcontroller-client.json")
