#!/usr/bin/env python3
"""A strict peer: tests the WebSocket echo server at a URL through raw sockets, black box.

    conformance.py URL [--only REGEX] [--fast] [--list] [--timeout SECONDS] [--verbose]

vectors.py has the cases that hold for a client, too; here is what concerns servers. cases.py says how to read a case.
The server's default limits must let 16 MiB and 131072 fragments through.
"""
import argparse
import re
import sys
import time

from cases import (BYE, MIB, add_options, case, choose, chop, end, end_or_reset, eof, expect, fails, payload_of, quiet,
                   refuse, run_all, run_script, run_step)
from peer import BINARY, CONTINUATION, PING, TEXT, Peer, Side, close_frame, frame
from vectors import BOTH_SIDES


# --- the opening handshake -------------------------------------------------------------------------------------


def handshake_case(number, name, check=lambda response: None, pieces=lambda request: [request], **changes):
    def run(url):
        with Peer(url) as peer:
            for piece in pieces(peer.request(**changes)):
                peer.send(piece)
            check(peer.upgraded())
            for step in (frame(TEXT, b"hello"), ("text", b"hello"), *BYE):
                run_step(peer, step)
    case(number, name, run, ready=False)


def no_extension(response):
    if response.get("sec-websocket-extensions") is not None:
        refuse("accepted an extension that nobody knows")


def protocol_was_offered(response):
    if response.get("sec-websocket-protocol") not in (None, "chat", "superchat"):
        refuse("chose a subprotocol that was not offered")


def no_protocol(response):
    if response.get("sec-websocket-protocol") is not None:
        refuse("chose a subprotocol when none was offered")


