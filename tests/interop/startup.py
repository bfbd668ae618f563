"""How soon a cluster is up, and how fast the stock client gets no-op tasks through it, with this controller and the stock one in turns.

    POINTSMAN_BIN=target/release/pointsman target/interop-venv/bin/python tests/interop/startup.py [--rounds N]

Prints medians and their ratios; nothing is asserted, since a busy machine says nothing about a program.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

import ipyparallel as ipp
from traitlets.config import Config

TASKS = 2000


def measure(command):
    config = Config()
    config.ControllerLauncher.controller_cmd = command
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cluster = ipp.Cluster(n=2, config=config, profile_dir=folder, log_level=40)
        with cluster as rc:
            up = time.perf_counter() - started
            view = rc.load_balanced_view()
            view.map_sync(lambda x: x, range(100))
            started = time.perf_counter()
            assert view.map_sync(lambda x: x, range(TASKS)) == list(range(TASKS))
            per_s = TASKS / (time.perf_counter() - started)
    return up, per_s


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    peers = {
        "pointsman": [os.path.abspath(os.environ["POINTSMAN_BIN"]), "controller"],
        "stock": [sys.executable, "-m", "ipyparallel.controller"],
    }
    figures = {name: [] for name in peers}
    print(f"ipp.Cluster(n=2) to a connected client; then a map of {TASKS} no-op tasks; ipyparallel {ipp.__version__}")
    for number in range(rounds):
        for name, command in peers.items():
            up, per_s = measure(command)
            figures[name].append((up, per_s))
            print(f"{number + 1}/{rounds} {name:>10}: up after {up:5.2f} s, {per_s:5.0f} tasks/s", flush=True)
    up, per_s = ({name: statistics.median(f[i] for f in figures[name]) for name in peers} for i in range(2))
    print(f"median up: {up['pointsman']:.2f} s against {up['stock']:.2f} s: {up['pointsman'] / up['stock']:.2f} of it")
    ratio = per_s["pointsman"] / per_s["stock"]
    print(f"median tasks/s: {per_s['pointsman']:.0f} against {per_s['stock']:.0f}: {ratio:.2f} times")


if __name__ == "__main__":
    main()
