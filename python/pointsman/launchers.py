"""ipyparallel's launchers of controllers, with Pointsman as the controller.

Each is the stock launcher in all but the command, and reads the stock launcher's configuration.
"""

import sys

from ipyparallel.cluster import launcher as stock
from traitlets import Unicode, default

from . import command


class _Here(stock.ControllerLauncher):
    """Starts the program itself: it runs on this machine, so its path is known."""

    @default("controller_cmd")
    def _pointsman_cmd(self):
        return [command(), "controller"]


class _There(stock.ControllerLauncher):
    """Starts it through Python, as the stock launchers start theirs: where it is on a node is that Python's business."""

    @default("controller_cmd")
    def _pointsman_cmd(self):
        return [sys.executable, "-m", "pointsman", "controller"]


class PointsmanControllerLauncher(_Here, stock.LocalControllerLauncher):
    """Launch Pointsman as a process on this machine."""


class PointsmanMPIControllerLauncher(_There, stock.MPIControllerLauncher):
    """Launch Pointsman with mpiexec."""


class PointsmanSSHControllerLauncher(stock.SSHControllerLauncher):
    """Launch Pointsman on another machine."""

    @default("controller_cmd")
    def _pointsman_cmd(self):
        return [self.remote_python, "-m", "pointsman", "controller"]


class PointsmanBatchControllerLauncher(_There, stock.BatchControllerLauncher):
    """Launch Pointsman as a job of a batch system without a launcher of its own."""


class PointsmanSlurmControllerLauncher(_There, stock.SlurmControllerLauncher):
    """Launch Pointsman as a Slurm job."""


class PointsmanPBSControllerLauncher(_There, stock.PBSControllerLauncher):
    """Launch Pointsman as a PBS job."""


class PointsmanSGEControllerLauncher(_There, stock.SGEControllerLauncher):
    """Launch Pointsman as a GridEngine job."""


class PointsmanLSFControllerLauncher(_There, stock.LSFControllerLauncher):
    """Launch Pointsman as an LSF job."""


class PointsmanHTCondorControllerLauncher(_There, stock.HTCondorControllerLauncher):
    """Launch Pointsman as an HTCondor job."""

    # Its stock template names the stock program.
    default_template = Unicode(
        """
universe        = vanilla
executable      = pointsman
# a shared file system is assumed
transfer_executable = False
arguments       = controller {program_args}
"""
    )
