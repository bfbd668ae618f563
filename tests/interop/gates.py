"""Tasks that last as long as a test wants them to, so that no test depends on how long its own submissions take."""

import os
import time


def pass_through(gate, answer=None):
    """What an engine runs: it marks that it has come, and waits until the gate is open."""
    with open(gate + ".reached", "a") as file:
        file.write("x")
    while not os.path.exists(gate + ".open"):
        time.sleep(0.01)
    return answer


class Gate(str):
    """A path that travels to engines as the text it is."""

    def __reduce__(self):
        return str, (str(self),)

    def open(self):
        with open(self + ".open", "w"):
            pass

    def reached(self, times=1):
        return os.path.exists(self + ".reached") and os.path.getsize(self + ".reached") >= times
