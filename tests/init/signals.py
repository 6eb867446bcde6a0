"""Prints its pid, then the number of each signal that it gets; ends after as many as its argument says."""
import os
import signal
import sys

most = int(sys.argv[1]) if len(sys.argv) > 1 else -1
taken = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, taken)
print(os.getpid(), flush=True)
while most != 0:
    print(int(signal.sigwait(taken)), flush=True)
    most -= 1
