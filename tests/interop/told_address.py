#!/usr/bin/env python3
"""Checks that a server behind proxies is told who its client is: told_address.py CA.pem URL...

Each URL is a proxy in front of told_server, which sends the address it was told. The client comes from 127.0.0.7 and a
port that the kernel chose. Prints "ok NAME" or "FAILED NAME WHY", and "N passed, N failed" at the end.
"""

import socket
import ssl
import sys
from urllib.parse import urlsplit

from peer import upgrade_request

SOURCE = "127.0.0.7"


def told(url, ca):
    """What the server was told, and what is true."""
    with socket.create_connection(("127.0.0.1", url.port), timeout=20, source_address=(SOURCE, 0)) as connection:
        truth = "%s:%d" % connection.getsockname()
        if url.scheme == "wss":
            connection = ssl.create_default_context(cafile=ca).wrap_socket(connection, server_hostname=url.hostname)
        connection.sendall(upgrade_request(url.netloc))
        received = b""
        while b"\r\n\r\n" not in received or len(received.split(b"\r\n\r\n", 1)[1]) < 2 + len(truth):
            piece = connection.recv(4096)
            if not piece:
                break
            received += piece
        return received.partition(b"\r\n\r\n")[2][2:].decode("latin-1"), truth


def main():
    ca, *urls = sys.argv[1:]
    failed = 0
    for url in map(urlsplit, urls):
        got, wanted = told(url, ca)
        failed += got != wanted
        print(f"ok {url.scheme}: {got}" if got == wanted else f"FAILED {url.scheme}: told {got!r}, is {wanted}")
    print(f"{len(urls) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