def handshakes():
    octets = lambda request: [request[i:i + 1] for i in range(len(request))]
    handshake_case("20.1", "plain handshake", no_protocol)
    handshake_case("20.2", "octet by octet", pieces=octets)
    handshake_case("20.3", "field names in lower case",
                   pieces=lambda request: [re.sub(rb"(?m)^([\w-]+):", lambda m: m[0].lower(), request)])
    handshake_case("20.4", "field names in upper case",
                   pieces=lambda request: [re.sub(rb"(?m)^([\w-]+):", lambda m: m[0].upper(), request)])
    handshake_case("20.5", "Upgrade in mixed case", Upgrade="WebSocket")
    handshake_case("20.6", "Connection with other tokens", Connection="keep-alive, Upgrade")
    handshake_case("20.7", "Connection in lower case, last of a list", Connection="foo ,,\tupgrade ")
    handshake_case("20.8", "Connection in two fields", add=[("Connection", "keep-alive")])
    handshake_case("20.9", "Upgrade with other tokens", Upgrade="h2c, websocket")
    handshake_case("20.10", "no space after the colon", pieces=lambda request: [request.replace(b": ", b":")])
    handshake_case("20.11", "white space around values",
                   pieces=lambda request: [re.sub(rb": ([^\r]*)\r", rb": \t \1 \t \r", request)])
    handshake_case("20.12", "query in the target", target="/?token=a%20b&c=d")
    handshake_case("20.22", "a query as browsers leave it", target="/?a[]=1|2&b={c}^`%")
    for i, host in enumerate(("a", "a:", "[::1]", "[::1]:80", "[v1.x:y]", "a%41", "a_b", "a,b"), 23):
        handshake_case(f"20.{i}", f"Host: {host}", Host=host)
    handshake_case("20.31", "absolute form and an empty Host", target="http://a/", Host="")
    handshake_case("20.32", "two empty lines in front", pieces=lambda request: [b"\r\n\r\n" + request])
    handshake_case("20.33", "subprotocols in two fields", protocol_was_offered,
                   add=[("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "superchat")])
    handshake_case("20.13", "unknown extension", no_extension, add=[
                   ("Sec-WebSocket-Extensions", "x-none; a=1, y-none")])
    handshake_case("20.14", "subprotocols", protocol_was_offered, add=[("Sec-WebSocket-Protocol", "chat, superchat")])
    handshake_case("20.15", "a browser's fields", Origin="http://127.0.0.1",
                   User_Agent="Mozilla/5.0", Accept_Encoding="gzip, deflate, br", Cookie="a=b; c=d", Pragma="no-cache")
    handshake_case("20.16", "a cookie of 7000 bytes", Cookie="a" * 7000)
    handshake_case("20.17", "50 more fields", add=[(f"X-Field-{i}", "value") for i in range(50)])
    handshake_case("20.18", "an empty field", X_Empty="")
    handshake_case("20.19", "octets above 127 in a field", X_Name="\xe9\xe8")
    case("20.20", "cut in two at every octet", cut_handshakes, ready=False)
    case("20.21", "100 connections shake hands at the same time", concurrent_handshakes, ready=False)


def cut_handshakes(url):
    with Peer(url) as peer:
        size = len(peer.request())
    for at in range(1, size):
        with Peer(url) as peer:
            request = peer.request()
            peer.send(request[:at])
            peer.send(request[at:])
            peer.upgraded()


def concurrent_handshakes(url):
    peers = [Peer(url) for _ in range(100)]
    for peer in peers:
        peer.send(peer.request() + frame(TEXT, b"hi"))
    for peer in reversed(peers):
        with peer:
            peer.upgraded()
            expect(peer, ("text", b"hi"))


def refused(number, name, status, request=None, check=lambda response: None, **changes):
    """The request is answered with this status (or one of these) and never upgraded."""
    wanted = status if isinstance(status, tuple) else (status,)

    def run(url):
        with Peer(url) as peer:
            peer.send(request or peer.request(**changes))
            response = peer.response()
            if response.status not in wanted:
                refuse(f"status {response.status} instead of {' or '.join(map(str, wanted))}")
            check(response)
            if response.get("connection", "").lower() == "close":
                end_or_reset(peer)
    case(number, f"{name}: {status}", run, ready=False)


def names_version_13(response):
    if "13" not in (response.get("sec-websocket-version") or "").replace(" ", "").split(","):
        refuse("no Sec-WebSocket-Version: 13 in the answer")


def refusals():
    plain = (404, 426)
    refused("21.1", "POST instead of GET", 405, method="POST")
    case("21.2", "HEAD instead of GET: 405, without content", refused_head, ready=False)
    refused("21.3", "method in lower case", 405, method="get")
    refused("21.4", "HTTP/1.0, which has no upgrades", (200, *plain), version="HTTP/1.0")
    refused("21.5", "HTTP/2.0", 505, version="HTTP/2.0")
    refused("21.6", "HTTP/0.9 request line", 400, request=b"GET /\r\n\r\n")
    refused("21.7", "no Host", 400, drop=["Host"])
    refused("21.8", "two Hosts", 400, add=[("Host", "other")])
    refused("21.9", "no Upgrade, no Connection, no key, unknown path", plain, target="/no/such/path",
            drop=["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    refused("21.10", "Upgrade without the token websocket", (400, *plain), target="/no/such/path", Upgrade="h2c")
    refused("21.11", "Upgrade: websockets", (400, *plain), target="/no/such/path", Upgrade="websockets")
    refused("21.12", "no Connection", 400, drop=["Connection"])
    refused("21.13", "Connection without the token upgrade", 400, Connection="keep-alive")
    refused("21.14", "no key", 400, drop=["Sec-WebSocket-Key"])
    refused("21.15", "empty key", 400, Sec_WebSocket_Key="")
    refused("21.16", "key of 15 bytes", 400, key=b"AAECAwQFBgcICQoLDA0O")
    refused("21.17", "key of 17 bytes", 400, key=b"AAECAwQFBgcICQoLDA0ODxA=")
    refused("21.18", "key that is not base64", 400, key=b"!!!!!!!!!!!!!!!!!!!!!!==")
    refused("21.19", "two keys", 400, add=[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")])
    refused("21.20", "no version", (400, 426), drop=["Sec-WebSocket-Version"])
    for i, version in enumerate(("0", "8", "12", "14", "013", "13.0", "255", "x"), 21):
        refused(f"21.{i}", f"version {version}", 426, check=names_version_13, Sec_WebSocket_Version=version)
    refused("21.29", "two versions", (400, 426), add=[("Sec-WebSocket-Version", "8")])
    upgrade = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" \
              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    broken = (("space before the colon", upgrade.replace("Upgrade:", "Upgrade :", 1)),
              ("folded line", upgrade.replace("Connection: ", "Connection:\r\n ")),
              ("field without a colon", upgrade + "nonsense\r\n"),
              ("field without a name", upgrade + ": value\r\n"),
              ("line ends of LF alone", upgrade.replace("\r\n", "\n")),
              ("NUL in a value", upgrade + "X: a\0b\r\n"),
              ("CR in a value", upgrade + "X: a\rb\r\n"),
              ("space in a name", upgrade + "X Y: a\r\n"),
              ("white space before the first field", " " + upgrade))
    for i, (name, fields) in enumerate(broken, 30):
        refused(f"21.{i}", name, 400, request=f"GET / HTTP/1.1\r\n{fields}\r\n".encode())
    lines = (("two spaces in the request line", b"GET  / HTTP/1.1"), ("no target", b"GET HTTP/1.1"),
             ("control byte in the target", b"GET /\x01 HTTP/1.1"), ("space in the target", b"GET /a b HTTP/1.1"),
             ("lower-case version", b"GET / http/1.1"), ("version without a minor", b"GET / HTTP/1"),
             ("garbage", b"\x00\x01\x02\x03\xff\xfe"), ("a TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
             ("a WebSocket frame", frame(TEXT, b"hello")))
    for i, (name, line) in enumerate(lines, 40):
        refused(f"21.{i}", f"{name} instead of a request line", 400,
                request=line + b"\r\n" + upgrade.encode() + b"\r\n")
    refused("21.50", "preface of HTTP/2", 505, request=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    refused("21.51", "200 fields", 431, add=[(f"X-{i}", "v") for i in range(200)])
    refused("21.52", "field of 64 KiB", 431, X_Long="a" * 65536)
    hosts = ("a:b", "a:80:80", "a:80a", "a:-1", "::1", "[::1", "::1]", "[::1]80", "[::1]:x", "[]", "[zz]", "[::1]]", "a[b]",
             "a%zz", "a%", "a%4", ":80", "a b", "a/b", "u@a", "")
    for i, host in enumerate(hosts, 1):
        refused(f"21.60.{i}", f"Host: {host}", 400, Host=host)
        if host and "/" not in host:
            refused(f"21.61.{i}", f"{host} in a target", 400, target=f"http://{host}/")
    for i, value in enumerate(("", ",", "a b", '"chat"', "a;b", "a/b", "a@b", "\xe9", "chat, chat"), 1):
        refused(f"21.62.{i}", f"subprotocols {value!r}", 400, add=[("Sec-WebSocket-Protocol", value)])
    for i, value in enumerate(("", ",", "x;", "x; =b", "x; a=", 'x; a="b c"', "x a", '"x"', ";a", "x,;y"), 1):
        refused(f"21.63.{i}", f"extensions {value!r}", 400, add=[("Sec-WebSocket-Extensions", value)])
    for i, value in enumerate(("", "gzip", "identity", "chunked, gzip", "chunked, chunked"), 1):
        refused(f"21.64.{i}", f"transfer codings {value!r}", (400, 501), method="POST", drop=["Upgrade"],
                add=[("Transfer-Encoding", value)])
    for i, target in enumerate(("/%", "/%4", "/%zz", '/a"b', "/<a>", "/a\\b", "/a^b", "/a`b", "/{a}", "/a|b", "/[a]"), 1):
        refused(f"21.65.{i}", f"target {target}", (301, 400), target=target)
    refused("21.66", "CONNECT", (400, 405, 501), request=b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")
    case("21.53", "endless field value: 431", lambda url: endless(url, b"X: ", b"a" * 1000, 431), ready=False)
    case("21.54", "endless fields: 431", lambda url: endless(url, b"", b"X: yz\r\n" * 100, 431), ready=False)
    case("21.55", "endless target: 414", lambda url: endless(url, None, b"/abc" * 200, 414), ready=False)
    case("21.56", "endless octets without a line end: 400 or 501",
         lambda url: endless(url, None, b"", (400, 501)), ready=False)
    case("21.57", "a refused request does not let the next one in", refused_then_good, ready=False)


def endless(url, start, more, status):
    """Sends up to 4 MiB of a request that never ends; the server must answer long before."""
    wanted = status if isinstance(status, tuple) else (status,)
    with Peer(url) as peer:
        peer.send(b"GET /" if more and start is None else b"A" * 64 if start is None else
                  b"GET / HTTP/1.1\r\nHost: a\r\n" + start)
        for _ in range(4 * MIB // 1000):
            if peer.over or len(peer.buffer):
                break
            peer.send(more or b"A" * 1000)
        response = peer.response()
        if response.status not in wanted:
            refuse(f"status {response.status} instead of {status}")
        end_or_reset(peer)


def refused_then_good(url):
    with Peer(url) as peer:
        peer.send(peer.request(key=b"bad") + peer.request())
        status = peer.response().status
        if status != 400:
            refuse(f"status {status} instead of 400")
        end_or_reset(peer)


def refused_head(url):
    with Peer(url) as peer:
        peer.send(peer.request(method="HEAD"))
        deadline = time.monotonic() + Peer.patience
        while peer.fill(deadline):
            pass
        head, _, content = bytes(peer.buffer).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 405 ") or content:
            refuse(f"{head[:20]} and {len(content)} octets of content")


def get(url, target, statuses, kind=None):
    with Peer(url) as peer:
        peer.send(f"GET {target} HTTP/1.1\r\nHost: {peer.host}\r\n\r\n".encode())
        response = peer.response()
        if response.status not in statuses:
            refuse(f"status {response.status}")
        if not re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", response.get("date") or ""):
            refuse(f"Date: {response.get('date')}")
        if kind and not (response.get("content-type") or "").startswith(kind):
            refuse(f"content type {response.get('content-type')}")
        if kind and not response.body:
            refuse("empty body")


def plain_http():
    case("27.1", "GET /healthz: 200", lambda url: get(url, "/healthz", (200,)), ready=False)
    case("27.2", "GET /: 200 and a page", lambda url: get(url, "/", (200,), "text/html"), ready=False)
    case("27.3", "GET /no/such/path: 404 or 426", lambda url: get(url, "/no/such/path", (404, 426)), ready=False)
    case("27.4", "GET /healthz?x=1: 200", lambda url: get(url, "/healthz?x=1", (200,)), ready=False)


# --- what no suite checks --------------------------------------------------------------------------------------


def masks():
    """A client chooses the keys, so they concern servers only."""
    keys = [bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", b"\x80\x00\x00\x00", b"\x01\x02\x03\x04"]
    data = payload_of(BINARY, 1001)
    case("22.4.1", "mask keys of all kinds", [b"".join(frame(BINARY, data, key=key) for key in keys), *([("binary", data)] * 5),
                                               *BYE])
    case("22.4.2", "every fragment has a key of its own",
         [b"".join(frame(BINARY if at == 0 else CONTINUATION, data[at:at + 7], fin=at + 7 >= 1001, key=keys[at % 5])
                   for at in range(0, 1001, 7)), ("binary", data), *BYE])
    case("22.4.3", "bad UTF-8 that the mask hides", [frame(TEXT, b"\xff\xfe", key=b"\x9e\x9f\x00\x00"), *fails(1007)])
    case("22.4.4", "good UTF-8 that looks bad under the mask",
         [frame(TEXT, b"abcd", key=b"\xff" * 4), ("text", b"abcd"), *BYE])


def glue():
    hello, answer = frame(TEXT, b"hello"), ("text", b"hello")
    big = payload_of(BINARY, MIB)
    glued = (("a text", [hello], [answer, *BYE]), ("three texts", [hello * 3], [answer] * 3 + BYE),
             ("half a header", [hello[:1], hello[1:]], [answer, *BYE]),
             ("half a mask key", [hello[:4], hello[4:]], [answer, *BYE]),
             ("half a payload", [hello[:8], hello[8:]], [answer, *BYE]),
             ("a ping and the first half of a text", [frame(PING, b"p") + hello[:7], hello[7:]],
              [("pong", b"p"), answer, *BYE]),
             ("a binary of 1 MiB", [frame(BINARY, big)], [("binary", big), *BYE]),
             ("a close", [close_frame(1000)], [("close", 1000), end]),
             ("an unmasked frame", [frame(TEXT, b"a", key=None)], fails(1002)),
             ("bad UTF-8", [frame(TEXT, b"\xff")], fails(1007)),
             ("200 texts", [hello * 200], [answer] * 200 + BYE))
    for i, (name, pieces, events) in enumerate(glued, 1):
        script = [lambda peer, first=pieces[0]: peer.send(peer.request() + first), lambda peer: peer.upgraded(),
                  *pieces[1:], *events]
        case(f"23.1.{i}", f"{name} glued to the handshake", script, shake_hands=False)
    case("23.1.20", "handshake and frames all octet by octet",
         [lambda peer: chop(peer.request() + hello + frame(PING, b"p"), 1)(peer), lambda peer: peer.upgraded(), answer,
          ("pong", b"p"), *BYE], shake_hands=False)
    half = lambda peer: peer.send(peer.request()[:60])
    case("23.2.1", "connect and end", [eof, end], shake_hands=False)
    case("23.2.2", "half a handshake, then the end", [half, eof, half_handshake_ends], shake_hands=False)
    case("23.2.3", "a handshake without its last octet is not answered",
         [lambda peer: peer.send(peer.request()[:-1]), quiet, b"\n", lambda peer: peer.upgraded(), *BYE], shake_hands=False)
    case("23.2.4", "50 half handshakes stay open while others are served", half_handshakes, ready=False)


def half_handshake_ends(peer):
    """An error answer is welcome, none is fine; the end must come."""
    deadline = time.monotonic() + 5
    while peer.fill(deadline):
        pass
    if not peer.over:
        refuse("the server keeps the connection")
    if peer.buffer and peer.response().status != 400:
        refuse("an answer other than 400")


def half_handshakes(url):
    halves = [Peer(url) for _ in range(50)]
    for i, peer in enumerate(halves):
        peer.send(peer.request()[:3 * i])
    run_script(url, [frame(TEXT, b"served"), ("text", b"served"), *BYE])
    for i, peer in enumerate(halves):
        with peer:
            peer.send(peer.request()[3 * i:])
            peer.upgraded()


def handshake_resets():
    case("25.1", "RST before the handshake", [Peer.reset], shake_hands=False)
    for i, at in enumerate((1, 20, 60, 100, 150), 30):
        case(f"25.{i}", f"RST after {at} octets of the handshake",
             [lambda peer, at=at: peer.send(peer.request()[:at]), Peer.reset], shake_hands=False)
    case("25.40", "RST right after the request", [lambda peer: peer.send(peer.request()), Peer.reset], shake_hands=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    add_options(parser)
    options = parser.parse_args()
    Side.connect, Peer.patience = Peer, options.timeout
    chosen = choose(options, (*BOTH_SIDES, handshakes, refusals, masks, glue, handshake_resets, plain_http))
    if options.list:
        return 0
    if not options.url:
        parser.error("a URL is needed")
    return run_all(options, chosen, options.url)


if __name__ == "__main__":
    sys.exit(main())
