"""Says hello over HTTP, and which process says it.

The listening sockets come from the supervisor (LISTEN_FDS, see sd_listen_fds(3)): this program binds nothing, so it
needs no rights, and clients that come while it restarts wait instead of being refused. SIGTERM ends it after the
requests that it has begun. Needs nothing but Python 3.9.
"""

import http.server
import os
import signal
import socket
import sys
import threading

FIRST_FD = 3
ENDING = {signal.SIGTERM, signal.SIGINT}
GREETING = os.environ.get("GREETING", "hello")


def passed_sockets():
    """The sockets meant for this very process; none where LISTEN_PID names another one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + count)]


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/":
            self.send_error(404)
            return
        line = "%s from pid %d, uid %d, generation %s\n" % (
            GREETING, os.getpid(), os.getuid(), os.environ.get("SUPERVISE_GENERATION", "?"))
        body = line.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        # A client of a Unix socket has no address.
        return self.client_address[0] if self.client_address else "unix"

    def log_message(self, format, *args):
        print(self.address_string(), format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # the end waits for requests that have begun

    def __init__(self, listener):
        super().__init__(("", 0), Hello, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        # Another generation may take the connection between poll and accept.
        listener.setblocking(False)


def main():
    listeners = passed_sockets()
    if not listeners:
        sys.exit("hello: no sockets were passed: start it with supervise, or `units/hello/try`")
    if not GREETING:
        sys.exit("hello: GREETING is empty: there is nothing to say")
    # Blocked before the threads begin, so that the signal waits for sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    servers = [Server(listener) for listener in listeners]
    for server in servers:
        threading.Thread(target=server.serve_forever).start()
    print("ready: %d sockets" % len(servers), flush=True)
    signal.sigwait(ENDING)
    for server in servers:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
