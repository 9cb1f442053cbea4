"""A WebSocket peer made of a raw socket, for tests that must send what no library sends.

frame() builds any frame, right or wrong. Peer sends bytes and turns what comes back into events:
    ("text", payload)  ("binary", payload)  ("ping", payload)  ("pong", payload)  ("close", code, reason)
    ("end",)      the other side ended TCP cleanly (FIN)
    ("reset",)    TCP was reset
    ("timeout",)  nothing came in time
The other side's own frames are held to the RFC on the way: a breach raises Breach. Side says which side the peer plays:
Peer is a client that dials a server, Accepted a server that a client has dialed.
"""

import base64
import errno
import hashlib
import os
import select
import socket
import struct
import time
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = bytes.fromhex("9a5be107")
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


OWN = object()  # the key that suits the side which the peer plays


class Breach(Exception):
    """The other side sent something that it must not send."""


class Side:
    """Which side the peers of this process play: a client masks what it sends, a server does not (section 5.1)."""

    is_server = False
    connect = None  # makes a connection with what is tested


def own_key():
    return None if Side.is_server else KEY


def wrong_key():
    return KEY if Side.is_server else None


def mask(payload, key):
    """payload XOR the repeated key (RFC 6455 section 5.3)."""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def frame(opcode, payload=b"", fin=True, rsv=0, key=OWN, size=None, form=None):
    """One frame. `size` is the length that the header claims, `form` the bits of the length field (7, 16, 64),
    `key` None sends it unmasked."""
    key = own_key() if key is OWN else key
    size = len(payload) if size is None else size
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    masked = 0 if key is None else 0x80
    length = {
        7: lambda: bytes([masked | size]),
        16: lambda: struct.pack("!BH", masked | 126, size),
        64: lambda: struct.pack("!BQ", masked | 127, size),
    }[form]()
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + (key or b"") + body(payload, key)


def body(payload, key=OWN):
    """The payload as it follows a frame's header."""
    key = own_key() if key is OWN else key
    return payload if key is None else mask(payload, key)


def fragments(opcode, payload, piece):
    """The frames of one message in fragments of `piece` bytes."""
    cuts = range(0, max(len(payload), 1), piece)
    return [
        frame(opcode if at == 0 else CONTINUATION, payload[at : at + piece], fin=at + piece >= len(payload))
        for at in cuts
    ]


def close_frame(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def first_bad_octet(text):
    """Index of the octet at which `text` is known not to be UTF-8 (RFC 3629 section 4); None when it is a valid
    beginning."""
    second = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
    missing, low, high = 0, 0x80, 0xBF
    for at, octet in enumerate(text):
        if missing:
            if not low <= octet <= high:
                return at
            missing, low, high = missing - 1, 0x80, 0xBF
        elif octet >= 0x80:
            if not 0xC2 <= octet <= 0xF4:
                return at
            missing = 1 + (octet >= 0xE0) + (octet >= 0xF0)
            low, high = second.get(octet, (0x80, 0xBF))
    return None


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def upgrade_request(
    host,
    target="/",
    key=b"dGhlIHNhbXBsZSBub25jZQ==",
    method="GET",
    version="HTTP/1.1",
    drop=(),
    add=(),
    **replace,
):
    """A handshake's bytes. `drop` removes fields, `add` appends (name, value) pairs, `replace` changes values
    (underscores stand for hyphens)."""
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Version": "13",
    }
    return head_bytes(f"{method} {target} {version}", fields, drop, add, replace)


