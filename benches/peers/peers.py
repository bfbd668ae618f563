"""Runs Pointsman and its peers side by side, in turns, and prints the ratios. Started by ./run, which has installed what it needs.

Absolute times mean little on a machine that others use too: every figure that is judged is a ratio of medians from interleaved rounds.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POINTSMAN = ROOT / "target/release/pointsman"


def say(text):
    print(text, file=sys.stderr, flush=True)


def cargo_bench(name, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = ["cargo", "bench", "--quiet", "--bench", name, "--", *arguments, "--json", str(path)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        return json.loads(path.read_text())


def load(*arguments, controller=None):
    """One load; its JSON. `controller`: options of Pointsman's own, or a command of another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [str(POINTSMAN), "bench", "--json", str(path), *map(str, arguments)]
        if isinstance(controller, str):
            command += ["--command", controller]
        else:
            command += ["--", *(controller or [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text())


def median_of(reports, key):
    return statistics.median(key(report_round) for report in reports for report_round in report["rounds"])


def in_turns(rounds, contenders):
    """Runs every contender once a round; a list of reports for each."""
    reports = {name: [] for name in contenders}
    for n in range(rounds):
        for name, run in contenders.items():
            say(f"round {n + 1} of {rounds}: {name}")
            reports[name].append(run())
    return reports


class Table:
    def __init__(self):
        self.rows = []

    def add(self, what, peer, value, target, more_is_better, unit=""):
        reached = value >= target if more_is_better else value <= target
        sign = "≥" if more_is_better else "≤"
        self.rows.append((what, peer, f"{value:.3g}{unit}", f"{sign} {target}{unit}", "yes" if reached else "no"))

    def note(self, what, peer, value):
        self.rows.append((what, peer, value, "", ""))

    def markdown(self):
        head = ("what", "against", "measured", "aim", "reached")
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


def relays(table, rounds, results):
    say("relays, in one process")
    inside = cargo_bench("relay_peers")
    results["relay_in_process"] = inside
    at = {(row["message"], row["relay"]): row for row in inside}
    for message, watched, unwatched in (("task", 0.53, 0.30), ("1 frame", 0.27, 0.15)):
        row = at[message, "watched"]
        table.add(f"relay thread CPU, {message}", "pyzmq's algorithm", row["to_pyzmq"], watched, False)
        table.add(f"relay thread CPU, {message}", "zmq_proxy with capture", row["to_proxy"], 0.95, False)
        row = at[message, "unwatched"]
        table.add(f"relay thread CPU, {message}, nobody subscribed", "pyzmq's algorithm", row["to_pyzmq"], unwatched, False)
    say("relays, over TCP")
    tcp = cargo_bench("relay_tcp", "--python", sys.executable, "--rounds", str(rounds))
    results["relay_tcp"] = tcp
    at = {(row["message"], row["relay"]): row for row in tcp}
    for message, least in (("task", 1.3), ("1 frame", 2.1), ("1 MiB", 1.0)):
        table.add(f"relay over TCP, msg/s, {message}", "pyzmq", at[message, "ours"]["rate_ratio"], least, True)
    table.add("relay over TCP with the own hub, process CPU, task", "pyzmq", at["task", "hub"]["process_ratio"], 0.62, False)


def tasks(table, rounds, seconds, results):
    stock = f"{sys.executable} -m ipyparallel.controller"
    shape = ["--engines", 16, "--window", 256, "--rounds", 1, "--seconds", seconds]
    for records, options, fewest in (("no records", ["--nodb"], 20), ("records in SQLite", ["--sqlitedb"], 15)):
        reports = in_turns(rounds, {
            f"pointsman, {records}": lambda: load(*shape, controller=options),
            f"ipcontroller, {records}": lambda: load(*shape, controller=f"{stock} {options[0]}"),
        })
        own, other = reports.values()
        results[f"tasks, {records}"] = reports
        rate = lambda r: r["tasks_per_s"]
        cpu = lambda r: r["cpu_us_per_task"]
        busiest = lambda r: max(r["processes_us_per_task"])
        table.note(f"tasks/s, {records}: ours, ipcontroller", "", f"{median_of(own, rate):.0f}, {median_of(other, rate):.0f}")
        table.add(f"tasks/s, {records}", "ipcontroller", median_of(own, rate) / median_of(other, rate), fewest, True)
        if records == "no records":
            ratio = median_of(own, cpu) / median_of(other, busiest)
            table.add("CPU of all our threads a task", "ipcontroller's busiest process", ratio, 0.04, False)
            ratio = median_of(own, cpu) / median_of(other, cpu)
            table.add("CPU of all our threads a task", "all of ipcontroller", ratio, 0.04, False)


def alone(table, rounds, seconds, results, blocked, history):
    shape = ["--engines", 16, "--rounds", 1, "--seconds", seconds, "--load", 0.5]
    reports = in_turns(rounds, {
        "half load": lambda: load(*shape, controller=["--nodb"]),
    })["half load"]
    results["half load"] = reports
    p99 = lambda r: r["latency_us"]["p99"] / 1000
    table.add("p99 latency at half load", "", median_of(reports, p99), 1, False, " ms")
    if blocked or history:
        rate = statistics.median(report["saturation_per_s"] for report in reports) / 2
        shape = ["--engines", 16, "--rounds", rounds, "--seconds", seconds, "--rate", rate]
        say(f"half load with {blocked} blocked and {history} ended tasks")
        full = [load(*shape, "--blocked", blocked, "--history", history, controller=["--nodb"])]
        results["half load, full"] = full
        ratio = median_of(full, p99) / median_of(reports, p99)
        table.add(f"p99 with {blocked} blocked and {history} ended tasks", "without them", ratio, 1.3, False)
    idle = load("--engines", 8, "--rounds", 1, "--seconds", 1, controller=["--nodb", "--ping=3000"])
    results["idle"] = [idle]
    table.add("idle, 8 engines: resident", "", idle["idle_rss_bytes"] / 2**20, 20, False, " MiB")
    table.add("idle, 8 engines: share of a core", "", idle["idle_cores"] * 100, 0.2, False, " %")
    table.add("start to connection files", "", idle["start_s"] * 1000, 100, False, " ms")


def dask(table, rounds, results):
    say("dask")
    output = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("dask_peer.py"))], check=True, capture_output=True, text=True
    ).stdout
    seen = json.loads(output)
    own = load("--engines", 2, "--window", 256, "--rounds", rounds, "--seconds", 2, controller=["--nodb"])
    results["dask"] = seen
    ratio = statistics.median(r["cpu_us_per_task"] for r in own["rounds"]) / seen["scheduler_us_per_task"]
    table.note("CPU a task of the scheduler's process, 2 workers", f"dask.distributed {seen['version']}", f"{ratio:.3g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--blocked", type=int, default=1_000_000, help="tasks that wait, for the test of latency")
    parser.add_argument("--history", type=int, default=10_000_000, help="tasks that have ended, for the same")
    parser.add_argument("--only", choices=["relays", "tasks", "alone", "dask"], action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = options.only or ["relays", "tasks", "alone", "dask"]
    table, results = Table(), {}
    if "relays" in wanted:
        relays(table, options.rounds, results)
    if "tasks" in wanted:
        tasks(table, options.rounds, options.seconds, results)
    if "alone" in wanted:
        alone(table, options.rounds, options.seconds, results, options.blocked, options.history)
    if "dask" in wanted:
        dask(table, options.rounds, results)
    import ipyparallel
    import zmq

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    cores = len(__import__("os").sched_getaffinity(0))
    print(f"{cores} cores of {cpu}, Linux {platform.release()}; Python {platform.python_version()},")
    print(f"ipyparallel {ipyparallel.__version__}, pyzmq {zmq.__version__} with libzmq {zmq.zmq_version()}; medians of {options.rounds} rounds.\n")
    print(table.markdown())
    if options.json:
        options.json.write_text(json.dumps(results))


main()
