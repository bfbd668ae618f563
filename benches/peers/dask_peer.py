"""Dask's scheduler with two workers of one thread each: tasks per second, and CPU of the scheduler's process for each."""

import json
import subprocess
import sys
import time

import distributed
import psutil


def start(*words):
    return subprocess.Popen([sys.executable, "-m", "distributed.cli." + words[0], *words[1:]], stderr=subprocess.DEVNULL)


def nothing(n):
    return n


def main():
    port = "18786"
    address = f"tcp://127.0.0.1:{port}"
    scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    workers = [start("dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)]
    try:
        client = distributed.Client(address, timeout=60)
        client.wait_for_workers(2)
        client.gather(client.map(nothing, range(500), pure=False))
        process = psutil.Process(scheduler.pid)
        count = 5000
        cpu = sum(process.cpu_times()[:2])
        begin = time.perf_counter()
        client.gather(client.map(nothing, range(count), pure=False))
        elapsed = time.perf_counter() - begin
        cpu = sum(process.cpu_times()[:2]) - cpu
        print(json.dumps({
            "version": distributed.__version__,
            "tasks_per_s": count / elapsed,
            "scheduler_us_per_task": cpu / count * 1e6,
        }))
        client.close()
    finally:
        for process in [*workers, scheduler]:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