def head_bytes(first_line, fields, drop, add, replace):
    fields.update({name.replace("_", "-"): value for name, value in replace.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    lines += [f"{name}: {value}" for name, value in add]
    return "".join(line + "\r\n" for line in [first_line, *lines, ""]).encode("latin-1")


class Head:
    """The first line and the fields of a request or response."""

    def __init__(self, head):
        self.line, *lines = head.decode("latin-1").split("\r\n")
        self.fields = [
            (name.strip().lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines if line)
        ]

    def get(self, name, default=None):
        values = [value for key, value in self.fields if key == name]
        if len(values) > 1:
            raise Breach(f"{name} comes {len(values)} times")
        return values[0] if values else default

    def tokens(self, name):
        """A list's tokens, in lower case."""
        return [token.strip() for token in self.get(name, "").lower().split(",")]


class Response(Head):
    def __init__(self, head):
        super().__init__(head)
        version, status, *_ = self.line.split(" ", 2)
        if version != "HTTP/1.1" or len(status) != 3:
            raise Breach(f"bad status line {self.line!r}")
        self.status = int(status)
        self.body = b""


class Wire:
    """A connected socket, and what comes from the other side as events."""

    patience = 10.0  # seconds to wait for what must come

    def __init__(self, connected):
        self.timeout, self.socket = self.patience, connected
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer, self.at = bytearray(), 0
        self.over = None  # ("end",) or ("reset",) once TCP is over
        self.message = None  # (opcode, bytearray) while the other side fragments
        self.keys = []  # of the frames that came masked

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def head(self):
        """The next HTTP head, without the empty line behind it."""
        deadline = time.monotonic() + self.timeout
        while (end := self.buffer.find(b"\r\n\r\n", self.at)) < 0:
            if not self.fill(deadline):
                raise Breach(
                    f"no HTTP head: {(self.over or ('timeout',))[0]} after {bytes(self.buffer[:80])!r}"
                )
        head = self.take(end - self.at)
        self.take(4)
        return head

    def send(self, data):
        """Sends all, and reads meanwhile, so that an echo under way never blocks both sides. A connection that
        is gone is no error here; the next event tells."""
        view = memoryview(data)
        deadline = time.monotonic() + self.timeout
        while view and time.monotonic() < deadline:
            readable, writable, _ = select.select([] if self.over else [self.socket], [self.socket], [], 1.0)
            if readable:
                self.receive()
            if writable:
                try:
                    view = view[self.socket.send(view[: 1 << 20]) :]
                except BlockingIOError:
                    pass
                except OSError as error:
                    if error.errno not in GONE:
                        raise
                    return

    def receive(self):
        try:
            data = self.socket.recv(1 << 20)
            if data:
                self.buffer += data
            else:
                self.over = ("end",)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in GONE:
                raise
            self.over = ("reset",)

    def fill(self, deadline):
        """Waits for more bytes; False when TCP is over or the time is."""
        if self.over:
            return False
        readable, _, _ = select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))
        if readable:
            self.receive()
        return bool(readable) and self.over is None

    def take(self, size):
        data = bytes(memoryview(self.buffer)[self.at : self.at + size])
        self.at += size
        if self.at > 1 << 20 or self.at == len(self.buffer):
            del self.buffer[: self.at]
            self.at = 0
        return data

    def need(self, size, deadline):
        while len(self.buffer) - self.at < size:
            if not self.fill(deadline):
                return False
        return True

    def event(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            got = self.next_frame(deadline)
            if not isinstance(got[0], int):
                return got
            event = self.accept(*got)
            if event:
                return event

    def next_frame(self, deadline):
        def rest():
            if self.over == ("end",) and len(self.buffer) > self.at:
                raise Breach("TCP ended inside a frame")
            return self.over or ("timeout",)

        if not self.need(2, deadline):
            return rest()
        first, second = self.buffer[self.at], self.buffer[self.at + 1]
        size, extra = second & 0x7F, {126: 2, 127: 8}.get(second & 0x7F, 0)
        if not self.need(2 + extra, deadline):
            return rest()
        if extra:
            size = int.from_bytes(self.buffer[self.at + 2 : self.at + 2 + extra], "big")
            if size < {2: 126, 8: 65536}[extra]:
                raise Breach("length not in its shortest form")
        if second >> 7 != Side.is_server:
            raise Breach("unmasked frame from a client" if Side.is_server else "masked frame from a server")
        key_size = 4 if Side.is_server else 0
        if not self.need(2 + extra + key_size + size, deadline):
            return rest()
        self.take(2 + extra)
        key, payload = self.take(key_size), self.take(size)
        if key:
            self.keys.append(key)
            payload = mask(payload, key)
        return first & 0x0F, first >> 7, first >> 4 & 7, payload

    def accept(self, opcode, fin, rsv, payload):
        if rsv:
            raise Breach(f"RSV bits {rsv}")
        if opcode in (CLOSE, PING, PONG):
            if not fin or len(payload) > 125:
                raise Breach("control frame fragmented or over 125 bytes")
            return self.accept_close(payload) if opcode == CLOSE else (NAMES[opcode], payload)
        if opcode not in (CONTINUATION, TEXT, BINARY) or (opcode == CONTINUATION) != (
            self.message is not None
        ):
            raise Breach(f"opcode {opcode} out of place")
        if opcode != CONTINUATION:
            self.message = (opcode, [])
        self.message[1].append(payload)
        if not fin:
            return None
        (opcode, pieces), self.message = self.message, None
        return NAMES[opcode], b"".join(pieces)

    def accept_close(self, payload):
        if len(payload) == 1:
            raise Breach("close frame with 1 byte")
        payload[2:].decode("utf-8")
        code = int.from_bytes(payload[:2], "big") if payload else None
        if code is not None and not (
            1000 <= code <= 1014 and code not in (1004, 1005, 1006) or 3000 <= code <= 4999
        ):
            raise Breach(f"close code {code} on the wire")
        return "close", code, payload[2:]

    def reset(self):
        """Ends TCP with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in GONE:
                raise

    def expect_report(self, *words):
        """What is tested must tell so of itself, where it can."""

    def finish(self):
        """Called when a script is through."""


class Peer(Wire):
    """A client of the server at a URL."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.host, self.target = parts.netloc, parts.path or "/"
        super().__init__(socket.create_connection((parts.hostname, parts.port or 80), timeout=self.patience))

    def request(self, **changes):
        return upgrade_request(self.host, **{"target": self.target, **changes})

    def open(self, **changes):
        """Shakes hands and checks the answer's every field."""
        key = base64.b64encode(os.urandom(16))
        self.send(self.request(key=key, **changes))
        return self.upgraded(key)

    def upgraded(self, key=b"dGhlIHNhbXBsZSBub25jZQ=="):
        response = self.response()
        if response.status != 101:
            raise Breach(f"status {response.status} instead of 101")
        if response.get("upgrade", "").lower() != "websocket":
            raise Breach("no Upgrade: websocket")
        if "upgrade" not in response.tokens("connection"):
            raise Breach("no Connection: Upgrade")
        if response.get("sec-websocket-accept", "").encode() != accept_key(key):
            raise Breach("wrong Sec-WebSocket-Accept")
        return response

    def response(self):
        """The next HTTP response; its body too, except for a 101."""
        response = Response(self.head())
        deadline = time.monotonic() + self.timeout
        if response.status != 101:
            size = response.get("content-length")
            while len(self.buffer) - self.at < (int(size) if size is not None else 1 << 62):
                if not self.fill(deadline):
                    if size is not None or self.over is None:
                        raise Breach("body cut short")
                    break
            response.body = self.take(int(size) if size is not None else len(self.buffer) - self.at)
        return response


def upgrade_answer(key, status="101 Switching Protocols", version="HTTP/1.1", drop=(), add=(), **replace):
    """The bytes that accept a handshake with that key; changes as for upgrade_request()."""
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_key(key).decode(),
    }
    return head_bytes(f"{version} {status}", fields, drop, add, replace)


