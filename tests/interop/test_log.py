"""`log_url`: log lines of controllers and native engines, as whoever listens for ipyparallel's gets them."""

import logging
import os
import socket
import subprocess
import threading

import pytest
import zmq
from conftest import BIN, Cluster, wait_until
from ipyparallel.apps.logwatcher import LogWatcher
from zmq.log.handlers import PUBHandler


class Watcher(LogWatcher):
    """What `iplogger` runs. That of 9.2.0 mixes text and bytes, and so does not start on Python 3: here they are told apart."""

    def subscribe(self):
        self.stream.socket.setsockopt(zmq.SUBSCRIBE, b"")

    def watch(self):
        """Shows lines until told to end. A subscriber tells publishers that connect of its subscription while it is at work only."""
        while not self.over:
            if self.stream.socket.poll(50):
                raw = [part.decode() for part in self.stream.socket.recv_multipart()]
                self.heard.add(raw[0])
                self.log_message(raw)


@pytest.fixture
def watcher():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = logging.getLogger("watcher")
    log.setLevel(logging.DEBUG)
    made = Watcher(url=f"tcp://127.0.0.1:{port}", context=zmq.Context(), log=log)
    made.heard, made.over = set(), False
    thread = threading.Thread(target=made.watch)
    thread.start()
    yield made
    made.over = True
    thread.join()
    made.stream.close(linger=0)
    made.context.destroy(linger=0)


@pytest.fixture
def start(tmp_path):
    made = []

    def make(*args):
        made.append(Cluster(tmp_path, *args))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.mark.parametrize("option", ["--log-url={}", "--IPController.log_url={}"])
def test_a_controller_and_its_native_engines_tell_whoever_listens(start, watcher, caplog, option):
    cluster = start(option.format(watcher.url))
    rc = cluster.client()
    file = os.path.join(cluster.folder, "security", "ipcontroller-engine.json")
    command = [BIN, "engine", "--file", file, "--log-url", watcher.url]
    cluster.engines.append(subprocess.Popen(command, env=cluster.env, stdin=subprocess.DEVNULL))
    rc.wait_for_engines(1, timeout=30)
    rc.shutdown(targets=rc.ids, block=False)
    assert cluster.engines[0].wait(20) == 0

    def shown():
        return [record.getMessage() for record in caplog.records if record.name == "watcher"]

    wait_until(lambda: any("shut down by a client" in line for line in shown()))
    wait_until(lambda: any("unregistered" in line for line in shown()))
    assert watcher.heard <= {f"{root}.{level}" for root in ("controller", "engine", "engine.0") for level in ("INFO", "WARNING", "DEBUG")}
    assert "[engine.0] engine 0: shut down by a client" in shown()
    # From the first line on, though the connection came later.
    assert any(line.startswith("[engine] engine 0 (") and line.endswith(" works") for line in shown()), shown()
    assert any(line.startswith("[controller] Forwarding logging to tcp://") for line in shown()), shown()
    assert not [line for line in shown() if "Invalid log message" in line]


def test_topics_and_lines_are_made_as_pyzmqs_handler_makes_them():
    """What a stock controller's handler sends at each level, beside ours in the unit test of the same name."""

    class Kept:
        context = None

        def send_multipart(self, frames):
            self.frames = [frame.decode() for frame in frames]

    handler = PUBHandler(zmq.Context.instance().socket(zmq.PUB))
    handler.socket = kept = Kept()
    handler.root_topic = "controller"
    seen = []
    for level in (logging.INFO, logging.WARNING, logging.DEBUG):
        name = logging.getLevelName(level)
        handler.emit(logging.makeLogRecord(dict(levelno=level, levelname=name, msg="it works", filename="b.rs", lineno=7)))
        seen.append(kept.frames)
    assert seen == [
        ["controller.INFO", "it works\n"],
        ["controller.WARNING", "WARNING b.rs:7 - it works\n"],
        ["controller.DEBUG", "DEBUG b.rs:7 - it works\n"],
    ]


def test_a_listener_that_never_reads_holds_nothing_up(start):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        cluster = start(f"--log-url=tcp://127.0.0.1:{deaf.getsockname()[1]}")
        rc = cluster.client()
        for _ in range(300):
            rc.queue_status()
        cluster.close()


def test_what_is_no_address_is_refused_by_name(tmp_path):
    command = [BIN, "controller", "--nodb", "--log-url=tcp:nowhere"]
    env = dict(os.environ, IPP_PROFILE_DIR=str(tmp_path), IPYTHONDIR=str(tmp_path))
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0 and "log_url 'tcp:nowhere'" in ended.stderr
