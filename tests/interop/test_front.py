"""The front door beside stock programs: their traits, their controller in the same profile, their views, and the terminals people start from."""

import os
import pty
import re
import signal
import subprocess
import sys

import ipyparallel as ipp
import pytest
from conftest import BIN, Cluster, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run(cluster_env, *args):
    return subprocess.run([BIN, *args], env=cluster_env, capture_output=True, text=True, timeout=30)


def help_all(module, *args):
    shown = subprocess.run([sys.executable, "-m", module, *args, "--help-all"], capture_output=True, text=True, timeout=60).stdout
    return {match.groups() for match in re.finditer(r"^--(\w+)\.(\w+)=", shown, re.M)}


def test_the_list_of_traits_is_that_of_ipcontroller():
    if not ipp.__version__.startswith("9.2"):
        pytest.skip("the list is that of 9.2")
    listed, elsewhere = set(), set()
    with open(os.path.join(ROOT, "src", "config", "ipcontroller_traits.txt")) as file:
        for line in file:
            name, rest = line.split(": ")
            if name == "elsewhere":
                elsewhere = set(rest.split())
            else:
                listed |= {(name, trait) for trait in rest.split()}
    assert listed == help_all("ipyparallel.controller")
    others = help_all("ipyparallel.engine") | help_all("ipyparallel.cluster", "start")
    assert {name for name, _ in others} - {name for name, _ in listed} == elsewhere


def test_what_stock_launchers_add_to_a_command_line_is_taken(tmp_path):
    line = ["--profile-dir", str(tmp_path), "--cluster-id", "a", "--log-to-file", "--log-level=20", "--debug", "--ip=127.0.0.1"]
    line += ["--location=here", "--IPController.enable_curve=False", "--HeartMonitor.period=500", "--usethreads", "--show-config"]
    shown = subprocess.run([BIN, "controller", *line], capture_output=True, text=True, timeout=30)
    assert shown.returncode == 0 and "period_ms = 500" in shown.stdout and 'location = "here"' in shown.stdout, shown.stderr


@pytest.fixture
def stock(tmp_path):
    env = dict(os.environ, IPP_PROFILE_DIR=str(tmp_path), IPP_CLUSTER_ID="", IPYTHONDIR=str(tmp_path))
    command = [sys.executable, "-m", "ipyparallel.controller", f"--profile-dir={tmp_path}", "--nodb"]
    with open(tmp_path / "stock.log", "w") as log:
        # In a group of its own: its schedulers are processes too.
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    file = tmp_path / "security" / "ipcontroller-client.json"
    wait_until(lambda: file.exists() or process.poll() is not None, timeout=60)
    yield env, file, process
    if process.poll() is None:
        process.terminate()
    process.wait(20)


def test_a_stock_controller_is_recognised_and_its_profile_left_alone(stock):
    env, file, process = stock
    # It writes its file, and listens a moment later.
    wait_until(lambda: "listens" in run(env, "list").stdout, timeout=30)
    text = file.read_text()
    shown = run(env, "policy", "show")
    assert shown.returncode == 1 and "is ipyparallel's own: it has no policies to show" in shown.stderr, shown.stderr
    refused = run(env, "controller")
    assert refused.returncode == 1 and "already serves this profile at tcp://" in refused.stderr, refused.stderr
    assert file.read_text() == text

    # Killed, it leaves its files, which lock nobody out.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: "gone" in run(env, "list").stdout)
    shown = run(env, "policy", "show", "--timeout-s=0.5")
    assert shown.returncode == 1 and "nobody listens at" in shown.stderr, shown.stderr
    ours = Cluster(file.parent.parent)
    try:
        wait_until(lambda: file.read_text() != text)
        assert ours.client().ids == []
    finally:
        ours.close()


def test_explain_tells_a_direct_views_task_from_one_that_nobody_has_sent(fresh):
    cluster, rc = fresh(1)
    sent = rc[0].apply_async(os.getpid)
    assert sent.get(timeout=30)
    direct = run(cluster.env, "explain", sent.msg_ids[0])
    assert direct.returncode == 1 and "by the channel mux, of a direct or broadcast view" in direct.stderr, direct.stderr
    nobody = run(cluster.env, "explain", "foo")
    assert nobody.returncode == 1 and "no task of the id 'foo' has been submitted" in nobody.stderr, nobody.stderr
    assert "ValueError" not in nobody.stderr
    missing = run(cluster.env, "policy", "drain", "9")
    assert missing.returncode == 1 and "there is no engine 9; there are 0" in missing.stderr, missing.stderr


def test_a_controller_outlives_its_terminal_with_its_policies(tmp_path):
    env = dict(os.environ, IPP_PROFILE_DIR=str(tmp_path), IPP_CLUSTER_ID="", IPYTHONDIR=str(tmp_path))
    terminal, end = pty.openpty()
    # A session of its own with this terminal, as a login shell gives it.
    start = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", start, BIN, "controller", "--ping=250"]
    process = subprocess.Popen(command, env=env, stdin=end, stdout=end, stderr=end)
    os.close(end)
    try:
        wait_until(lambda: (tmp_path / "security" / "ipcontroller-client.json").exists())
        assert run(env, "policy", "set", "sed").returncode == 0
        os.close(terminal)
        # The kernel's SIGHUP, and the shell's.
        os.kill(process.pid, signal.SIGHUP)
        for _ in range(20):
            shown = run(env, "policy", "show")
            assert process.poll() is None and "placement  sed" in shown.stdout, shown.stderr
        with open(f"/proc/{process.pid}/stat") as stat:
            ticks = sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
        assert ticks < 10 * os.sysconf("SC_CLK_TCK"), "it spins"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
