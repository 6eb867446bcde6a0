"""Runs a command on a terminal of its own, types keys once it has said something, and prints what it says."""
import os
import pty
import sys
import termios
import time

keys, *command = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
modes = termios.tcgetattr(terminal)
modes[1] &= ~termios.OPOST
modes[3] &= ~termios.ECHO
termios.tcsetattr(terminal, termios.TCSANOW, modes)
said = b""
typed = None
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:  # the other side is closed
        break
    if not piece:
        break
    said += piece
    # One key for each line of digits that has come, so that none is merged into another.
    lines = [line for line in said.split(b"\n")[:-1] if line.strip().isdigit()]
    if lines and typed != len(lines) and len(lines) <= len(keys):
        typed = len(lines)
        os.write(terminal, keys[typed - 1].encode())
sys.stdout.write(said.decode().replace("\r\n", "\n"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
