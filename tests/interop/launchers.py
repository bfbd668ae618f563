"""A cluster whose controller and engines a batch system, mpiexec or ssh has started runs a DAG: `launchers.py slurm|mpi|ssh|local`.

Run by `.ci/launchers`, which sets these systems up, with the Python of an environment that has the wheel.
"""

import contextlib
import glob
import os
import socket
import sys
import tempfile
import time

import ipyparallel as ipp
from graphs import run_random_graph
from ipyparallel.cluster.launcher import find_launcher_class
from traitlets.config import Config

TASKS = 60
ENGINES = 3


def settings(kind, folder):
    config = Config()
    if kind == "mpi":
        config.MPILauncher.mpi_args = os.environ.get("MPI_ARGS", "").split()
    if kind == "ssh":
        ssh = os.environ["SSH_ARGS"].split()
        config.SSHLauncher.ssh_args = ssh
        config.SSHLauncher.scp_args = [arg.replace("-p", "-P") if arg == "-p" else arg for arg in ssh]
        config.SSHLauncher.remote_python = sys.executable
        config.SSHLauncher.remote_profile_dir = os.path.join(folder, "remote")
        config.SSHControllerLauncher.hostname = "127.0.0.1"
        config.SSHEngineSetLauncher.engines = {"127.0.0.1": ENGINES}
        config.SSHLauncher.poll_seconds = 2
    return config


def where():
    """Which machine, job and rank an engine is."""
    import os
    import socket

    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("PMI_RANK") or os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    try:
        from mpi4py import MPI

        rank = f"rank {MPI.COMM_WORLD.Get_rank()} of {MPI.COMM_WORLD.Get_size()}"
    except ImportError:
        rank = "no MPI"
    return f"{socket.gethostname()}, {job or 'here'}, {rank}"


def run_dag(rc):
    tasks, edges = run_random_graph(rc, TASKS, timeout=120)
    by_engine = [sum(task.engine_id == number for task in tasks) for number in rc.ids]
    return len(edges), by_engine


@contextlib.contextmanager
def logs_on_failure(folder):
    """What jobs and processes have said is told before it is removed with its folder."""
    try:
        yield
    except BaseException:
        for log in glob.glob(f"{folder}/**/log/*", recursive=True):
            with open(log) as file:
                print(f"--- {log}\n{file.read()}", file=sys.stderr)
        raise


def main(kind):
    launcher = "pointsman" if kind == "local" else f"pointsman-{kind}"
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pointsman-", ignore_cleanup_errors=True) as folder:  # jobs may write a last line
        os.chdir(folder)
        cluster = ipp.Cluster(
            controller=launcher,
            engines=kind,
            n=ENGINES,
            profile_dir=os.path.join(folder, "profile"),
            config=settings(kind, folder),
            log_level=20,
        )
        with logs_on_failure(folder), cluster as rc:
            print(f"{kind}: {find_launcher_class(launcher, 'controller').__name__}, {' '.join(cluster.controller.args)}")
            print(f"{kind}: {len(rc)} engines after {time.monotonic() - started:.1f} s on {socket.gethostname()}")
            for number, place in enumerate(rc[:].apply_sync(where)):
                print(f"{kind}: engine {number}: {place}")
            edges, by_engine = run_dag(rc)
            assert sum(by_engine) == TASKS and all(by_engine)
            print(f"{kind}: {TASKS} tasks, {edges} dependencies respected, tasks by engine {by_engine}")
            assert rc.queue_status()["unassigned"] == 0
    print(f"{kind}: stopped after {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
