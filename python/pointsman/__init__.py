"""Pointsman, a controller for IPython Parallel clusters. The program itself is Rust; this package starts it."""

import os
import shutil
import sys
import sysconfig

__all__ = ["command"]


def command():
    """The path of the program that was installed with this package, else of one on the PATH.

    Raises FileNotFoundError if there is neither.
    """
    name = "pointsman"
    schemes = [None, *(scheme for scheme in sysconfig.get_scheme_names() if scheme.endswith("user"))]
    folders = [sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts") for scheme in schemes]
    for folder in [*folders, os.path.dirname(sys.executable)]:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"the program '{name}' is neither in {folders[0]} nor on the PATH; is this wheel installed?")
    return path
