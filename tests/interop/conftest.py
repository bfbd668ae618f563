"""A controller of ours with engines of theirs, shared by the tests of a module and replaced when a test breaks it."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import ipyparallel as ipp
import pytest
from gates import Gate

BIN = os.environ["POINTSMAN_BIN"]
os.environ["IPP_NONINTERACTIVE"] = "1"
# Functions of a test module travel by name: engines must be able to import it.
os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))


def wait_until(condition, timeout=20, every=0.02):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(every)


@contextlib.contextmanager
def raises(ename):
    """The block ends with a remote error of that name, whoever made it."""
    with pytest.raises(ipp.RemoteError) as caught:
        yield caught
    assert caught.value.ename == ename


def committed(folder, condition="1"):
    """How many records that fit are in the file of the controller in `folder`, as any other process sees them."""
    store = sqlite3.connect(os.path.join(folder, "tasks.db"), timeout=10)
    try:
        return store.execute(f'SELECT count(*) FROM "ipython-tasks" WHERE {condition}').fetchone()[0]
    finally:
        store.close()


class Cluster:
    """One controller and any number of stock engines in a profile folder."""

    def __init__(self, folder, *args):
        self.folder = str(folder)
        self.env = dict(os.environ, IPP_PROFILE_DIR=self.folder, IPP_CLUSTER_ID="", IPYTHONDIR=self.folder)
        self.client_file = os.path.join(self.folder, "security", "ipcontroller-client.json")
        self.log = open(os.path.join(self.folder, "controller.log"), "w")
        self.controller = subprocess.Popen(
            [BIN, "controller", "--ping=250", "--debug", *args], env=self.env, stderr=self.log, stdin=subprocess.DEVNULL
        )
        wait_until(lambda: os.path.exists(self.client_file) or self.controller.poll() is not None)
        assert self.controller.poll() is None, self.read_log()
        self.engines = []
        self.clients = []
        self.ends_with = 0

    def read_log(self):
        with open(self.log.name) as file:
            return file.read()

    def add_engines(self, count):
        log = open(os.path.join(self.folder, "engines.log"), "a")
        for _ in range(count):
            command = [sys.executable, "-m", "ipyparallel.engine", "--profile-dir", self.folder]
            self.engines.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def client(self, engines=None):
        client = ipp.Client(self.client_file, timeout=10)
        self.clients.append(client)
        if engines:
            client.wait_for_engines(engines, timeout=60)
        return client

    def close(self):
        for client in self.clients:
            client.close()
        for engine in self.engines:
            if engine.poll() is None:
                engine.terminate()
        if self.controller.poll() is None:
            self.controller.send_signal(signal.SIGTERM)
        try:
            assert self.controller.wait(15) == self.ends_with, self.read_log()
        finally:
            for process in [*self.engines, self.controller]:
                if process.poll() is None:
                    process.kill()
                process.wait()
            self.log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Four engines, hwm 1."""
    cluster = Cluster(tmp_path_factory.mktemp("profile"))
    cluster.add_engines(4)
    cluster.client(engines=4)
    yield cluster
    cluster.close()


@pytest.fixture
def rc(cluster):
    client = cluster.client(engines=4)
    yield client
    client.close()


@pytest.fixture
def gate(tmp_path):
    """What holds tasks up until the test opens it, or has ended."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def fresh(tmp_path):
    """A maker of clusters that a test may break."""
    made = []

    def make(engines, *args):
        cluster = Cluster(tmp_path, *args)
        made.append(cluster)
        cluster.add_engines(engines)
        return cluster, cluster.client(engines=engines)

    yield make
    for cluster in made:
        cluster.close()
