"""The life of a cluster: where it listens, what its files are called, and how it survives its controller."""

import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time

import ipyparallel as ipp
import pytest
from conftest import BIN, Cluster, committed, raises, wait_until
from gates import pass_through


def connection(cluster, side="client"):
    with open(cluster.client_file.replace("client", side)) as file:
        return json.load(file)


def free_ports(count):
    """A run of ports that nobody uses."""
    for first in range(23000, 32000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def ports_of(*files):
    found = set()
    for info in files:
        for value in info.values():
            numbers = value if isinstance(value, list) else [value]
            found.update(n for n in numbers if type(n) is int and n > 1024)
    return found


def works(rc):
    return rc.load_balanced_view().map_sync(lambda x: x + 1, range(8)) == list(range(1, 9)) and rc[:].apply_sync(os.getpid)


def test_ports_are_those_that_were_asked_for(fresh):
    first = free_ports(40)
    cluster, rc = fresh(1, f"--ports={first}-{first + 38},{first + 39}")
    used = ports_of(connection(cluster), connection(cluster, "engine"))
    assert used and used <= set(range(first, first + 40))
    assert works(rc)


def test_ports_of_engines_and_of_clients(fresh):
    first = free_ports(60)
    ranges = [f"{first}-{first + 29}", f"{first + 30}-{first + 59}"]
    options = [f"--IPController.{side}_ports={ports}" for side, ports in zip(["engine", "client"], ranges)]
    cluster, rc = fresh(1, *options)
    client, engine = connection(cluster), connection(cluster, "engine")
    both = ports_of(client) & ports_of(engine)  # registration is for both
    assert ports_of(engine) - both <= set(range(first, first + 30))
    assert ports_of(client) - both <= set(range(first + 30, first + 60))
    assert works(rc)


def test_too_few_ports_are_said(fresh):
    first = free_ports(4)
    cluster, rc = fresh(1, f"--ports={first}-{first + 3}")
    assert "4 ports were given and" in cluster.read_log()
    assert works(rc)


def test_a_port_in_use_is_said_with_its_number(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [BIN, "controller", f"--ports={port}", f"--profile-dir={tmp_path}"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1 and f":{port}" in refused.stderr, refused.stderr
    assert not glob.glob(f"{tmp_path}/security/*.json"), "files appear when every socket is bound, not before"


def test_files_instead_of_a_network(fresh, tmp_path):
    cluster, rc = fresh(2, "--transport=ipc", f"--ip={tmp_path}/socket")
    assert connection(cluster)["interface"].startswith("ipc://")
    assert works(rc)


def test_cluster_ids_and_where_it_says_to_be(tmp_path):
    (tmp_path / "security").mkdir()
    args = ["--cluster-id=blue", "--location=here.example", "--ssh=me@gate", "--enginessh=me@inner", "--log-to-file"]
    env = dict(os.environ, IPP_CLUSTER_ID="")
    controller = subprocess.Popen([BIN, "controller", f"--profile-dir={tmp_path}", *args], env=env, stderr=subprocess.PIPE)
    names = [tmp_path / "security" / f"ipcontroller-blue-{side}.json" for side in ("client", "engine")]
    wait_until(lambda: all(name.exists() for name in names))
    client, engine = (json.loads(name.read_text()) for name in names)
    assert (client["location"], client["ssh"], engine["ssh"]) == ("here.example", "me@gate", "me@inner")
    controller.terminate()
    assert controller.wait(5) == 0
    logs = glob.glob(f"{tmp_path}/log/*.log")
    assert len(logs) == 1 and "listening" in open(logs[0]).read().lower(), logs
    assert not any(name.exists() for name in names), "gone with the controller"


def test_variables_of_the_environment(tmp_path):
    env = dict(os.environ, IPP_PROFILE_DIR=str(tmp_path), IPP_CLUSTER_ID="green", IPP_SESSION_KEY="a key of my own")
    controller = subprocess.Popen([BIN, "controller"], env=env, stderr=subprocess.DEVNULL)
    file = tmp_path / "security" / "ipcontroller-green-client.json"
    wait_until(file.exists)
    assert json.loads(file.read_text())["key"] == "a key of my own"
    controller.terminate()
    assert controller.wait(5) == 0


def saved_engines(folder):
    """The text of the file from which another controller would know the engines."""
    return "".join(open(path).read() for path in glob.glob(f"{folder}/log/engines*.json"))


def successor(cluster, *args):
    """Another controller for the engines of one that was killed."""
    cluster.controller.send_signal(signal.SIGKILL)
    cluster.controller.wait()
    again = Cluster(cluster.folder, *args)
    again.engines, cluster.engines = cluster.engines, []
    return again


def test_a_new_controller_takes_over_engines_and_tasks(tmp_path, gate):
    args = ["--restore", "--sqlitedb"]
    cluster = Cluster(tmp_path, *args)
    try:
        cluster.add_engines(2)
        rc = cluster.client(engines=2)
        pids = rc[:].apply_sync(os.getpid)
        view = rc.load_balanced_view()
        done = view.apply_async(lambda: "before")
        assert done.get(timeout=10) == "before"
        running = [view.apply_async(pass_through, gate, n) for n in range(4)]
        waiting = [view.apply_async(lambda n: n * n, n) for n in range(20)]
        wait_until(lambda: all(t["tasks"] for t in rc.queue_status().values() if isinstance(t, dict)))
        wait_until(lambda: committed(tmp_path, "completed IS NULL") == 24)
        wait_until(lambda: committed(tmp_path, "completed IS NULL AND engine_uuid IS NOT NULL") == 2)
        cluster = successor(cluster, *args)
        again = cluster.client(engines=2)
        assert again.ids == [0, 1]
        gate.open()
        kept = [ar.msg_ids[0] for ar in [done, *running, *waiting]]
        assert again[:].apply_sync(os.getpid) == pids
        results = [again.get_result(msg_id, owner=False).get(timeout=30) for msg_id in kept]
        assert results == ["before", *range(4), *(n * n for n in range(20))]
        assert works(again)
        cluster.add_engines(1)
        again.wait_for_engines(3, timeout=30)
        assert again.ids == [0, 1, 2]
    finally:
        cluster.close()


def test_a_controller_that_is_killed_under_short_tasks_leaves_no_queue_that_stands_still(tmp_path):
    args = ["--restore", "--sqlitedb"]
    cluster = Cluster(tmp_path, *args)
    try:
        cluster.add_engines(2)
        rc = cluster.client(engines=2)
        for kill in range(4):
            view = rc.load_balanced_view()
            sent = [view.apply_async(lambda n: n * n, n) for n in range(60)]
            direct = [rc[n % 2].apply_async(lambda n: n, n) for n in range(6)]
            ids = [ar.msg_ids[0] for ar in sent]
            wait_until(lambda: committed(tmp_path, f"msg_id IN {tuple(ids)}") == 60)
            # At a moment when results come in: the last of them have just been sent and answered.
            wait_until(lambda: sum(ar.ready() for ar in sent) > 10 * kill)
            seen = [ar.msg_ids[0] for ar in sent if ar.ready()]
            cluster = successor(cluster, *args)
            rc = cluster.client(engines=2)
            wait_until(lambda: not rc.result_status(ids)["pending"], timeout=60)
            assert [rc.get_result(msg_id, owner=False).get(timeout=30) for msg_id in ids] == [n * n for n in range(60)]
            assert set(seen) <= set(rc.result_status(ids)["completed"])
            known = [r["msg_id"] for r in rc.db_query({"msg_id": {"$in": [ar.msg_ids[0] for ar in direct]}}, keys=["queue"])]
            wait_until(lambda: not rc.result_status(known)["pending"], timeout=60)
            assert works(rc), "no engine has a place that never comes free"
        assert "Duplicate Signature" not in open(tmp_path / "engines.log").read()
    finally:
        cluster.close()


@pytest.mark.parametrize("list_of_engines", ["kept", "lost"])
def test_a_queue_for_which_no_engine_had_come_is_restored(tmp_path, list_of_engines):
    args = ["--restore", "--sqlitedb"]
    cluster = Cluster(tmp_path, *args)
    try:
        rc = cluster.client()
        sent = [rc.load_balanced_view().apply_async(lambda n: n + 1, n) for n in range(10)]
        wait_until(lambda: committed(tmp_path) == 10)
        if list_of_engines == "lost":
            [os.remove(path) for path in glob.glob(f"{tmp_path}/log/engines*.json")]
        cluster = successor(cluster, *args)
        again = cluster.client()
        cluster.add_engines(1)
        ids = [ar.msg_ids[0] for ar in sent]
        assert [again.get_result(msg_id, owner=False).get(timeout=60) for msg_id in ids] == list(range(1, 11))
    finally:
        cluster.close()


def test_an_engine_that_came_just_before_the_end_is_taken_over(tmp_path):
    cluster = Cluster(tmp_path, "--restore")
    try:
        rc = cluster.client()
        for count in range(1, 4):
            cluster.add_engines(1)
            wait_until(lambda: len(rc.ids) == count, every=0.001)
            cluster = successor(cluster, "--restore")
            rc = cluster.client()
            wait_until(lambda: len(rc.ids) == count)
        assert works(rc)
    finally:
        cluster.close()


def test_an_engine_that_died_meanwhile_is_not_taken_over(tmp_path):
    cluster = Cluster(tmp_path, "--restore")
    try:
        cluster.add_engines(2)
        rc = cluster.client(engines=2)
        pids = rc[:].apply_sync(os.getpid)
        wait_until(lambda: all(rc._engines[n] in saved_engines(tmp_path) for n in (0, 1)))
        os.kill(pids[0], signal.SIGKILL)
        cluster = successor(cluster, "--restore")
        again = cluster.client()
        wait_until(lambda: again.ids == [1], timeout=30)
        assert again[1].apply_sync(os.getpid) == pids[1]
    finally:
        cluster.close()


def test_a_scheduler_of_dask_on_request(fresh, tmp_path):
    pytest.importorskip("distributed")
    # Its scheduler is started by the name that the PATH finds.
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    cluster, rc = fresh(2, "--allow-dask")
    with rc.become_dask() as client:
        assert sorted(client.gather(client.map(lambda x: x * x, range(10)))) == [x * x for x in range(10)]
        assert len(client.scheduler_info()["workers"]) == 2
    rc.stop_dask()
    assert works(rc), "the engines are engines again"


@pytest.mark.parametrize("when", ["running", "starting"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_the_scheduler_of_dask_ends_with_the_controller_however_that_ends(tmp_path, sig, when):
    pytest.importorskip("distributed")
    # A stand-in that writes the file, or takes its time, and leaves a trace of its own.
    script = tmp_path / "dask.py"
    script.write_text(
        "import json, os, sys, time\n"
        f"open({str(tmp_path / 'dask.pid')!r}, 'w').write(str(os.getpid()))\n"
        "path = [arg.split('=', 1)[1] for arg in sys.argv if arg.startswith('--scheduler-file=')][0]\n"
        f"if {when!r} == 'running': json.dump({{'address': 'tcp://127.0.0.1:1'}}, open(path, 'w'))\n"
        "time.sleep(600)\n"
    )
    command = json.dumps([sys.executable, str(script)])
    (tmp_path / "pointsman.toml").write_text(f"[dask]\nallow = true\ncommand = {command}\n")
    cluster = Cluster(tmp_path)
    rc = cluster.client()
    rc.session.send(rc._query_stream, "become_dask_request", content={"scheduler_args": {}})
    wait_until(lambda: (tmp_path / "dask.pid").exists() and (tmp_path / "dask.pid").read_text())
    time.sleep(0.5)
    pid = int((tmp_path / "dask.pid").read_text())
    os.kill(pid, 0)
    cluster.controller.send_signal(sig)
    cluster.controller.wait(10)

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True

    wait_until(gone, timeout=10)


def test_no_dask_without_leave(fresh):
    cluster, rc = fresh(1)
    with raises("PermissionError") as refused:
        rc.become_dask()
    assert "--allow-dask" in str(refused.value)
    assert works(rc)
