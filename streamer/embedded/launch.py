"""Runs a program that ends with the process that asked for it, however that process ends.

Started as a script: ``python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT...]``. On Linux the kernel kills the program
when the thread that started it ends (`Child` keeps that thread alive as long as the program). Elsewhere this process
stays as a watchman between the two.
"""

import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WATCH_INTERVAL_S = 0.5


def _die_with_parent() -> None:
    import ctypes  # noqa: PLC0415  # costs 10 ms, needed here alone

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")


def _watch(parent_pid: int, command: list[str]) -> int:
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent_pid:
            child.kill()
        time.sleep(_WATCH_INTERVAL_S)
    return child.wait()


def main(arguments: list[str]) -> None:
    """Become the program, or watch over it."""
    parent_pid, *command = arguments
    if sys.platform != "linux":
        sys.exit(_watch(int(parent_pid), command))
    _die_with_parent()
    if os.getppid() != int(parent_pid):
        sys.exit("the parent was gone before the kernel could be told")
    os.execv(command[0], command)  # noqa: S606  # a list of arguments, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
