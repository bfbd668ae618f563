"""The cluster as ipyparallel itself starts it."""

import os
import subprocess
import sys
import time

import ipyparallel as ipp
from conftest import BIN, wait_until
from traitlets.config import Config


def test_cluster_object(tmp_path):
    config = Config()
    config.ControllerLauncher.controller_cmd = [BIN, "controller"]
    config.ControllerLauncher.controller_args = ["--ping=250"]
    with ipp.Cluster(n=2, config=config, profile_dir=str(tmp_path), log_level=30) as rc:
        assert len(set(rc[:].apply_sync(os.getpid))) == 2
        assert rc.load_balanced_view().map_sync(lambda x: x + 1, range(4)) == [1, 2, 3, 4]


def test_ipcluster(tmp_path):
    env = dict(os.environ, IPYTHONDIR=str(tmp_path))
    ipcluster = [sys.executable, "-m", "ipyparallel.cluster"]
    command = ["start", "-n", "2", f"--ControllerLauncher.controller_cmd={[BIN, 'controller']!r}", "--daemonize"]
    subprocess.run([*ipcluster, *command], env=env, check=True, timeout=60)
    try:
        file = os.path.join(str(tmp_path), "profile_default", "security", "ipcontroller-client.json")
        wait_until(lambda: os.path.exists(file))
        rc = ipp.Client(file)
        rc.wait_for_engines(2, timeout=60)
        assert rc[:].apply_sync(lambda: 1) == [1, 1]
        rc.close()
    finally:
        subprocess.run([*ipcluster, "stop"], env=env, check=True, timeout=60)
    wait_until(lambda: not os.path.exists(file))
    time.sleep(0.1)
