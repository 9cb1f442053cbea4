#!/usr/bin/env python3
"""A strict server: tests the WebSocket client that driven_client.cc makes, through raw sockets, black box.

    conformance_client.py PROGRAM BACKEND [--only REGEX] [--fast] [--list] [--timeout SECONDS] [--verbose]

vectors.py has the cases that hold for a server, too; here is what concerns clients. cases.py says how to read a case.
Besides what the client sends, what it reports of each connection is checked: every connection must be reported as closed
or refused, once, and with the code that was on the wire.
"""
import argparse
import base64
import re
import select
import socket
import subprocess
import sys
import time

from cases import (BYE, MIB, Unexpected, add_options, any_of, bye, case, choose, chop, end, expect, fails, payload_of,
                   quiet, refuse, run_all, run_step, send)
from peer import (BINARY, CONTINUATION, PING, PONG, TEXT, Accepted, Side, Wire, close_frame, fragments, frame,
                  upgrade_answer)
from vectors import BOTH_SIDES

HANDSHAKE_SECONDS = 2.0  # what the client is told to wait for a handshake to end


class Program:
    """The client as a process, and the socket on which we are its server."""

    def __init__(self, program, backend):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.host = "127.0.0.1:%d" % self.listener.getsockname()[1]
        command = [program, backend, f"ws://{self.host}", str(int(HANDSHAKE_SECONDS * 1000))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.count, self.partial, self.reports = 0, b"", {}

    def tell(self, number, *words):
        self.process.stdin.write(" ".join([str(number), *words]).encode() + b"\n")
        self.process.stdin.flush()

    def report(self, number, timeout):
        """The next report of that connection, as its words; None when none comes in time."""
        deadline = time.monotonic() + timeout
        while not self.reports.get(number):
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            data = self.process.stdout.read1(1 << 16)
            if not data:
                raise Unexpected("the client has ended")
            *lines, self.partial = (self.partial + data).split(b"\n")
            for line in lines:
                name, *words = line.decode().split(" ", 4)
                self.reports.setdefault(int(name), []).append(words)
        return self.reports[number].pop(0)

    def stop(self):
        """Whether it ended as it should when its input did."""
        self.process.stdin.close()
        try:
            return self.process.wait(20) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            return False


class Client(Accepted):
    """The server's end of a connection that the program was told to make."""

    def __init__(self, program, verb="dial", target="/chat?a=b"):
        program.count += 1
        self.program, self.number, self.ended = program, program.count, False
        program.tell(self.number, verb, target)
        program.listener.settimeout(self.patience)
        super().__init__(program.listener.accept()[0], program.host, target)

    def tell(self, *words):
        self.program.tell(self.number, *words)

    def report(self):
        words = self.program.report(self.number, self.timeout)
        if words is None:
            refuse("the client reports nothing")
        self.ended = words[0] in ("closed", "refused")
        return words

    def expect_report(self, *wanted):
        got = self.report()
        while got[0] != wanted[0] and not self.ended:
            got = self.report()
        if got[: len(wanted)] != list(wanted):
            refuse(f"reported {' '.join(got)}, expected {' '.join(wanted)}")

    def finish(self):
        """The connection must be reported as ended, and once; with the code that was on the wire."""
        while not self.ended:
            got = self.report()
            code = str(self.closed_with[1] or 1005) if self.closed_with else None
            if got[0] == "closed" and code and got[1] != code:
                refuse(f"reported {' '.join(got)} after a close frame with {code}")
        if self.program.reports.get(self.number):
            refuse(f"reported {self.program.reports[self.number]} after the end")


# --- the opening handshake -------------------------------------------------------------------------------------


def with_client(script, verb="dial", **options):
    def run(program):
        with Client(program, verb, **options) as peer:
            script(peer)
            peer.finish()
    return run


def accepted(number, name, change=lambda answer: [answer], verb="dial", chosen="", **changes):
    """An answer that must be accepted, in the pieces that `change` makes of it."""
    def script(peer):
        peer.request()
        for piece in change(peer.answer(**changes)):
            peer.send(piece)
        peer.expect_report("open", chosen)
        for step in (frame(TEXT, b"hello"), ("text", b"hello"), bye):
            run_step(peer, step)
    case(number, name, with_client(script, verb), ready=False)


def refused(number, name, why, *status, answer=None, change=lambda answer: answer, verb="dial", then=None, **changes):
    """An answer after which the client must report `why` and leave; `answer` stands for all of it."""
    def script(peer):
        peer.request()
        peer.send(change(answer if answer is not None else peer.answer(**changes)))
        if then:
            then(peer)
        peer.expect_report("refused", why, *status)
        any_of(("end",), ("reset",))(peer)
    case(number, f"{name}: {why}", with_client(script, verb), ready=False)


def accepted_answers():
    octets = lambda answer: [answer[i:i + 1] for i in range(len(answer))]
    names = lambda convert: lambda answer: [re.sub(rb"(?m)^([\w-]+):", lambda found: convert(found[0]), answer)]
    accepted("30.1", "plain answer")
    accepted("30.2", "octet by octet", octets)
    accepted("30.3", "field names in lower case", names(bytes.lower))
    accepted("30.4", "field names in upper case", names(bytes.upper))
    accepted("30.5", "Upgrade in mixed case", Upgrade="WebSocket")
    accepted("30.6", "Connection with other tokens", Connection="keep-alive, Upgrade")
    accepted("30.7", "Connection in lower case, last of a list", Connection="foo ,,\tupgrade ")
    accepted("30.8", "Connection in two fields", add=[("Connection", "keep-alive")])
    accepted("30.9", "no space after the colon", lambda answer: [answer.replace(b": ", b":")])
    accepted("30.10", "white space around values", lambda answer: [re.sub(rb": ([^\r]*)\r", rb": \t \1 \t \r", answer)])
    accepted("30.11", "another reason phrase", status="101 Web Socket Protocol Handshake")
    accepted("30.12", "no reason phrase", status="101 ")
    accepted("30.13", "octets above 127 in the reason phrase", status="101 \xe9")
    accepted("30.14", "a field of 7000 bytes", Set_Cookie="a" * 7000)
    accepted("30.15", "50 more fields", add=[(f"X-Field-{i}", "value") for i in range(50)])
    accepted("30.16", "an empty field", X_Empty="")
    accepted("30.17", "octets above 127 in a field", X_Name="\xe9\xe8")
    before = lambda text: lambda answer: [text + answer]
    for i, status in enumerate(("100 Continue", "102 Processing", "103 Early Hints"), 40):
        accepted(f"30.{i}", f"an interim answer before it: {status}",
                 before(f"HTTP/1.1 {status}\r\nLink: </a>\r\n\r\n".encode()))
    accepted("30.43", "two interim answers, octet by octet",
             lambda answer: octets(b"HTTP/1.1 100 A\r\n\r\nHTTP/1.1 199 B\r\n\r\n" + answer))
    accepted("30.44", "folded lines", lambda answer: [answer.replace(b"Connection: ", b"X: a\r\n\tb\r\nConnection:\r\n ")])
    accepted("30.45", "a folded line, octet by octet",
             lambda answer: octets(answer.replace(b"Connection: ", b"Connection:\r\n ")))
    for i, name in enumerate(("chat", "superchat")):
        accepted(f"30.2{i}", f"subprotocol {name}", verb="offer", chosen=name, Sec_WebSocket_Protocol=name)
    accepted("30.22", "no subprotocol though some were offered", verb="offer")
    case("30.30", "cut in two at every octet", cut_answers, ready=False)
    case("30.31", "100 connections shake hands at the same time", concurrent_answers, ready=False)
    case("30.32", "every handshake has a key of its own", own_keys, ready=False)
    case("30.33", "subprotocols are offered in order", with_client(offers, "offer"), ready=False)


def cut_answers(program):
    size = len(upgrade_answer(b""))
    for at in range(1, size):
        with Client(program) as peer:
            peer.request()
            send(peer.answer()[:at], peer.answer()[at:])(peer)
            bye(peer)
            peer.finish()


def together(program, count):
    """As many connections at the same time, before their handshakes."""
    return [Client(program, target=f"/{i}") for i in range(count)]


def concurrent_answers(program):
    peers = together(program, 100)
    for peer in peers:
        peer.request()
    for peer in reversed(peers):
        peer.send(peer.answer() + frame(TEXT, b"hi"))
    for peer in peers:
        with peer:
            expect(peer, ("text", b"hi"))
            bye(peer)
            peer.finish()


def own_keys(program):
    keys = set()
    for peer in together(program, 100):
        with peer:
            peer.open()
            keys.add(base64.b64decode(peer.key))
            bye(peer)
            peer.finish()
    if len(keys) != 100 or max(len(set(octets)) for octets in zip(*keys)) < 50:
        refuse(f"{len(keys)} keys for 100 handshakes, or octets that hardly differ")


def offers(peer):
    protocols = peer.request().get("sec-websocket-protocol")
    if protocols is None or protocols.replace(" ", "") != "chat,superchat":
        refuse(f"Sec-WebSocket-Protocol: {protocols}")
    peer.send(peer.answer())
    bye(peer)


def refused_answers():
    for i, status in enumerate((201, 206, 200, 204, 301, 302, 307, 400, 401, 403, 404, 407, 426, 429, 500, 503, 599), 1):
        refused(f"31.1.{i}", f"status {status}", "status_not_101", str(status), status=f"{status} Whatever")
    refused("31.1.30", "a refusal with a body that is shown", "status_not_101", "403", "no entry",
            answer=b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry")
    refused("31.1.31", "a redirect is not followed", "status_not_101", "301",
            answer=b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    refused("31.1.32", "a refusal behind an interim answer", "status_not_101", "403", "no entry",
            answer=b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry")
    refused("31.1.33", "an interim answer and no other in time", "timed_out", answer=b"HTTP/1.1 100 Continue\r\n\r\n")
    refused("31.2.1", "no Upgrade", "upgrade_missing", drop=["Upgrade"])
    for i, value in enumerate(("h2c", "websockets", "web socket", "", "websocket/13"), 2):
        refused(f"31.2.{i}", f"Upgrade: {value}", "upgrade_missing", Upgrade=value)
    for i, value in enumerate(("websocket, h2c", "h2c, websocket"), 20):
        refused(f"31.2.{i}", f"Upgrade: {value}", "upgrade_missing", Upgrade=value)
    refused("31.2.22", "two Upgrades", "upgrade_missing", add=[("Upgrade", "websocket")])
    refused("31.2.10", "no Connection", "connection_missing", drop=["Connection"])
    for i, value in enumerate(("keep-alive", "", "upgraded", "close"), 11):
        refused(f"31.2.{i}", f"Connection: {value}", "connection_missing", Connection=value)
    refused("31.3.1", "no accept key", "accept_missing", drop=["Sec-WebSocket-Accept"])
    refused("31.3.2", "two accept keys", "accept_missing", add=[("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")])
    refused("31.3.3", "the accept key of another handshake", "accept_wrong",
            Sec_WebSocket_Accept="s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    changes = (("without its last octet", lambda key: key[:-1]), ("with one octet more", lambda key: key + b"="),
               ("in another case", bytes.swapcase), ("empty", lambda key: b""), ("in quotes", lambda key: b'"%s"' % key),
               ("with another first octet", lambda key: bytes([key[0] ^ 1]) + key[1:]))
    for i, (name, convert) in enumerate(changes, 4):
        change = lambda answer, convert=convert: re.sub(rb"(?<=Accept: )[^\r]*", lambda m: convert(m[0]), answer)
        refused(f"31.3.{i}", f"the accept key {name}", "accept_wrong", change=change)
    for i, value in enumerate(("permessage-deflate", "permessage-deflate; server_no_context_takeover", "x-none"), 1):
        refused(f"31.4.{i}", f"extension {value}", "extension_unasked", Sec_WebSocket_Extensions=value)
    for i, value in enumerate(("", ",", "x;", "x; a="), 10):
        refused(f"31.4.{i}", f"malformed extensions {value!r}", "extension_malformed", Sec_WebSocket_Extensions=value)
    refused("31.5.1", "a subprotocol when none was offered", "subprotocol_unasked", Sec_WebSocket_Protocol="chat")
    for i, value in enumerate(("other", "CHAT", "cha", "chat, superchat", "chat,"), 2):
        refused(f"31.5.{i}", f"subprotocol {value}", "subprotocol_unasked", verb="offer", Sec_WebSocket_Protocol=value)
    refused("31.5.10", "two subprotocols in two fields", "subprotocol_repeated", verb="offer",
            add=[("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "superchat")])


def broken_answers():
    """What is no HTTP answer at all."""
    starts = ("garbage", b"\x00\x01\x02\x03\xff\xfe\r\n\r\n"), ("a greeting", b"220 ready\r\n\r\n"), \
        ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"), ("a WebSocket frame", frame(TEXT, b"hello") + b"\r\n\r\n"), \
        ("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), ("an empty line", b"\r\n\r\n")
    for i, (name, answer) in enumerate(starts, 1):
        refused(f"32.1.{i}", f"{name} instead of an answer", "protocol", answer=answer)
    lines = ("HTTP/1.1 10 Short", "HTTP/1.1 1010 Long", "HTTP/1.1 abc Letters", "HTTP/1.1  101 Two spaces", "http/1.1 101 Lower",
             "HTTP/1 101 No minor", "HTTP/2.0 101 Two", "HTTP/1.1 +101 Sign", "HTTP/1.1 101\x01")
    for i, line in enumerate(lines, 1):
        refused(f"32.2.{i}", f"status line {line!r}", "protocol",
                change=lambda answer, line=line: line.encode() + answer[answer.index(b"\r\n"):])
    fields = (("space before the colon", lambda a: a.replace(b"Upgrade:", b"Upgrade :", 1)),
              ("white space before the first field", lambda a: a.replace(b"\r\n", b"\r\n ", 1)),
              ("field without a colon", lambda a: a[:-2] + b"nonsense\r\n\r\n"),
              ("field without a name", lambda a: a[:-2] + b": value\r\n\r\n"),
              ("line ends of LF alone", lambda a: a.replace(b"\r\n", b"\n")),
              ("NUL in a value", lambda a: a[:-2] + b"X: a\0b\r\n\r\n"),
              ("CR in a value", lambda a: a[:-2] + b"X: a\rb\r\n\r\n"),
              ("space in a name", lambda a: a[:-2] + b"X Y: a\r\n\r\n"))
    for i, (name, change) in enumerate(fields, 1):
        refused(f"32.3.{i}", name, "protocol", change=change)
    refused("32.3.10", "HTTP/1.0, which has no upgrades", "http_1_0", "101", version="HTTP/1.0")
    refused("32.4.1", "200 fields", "protocol", add=[(f"X-{i}", "v") for i in range(200)])
    refused("32.4.2", "a field of 64 KiB", "protocol", X_Long="a" * 65536)
    for i, (name, start, more) in enumerate((("status line", b"HTTP/1.1 101 ", b"a" * 1000), ("line", b"", b"a" * 1000),
                                             ("field", b"HTTP/1.1 101 A\r\nX: ", b"a" * 1000),
                                             ("list of fields", b"HTTP/1.1 101 A\r\n", b"X: yz\r\n" * 100),
                                             ("row of interim answers", b"", b"HTTP/1.1 100 A\r\n\r\n" * 50)), 3):
        refused(f"32.4.{i}", f"endless {name}", "protocol", answer=start, then=lambda peer, more=more: endless(peer, more))
    refused("32.5.1", "TCP ends before the answer", "end_of_stream", answer=b"", then=Wire.half_close)
    refused("32.5.2", "TCP ends inside the answer", "end_of_stream", change=lambda answer: answer[:-1], then=Wire.half_close)
    case("32.5.3", "RST before the answer", with_client(resets_before), ready=False)
    case("32.5.4", "RST inside the answer", with_client(resets_inside), ready=False)
    refused("32.6.1", "no answer in time", "timed_out", answer=b"")
    refused("32.6.2", "half an answer in time", "timed_out", change=lambda answer: answer[:-1])


def endless(peer, more):
    """Up to 4 MiB; the client must leave long before."""
    for _ in range(4 * MIB // len(more)):
        if peer.over:
            return
        peer.send(more)
    refuse("the client reads on")


def resets_before(peer):
    peer.request()
    peer.reset()
    peer.expect_report("refused", "connection_reset")


def resets_inside(peer):
    peer.request()
    peer.send(peer.answer()[:40])
    peer.reset()
    peer.expect_report("refused", "connection_reset")


# --- frames behind the answer ----------------------------------------------------------------------------------


def glue():
    hello, answer = frame(TEXT, b"hello"), ("text", b"hello")
    big = payload_of(BINARY, MIB)
    glued = (("a text", [hello], [answer, *BYE]), ("three texts", [hello * 3], [answer] * 3 + BYE),
             ("half a header", [hello[:1], hello[1:]], [answer, *BYE]),
             ("half a payload", [hello[:4], hello[4:]], [answer, *BYE]),
             ("a ping and the first half of a text", [frame(PING, b"p") + hello[:3], hello[3:]],
              [("pong", b"p"), answer, *BYE]),
             ("a binary of 1 MiB", [frame(BINARY, big)], [("binary", big), *BYE]),
             ("a close", [close_frame(1000)], [("close", 1000), end]),
             ("a masked frame", [frame(TEXT, b"a", key=b"abcd")], fails(1002)),
             ("bad UTF-8", [frame(TEXT, b"\xff")], fails(1007)),
             ("garbage", [b"garbage, which is no frame"], fails(1002)),
             ("another answer", [upgrade_answer(b"")], fails(1002)),
             ("200 texts", [hello * 200], [answer] * 200 + BYE))
    for i, (name, pieces, events) in enumerate(glued, 1):
        script = [Client.request, lambda peer, first=pieces[0]: peer.send(peer.answer() + first), *pieces[1:], *events]
        case(f"33.1.{i}", f"{name} glued to the answer", script, shake_hands=False)
    case("33.1.20", "answer and frames all octet by octet",
         [Client.request, lambda peer: chop(peer.answer() + hello + frame(PING, b"p"), 1)(peer), answer, ("pong", b"p"), *BYE],
         shake_hands=False)
    case("33.1.22", "an answer has no content, whatever it says: what follows are frames",
         [Client.request, lambda peer: peer.send(peer.answer(Content_Length=str(len(hello))) + hello), answer, *BYE],
         shake_hands=False)
    case("33.1.21", "an answer without its last octet opens nothing",
         [Client.request, lambda peer: peer.send(peer.answer()[:-1]), quiet, b"\n", frame(PING), ("pong", b""), *BYE],
         shake_hands=False)


# --- masks -----------------------------------------------------------------------------------------------------


def masks():
    thousand = [step for i in range(1000) for step in (frame(BINARY, bytes(64)), ("binary", bytes(64)))]
    case("34.1", "1000 echoes of the same bytes have masks of their own", [*thousand, distinct(1000), *BYE])
    kinds = [frame(TEXT, b"same") + frame(PING, b"same") + frame(BINARY, b"same"), ("text", b"same"), ("pong", b"same"),
             ("binary", b"same")]
    case("34.2", "texts, binaries and pongs have masks of their own", [*(kinds * 50), distinct(150), *BYE])
    case("34.3", "the fragments of a message have masks of their own",
         [told("text", *("piece" for _ in range(100))), ("text", b"piece" * 100), distinct(100), *BYE])
    case("34.4", "empty frames are masked, too",
         [frame(TEXT) + frame(PING) + frame(BINARY), ("text", b""), ("pong", b""), ("binary", b""), distinct(3), *BYE])
    case("34.5", "the first masks of 100 connections differ", first_masks, ready=False)


def distinct(count):
    """So many masks have come, and they look chosen by chance: all differ, and each octet takes many values."""
    def step(peer):
        keys = set(peer.keys)
        if len(peer.keys) != count or len(keys) < count - 1:
            refuse(f"{len(keys)} masks for {len(peer.keys)} frames, of {count}")
        if count >= 100 and min(len(set(octets)) for octets in zip(*keys)) < 50:
            refuse("octets of the masks hardly differ")
    return step


def first_masks(program):
    keys = set()
    for peer in together(program, 100):
        with peer:
            peer.open()
            run_step(peer, frame(TEXT, b"hi"))
            expect(peer, ("text", b"hi"))
            keys.add(peer.keys[0])
            bye(peer)
            peer.finish()
    if len(keys) < 99:
        refuse(f"{len(keys)} different masks on 100 connections")


# --- closing and pinging, begun by the client ------------------------------------------------------------------


def told(*words):
    return lambda peer: peer.tell(*words)


def reported(*words):
    return lambda peer: peer.expect_report(*words)


def begun_by_the_client():
    hello, ours = frame(TEXT, b"hello"), [("close", 1000, b"good bye"), close_frame(1000), reported("closed", "1000", "local")]
    close = told("close", "1000", "good bye")
    case("35.1", "the client closes with a code and a reason", [close, *ours, end])
    case("35.2", "the client closes without a code",
         [told("close", "1005"), ("close", None), close_frame(), reported("closed", "1005", "local"), end])
    for i, code in enumerate((1001, 1003, 1011, 3000, 4999), 3):
        case(f"35.{i}", f"the client closes with {code}",
             [told("close", str(code)), ("close", code), close_frame(code), reported("closed", str(code), "local"), end])
    case("35.10", "the client waits for us to end TCP", [close, *ours, quiet, end])
    case("35.11", "after a close of ours, too", [close_frame(1000), ("close", 1000), quiet, end])
    case("35.12", "after a violation of ours, too", [frame(TEXT, rsv=4), ("close", 1002), quiet, close_frame(1002), quiet, end])
    case("35.13", "what comes after the client's close is not answered",
         [close, ("close", 1000, b"good bye"), hello + frame(PING, b"late"), quiet, close_frame(1000), end])
    case("35.14", "a violation after the client's close ends the wait",
         [close, ("close", 1000, b"good bye"), frame(TEXT, rsv=4), reported("closed", "1002", "local"), end])
    case("35.15", "both close at the same time", [close_frame(1001, b"ours"), close, any_of(("close", 1001), ("close", 1000)), end])
    case("35.16", "TCP ends instead of an answer to the client's close",
         [close, ("close", 1000, b"good bye"), end, reported("closed", "1006", "transport")])
    case("35.17", "an unanswered close is given up", [close, ("close", 1000, b"good bye"), gives_up,
                                                      reported("closed", "1006", "transport")])
    case("35.18", "TCP that we do not end is ended by the client", [close_frame(1000), ("close", 1000), gives_up])
    case("35.19", "the same after a violation", [frame(TEXT, rsv=4), ("close", 1002), gives_up])
    case("35.20", "the server's code and reason are reported",
         [close_frame(4321, "água 水".encode()), ("close", 4321), end, reported("closed", "4321", "peer", "água 水")])
    case("35.21", "the client's ping gets its pong",
         [told("ping", "there?"), ("ping", b"there?"), frame(PONG, b"there?"), reported("pong", "there?"), *BYE])
    case("35.22", "an unsolicited pong is reported, too", [frame(PONG, b"here"), reported("pong", "here"), *BYE])
    case("35.23", "a text in three fragments", [told("text", "a", "b", "c"), ("text", b"abc"), *BYE])
    case("35.24", "its echo in fragments comes back",
         [told("text", "one", "two"), ("text", b"onetwo"), b"".join(fragments(TEXT, b"onetwo", 1)), ("text", b"onetwo"), *BYE])
    case("35.25", "the client leaves at once", [told("terminate"), any_of(("end",), ("reset",)), reported("closed", "1006")])
    case("35.26", "a fragment, and then the client closes",
         [frame(TEXT, b"a", fin=False), frame(PING), ("pong", b""), close, ("close", 1000, b"good bye"),
          frame(CONTINUATION, b"b") + close_frame(1000), reported("closed", "1000", "local"), end])


def gives_up(peer):
    """The client ends TCP when its timeout has passed, and not before."""
    began = time.monotonic()
    expect(peer, ("end",), ("reset",), timeout=HANDSHAKE_SECONDS + 5)
    if time.monotonic() - began < HANDSHAKE_SECONDS * 0.9:
        refuse(f"the client gave up after {time.monotonic() - began:.1f} s")


# --- running ---------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("backend", choices=("epoll", "io_uring"))
    add_options(parser)
    options = parser.parse_args()
    Side.is_server, Side.connect, Wire.patience = True, Client, options.timeout
    chosen = choose(options, (*BOTH_SIDES, accepted_answers, refused_answers, broken_answers, glue, masks,
                              begun_by_the_client))
    if options.list:
        return 0
    program = Program(options.program, options.backend)
    status = run_all(options, chosen, program)
    if not program.stop():
        print("FAILED the client did not end as it should\n0 passed, 1 failed")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