class Accepted(Wire):
    """A server whose client has just connected. The request is held to the RFC (section 4.1); `target` is the one that
    the client was told to ask for."""

    def __init__(self, connected, host, target):
        super().__init__(connected)
        self.host, self.target, self.closed_with = host, target, None

    def request(self):
        request = Head(self.head())
        wanted = {"host": self.host, "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
        if request.line != f"GET {self.target} HTTP/1.1":
            raise Breach(f"request line {request.line!r}")
        for name, value in wanted.items():
            if request.get(name) != value:
                raise Breach(f"{name}: {request.get(name)} instead of {value}")
        if len(base64.b64decode(request.get("sec-websocket-key", ""), validate=True)) != 16:
            raise Breach("Sec-WebSocket-Key is not 16 bytes")
        if request.get("sec-websocket-extensions") is not None:
            raise Breach("an extension is offered")
        if self.buffer[self.at :]:
            raise Breach("something comes before the answer")
        self.key = request.get("sec-websocket-key").encode()
        return request

    def answer(self, **changes):
        return upgrade_answer(self.key, **changes)

    def open(self, **changes):
        """Reads the request and accepts it."""
        self.request()
        self.send(self.answer(**changes))

    def accept_close(self, payload):
        event = super().accept_close(payload)
        self.closed_with = event
        return event
