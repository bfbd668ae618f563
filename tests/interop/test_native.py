"""A native engine beside a stock one, at one controller: what is asked of both by one client is answered alike."""

import json
import os
import subprocess

import ipyparallel as ipp
import pytest
import zmq
from conftest import BIN, Cluster, raises, wait_until
from gates import Gate
from jupyter_client.session import Session


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Engine 0 is stock, engine 1 native."""
    cluster = Cluster(tmp_path_factory.mktemp("profile"), "--hwm=0")
    cluster.add_engines(1)
    rc = cluster.client(engines=1)
    cluster.engines.append(start_native(cluster))
    rc.wait_for_engines(2, timeout=30)
    yield cluster, rc
    cluster.close()


def start_native(cluster, *options):
    file = os.path.join(cluster.folder, "security", "ipcontroller-engine.json")
    log = open(os.path.join(cluster.folder, "native.log"), "a")
    return subprocess.Popen([BIN, "engine", "--file", file, *options], env=cluster.env, stderr=log, stdin=subprocess.DEVNULL)


class Raw:
    """A client of its own sockets, which reads whatever comes back."""

    def __init__(self, rc, folder):
        with open(os.path.join(folder, "security", "ipcontroller-client.json")) as file:
            info = json.load(file)
        self.session = Session(key=info["key"].encode(), signature_scheme=info["signature_scheme"])
        self.context = zmq.Context()
        self.sockets = {}
        for channel, port in (("shell", info["mux"]), ("control", info["control"])):
            socket = self.context.socket(zmq.DEALER)
            socket.linger, socket.rcvtimeo = 0, 20_000
            socket.connect(f"{info['interface']}:{port}")
            self.sockets[channel] = socket
        self.engines = dict(rc._engines)

    def send(self, engine, channel, msg_type, content):
        sent = self.session.send(self.sockets[channel], msg_type, content, ident=self.engines[engine].encode())
        return sent["header"]["msg_id"]

    def receive(self, channel):
        _, parts = self.session.feed_identities(self.sockets[channel].recv_multipart())
        return self.session.deserialize(parts)

    def ask(self, engine, channel, msg_type, content):
        msg_id = self.send(engine, channel, msg_type, content)
        reply = self.receive(channel)
        assert reply["parent_header"]["msg_id"] == msg_id
        return reply

    def close(self):
        self.context.destroy()


@pytest.fixture
def raw(both):
    cluster, rc = both
    raw = Raw(rc, cluster.folder)
    yield raw
    raw.close()


def shape(value):
    """Names and types, at any depth of dictionaries."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value).__name__


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_kernel_info_has_the_shape_of_a_stock_engines(raw, channel):
    stock, native = (raw.ask(engine, channel, "kernel_info_request", {}) for engine in (0, 1))
    assert stock["msg_type"] == native["msg_type"] == "kernel_info_reply"
    assert stock["content"]["status"] == native["content"]["status"] == "ok"
    expected, seen = shape(stock["content"]), shape(native["content"])
    # How an editor is told to colour Python is a dictionary, and for a shell a word.
    del expected["language_info"]["codemirror_mode"], seen["language_info"]["codemirror_mode"]
    assert seen == expected
    assert set(stock["metadata"]) == set(native["metadata"]) == {"engine"}


@pytest.mark.parametrize("msg_ids", [[], ["one", "two"], "one", ""])
def test_aborts_are_answered_alike(raw, msg_ids):
    stock, native = (raw.ask(engine, "control", "abort_request", {"msg_ids": msg_ids}) for engine in (0, 1))
    assert stock["msg_type"] == native["msg_type"] == "abort_reply"
    assert stock["content"] == native["content"] == {"status": "ok"}


def held(gate, native):
    """Code that waits at a gate, in the language of the engine."""
    if native:
        return f"touch {gate}.reached; echo >> {gate}.reached; while ! test -e {gate}.open; do sleep .01; done"
    return f"import gates; gates.pass_through({str(gate)!r})"


@pytest.mark.parametrize("engine", [0, 1])
def test_code_that_waits_is_aborted_by_its_id(both, engine, gate):
    _, rc = both
    running = rc[engine].execute(held(gate, native=engine == 1), block=False, silent=True)
    wait_until(gate.reached)
    waiting = rc[engine].execute("this is not run", block=False, silent=True)
    rc.abort(waiting, targets=engine, block=True)
    gate.open()
    running.get(20)
    with pytest.raises(ipp.error.TaskAborted):
        waiting.get(20)


def test_what_a_native_engine_had_read_ahead_is_aborted_when_a_client_shuts_it_down(fresh, gate):
    cluster, rc = fresh(0)
    native = start_native(cluster)
    cluster.engines.append(native)
    rc.wait_for_engines(1, timeout=30)
    raw = Raw(rc, cluster.folder)
    running = rc[0].execute(held(gate, native=True), block=False, silent=True)
    wait_until(gate.reached)
    waiting = {raw.send(0, "shell", "execute_request", {"code": "exit 1"}) for _ in range(5)}
    # Passed on by the controller; and what was before this question is there.
    wait_until(lambda: rc.queue_status(0)["queue"] == 6)
    raw.ask(0, "control", "kernel_info_request", {})
    raw.send(0, "control", "shutdown_request", {"restart": False})
    for _ in range(5):
        reply = raw.receive("shell")
        assert (reply["msg_type"], reply["content"]) == ("execute_reply", {"status": "aborted"})
        waiting.remove(reply["parent_header"]["msg_id"])
    assert raw.receive("control")["content"] == {"status": "ok", "restart": False}
    raw.close()
    with raises("EngineError"):
        running.get(20)
    gate.open()
    assert native.wait(20) == 0
