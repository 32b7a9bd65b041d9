"""Many streams read by one thread that does nothing else: what came is only counted while streams run, and looked at
when all have ended. A thread for each would measure the interpreter. Standard library only; talks to 127.0.0.1."""

import json
import selectors
import socket
import time

TOKEN = b'"type":"token"'


class Answer:
    """One stream of /execute."""

    def __init__(self, address, job):
        host, port = address.split(":")
        body = json.dumps(job).encode()
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"POST /execute HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
                            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (address.encode(), len(body), body))
        self.pieces, self.tail, self.tokens, self.times = [], b"", 0, []

    def read(self):
        """Takes what is there; false at the end."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            self.socket.close()
            return False
        # Also one that is in two pieces, and none twice.
        text = self.tail + piece
        new = text.count(TOKEN)
        self.tail = text[-(len(TOKEN) - 1):]
        if new:
            self.tokens += new
            self.times.append((time.perf_counter(), self.tokens))
        self.pieces.append(piece)
        return True

    def events(self):
        """The data of all events, as bytes."""
        head, _, rest = b"".join(self.pieces).partition(b"\r\n\r\n")
        status = head.split(b"\r\n")[0].split()
        if len(status) < 2 or status[1] != b"200":
            raise SystemExit(f"error: the service answered {head!r} {rest[:300]!r}")
        body = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            size = int(size, 16)
            if size == 0:
                break
            body.append(rest[:size])
            rest = rest[size + 2:]
        lines = b"".join(body).split(b"\n")
        return [line[6:] for line in lines if line.startswith(b"data: ")]


def swarm(address, jobs, at=None, trigger=None):
    """Runs all jobs at once; calls `trigger` when each has `at` tokens. The answers, in the jobs' order."""
    answers = [Answer(address, job) for job in jobs]
    waiting = set(range(len(answers))) if trigger else set()
    with selectors.DefaultSelector() as selector:
        for number, answer in enumerate(answers):
            selector.register(answer.socket, selectors.EVENT_READ, number)
        left = len(answers)
        while left:
            for key, _ in selector.select():
                answer = answers[key.data]
                if not answer.read():
                    selector.unregister(key.fileobj)
                    left -= 1
                if key.data in waiting and answer.tokens >= at:
                    waiting.discard(key.data)
                    if not waiting:
                        trigger()
    return answers
