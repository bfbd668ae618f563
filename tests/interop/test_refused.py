"""What a stock engine drops without a word is refused before it costs the engine's place; what it answers passes."""

import ipyparallel as ipp
import pytest
import zmq
from conftest import raises


@pytest.fixture
def raw(cluster, rc):
    """A socket that speaks to the task scheduler with whatever it is given, well signed."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = 20_000
    socket.connect(rc._task_socket.getsockopt(zmq.LAST_ENDPOINT).decode())

    def ask(msg_type="apply_request", header=(), parent=b"{}", metadata=b"{}", content=b"{}", buffers=(b"x",)):
        made = dict(rc.session.msg_header(msg_type), **dict(header))
        made = {key: value for key, value in made.items() if value != "drop"}
        parts = [rc.session.pack(made), parent, metadata, content]
        socket.send_multipart([b"<IDS|MSG>", rc.session.sign(parts), *parts, *buffers])
        reply = socket.recv_multipart()
        _, _, parent, _, content, *_ = reply[reply.index(b"<IDS|MSG>") + 1 :]  # behind the engine that has answered, if one has
        assert rc.session.unpack(parent)["msg_id"] == made["msg_id"]
        return rc.session.unpack(content)

    yield ask
    socket.close()


def test_what_engines_drop_is_refused_and_every_engine_still_works(rc, raw):
    deep = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    for expected, wrong in [
        ("NotImplementedError", {"msg_type": "bogus_request"}),
        ("NotImplementedError", {"msg_type": "comm_open"}),
        ("TypeError", {"header": {"version": "new"}}),
        ("TypeError", {"header": {"version": 5.3}}),
        ("TypeError", {"header": {"msg_type": "drop"}}),
        # Engines answer it, and stock clients that hear of it lose their output: they look for the session in everything.
        ("TypeError", {"header": {"session": "drop"}}),
        ("TypeError", {"parent": b"{"}),
        ("TypeError", {"content": b"not json"}),
        ("TypeError", {"content": deep}),
        ("TypeError", {"metadata": deep}),
        ("InvalidDependency", {"metadata": b"[]"}),
        ("TypeError", {"msg_type": "execute_request"}),
        ("TypeError", {"msg_type": "execute_request", "content": b'{"code": 7}'}),
        ("TypeError", {"msg_type": "complete_request", "content": b'{"code": "a"}'}),
        ("TypeError", {"msg_type": "history_request"}),
    ]:
        content = raw(**wrong)
        assert (content["status"], content["ename"]) == ("error", expected), (wrong, content)
        assert content["evalue"], wrong
    assert sorted(rc.load_balanced_view().map_sync(lambda x: x, range(40))) == list(range(40))
    assert all(status["tasks"] == 0 for n, status in rc.queue_status().items() if isinstance(n, int))


def test_what_engines_answer_passes(rc, raw):
    for asked, status in [
        ({}, "error"),  # its buffer is no pickled function
        ({"header": {"version": "drop", "date": "drop", "username": "drop"}}, "error"),
        ({"parent": b"null"}, "error"),
        ({"buffers": ()}, "error"),
        ({"msg_type": "execute_request", "content": b'{"code": "1"}', "buffers": ()}, "ok"),
        ({"msg_type": "is_complete_request", "content": b'{"code": "1"}'}, "complete"),
        ({"msg_type": "complete_request", "content": b'{"code": "pri", "cursor_pos": 3}'}, "ok"),
        ({"msg_type": "inspect_request", "content": b'{"code": "print", "cursor_pos": 3}'}, "ok"),
        ({"msg_type": "kernel_info_request"}, "ok"),
        ({"msg_type": "comm_info_request"}, "ok"),
        ({"msg_type": "history_request", "content": b'{"hist_access_type": "tail", "output": false, "raw": true, "n": 1}'}, "ok"),
    ]:
        content = raw(**asked)
        assert content["status"] == status, (asked, content)
        assert content.get("ename") not in ("TypeError", "NotImplementedError"), (asked, content)


def test_seventeen_thousand_arrays_in_one_call(rc):
    arrays = [b"x" * 1100] * 17_000
    assert rc.load_balanced_view().apply_sync(lambda *arrays: len(arrays), *arrays) == 17_000
    assert rc[0].apply_sync(lambda *arrays: len(arrays), *arrays) == 17_000


def test_errors_of_refused_tasks_are_raised_at_the_client(rc):
    view = rc.load_balanced_view()
    # The view checks what it knows of; the rest is the scheduler's to refuse.
    future = rc.send_apply_request(rc._task_stream, lambda: 1, metadata={"retries": "many"})
    with raises("InvalidDependency") as caught:
        ipp.AsyncResult(rc, future, fname="refused", owner=True).get(20)
    assert "retries must be a number" in str(caught.value)
    assert view.apply_sync(lambda: 1) == 1
