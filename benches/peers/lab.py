"""The lab beside other simulators: queues by ciw and simpy, static schedules of graphs by anrg-saga. Started by ./lab, which has installed them."""

import argparse
import csv
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POINTSMAN = ROOT / "target/release/pointsman"


def ours(base, folder, name, tasks=None):
    """Mean of every metric of one point, and the seconds that it took."""
    lines = [f'name = "{name}"', "replications = 1", "references = false", "[base]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in base.items()]
    path = Path(folder) / f"{name}.toml"
    path.write_text("\n".join(lines))
    out = Path(folder) / f"{name}-results"
    started = time.perf_counter()
    subprocess.run([POINTSMAN, "lab", "run", str(path), "--out", str(out)], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    [row] = csv.DictReader((out / "results.csv").open())
    return {key: float(value) for key, value in row.items()}, seconds


def simpy_shortest_queue(engines, load, tasks, seed):
    import simpy

    rng = random.Random(seed)
    env = simpy.Environment()
    servers = [simpy.Resource(env) for _ in range(engines)]
    responses = []

    def job():
        arrived = env.now
        server = min(servers, key=lambda one: len(one.queue) + one.count)
        with server.request() as turn:
            yield turn
            yield env.timeout(rng.expovariate(1.0))
        responses.append(env.now - arrived)

    def arrivals():
        for _ in range(tasks):
            yield env.timeout(rng.expovariate(load * engines))
            env.process(job())

    env.process(arrivals())
    env.run()
    kept = responses[tasks // 10 :]
    return sum(kept) / len(kept)


def ciw_one_queue(engines, load, tasks, seed):
    import ciw

    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(load * engines)],
        service_distributions=[ciw.dists.Exponential(1.0)],
        number_of_servers=[engines],
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(tasks, method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)[tasks // 10 :]
    return sum(record.exit_date - record.arrival_date for record in records) / len(records)


def queues(tasks, folder):
    print(f"| system, {tasks} tasks | theory | pointsman | other | tasks/s pointsman | tasks/s other | times |")
    print("|---|---|---|---|---|---|---|")
    for name, theory, base, other, run in (
        ("M/M/4 at 0.8: ciw", 1.745538, {"hwm": 1}, "ciw", ciw_one_queue),
        ("JSQ(4) at 0.8: simpy", None, {"hwm": 0}, "simpy", simpy_shortest_queue),
    ):
        base = {"engines": 4, "load": 0.8, "placement": "leastload", "tasks": tasks, **base}
        # Ours once more with many tasks for its speed: starting the program is not simulating.
        many = {**base, "tasks": tasks * 20}
        result, _ = ours(base, folder, f"{other}-small")
        _, seconds = ours(many, folder, f"{other}-many")
        started = time.perf_counter()
        mean = run(4, 0.8, tasks, 1)
        spent = time.perf_counter() - started
        speed, others = tasks * 20 / seconds, tasks / spent
        shown = f"{theory:.4f}" if theory else ""
        print(f"| {name} | {shown} | {result['response_mean_s']:.4f} | {mean:.4f} | {speed:,.0f} | {others:,.0f} | {speed / others:.0f} |")


def random_graph(rng, tasks, with_files):
    """Layers of tasks with times and files, as WfFormat; and the same as lists."""
    names = [f"t{n}" for n in range(tasks)]
    costs = {name: rng.uniform(1, 20) for name in names}
    edges, at = {}, 0
    layers = []
    while at < tasks:
        width = rng.randint(1, 6)
        layers.append(names[at : at + width])
        at += width
    for above, below in zip(layers, layers[1:]):
        for name in below:
            for parent in rng.sample(above, rng.randint(1, len(above))):
                edges[parent, name] = rng.randint(1, 40) * 1_000_000 * with_files
    listed = [
        {
            "name": name,
            "id": name,
            "parents": [a for a, b in edges if b == name],
            "children": [b for a, b in edges if a == name],
            "inputFiles": [f"{a}-{b}" for a, b in edges if b == name],
            "outputFiles": [f"{a}-{b}" for a, b in edges if a == name],
        }
        for name in names
    ]
    files = [{"id": f"{a}-{b}", "sizeInBytes": size} for (a, b), size in edges.items()]
    runs = [{"id": name, "runtimeInSeconds": cost} for name, cost in costs.items()]
    workflow = {"specification": {"tasks": listed, "files": files}, "execution": {"tasks": runs}}
    return {"name": "random", "schemaVersion": "1.5", "workflow": workflow}, costs, edges


def graphs(folder):
    import logging

    from saga import Network, TaskGraph
    from saga.schedulers.cpop import CpopScheduler
    from saga.schedulers.heft import HeftScheduler

    logging.disable(logging.WARNING)
    speeds, bandwidth = [1.0, 1.0, 2.0, 4.0], 5e6
    print("| graph | HEFT pointsman | HEFT saga | CPOP pointsman | CPOP saga | lower bound |")
    print("|---|---|---|---|---|---|")
    # Without files both must find the same. With them, ranks differ: saga averages over links that lead from an engine to itself, too, and the paper
    # over pairs of different engines, as we do.
    for seed in range(12):
        with_files = seed >= 6
        rng = random.Random(seed)
        document, costs, edges = random_graph(rng, 30, with_files)
        path = Path(folder) / f"graph{seed}.json"
        path.write_text(json.dumps(document))
        base = {
            "workload": "graphs", "graph": [path.name], "engines": 4, "speeds": "1,1,2,4",
            "bandwidth_bytes_per_s": bandwidth,
        }  # fmt: skip
        found = {}
        for name in ("heft", "cpop"):
            result, _ = ours({**base, "placement": f"~{name}"}, folder, f"{name}{seed}")
            found[name] = result
        nodes = [(f"e{n}", speed) for n, speed in enumerate(speeds)]
        links = [(a, b, bandwidth) for a, _ in nodes for b, _ in nodes if a < b]
        network = Network.create(nodes=nodes, edges=links)
        task_graph = TaskGraph.create(tasks=list(costs.items()), dependencies=[(a, b, size) for (a, b), size in edges.items()])
        theirs = [scheduler.schedule(network, task_graph).makespan for scheduler in (HeftScheduler(), CpopScheduler())]
        bound = found["heft"]["makespan_s"] / found["heft"]["makespan_over_bound"]
        heft, cpop = (found[name]["makespan_s"] for name in ("heft", "cpop"))
        print(f"| random {seed}, 30 tasks{', files' if with_files else ''} | {heft:.3f} | {theirs[0]:.3f} | {cpop:.3f} | {theirs[1]:.3f} | {bound:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="of each simulated queue")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        queues(options.tasks, folder)
        print()
        graphs(folder)


main()
