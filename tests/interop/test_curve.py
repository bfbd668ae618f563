"""Encryption by CURVE, with stock clients and engines. Needs a binary that has it: see the README."""

import json
import os
import subprocess
import tempfile

import ipyparallel as ipp
import pytest
import zmq
from conftest import BIN, Cluster, wait_until
from traitlets import Bytes


def has_curve():
    """An address that is nobody's is refused either way, for one reason or the other."""
    with tempfile.TemporaryDirectory() as folder:
        line = [BIN, "controller", "--enable-curve", "--ip=no.such.host.invalid", f"--profile-dir={folder}"]
        tried = subprocess.run(line, capture_output=True, text=True, timeout=20)
    assert tried.returncode == 1, tried.stderr
    return "built without it" not in tried.stderr


@pytest.fixture(scope="module")
def encrypting():
    if not has_curve():
        pytest.skip("*** this binary was built without CURVE ***")


needs_curve = pytest.mark.usefixtures("encrypting")


def curve_keys(cluster):
    with open(cluster.client_file) as file:
        info = json.load(file)
    return info["curve_serverkey"], info["key"]


@needs_curve
def test_everything_works_encrypted_and_signed(fresh):
    cluster, rc = fresh(2, "--enable-curve")
    server_key, key = curve_keys(cluster)
    assert len(server_key) == 40 and key, "signatures are kept on"
    view = rc.load_balanced_view()
    assert view.map_sync(lambda x: x**2, range(20)) == [x**2 for x in range(20)]
    assert sorted(rc[:].apply_sync(os.getpid)) and rc.broadcast_view().apply_sync(lambda: 1) == [1, 1]
    result = rc[0].execute("print('seen')", silent=False)
    result.get(timeout=10)
    wait_until(lambda: result.stdout == "seen\n")
    assert len(rc.db_query({})) >= 23


@needs_curve
def test_who_does_not_know_the_key_hears_nothing(fresh, tmp_path):
    cluster, rc = fresh(1, "--enable-curve")
    with open(cluster.client_file) as file:
        info = json.load(file)
    for wrong in (None, zmq.curve_keypair()[0].decode()):
        other = tmp_path / "wrong.json"
        other.write_text(json.dumps({**info, "curve_serverkey": wrong}))
        with pytest.raises(TimeoutError):
            ipp.Client(str(other), timeout=1)
    assert rc[0].apply_sync(lambda: 1) == 1


@needs_curve
def test_keys_persist(tmp_path):
    keys = []
    for _ in range(2):
        cluster = Cluster(tmp_path, "--enable-curve")
        keys.append(curve_keys(cluster)[0])
        cluster.close()
    assert keys[0] == keys[1]
    kept = tmp_path / "security" / "ipcontroller-curve.json"
    assert kept.stat().st_mode & 0o777 == 0o600


@needs_curve
def test_files_of_another_key_are_not_reused_unseen(tmp_path):
    """Plain first, then encrypted, then plain: the addresses stay, and peers that read the files are let in each time."""
    addresses = []
    for args in ["--reuse"], ["--reuse", "--enable-curve"], ["--reuse"]:
        cluster = Cluster(tmp_path, *args)
        try:
            wait_until(lambda: ("--enable-curve" in args) == bool(curve_keys(cluster)[0]))
            with open(cluster.client_file) as file:
                addresses.append(json.load(file)["registration"])
            cluster.client()
        finally:
            cluster.close()
    assert len(set(addresses)) == 1


@needs_curve
def test_a_list_of_keys_decides_who_may_connect(tmp_path, monkeypatch):
    (engine_public, engine_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
    allowed = [engine_public.decode(), public.decode()]
    (tmp_path / "pointsman.toml").write_text(f"[curve]\nenabled = true\nallowed_keys = {json.dumps(allowed)}\n")
    cluster = Cluster(tmp_path)
    try:
        cluster.env.update(IPP_CURVE_PUBLICKEY=engine_public.decode(), IPP_CURVE_SECRETKEY=engine_secret.decode())
        cluster.add_engines(1)

        class Known(ipp.Client):  # a stock client takes its keys from nowhere else
            curve_publickey = Bytes(public)
            curve_secretkey = Bytes(secret)

        rc = Known(cluster.client_file, timeout=10)
        rc.wait_for_engines(1, timeout=30)
        assert rc[0].apply_sync(lambda: 1) == 1
        rc.close()
        with pytest.raises(TimeoutError):
            ipp.Client(cluster.client_file, timeout=1)
    finally:
        cluster.close()


def test_another_machine_is_listened_to_only_with_encryption_or_leave(tmp_path):
    command = [BIN, "controller", "--ip=0.0.0.0", f"--profile-dir={tmp_path}"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1 and "--allow-plaintext" in refused.stderr and "--enable-curve" in refused.stderr
    for leave in ["--allow-plaintext"] + ["--enable-curve"] * has_curve():
        cluster = Cluster(tmp_path, "--ip=0.0.0.0", leave)
        assert cluster.client().ids == []
        cluster.close()
