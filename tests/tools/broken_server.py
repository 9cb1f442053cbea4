"""A WebSocket server on a raw socket that does one thing wrong, for the tests of what must notice.

    with BrokenServer("corrupt") as server: ... server.url ...

What it can do wrong is a method of Faults, given each message and answering with what is to be sent.
"""

import re
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interop"))
from peer import BINARY, CLOSE, PING, PONG, TEXT, accept_key, frame, mask  # noqa: E402

EVERY = 10  # each tenth message is the wrong one


class Ended(Exception):
    """The connection is over."""


class Faults:
    """One connection's faults: each method takes (number, payload) and returns the messages to send."""

    def __init__(self, server, stream):
        self.server = server
        self.stream = stream
        self.held = []

    def none(self, number, payload):
        return [payload]

    def corrupt(self, number, payload):
        return [payload[:-1] + b"!" if number % EVERY == 0 else payload]

    def cut(self, number, payload):
        return [payload[:-1] if number % EVERY == 0 else payload]

    def drop(self, number, payload):
        return [] if number % EVERY == 0 else [payload]

    def duplicate(self, number, payload):
        return [payload] * (2 if number % EVERY == 0 else 1)

    def swap(self, number, payload):
        if number % EVERY == 0:
            self.held = [payload]
            return []
        held, self.held = self.held, []
        return [payload] + held

    def cross_talk(self, number, payload):
        """Answers with what another connection has sent last."""
        others = [last for faults, last in self.server.last.items() if faults is not self]
        self.server.last[self] = payload
        return [others[0] if number % EVERY == 0 and others else payload]

    def swap_owners(self, number, payload):
        """Exchanges the answers of two connections, once in 10 000 messages of all."""
        with self.server.lock:
            self.server.total += 1
            waiting, self.server.waiting = self.server.waiting, None
            if waiting:
                stream, other = waiting
                stream.sendall(frame(BINARY, payload, key=None))
                return [other]
            if self.server.total % 10_000 == 0:
                self.server.waiting = (self.stream, payload)
                return []
            return [payload]

    def broadcast(self, number, payload):
        for stream in self.server.sockets:
            stream.sendall(frame(BINARY, payload, key=None))
        return []

    def broadcast_to_some(self, number, payload):
        """One listener does not hear each tenth."""
        deaf = max(stream.fileno() for stream in self.server.sockets if stream is not self.stream)
        for stream in self.server.sockets:
            if number % EVERY or stream.fileno() != deaf:
                stream.sendall(frame(BINARY, payload, key=None))
        return []

    def as_text(self, number, payload):
        return [(TEXT, payload)] if number % EVERY == 0 else [payload]

    def pings(self, number, payload):
        return [(PING, b"number %d" % number), payload]

    def silence(self, number, payload):
        return []

    def close_later(self, number, payload):
        return [payload] if number < EVERY else [(CLOSE, struct.pack("!H", 1011) + b"out of order")]

    def vanish_later(self, number, payload):
        if number == EVERY:
            raise Ended
        return [payload]


# What is sent in place of the 101, or done in place of sending it.
REFUSALS = {
    "not_found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "plain_page": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "garbage": b"220 mail.example.com ESMTP\r\n\r\n",
    "wrong_key": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "end_at_once": b"",
}


class BrokenServer:
    def __init__(self, fault="none"):
        self.fault = fault
        self.last = {}
        self.lock = threading.Lock()
        self.total = 0
        self.waiting = None
        self.heads = []
        self.peers = []
        self.accepted_at = []
        self.pongs = []
        self.first_message = threading.Event()
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for stream in self.sockets:
            stream.close()

    def accept(self):
        while True:
            try:
                stream, peer = self.listener.accept()
            except OSError:
                return
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(stream)
            self.peers.append(peer)
            self.accepted_at.append(time.monotonic())
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        reader = stream.makefile("rb")
        try:
            self.shake_hands(stream, reader)
            self.echo(stream, reader)
        except (OSError, ValueError, Ended):
            pass
        finally:
            reader.close()
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            stream.close()

    def shake_hands(self, stream, reader):
        head = b"".join(iter(reader.readline, b"\r\n"))
        self.heads.append(head)
        if self.fault == "no_answer":
            reader.read()
            raise Ended
        if self.fault in REFUSALS:
            stream.sendall(REFUSALS[self.fault])
            raise Ended
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)[1]
        stream.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n"
        )
        if self.fault == "vanish":
            raise Ended

    def echo(self, stream, reader):
        fault = getattr(Faults(self, stream), self.fault)
        number = 0
        while True:
            opcode, payload = read_frame(reader)
            if opcode == CLOSE:
                stream.sendall(frame(CLOSE, payload, key=None))
                raise Ended
            if opcode == PONG:
                self.pongs.append(payload)
                continue
            self.first_message.set()
            number += 1
            for message in fault(number, payload):
                opcode, payload = message if isinstance(message, tuple) else (BINARY, message)
                stream.sendall(frame(opcode, payload, key=None))


class LossyRelay(BrokenServer):
    """Stands between a client and a server, and loses one message of the server's in each 1000, or all its pongs."""

    def __init__(self, port, pongs=False):
        super().__init__()
        self.port = port
        self.pongs = pongs
        self.lost = 0

    def serve(self, stream):
        upstream = socket.create_connection(("127.0.0.1", self.port))
        threading.Thread(target=self.forward, args=(stream, upstream), daemon=True).start()
        reader = upstream.makefile("rb")
        try:
            stream.sendall(b"".join(iter(reader.readline, b"\r\n")) + b"\r\n")
            while True:
                head = read(reader, 2)
                assert head[1] < 126, "only short messages"
                payload = read(reader, head[1])
                with self.lock:
                    self.total += head[0] & 0x0F == BINARY
                    thousandth = head[0] & 0x0F == BINARY and self.total % 1000 == 0
                    loses = head[0] & 0x0F == PONG if self.pongs else thousandth
                    self.lost += loses
                if not loses:
                    stream.sendall(head + payload)
        except (OSError, ValueError, Ended):
            pass
        finally:
            stream.close()

    def forward(self, stream, upstream):
        try:
            while data := stream.recv(65536):
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def read(reader, size):
    data = reader.read(size)
    if len(data) < size:
        raise Ended
    return data


def read_frame(reader):
    """One whole frame of a client, which masks it: (opcode, payload)."""
    first, second = read(reader, 2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack("!H", read(reader, 2))[0]
    elif size == 127:
        size = struct.unpack("!Q", read(reader, 8))[0]
    key = read(reader, 4)
    return first & 0x0F, mask(read(reader, size), key)
