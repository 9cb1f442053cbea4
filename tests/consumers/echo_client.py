"""echo_client.py PORT PROCESS: connects to ws://127.0.0.1:PORT/, where PROCESS serves or is about to, sends one masked
text frame, and expects the same bytes back."""
import os
import select
import socket
import sys


def connect(port, process):
    """The server was started a moment ago, and prints nothing: tried again until it listens or has ended."""
    server = os.pidfd_open(process)
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            ended, _, _ = select.select([server], [], [], 0.02)
            if ended:
                raise


def main():
    stream = connect(int(sys.argv[1]), int(sys.argv[2]))
    stream.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    reader = stream.makefile("rb")
    head = b"".join(iter(reader.readline, b"\r\n"))
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head  # the answer RFC 6455 1.3 works out for this key

    text = b"narrow, level, fast"
    key = bytes([1, 2, 3, 4])
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(text))
    stream.sendall(bytes([0x81, 0x80 | len(text)]) + key + masked)
    answer = reader.read(2 + len(text))
    assert answer == bytes([0x81, len(text)]) + text, answer
    print("echoed:", text.decode())


main()
