"""ipyparallel's own test suite with its own controller and with ours, and the difference.

    python tests/interop/peer_suite.py --binary target/release/pointsman [--runs 3] [-k EXPRESSION]

Makes a virtual environment under target/ in which `python -m ipyparallel.controller` becomes ours when POINTSMAN_BIN is set, runs
`pytest --pyargs ipyparallel.tests` both ways, and fails if any test passes with the stock controller and not with ours.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / "target" / "peer-suite-venv"
PINS = [
    "ipyparallel[test]==9.2.0",
    "ipykernel==7.4.0",
    "jupyter_client==8.10.0",
    "pyzmq==27.3.0",
    "pytest==8.4.2",
    "pytest-timeout==2.4.0",
    "distributed==2026.8.0",
    "joblib==1.6.0",
    "numpy",
    "pandas",
    "pymongo",
]
ENTRY = """import os, sys
if os.environ.get("POINTSMAN_BIN"):
    os.execv(os.environ["POINTSMAN_BIN"], [os.environ["POINTSMAN_BIN"], "controller", *sys.argv[1:], "--allow-dask"])
if __name__ == "__main__":
    from .app import main
    main()
"""


def environment(python):
    stamp = VENV / "installed.txt"
    # ipyparallel's tests of MPI run where there is an mpiexec; for its library, mpi4py has to be compiled.
    pins = PINS + (["--no-binary=mpi4py", "mpi4py==4.1.1"] if shutil.which("mpicc") else [])
    wanted = "\n".join(pins)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing ipyparallel and what its tests use into {VENV}", flush=True)
        subprocess.run([python, "-m", "venv", "--clear", VENV], check=True)
        pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *pins], check=True)
        stamp.write_text(wanted)
    where = [VENV / "bin" / "python", "-c", "import ipyparallel.controller as c; print(c.__path__[0])"]
    folder = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    pathlib.Path(folder, "__main__.py").write_text(ENTRY)


def mongod_listens():
    try:
        socket.create_connection(("127.0.0.1", 27017), timeout=1).close()
        return True
    except OSError:
        return False


def run(name, binary, extra):
    """Outcomes by test."""
    env = {k: v for k, v in os.environ.items() if k != "POINTSMAN_BIN"}
    env["PATH"] = f"{VENV / 'bin'}:{env['PATH']}"
    if binary:
        env["POINTSMAN_BIN"] = str(pathlib.Path(binary).resolve())
    report, log = ROOT / "target" / f"peer-suite-{name}.xml", ROOT / "target" / f"peer-suite-{name}.log"
    report.unlink(missing_ok=True)
    command = [VENV / "bin" / "python", "-m", "pytest", "--pyargs", "ipyparallel.tests", "-p", "no:cacheprovider", "-v"]
    command += ["--timeout=120", "--tb=short", "--asyncio-mode=auto", f"--junitxml={report}", *extra]
    if not mongod_listens():
        print("no mongod at 127.0.0.1:27017: ipyparallel's test_mongodb.py, half an hour of waiting for one, is left out", flush=True)
        command.append("--ignore-glob=*test_mongodb.py")
    if not shutil.which("scontrol") or subprocess.run(["scontrol", "ping"], capture_output=True).returncode:
        print("no Slurm is running: ipyparallel's test_slurm.py is left out", flush=True)
        command.append("--ignore-glob=*test_slurm.py")
    print(f"{name}: running, see {log}", flush=True)
    started = time.monotonic()
    # Files, not pipes: engines that outlive a test would keep a pipe open.
    with open(log, "w") as out:
        subprocess.run(command, env=env, cwd=ROOT / "target", stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    if not report.exists():
        sys.exit(f"{name}: pytest died without a report; see {log}")
    outcomes = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            outcome = "failed"
        elif "skipped" in kinds:
            outcome = "skipped"
        else:
            outcome = "passed"
        key = f"{case.get('classname')}::{case.get('name')}"
        # A test may report twice, once for its teardown.
        outcomes[key] = max(outcome, outcomes.get(key, ""), key=["", "passed", "skipped", "failed"].index)
    count = {kind: list(outcomes.values()).count(kind) for kind in ("passed", "skipped", "failed")}
    print(f"{name}: {count} in {time.monotonic() - started:.0f} s", flush=True)
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target" / "release" / "pointsman")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--stock-again", action="store_true", help="do not reuse the stock outcomes of an earlier run")
    args, extra = parser.parse_known_args()
    environment(args.python)
    kept = ROOT / "target" / "peer-suite-stock.json"
    if kept.exists() and not args.stock_again and not extra:
        stock = json.loads(kept.read_text())
        print(f"stock: as before, {list(stock.values()).count('passed')} passed", flush=True)
    else:
        stock = run("stock", None, extra)
        if not extra:
            kept.write_text(json.dumps(stock, indent=1))
    worse = 0
    for number in range(1, args.runs + 1):
        ours = run(f"pointsman-{number}", args.binary, extra)
        print(f"run {number}:")
        for test, outcome in stock.items():
            now = ours.get(test, "missing")
            if outcome == "passed" and now != "passed":
                worse += 1
                print(f"  WORSE  {test}: {now}")
            elif outcome != "passed" and now == "passed":
                print(f"  better {test}: {outcome} with the stock controller")
        lost = sum(outcome == "passed" and ours.get(test) != "passed" for test, outcome in stock.items())
        print(f"run {number}: {lost} tests pass with the stock controller and fail with ours", flush=True)
    sys.exit(worse != 0)


if __name__ == "__main__":
    main()
