"""The compatibility matrix: `smoke.py` in each version of Python and ipyparallel that can be had here, against one binary.

    POINTSMAN_BIN=target/release/pointsman python3 tests/interop/matrix.py

Pythons come from pyenv (`~/.pyenv/versions`) and the PATH; packages from PyPI into target/matrix.
"""

import glob
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# ipyparallel, and the Pythons that it says to support; what it needs besides is what pip finds for that Python.
VERSIONS = [
    ("7.1.0", ["3.6", "3.8", "3.10"]),
    ("8.0.0", ["3.7", "3.10"]),
    ("8.8.0", ["3.8", "3.12"]),
    ("9.0.1", ["3.9", "3.12"]),
    ("9.2.0", ["3.10", "3.11", "3.12", "3.13"]),
]


def find_python(version):
    found = glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")) + [f"/usr/bin/python{version}"]
    return next((path for path in found if os.path.exists(path)), None)


def run(ipyparallel, version):
    python = find_python(version)
    if python is None:
        return "no such Python here"
    venv = os.path.join(ROOT, "target", "matrix", f"{ipyparallel}-{version}")
    own = os.path.join(venv, "bin", "python")
    log = f"{venv}.log"
    os.makedirs(os.path.dirname(venv), exist_ok=True)
    with open(log, "w") as out:
        if not os.path.exists(os.path.join(venv, "installed")):
            subprocess.run([python, "-m", "venv", "--clear", venv], stdout=out, stderr=out, check=True)
            # ipyparallel 7 imports what setuptools brought in its time.
            packages = [f"ipyparallel=={ipyparallel}"] + (["setuptools<70"] if ipyparallel < "8.5" else [])
            # Its engines do not answer with ipykernel 7, whatever the controller.
            packages += ["ipykernel<7"] if ipyparallel < "9.1" else []
            pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            if subprocess.run([*pip, *packages], stdout=out, stderr=out).returncode:
                return f"can not be installed, see {os.path.relpath(log, ROOT)}"
            open(os.path.join(venv, "installed"), "w").close()
        out.flush()
        try:
            subprocess.run([own, os.path.join(HERE, "smoke.py")], stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=180)
        except subprocess.TimeoutExpired:
            out.write("timed out\n")
    with open(log) as file:
        text = file.read()
    count = re.search(r"^all (\d+) worked$", text, re.M)
    return f"all {count[1]} things worked" if count else f"FAILED, see {os.path.relpath(log, ROOT)}"


def main():
    os.environ["POINTSMAN_BIN"] = os.path.abspath(os.environ["POINTSMAN_BIN"])
    failed = False
    for ipyparallel, pythons in VERSIONS:
        for version in pythons:
            outcome = run(ipyparallel, version)
            failed |= "FAILED" in outcome
            print(f"ipyparallel {ipyparallel:>6}, Python {version:>5}: {outcome}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
