"""Copies of all traffic, watched by a stock hub: what it writes down of them is what our own hub has."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import subprocess
import threading
from datetime import datetime, timezone

import ipyparallel as ipp
import pytest
import zmq
from conftest import BIN, Cluster, wait_until
from dateutil.parser import parse
from ipyparallel.controller.dictdb import DictDB
from ipyparallel.controller.hub import EngineConnector, Hub
from jupyter_client.session import Session
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

DATE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)")
# Each hub has its own clock.
OWN = {"received"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def stock_hub(url, key, engines):
    """ipyparallel's own hub with its records in memory, which sees nothing but what the monitor at `url` shows."""
    ready, context, log = threading.Event(), zmq.Context(), logging.getLogger("stock hub")
    problems = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: problems.append(record.getMessage())
    log.addHandler(handler)
    hubs, loops = [], []

    async def run():
        loops.append((asyncio.get_running_loop(), asyncio.Event()))
        monitor = context.socket(zmq.SUB)
        monitor.RCVHWM = 0
        monitor.subscribe(b"")
        monitor.connect(url)
        stream = lambda kind: ZMQStream(context.socket(kind), IOLoop.current())
        hub = Hub(
            session=Session(key=key.encode()),
            monitor=ZMQStream(monitor, IOLoop.current()),
            query=stream(zmq.ROUTER),
            notifier=stream(zmq.PUB),
            resubmit=stream(zmq.DEALER),
            db=DictDB(),
            log=log,
        )
        for number, uuid in engines.items():
            ident = uuid.encode()
            hub.engines[number] = EngineConnector(id=number, uuid=uuid, ident=ident)
            hub.ids.add(number)
            hub.by_ident[ident] = number
            hub.queues[number], hub.tasks[number], hub.completed[number] = [], [], []
        hubs.append(hub)
        ready.set()
        await loops[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(20)
    try:
        yield hubs[0], problems
    finally:
        loops[0][0].call_soon_threadsafe(loops[0][1].set)
        thread.join(20)
        context.destroy(linger=0)


def plain(value):
    """The same whether it has been through JSON, with dates as dates."""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if isinstance(value, str) and DATE.fullmatch(value):
        return plain(parse(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bytes, memoryview)):
        return bytes(value)
    return value


def differences(ours, theirs):
    fields = sorted((set(ours) & set(theirs)) - OWN)
    return {field: (ours[field], theirs[field]) for field in fields if ours[field] != theirs[field]}


def record(hub, msg_id):
    with contextlib.suppress(KeyError):
        return plain(hub.db.get_record(msg_id))


@pytest.fixture
def watched(tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    cluster = Cluster(tmp_path, f"--monitor-url={url}")
    try:
        cluster.add_engines(2)
        rc = cluster.client(2)
        with open(cluster.client_file) as file:
            key = json.load(file)["key"]
        with stock_hub(url, key, dict(rc._engines)) as (hub, problems):
            # Until the subscription has arrived everywhere.
            seen = lambda ar: record(hub, ar.msg_ids[0]) is not None
            for view in (rc[0], rc.load_balanced_view()):

                def is_seen(view=view):
                    ar = view.apply_async(int)
                    ar.get(timeout=20)
                    with contextlib.suppress(AssertionError):
                        wait_until(lambda: seen(ar), timeout=0.5)
                    return seen(ar)

                wait_until(is_seen)

            def printed():
                ar = rc[0].execute("print('there')", silent=False)
                ar.get(timeout=20)
                with contextlib.suppress(AssertionError):
                    wait_until(lambda: (record(hub, ar.msg_ids[0]) or {}).get("stdout"), timeout=0.5)
                return (record(hub, ar.msg_ids[0]) or {}).get("stdout")

            wait_until(printed)
            problems.clear()
            yield rc, hub, problems
    finally:
        cluster.close()


def test_a_stock_hub_that_watches_has_our_records(watched):
    rc, hub, problems = watched
    direct, balanced = rc[:], rc.load_balanced_view()
    done = [
        direct.apply_async(lambda x: x * 2, 21),
        direct.map_async(lambda x: x**2, range(7)),
        direct.push({"data": bytes(100_000)}, block=False),
        direct.pull("data", block=False),
        direct.execute("import sys; print('out'); print('err', file=sys.stderr); 6 * 7", silent=False),
        direct.execute("1 / 0", silent=False),
        rc[1].apply_async(lambda: {}["no such key"]),
        balanced.map_async(lambda x: x + 1, range(20)),
        balanced.apply_async(lambda: 1 / 0),
        balanced.apply_async(print, "from a task"),
        balanced.apply_async(lambda data: data[::-1], bytes(range(256)) * 400),
    ]
    for ar in done:
        ar.wait(timeout=30)
    failed = done[8]
    with balanced.temp_flags(after=failed):  # which no engine ever sees
        done.append(balanced.apply_async(int))
    with balanced.temp_flags(after=done[7], retries=2):
        done.append(balanced.apply_async(lambda: 1 / 0))
    for ar in done:
        ar.wait(timeout=30)
    ids = [msg_id for ar in done for msg_id in ar.msg_ids]
    assert len(ids) > 30

    def ours():
        records = [plain(record) for record in rc.db_query({"msg_id": {"$in": ids}})]
        for each in records:  # which policies were in force, as no stock hub says
            (each["result_metadata"] or {}).pop("policies", None)
        return {record["msg_id"]: record for record in records}

    def differing():
        mine = ours()
        theirs = {msg_id: record(hub, msg_id) or {} for msg_id in ids}
        found = {msg_id: differences(mine.get(msg_id, {}), theirs[msg_id]) for msg_id in ids}
        missing = [msg_id for msg_id in ids if not theirs[msg_id] or not mine.get(msg_id)]
        return missing, {msg_id: which for msg_id, which in found.items() if which}

    with contextlib.suppress(AssertionError):
        wait_until(lambda: differing() == ([], {}), every=0.2)
    assert differing() == ([], {})
    # A comparison of nothing would be equal too.
    mine = ours()
    assert all(mine[msg_id]["completed"] for msg_id in ids)
    assert [mine[msg_id]["stdout"] for msg_id in done[4].msg_ids] == ["out\n"] * 2
    assert {mine[msg_id]["engine_uuid"] for msg_id in done[7].msg_ids} == set(rc._engines.values())
    assert record(hub, done[11].msg_ids[0])["result_content"]["ename"] == "ImpossibleDependency"
    assert not hub.pending.intersection(ids) and not hub.unassigned.intersection(ids)
    # A stock hub notes each attempt of a task, and forgets one of them at its end.
    left = {msg_id for tasks in hub.tasks.values() for msg_id in tasks if msg_id in ids}
    assert left <= set(done[12].msg_ids) and not any(hub.queues.values())
    assert problems == []


def test_control_is_copied_and_topics_are_those_of_ipcontroller(tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    cluster = Cluster(tmp_path, f"--monitor-url={url}")
    try:
        cluster.add_engines(1)
        rc = cluster.client(1)
        watcher = zmq.Context.instance().socket(zmq.SUB)
        watcher.linger = 0
        watcher.subscribe(b"")
        watcher.connect(url)
        topics = {}

        def all_are_seen():
            rc[0].execute("print(1)", silent=False).get(timeout=20)
            rc.load_balanced_view().apply_sync(int)
            rc.abort("no such task", targets=0, block=True)
            while watcher.poll(200):
                topic, *frames = watcher.recv_multipart()
                topics[topic] = frames
            return len(topics) == 8

        with contextlib.suppress(AssertionError):
            wait_until(all_are_seen)
        assert set(topics) == {b"in", b"out", b"intask", b"outtask", b"tracktask", b"incontrol", b"outcontrol", b"iopub"}
        uuid = rc._engines[0].encode()
        # Whom it goes to comes first, except from the scheduler, which shows what it has received.
        for topic, engine_at, identities in [
            (b"in", 0, 2),
            (b"out", 1, 2),
            (b"incontrol", 0, 2),
            (b"outcontrol", 1, 2),
            (b"intask", None, 1),
            (b"outtask", 0, 2),
            (b"tracktask", None, 1),
        ]:
            frames = topics[topic]
            assert frames.index(b"<IDS|MSG>") == identities, topic
            assert engine_at is None or frames[engine_at] == uuid, topic
        assert json.loads(topics[b"tracktask"][6])["engine_id"] == uuid.decode()
        watcher.close()
    finally:
        cluster.close()


def test_a_watcher_that_never_reads_delays_nobody_and_is_counted(tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    cluster = Cluster(tmp_path, f"--monitor-url={url}")
    try:
        cluster.add_engines(1)
        rc = cluster.client(1)
        watcher = zmq.Context.instance().socket(zmq.SUB)
        watcher.linger, watcher.RCVHWM, watcher.RCVBUF = 0, 1, 4096
        watcher.subscribe(b"")
        watcher.connect(url)
        missed = []
        with open(cluster.client_file.replace("client.json", "engine.json")) as file:
            engines = json.load(file)
        flood = zmq.Context.instance().socket(zmq.PUB)
        flood.linger, flood.SNDHWM = 0, 0
        flood.connect(f"{engines['interface']}:{engines['iopub']}")

        def given_up():
            shown = subprocess.run(
                [BIN, "policy", "show", "--json", "--file", cluster.client_file], capture_output=True, check=True, timeout=60
            )
            return json.loads(shown.stdout)["given_up"]

        def is_counted():
            for _ in range(2000):
                flood.send(bytes(2000))
            missed[:] = [kind for kind in given_up() if (kind["part"], kind["kind"]) == ("monitor", "subscriber too slow")]
            return missed

        with contextlib.suppress(AssertionError):
            wait_until(is_counted, timeout=60)
        assert missed, given_up()
        assert rc[0].apply_sync(lambda: "alive") == "alive"
        flood.close()
        watcher.close()
    finally:
        cluster.close()


@pytest.mark.parametrize(
    "url, says",
    [
        ("tcp://0.0.0.0:5555", "--allow-plaintext"),
        ("tcp://127.0.0.1", "no port"),
        ("127.0.0.1:5555", "no address"),
        ("udp://127.0.0.1:5555", "no transport"),
    ],
)
def test_an_address_that_will_not_do_is_refused(tmp_path, url, says):
    command = [BIN, "controller", f"--profile-dir={tmp_path}", f"--monitor-url={url}"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "controller.monitor_url" in refused.stderr and says in refused.stderr, refused.stderr
