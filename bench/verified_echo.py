"""The conversations that every server has to pass before it is measured: `verify(port)` and `verify_broadcast(port)` raise
Failure at the first wrong byte.
"""

import base64
import hashlib
import random
import socket
import struct
import time


class Failure(Exception):
    pass


class Client:
    """A blocking WebSocket client that checks every byte it gets."""

    def __init__(self, port, path="/"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(random.randbytes(16))
        request = (
            b"GET " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        for part in (request[:30], request[30:]):
            self.socket.sendall(part)
            time.sleep(0.01)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        check(head.startswith(b"HTTP/1.1 101 ") and accept in head, "handshake", head)

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            chunk = self.socket.recv(min(count - len(data), 1 << 20))
            if not chunk:
                raise Failure(f"the connection ended {count - len(data)} bytes early")
            data += chunk
        return bytes(data)

    def frame(self, opcode, payload):
        mask = random.randbytes(4)
        size = len(payload)
        length = (
            struct.pack("!B", 128 | size)
            if size < 126
            else struct.pack("!BH", 128 | 126, size)
            if size < 65536
            else struct.pack("!BQ", 128 | 127, size)
        )
        pad = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
        return bytes([128 | opcode]) + length + mask + masked

    def send(self, data, cut=0):
        """Sends `data`; with a cut, in two parts that the server most likely receives one by one."""
        if cut:
            self.socket.sendall(data[:cut])
            time.sleep(0.01)
        self.socket.sendall(data[cut:])

    def expect(self, opcode, payload, what):
        first, second = self._exactly(2)
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif second == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        check(first == 128 | opcode and size == len(payload), what, f"header {first:#x}, {size} bytes")
        check(self._exactly(size) == payload, what, "other bytes than were sent")

    def expect_end(self, what):
        check(self.socket.recv(1) == b"", what, "bytes behind the close frame")
        self.socket.close()


def check(condition, what, got):
    if not condition:
        raise Failure(f"{what}: {got}")


def verify(port, deviations=()):
    """The same conversation with every server, without what it is known to do differently."""
    empty = "empty messages" not in deviations
    client = Client(port)
    for size in (0, 1, 125, 126, 127, 4096, 65535, 65536, 300_000, 1 << 20, 5 << 20):
        if size == 0 and not empty:
            continue
        text = "".join(random.choices("levada äß€ 😀", k=size))[:size].encode()[:size]
        text = text.decode(errors="ignore").encode().ljust(size, b".")
        for opcode, payload in ((1, text), (2, random.randbytes(size))):
            what = f"{'text' if opcode == 1 else 'binary'} of {size} bytes"
            frame = client.frame(opcode, payload)
            for cut in (0, 1, min(5, len(frame) - 1), len(frame) // 2, len(frame) - 1):
                client.send(frame, cut)
                client.expect(opcode, payload, f"{what}, cut at {cut}")
    for size in (0, 125):
        client.send(client.frame(9, b"p" * size))
        client.expect(10, b"p" * size, f"ping of {size} bytes")
    client.send(client.frame(10, b"unasked"))
    verify_pipelined(client, empty)
    close = struct.pack("!H", 1000)  # without a reason: an answer need not repeat one
    client.send(client.frame(8, close))
    client.expect(8, close, "close")
    client.expect_end("close")


def verify_pipelined(client, empty):
    """Frames of mixed sizes in one stream; the cut falls somewhere in it."""
    for sizes in ([16] * 16, [0, 1, 200, 7] * 20, [10, 70_000, 16, 100_000, 300_000, 3], [40_000] * 3):
        payloads = [random.randbytes(size) for size in sizes if size or empty]
        stream = b"".join(client.frame(2, payload) for payload in payloads)
        for cut in (0, len(stream) // 3, len(stream) - 5):
            client.send(stream, cut)
            for payload in payloads:
                client.expect(2, payload, f"pipelined frames {sizes[:6]}, cut at {cut}")


def verify_broadcast(port):
    """What one of /broadcast sends, all of that path get, the sender included, byte by byte and in order."""
    clients = []
    for _ in range(3):  # one that has its own message back has joined
        clients.append(Client(port, "/broadcast"))
        publish(clients, clients[-1], 2, b"joined")
    for size in (1, 125, 126, 512, 4096, 40_000):
        for sender in clients:
            publish(clients, sender, 1, ("ä" * size).encode()[: 2 * (size // 2)] or b"a")
            publish(clients, sender, 2, random.randbytes(size))
    clients.pop().socket.close()
    publish(clients, clients[0], 2, b"two are left")


def publish(clients, sender, opcode, payload):
    sender.send(sender.frame(opcode, payload))
    for number, client in enumerate(clients):
        client.expect(opcode, payload, f"broadcast of {len(payload)} bytes, at member {number}")
