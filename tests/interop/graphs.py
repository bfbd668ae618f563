"""A graph of tasks that any cluster can run; needs nothing but ipyparallel."""

import random
import time


def run_random_graph(rc, count, timeout):
    """Runs so many tasks, each with up to five predecessors: none starts before all of them have ended. Returns the tasks and the edges."""
    view = rc.load_balanced_view()
    rng = random.Random(4)
    tasks, edges = [], []
    for n in range(count):
        before = rng.sample(range(n), min(n, rng.randint(0, 5)))
        with view.temp_flags(after=[tasks[b] for b in before]):
            tasks.append(view.apply_async(time.sleep, rng.random() * 0.02))
        edges += [(b, n) for b in before]
    rc.wait(tasks, timeout=timeout)
    for b, n in edges:
        assert tasks[b].completed <= tasks[n].started, (b, n)
    return tasks, edges
