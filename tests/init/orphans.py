"""Makes as many orphans as its argument says, and waits until its parent has none but itself."""
import os
import sys
import time

count = int(sys.argv[1])
parent = os.getppid()
for _ in range(count):
    if os.fork() == 0:
        # The orphan: its parent ends before it does.
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os._exit(0)
    os.wait()


def below(pid):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and int(name) != os.getpid():
            found.append(name)
    return found


# Those of init: nothing else of this process is left, as it has waited for what it made.
until = time.monotonic() + 20
while (left := below(parent)) and time.monotonic() < until:
    time.sleep(0.01)
print(len(left), "left", flush=True)
sys.exit(1 if left else 0)
