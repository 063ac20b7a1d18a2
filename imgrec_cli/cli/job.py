"""A process of a training on several hosts, watched by the one that was started: JAX ends a process whose peers are
gone by a signal, without a word, and a scheduler needs a word and an exit code."""

import ctypes
import os
import signal
import sys

from imgrec_cli.cli import output
from imgrec_cli.errors import PeerLostError
from imgrec_cli.machine import peers_announced

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


def watch_over_peers() -> None:
    """Where peers are announced, go on in a child process and stay behind to say how it ended. Only on Linux."""
    if sys.platform != "linux" or not peers_announced():
        return
    parent = os.getpid()
    child = os.fork()  # before any thread is started
    if child == 0:
        os.setpgid(0, 0)  # a terminal's Ctrl-C comes from the parent alone, once
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before it was asked to take this process along
            os._exit(1)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, frame: os.kill(child, received))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGABRT:
        lost = PeerLostError(
            "another process of this training was lost: it died or does not answer",
            "start the job again on all hosts with imgrec train --resume RUN; it goes on from the last checkpoint",
        )
        output.failure(lost, "error: ")
        code = lost.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if code >= 0 else 128 - code)
