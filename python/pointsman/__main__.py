"""`python -m pointsman ARGS`: the program takes the place of this process, so that signals and exit codes are its own."""

import os
import sys

from . import command


def main():
    argv = [command(), *sys.argv[1:]]
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
