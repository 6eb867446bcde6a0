"""Makes as many orphans as its first argument says, waits until PID 1 has reaped them, and says so in a file."""
import os
import sys
import time

for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)


def dead():
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        found += fields[0] == "Z" and fields[1] == "1"
    return found


until = time.monotonic() + 20
while (left := dead()) and time.monotonic() < until:
    time.sleep(0.01)
with open(sys.argv[2] + ".new", "w") as file:
    file.write(f"{left} left\n")
os.rename(sys.argv[2] + ".new", sys.argv[2])
