#!/usr/bin/env python3
"""A strict peer: tests the WebSocket echo server at a URL through raw sockets, black box.

    conformance.py URL [--only REGEX] [--fast] [--list] [--timeout SECONDS] [--verbose]

Groups 1 to 7, 9 and 10 are numbered as the Autobahn test suite numbers its cases, so that a reader can map them;
groups 20 and above are what no suite checks. A case is an id, a name and a script, a list of steps:
    bytes          are sent
    tuple          is an event that must come next (peer.py lists them); ("close", code) leaves the reason open
    callable       is called with the peer
The events must come exactly so: nothing missing, nothing more, in this order. What must not happen is proved by
what comes first; only `quiet` waits, and briefly. A witness, connected all the time, must be served after each case.
The server's default limits must let 16 MiB and 131072 fragments through.
"""
import argparse
import random
import re
import select
import sys
import time

from peer import (BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Breach, Peer, close_frame, first_bad_octet, fragments,
                  frame)

KIB, MIB = 1024, 1024 * 1024
ECHO = {TEXT: "text", BINARY: "binary"}
WORDS = ("levada ", "água ", "κόσμε ", "日本 ", "\U0001f30a ", "x")
CASES, IDS = [], set()


class Unexpected(Exception):
    pass


# --- steps -----------------------------------------------------------------------------------------------------

def end(peer):
    """The server ends TCP by itself, cleanly and at once."""
    expect(peer, ("end",), timeout=1.0)


def end_or_reset(peer):
    """TCP ends at once; a reset will do where we sent more than the server had to read."""
    expect(peer, ("end",), ("reset",), timeout=1.0)


def quiet(peer):
    """Nothing comes: neither bytes nor an end."""
    expect(peer, ("timeout",), timeout=0.02)


def reply(peer):
    """Answers the server's close as a well-behaved peer does."""
    peer.send(close_frame(1000))


def eof(peer):
    peer.half_close()


def send(*pieces):
    """Sends each piece with a send of its own."""
    def step(peer):
        for piece in pieces:
            peer.send(piece)
    return step


def chop(data, size):
    return send(*(data[at:at + size] for at in range(0, len(data), size)))


def any_of(*events):
    return lambda peer: expect(peer, *events)


def fails(code, ending=end):
    """The server fails the connection with this code and ends TCP."""
    return [("close", code), reply, ending]


BYE = [close_frame(1000), ("close", 1000), end]


def show(event):
    return "(%s)" % " ".join(
        f"{part[:24]!r}.. {len(part)} bytes" if isinstance(part, bytes) and len(part) > 40 else repr(part)
        for part in event)


def expect(peer, *wanted, timeout=None):
    got = peer.event(timeout)
    if not any(got[:len(want)] == want for want in wanted):
        raise Unexpected(f"expected {' or '.join(map(show, wanted))}, got {show(got)}")


def run_step(peer, step):
    if isinstance(step, bytes):
        peer.send(step)
    elif isinstance(step, tuple):
        expect(peer, step)
    else:
        step(peer)


def run_script(url, script, shake_hands=True):
    with Peer(url) as peer:
        if shake_hands:
            peer.open()
        for step in script:
            run_step(peer, step)


# --- the table -------------------------------------------------------------------------------------------------

def case(number, name, script, slow=False, shake_hands=True, ready=True):
    """Adds a case. `script` is a list, a function that makes one when the case runs (for large payloads), or, with
    ready=False, a function of the URL that does everything itself."""
    assert number not in IDS, number
    IDS.add(number)

    def run(url):
        if not ready:
            script(url)
        else:
            run_script(url, script() if callable(script) else script, shake_hands)
    CASES.append((number, name, run, slow))


def text_of(size):
    """`size` bytes of UTF-8 that mixes lengths of 1 to 4 octets; the same for the same size."""
    choose = random.Random(size)
    block = "".join(choose.choices(WORDS, k=min(size, 4096))).encode()
    data = (block * (size // max(len(block), 1) + 1))[:size]
    return data.decode("utf-8", "ignore").encode().ljust(size, b".")


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def payload_of(opcode, size):
    return text_of(size) if opcode == TEXT else random.Random(size).randbytes(size)


def number_of(*parts):
    return ".".join(map(str, parts))


def human(size):
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB" if size >= KIB else f"{size} bytes"


def echoes(opcode, payload):
    return (ECHO[opcode], payload)


def echo_case(number, name, opcode, size, pieces, slow=False):
    """One message, sent as pieces(opcode, payload) says, comes back; then a clean close."""
    def script():
        payload = payload_of(opcode, size)
        return [pieces(opcode, payload), echoes(opcode, payload), *BYE]
    case(number, name, script, slow)


def framing():
    sizes = (0, 125, 126, 127, 128, 65535, 65536)
    for group, opcode in ((1, TEXT), (2, BINARY)):
        for i, size in enumerate(sizes, 1):
            echo_case(f"1.{group}.{i}", f"{ECHO[opcode]} of {size} bytes", opcode, size, frame)
        echo_case(f"1.{group}.8", f"{ECHO[opcode]} of 65536 bytes in TCP pieces of 997", opcode, 65536,
                  lambda opcode, payload: chop(frame(opcode, payload), 997))


def pings():
    odd = bytes.fromhex("00fffefdfcfb00ff")
    ten = [b"payload-%d" % i for i in range(10)]
    for i, (name, payload) in enumerate((("without payload", b""), ("with payload", b"Hello, world!"),
                                         ("with payload that is not UTF-8", odd), ("of 125 bytes", b"\xfe" * 125)), 1):
        case(f"2.{i}", f"ping {name}", [frame(PING, payload), ("pong", payload), *BYE])
    case("2.5", "ping of 126 bytes", [frame(PING, b"\xfe" * 126), *fails(1002)])
    case("2.6", "ping of 125 bytes octet by octet", [
         chop(frame(PING, b"\xfe" * 125), 1), ("pong", b"\xfe" * 125), *BYE])
    case("2.7", "unsolicited pong without payload", [frame(PONG), *BYE])
    case("2.8", "unsolicited pong with payload", [frame(PONG, b"unsolicited"), *BYE])
    case("2.9", "unsolicited pong, then ping", [
         frame(PONG, b"unsolicited") + frame(PING, b"ping"), ("pong", b"ping"), *BYE])
    all_pings, all_pongs = b"".join(frame(PING, p) for p in ten), [("pong", p) for p in ten]
    case("2.10", "ten pings get ten pongs in order", [all_pings, *all_pongs, *BYE])
    case("2.11", "ten pings octet by octet", [chop(all_pings, 1), *all_pongs, *BYE])
    case("2.12", "pings of every size from 0 to 125", [b"".join(frame(PING, b"p" * n) for n in range(126)),
                                                        *(("pong", b"p" * n) for n in range(126)), *BYE])
    case("2.13", "pong of 126 bytes", [frame(PONG, b"p" * 126), *fails(1002)])
    case("2.14", "ping of 65536 bytes", [frame(PING, b"p" * 65536), *fails(1002, end_or_reset)])


def violation_cases(number, name, bad):
    """`bad` alone, and after data that must still be answered, and before a ping that must not."""
    before, ping = frame(TEXT, b"before"), frame(PING, b"after")
    case(number, name, [bad, *fails(1002)])
    case(number + "/glued", f"text, {name}, ping in one piece",
         [before + bad + ping, ("text", b"before"), *fails(1002)])
    case(number + "/octets", f"text, {name} octet by octet", [chop(before + bad, 1), ("text", b"before"), *fails(1002)])


def reserved():
    kinds = ((TEXT, b"hello", 1), (TEXT, b"hello", 2), (TEXT, b"hello", 3), (TEXT, b"hello", 4), (BINARY, b"\xff" * 8, 5),
             (PING, b"hello", 6), (CLOSE, b"\x03\xe8", 7), (PONG, b"", 4), (TEXT, b"", 1))
    for i, (opcode, payload, rsv) in enumerate(kinds, 1):
        violation_cases(f"3.{i}", f"opcode {opcode} with RSV {rsv}", frame(opcode, payload, rsv=rsv))
    case("3.10", "RSV 1 on a continuation", [frame(TEXT, b"a", fin=False) + \
         frame(CONTINUATION, b"b", rsv=4), *fails(1002)])
    case("3.11", "RSV is refused before the payload has come",
         [frame(TEXT, b"", rsv=4, size=1000), *fails(1002)])
    for group, first in ((1, 3), (2, 11)):
        for i in range(5):
            payload = b"" if i % 2 == 0 else b"reserved opcode"
            violation_cases(f"4.{group}.{i + 1}", f"reserved opcode {first + i}, {len(payload)} bytes",
                            frame(first + i, payload))
    case("4.3.1", "reserved opcode inside a fragmented message",
         [frame(TEXT, b"a", fin=False) + frame(3, b"b"), *fails(1002)])
    case("4.3.2", "reserved opcode is refused before the payload has come", [frame(5, b"", size=100000), *fails(1002)])


def fragmentation():
    first, second = b"fragment1", b"fragment2"
    start, stop, whole = frame(TEXT, first, fin=False), frame(CONTINUATION, second), ("text", first + second)
    ping, pong = frame(PING, b"ping"), ("pong", b"ping")
    case("5.1", "ping in two fragments", [frame(PING, first, fin=False) + frame(CONTINUATION, second), *fails(1002)])
    case("5.2", "pong in two fragments", [frame(PONG, first, fin=False) + frame(CONTINUATION, second), *fails(1002)])
    deliveries = (("in one piece", lambda data: [b"".join(data)]), ("frame by frame", lambda data: [send(*data)]),
                  ("octet by octet", lambda data: [chop(b"".join(data), 1)]))
    for i, (how, deliver) in enumerate(deliveries):
        case(f"5.{3 + i}", f"text in two fragments {how}", deliver([start, stop]) + [whole, *BYE])
        case(f"5.{6 + i}", f"text in two fragments around a ping {how}",
             deliver([start, ping, stop]) + [pong, whole, *BYE])
        case(f"5.{9 + i}", f"final continuation of nothing, then text {how}",
             deliver([stop, frame(TEXT, b"after")]) + fails(1002))
        case(f"5.{12 + i}", f"continuation of nothing, then text {how}",
             deliver([frame(CONTINUATION, first, fin=False), frame(TEXT, b"after")]) + fails(1002))
    lost = frame(CONTINUATION, b"lost", fin=False)
    case("5.15", "text in two fragments, continuation of nothing, text",
         [start + stop + lost + frame(TEXT, b"after"), whole, *fails(1002)])
    for i, fin in ((16, False), (17, True)):
        case(f"5.{i}", f"continuation of nothing with FIN {fin:d}, then a fragmented text, twice",
             [(frame(CONTINUATION, first, fin=fin) + start + stop) * 2, *fails(1002)])
    case("5.18", "text in two fragments that both have opcode text", [start + frame(TEXT, second), *fails(1002)])
    five = [b"fragment%d" % i for i in range(1, 6)]
    frames = [frame(TEXT, five[0], fin=False), frame(CONTINUATION, five[1], fin=False), frame(PING, b"ping1"),
              frame(CONTINUATION, five[2], fin=False), frame(CONTINUATION, five[3], fin=False), frame(PING, b"ping2"),
              frame(CONTINUATION, five[4])]
    answer = ("text", b"".join(five))
    case("5.19", "five fragments with pings between, in one piece",
         [b"".join(frames), ("pong", b"ping1"), ("pong", b"ping2"), answer, *BYE])
    case("5.20", "five fragments with pings between, waiting for the pongs",
         [*frames[:3], ("pong", b"ping1"), *frames[3:6], ("pong", b"ping2"), frames[6], answer, *BYE])
    case("5.21", "binary after the first fragment of a text", [start + frame(BINARY, second), *fails(1002)])
    case("5.22", "close between fragments", [start + close_frame(1000) + stop, ("close", 1000), end])
    case("5.23", "empty first, middle and last fragments",
         [frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"a", fin=False) + frame(CONTINUATION, b"", fin=False)
          + frame(CONTINUATION, b"b", fin=False) + frame(CONTINUATION, b""), ("binary", b"ab"), *BYE])
    case("5.24", "pings and pongs of every kind between fragments",
         [start + frame(PONG, b"x" * 125) + frame(PING) + frame(PONG) + frame(PING, b"y" * 125) + stop,
          ("pong", b""), ("pong", b"y" * 125), whole, *BYE])
    case("5.25", "one fragmented message after another, text and binary",
         [(start + stop + frame(BINARY, first, fin=False) + stop) * 20, *([whole, ("binary", first + second)] * 20), *BYE])
    case("5.26", "a fragment of a fragmented message is not echoed before the message ends",
         [start, ping, pong, quiet, stop, whole, *BYE])


# --- UTF-8 -----------------------------------------------------------------------------------------------------

def raw(point, octets):
    """`point` in UTF-8's pattern for that many octets, whether or not it is allowed there."""
    if octets == 1:
        return bytes([point])
    lead = (0xFF00 >> octets & 0xFF) | point >> 6 * (octets - 1)
    return bytes([lead, *(0x80 | point >> 6 * i & 0x3F for i in range(octets - 2, -1, -1))])


def pair(*units):
    return b"".join(raw(unit, 3) for unit in units)


def utf8_vectors():
    """(group, vectors) in the order of the well-known decoder stress test."""
    most = {1: 0x7F, 2: 0x7FF, 3: 0xFFFF, 4: 0x1FFFFF, 5: 0x3FFFFFF, 6: 0x7FFFFFFF}
    least = {octets: most[octets - 1] + 1 if octets > 1 else 0 for octets in most}
    kosme = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
    cut = [raw(least[n] if n > 2 else 0, n)[:-1] for n in range(2, 7)] + [raw(most[n], n)[:-1] for n in range(2, 7)]
    lonely = [range(0xC0, 0xE0), range(0xE0, 0xF0), range(0xF0, 0xF8), range(0xF8, 0xFC), range(0xFC, 0xFE)]
    yield 5, ["Hello-µ@ßöäüàá-UTF-8!!".encode(), kosme, "한국어 日本語".encode(), "\U0001d11e\U0001f30a\u200d".encode(), b"\x7f\x00"]
    yield 6, [kosme[:n] for n in range(1, 12)]
    yield 7, [raw(least[n], n) for n in range(1, 5)]
    yield 8, [raw(least[n], n) for n in (5, 6)]
    yield 9, [raw(0x7F, 1), raw(0x7FF, 2), raw(0xFFFF, 3), raw(0x10FFFF, 4)]
    yield 10, [raw(most[n], n) for n in (4, 5, 6)]
    yield 11, [raw(0xD7FF, 3), raw(0xE000, 3), raw(0xFFFD, 3), raw(0x10FFFF, 4), raw(0x110000, 4)]
    yield 12, [b"\x80", b"\xbf", *(b"\x80\xbf\x80\xbf\x80\xbf"[:n] for n in range(2, 7)), bytes(range(0x80, 0xC0))]
    yield 13, [b" ".join(bytes([lead]) for lead in leads) + b" " for leads in lonely]
    yield 14, cut
    yield 15, [b"".join(cut)]
    yield 16, [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]
    yield 17, [raw(ord("/"), n) for n in range(2, 7)]
    yield 18, [raw(most[n - 1], n) for n in range(2, 7)]
    yield 19, [raw(0, n) for n in range(2, 7)]
    yield 20, [pair(unit) for unit in (0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF)]
    yield 21, [pair(high, low) for high in (0xD800, 0xDB7F, 0xDB80, 0xDBFF) for low in (0xDC00, 0xDFFF)]
    yield 22, [chr(plane << 16 | 0xFFFE | last).encode() for plane in range(17) for last in (0, 1)]
    yield 23, [chr(point).encode() for point in range(0xFFF9, 0x10000)]


def utf8_case(number, data):
    valid, bad = is_utf8(data), first_bad_octet(data)
    label = data.hex(" ") if len(data) <= 12 else f"{data[:8].hex(' ')} .. {len(data)} octets"
    outcome = [("text", data), *BYE] if valid else fails(1007)
    case(number, f"{'valid' if valid else 'invalid'} {label}", [frame(TEXT, data), *outcome])
    case(number + "/inside", f"{label} after 100 and before 30 plain octets",
         [frame(TEXT, b"a" * 100 + data + b"b" * 30), *([("text", b"a" * 100 + data + b"b" * 30), *BYE] if valid
                                                       else fails(1007))])
    case(number + "/fragments", f"{label} in fragments of one octet", [b"".join(fragments(TEXT, data, 1)), *outcome])
    if bad is None:
        return
    good, octet = data[:bad], data[bad:bad + 1]
    case(number + "/fail-fast-fragment", f"{label} fails at octet {bad}, before the message ends",
         [frame(TEXT, good, fin=False), frame(PING), ("pong", b""), frame(CONTINUATION, octet, fin=False), *fails(1007)])
    header = frame(TEXT, b"", size=len(data) + 1000)  # a header that promises more than ever comes
    body = frame(TEXT, data[:bad + 1])[6:]
    case(number + "/fail-fast-frame", f"{label} fails at octet {bad}, inside the frame",
         [header, chop(body[:bad], 1), quiet, body[bad:], *fails(1007)])


def utf8():
    empty, hello = frame(CONTINUATION, b"", fin=False), b"middle frame payload"
    case("6.1.1", "empty text", [frame(TEXT), ("text", b""), *BYE])
    case("6.1.2", "three empty fragments", [frame(TEXT, fin=False) + empty + frame(CONTINUATION), ("text", b""), *BYE])
    case("6.1.3", "three fragments, only the middle one not empty",
         [frame(TEXT, fin=False) + frame(CONTINUATION, hello, fin=False) + frame(CONTINUATION), ("text", hello), *BYE])
    good = "Hello-µ@ßöäüàá-UTF-8!! \U0001f30a".encode()
    boundary = good.index("ß".encode())
    case("6.2.1", "valid text in one frame", [frame(TEXT, good), ("text", good), *BYE])
    case("6.2.2", "valid text in two fragments, cut between code points",
         [frame(TEXT, good[:boundary], fin=False) + frame(CONTINUATION, good[boundary:]), ("text", good), *BYE])
    case("6.2.3", "valid text in fragments of one octet", [send(*fragments(TEXT, good, 1)), ("text", good), *BYE])
    case("6.2.4", "valid text, octet by octet", [chop(frame(TEXT, good), 1), ("text", good), *BYE])
    case("6.2.5", "valid text cut inside every code point",
         [b"".join(frame(TEXT, good[:n], fin=False) + frame(CONTINUATION, good[n:]) for n in range(len(good))),
          *([("text", good)] * len(good)), *BYE])
    start, wrong, rest = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode(), raw(0x110000, 4), b"edited"
    text = start + wrong + rest
    case("6.3.1", "invalid text in one frame", [frame(TEXT, text), *fails(1007)])
    case("6.3.2", "invalid text in fragments of one octet", [b"".join(fragments(TEXT, text, 1)), *fails(1007)])
    case("6.4.1", "three fragments, the second one invalid",
         [frame(TEXT, start, fin=False), frame(PING), ("pong", b""), frame(CONTINUATION, wrong, fin=False), *fails(1007)])
    case("6.4.2", "three fragments, the second one ends with the octet that is known to be wrong",
         [frame(TEXT, start + wrong[:1], fin=False), frame(PING), ("pong", b""),
          frame(CONTINUATION, wrong[1:2], fin=False), *fails(1007)])
    octets = frame(TEXT, text)
    head = len(octets) - len(text)
    for number, known in (("6.4.3", len(start + wrong)), ("6.4.4", len(start) + 2)):
        case(number, f"one frame, sent up to octet {known}",
             [octets[:head + len(start) + 1], quiet, octets[head + len(start) + 1:head + known], *fails(1007)])
    for group, vectors in utf8_vectors():
        for i, data in enumerate(vectors, 1):
            utf8_case(f"6.{group}.{i}", data)
    long_text = text_of(100000)
    for i, at in enumerate((0, 1, 31, 32, 33, 63, 64, 127, 4095, 4096, 65535, 99999), 1):
        spoilt = long_text[:at].decode("utf-8", "ignore").encode().ljust(at, b".") + b"\xff"
        case(f"6.24.{i}", f"first bad octet at {at} of a frame of 100000 bytes, the rest never sent",
             [frame(TEXT, b"", size=100000) + frame(TEXT, spoilt, form=64)[14:], *fails(1007)])
    case("6.24.20", "text in every alignment of multi-byte sequences",
         [b"".join(frame(TEXT, b"a" * n + good) for n in range(70)), *(("text", b"a" * n + good) for n in range(70)), *BYE])
    case("6.24.21", "a text that ends inside a sequence, with a whole text after it",
         [frame(TEXT, b"\xe2\x82") + frame(TEXT, b"\xac"), *fails(1007)])
    case("6.24.22", "bytes that are not UTF-8 in a binary message", [frame(BINARY, text), ("binary", text), *BYE])


# --- closing ---------------------------------------------------------------------------------------------------

def closing():
    hello, ping = frame(TEXT, b"Hello World!"), frame(PING, b"late")
    case("7.1.1", "text, then close", [hello, ("text", b"Hello World!"), *BYE])
    case("7.1.2", "two close frames", [close_frame(1000) * 2, ("close", 1000), end])
    case("7.1.3", "ping after close", [close_frame(1000) + ping, ("close", 1000), end])
    case("7.1.4", "text after close", [close_frame(1000) + hello, ("close", 1000), end])
    case("7.1.5", "close between the fragments of a text",
         [frame(TEXT, b"a", fin=False) + close_frame(1000) + frame(CONTINUATION, b"b"), ("close", 1000), end])
    big = text_of(256 * KIB)
    case("7.1.6", "256 KiB text, small text, close, ping",
         [frame(TEXT, big) + hello + close_frame(1000) + ping, ("text", big), ("text", b"Hello World!"), ("close", 1000), end])
    case("7.1.7", "garbage after close", [close_frame(1000) + b"\xff" * 100, ("close", 1000), end_or_reset])
    case("7.1.8", "1 MiB of text after close",
         [close_frame(1000) + frame(TEXT, text_of(MIB)), ("close", 1000), end_or_reset])
    case("7.3.1", "close without payload is answered without one", [close_frame(), ("close", None), end])
    case("7.3.2", "close with 1 byte", [frame(CLOSE, b"a"), *fails(1002)])
    case("7.3.3", "close with a code", [close_frame(1000), ("close", 1000), end])
    case("7.3.4", "close with a code and a reason", [close_frame(1000, b"Hello World!"), ("close", 1000), end])
    case("7.3.5", "close with a reason of 123 bytes", [close_frame(1000, b"*" * 123), ("close", 1000), end])
    case("7.3.6", "close with a reason of 124 bytes", [close_frame(1000, b"*" * 124), *fails(1002)])
    case("7.3.7", "close octet by octet", [chop(close_frame(1001, b"bye"), 1), ("close", 1001), end])
    bad_reasons = (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited", b"\xff", b"cut \xe2\x82",
                   pair(0xD800), b"*" * 120 + b"\xe2\x82")
    for i, reason in enumerate(bad_reasons, 1):
        case(f"7.5.{i}", "close with a reason that is not UTF-8", [close_frame(1000, reason), *fails(1007)])
    case("7.5.6", "close with a reason of many scripts", [
         close_frame(1000, "água 水 \U0001f30a".encode()), ("close", 1000), end])
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013, 1014)
    for i, code in enumerate(valid, 1):
        case(f"7.7.{i}", f"close with valid code {code}", [close_frame(code), ("close", code), end])
    invalid = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1, 1015, 1099, 998)
    for i, code in enumerate(invalid, 1):
        case(f"7.9.{i}", f"close with invalid code {code}", [close_frame(code), *fails(1002)])
    for i, code in enumerate((5000, 65535, 5001, 32768), 1):
        case(f"7.13.{i}", f"close with code {code}, above all ranges", [close_frame(code), *fails(1002)])


# --- sizes -----------------------------------------------------------------------------------------------------

def round_trips(opcode, size, count=1000):
    payloads = [payload_of(opcode, size + (i % 2 if size else 0)) for i in range(count)]
    return [step for payload in payloads for step in (frame(opcode, payload), echoes(opcode, payload))] + BYE


def limits():
    for base, opcode in ((0, TEXT), (1, BINARY)):
        kind = ECHO[opcode]
        for i, size in enumerate((64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB), 1):
            echo_case(number_of(9, 1 + base, i), f"{kind} of {human(size)}", opcode, size, frame, size > MIB)
        for i, piece in enumerate((64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB), 1):
            echo_case(number_of(9, 3 + base, i), f"{kind} of 4 MiB in fragments of {human(piece)}", opcode, 4 * MIB,
                      lambda opcode, payload, piece=piece: b"".join(fragments(opcode, payload, piece)), True)
        for i, piece in enumerate((64, 128, 256, 512, KIB, 2 * KIB), 1):
            echo_case(number_of(9, 5 + base, i), f"{kind} of 1 MiB in TCP pieces of {human(piece)}", opcode, MIB,
                      lambda opcode, payload, piece=piece: chop(frame(opcode, payload), piece), i == 1)
        for i, size in enumerate((0, 16, 64, 256, KIB, 4 * KIB), 1):
            case(number_of(9, 7 + base, i), f"1000 round trips of a {kind} of {human(size)}",
                 lambda opcode=opcode, size=size: round_trips(opcode, size))
    echo_case("9.9.1", "16 MiB in fragments of 1 MiB", BINARY, 16 * MIB,
              lambda opcode, payload: b"".join(fragments(opcode, payload, MIB)), True)
    echo_case("9.9.2", "131072 fragments of one byte", BINARY, 131072,
              lambda opcode, payload: b"".join(fragments(opcode, payload, 1)), True)
    case("9.9.3", "10000 pipelined texts of 0 to 99 bytes",
         lambda: [b"".join(frame(TEXT, b"%d " % i + b"x" * (i % 95)) for i in range(10000)),
                  *(("text", b"%d " % i + b"x" * (i % 95)) for i in range(10000)), *BYE])
    case("9.9.4", "every length from 0 to 1000 pipelined", lambda: [
        b"".join(frame(BINARY, payload_of(BINARY, n)) for n in range(1001)),
        *(("binary", payload_of(BINARY, n)) for n in range(1001)), *BYE])
    case("9.9.5", "100 pipelined binaries of 256 KiB", lambda: [
        frame(BINARY, payload_of(BINARY, 256 * KIB)) * 100, *([("binary", payload_of(BINARY, 256 * KIB))] * 100), *BYE], True)
    echo_case("10.1.1", "text of 65536 bytes in fragments of 1300", TEXT, 65536,
              lambda opcode, payload: b"".join(fragments(opcode, payload, 1300)))


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


def refuse(problem):
    raise Unexpected(problem)


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
    refused("21.2", "HEAD instead of GET", 405, method="HEAD")
    refused("21.3", "method in lower case", 405, method="get")
    refused("21.4", "HTTP/1.0", 400, version="HTTP/1.0")
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


def get(url, target, statuses, kind=None):
    with Peer(url) as peer:
        peer.send(f"GET {target} HTTP/1.1\r\nHost: {peer.host}\r\n\r\n".encode())
        response = peer.response()
        if response.status not in statuses:
            refuse(f"status {response.status}")
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

def directions_and_lengths():
    before = frame(TEXT, b"before")
    for i, (opcode, payload) in enumerate(((TEXT, b"hello"), (TEXT, b""), (BINARY, b"\xff" * 200), (PING, b"p"), (PONG, b""),
                                           (CLOSE, b"\x03\xe8"), (CLOSE, b""), (BINARY, b"x" * 70000)), 1):
        bad = frame(opcode, payload, key=None)
        case(f"22.1.{i}", f"unmasked frame, opcode {opcode}, {len(payload)} bytes", [bad, *fails(1002, end_or_reset)])
        case(f"22.1.{i}/after", f"text, then unmasked frame, opcode {opcode}, {len(payload)} bytes",
             [before + bad, ("text", b"before"), *fails(1002, end_or_reset)])
    case("22.1.20", "unmasked continuation", [frame(TEXT, b"a", fin=False) + \
         frame(CONTINUATION, b"b", key=None), *fails(1002)])
    case("22.1.21", "unmasked frame is refused before the payload has come",
         [frame(BINARY, b"", key=None, size=1000), *fails(1002)])
    wasteful = [(16, n) for n in (0, 1, 124, 125)] + [(64, n) for n in (0, 1, 125, 126, 127, 65535)]
    for i, (form, size) in enumerate(wasteful, 1):
        for opcode in (TEXT, BINARY):
            case(f"22.2.{i}/{ECHO[opcode]}", f"{size} bytes with a length of {form} bits",
                 [before + frame(opcode, b"a" * size, form=form), ("text", b"before"), *fails(1002)])
    for i, (opcode, form, size) in enumerate(((PING, 16, 5), (PING, 64, 5), (PONG, 16, 0), (CLOSE, 16, 2), (CLOSE, 64, 2)), 20):
        case(f"22.2.{i}", f"opcode {opcode}, {size} bytes with a length of {form} bits",
             [frame(opcode, b"\x03\xe8" + b"a" * (size - 2) if size else b"", form=form), *fails(1002)])
    case("22.2.30", "non-minimal length on a continuation",
         [frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", form=16), *fails(1002)])
    huge = (("22.3.1", 1 << 63, 1002), ("22.3.2", (1 << 64) - 1, 1002), ("22.3.3", 1 << 63 | 5, 1002),
            ("22.3.4", (1 << 63) - 1, 1009), ("22.3.5", 1 << 62, 1009), ("22.3.6", 1 << 40, 1009), ("22.3.7", 1 << 33, 1009))
    for number, size, code in huge:
        case(number, f"header of {size} bytes, no payload: {code}", [frame(BINARY, b"", size=size), *fails(code)])
        case(number + "/payload", f"header of {size} bytes, some payload: {code}",
             [before + frame(BINARY, b"a" * 100, size=size), ("text", b"before"), *fails(code, end_or_reset)])
        case(number + "/octets", f"header of {size} bytes, octet by octet: {code}",
             [chop(frame(BINARY, b"", size=size), 1), *fails(code)])
    for number, size in (("22.3.20", (1 << 63) - 1), ("22.3.21", 1 << 40)):
        case(number, f"one byte and then a continuation of {size}: 1009",
             [frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"", size=size), *fails(1009)])
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
    case("23.3.1", "TCP ends after the handshake", [eof, any_of(("end",), ("close", 1002), ("close", None))])
    case("23.3.2", "TCP ends inside a header", [hello[:3], eof, any_of(("end",), ("close", 1002))])
    case("23.3.3", "TCP ends inside a payload", [hello[:-2], eof, any_of(("end",), ("close", 1002))])
    case("23.3.4", "TCP ends between fragments", [frame(TEXT, b"a", fin=False), eof, any_of(("end",), ("close", 1002))])
    case("23.3.5", "a text and at once the end of TCP: the echo still comes", [hello, eof, answer])
    case("23.3.6", "a close and at once the end of TCP: the close still comes",
         [close_frame(1000), eof, ("close", 1000), end])
    case("23.3.7", "1 MiB and at once the end of TCP: the echo still comes", [frame(BINARY, big), eof, ("binary", big)])


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


def resets():
    hello, big = frame(TEXT, b"hello"), frame(BINARY, payload_of(BINARY, 4 * MIB))
    points = [("before the handshake", b"", False), ("after the handshake", b"", True)]
    points += [(f"after {n} octets of a frame", frame(TEXT, b"a" * 200)[:n], True) for n in range(1, 9)]
    points += [("inside a payload", hello[:-1], True), ("between fragments", frame(TEXT, b"a", fin=False), True),
               ("right after a text", hello, True), ("right after 200 pings", frame(PING, b"p" * 100) * 200, True),
               ("right after a close", close_frame(1000), True), ("right after a violation", frame(TEXT, b"", rsv=7), True),
               ("inside 4 MiB", big[:2 * MIB], True), ("right after 4 MiB", big, True)]
    for i, (name, data, open_first) in enumerate(points, 1):
        case(f"25.{i}", f"RST {name}", [data, Peer.reset], shake_hands=open_first)
    for i, at in enumerate((1, 20, 60, 100, 150), 30):
        case(f"25.{i}", f"RST after {at} octets of the handshake",
             [lambda peer, at=at: peer.send(peer.request()[:at]), Peer.reset], shake_hands=False)
    case("25.40", "RST right after the request", [
         lambda peer: peer.send(peer.request()), Peer.reset], shake_hands=False)
    case("25.41", "200 connections reset with echoes under way", reset_many, ready=False)
    case("25.42", "RST while the server cannot write", reset_unread, ready=False)


def reset_many(url):
    peers = [Peer(url) for _ in range(200)]
    for peer in peers:
        peer.send(peer.request() + frame(BINARY, b"x" * 5000) * 3)
    for peer in peers:
        peer.reset()


def reset_unread(url):
    with Peer(url) as peer:
        peer.open()
        stuff(peer)
        peer.reset()


def ordering():
    half = payload_of(BINARY, 512 * KIB)
    case("26.1", "pong before the echo of the message that the ping interrupts, 1 MiB",
         [frame(BINARY, half, fin=False) + frame(PING, b"inside") + frame(CONTINUATION, half), ("pong", b"inside"),
          ("binary", half + half), *BYE])
    case("26.2", "1000 pings between the fragments of a message",
         [frame(TEXT, b"a", fin=False) + b"".join(frame(PING, b"%d" % i) + frame(CONTINUATION, b"a", fin=False)
                                                   for i in range(1000)) + frame(CONTINUATION, b"a"),
          *(("pong", b"%d" % i) for i in range(1000)), ("text", b"a" * 1002), *BYE])
    case("26.3", "texts, binaries and pings in turn keep their order",
         [b"".join(frame(TEXT, b"%d" % i) + frame(PING, b"%d" % i) + frame(BINARY, b"%d" % i) for i in range(300)),
          *(event for i in range(300) for event in ((kind, b"%d" % i) for kind in ("text", "pong", "binary"))), *BYE])
    case("26.4", "two connections with a message half sent each do not mix", interleaved, ready=False)
    case("26.5", "a slow reader gets everything", slow_reader, ready=False, slow=True)
    case("26.6", "a slow reader does not hold up the others", slow_and_fast, ready=False)
    case("26.7", "2000 connections one after another", many_connections, ready=False, slow=True)
    case("26.8", "200 connections at the same time, 20 echoes each", lambda url: together(url, 200, 20), ready=False)


def interleaved(url):
    with Peer(url) as one, Peer(url) as two:
        one.open()
        two.open()
        for part, fin in ((b"first", False), (b"second", False), (b"third", True)):
            for peer, opcode, tag in ((one, TEXT, b"1"), (two, BINARY, b"2")):
                peer.send(frame(opcode if part == b"first" else CONTINUATION, tag + part, fin=fin))
        expect(two, ("binary", b"2first2second2third"))
        expect(one, ("text", b"1first1second1third"))


def stuff(peer):
    """Sends binaries of 64 KiB and reads none of the echoes, until the server takes no more or has 32 MiB. Returns how
    many it began and what is missing of the last one."""
    message = frame(BINARY, payload_of(BINARY, 64 * KIB))
    sent = 0
    while sent < 32 * MIB and select.select([], [peer.socket], [], 0.2)[1]:
        sent += peer.socket.send(message[sent % len(message):])
    missing = -sent % len(message)
    return (sent + missing) // len(message), message[len(message) - missing:]


def slow_reader(url):
    with Peer(url) as peer:
        peer.open()
        count, rest = stuff(peer)
        peer.send(rest)
        for _ in range(count):
            expect(peer, ("binary", payload_of(BINARY, 64 * KIB)))
        for step in BYE:
            run_step(peer, step)


def slow_and_fast(url):
    with Peer(url) as slow:
        slow.open()
        stuff(slow)
        run_script(url, [frame(TEXT, b"fast"), ("text", b"fast"), *BYE])
        slow.reset()


def many_connections(url):
    for i in range(2000):
        run_script(url, [frame(TEXT, b"%d" % i), ("text", b"%d" % i), *BYE])


def together(url, count, rounds):
    peers = [Peer(url) for _ in range(count)]
    for peer in peers:
        peer.open()
    for i in range(rounds):
        for j, peer in enumerate(peers):
            peer.send(frame(TEXT, b"%d %d" % (i, j)))
        for j, peer in enumerate(peers):
            expect(peer, ("text", b"%d %d" % (i, j)))
    for peer in peers:
        with peer:
            for step in BYE:
                run_step(peer, step)


# --- running ---------------------------------------------------------------------------------------------------

class Witness:
    """A connection that lives through all cases: what one peer does must not harm another."""

    def __init__(self, url):
        self.url, self.count, self.peer = url, 0, None

    def check(self):
        self.count += 1
        try:
            if self.peer is None:
                self.peer = Peer(self.url)
                self.peer.open()
            token = b"witness %d" % self.count
            self.peer.send(frame(TEXT, token))
            expect(self.peer, ("text", token))
        except (Breach, Unexpected, OSError) as problem:
            self.peer = None
            return f"another connection suffered: {problem}"
        return None


def attempt(run, url, witness):
    try:
        run(url)
    except (Breach, Unexpected, OSError, ValueError) as problem:
        return str(problem) or type(problem).__name__
    return witness.check()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--only", metavar="REGEX", default="", help="cases whose id and name match from the beginning")
    parser.add_argument("--fast", action="store_true", help="leave out the slow cases (large messages)")
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="how long to wait for an event")
    parser.add_argument("--verbose", action="store_true", help="print what passes, too")
    options = parser.parse_args()
    for group in (framing, pings, reserved, fragmentation, utf8, closing, limits, handshakes, refusals, directions_and_lengths,
                  glue, resets, ordering, plain_http):
        group()
    chosen = [entry for entry in CASES if not (options.fast and entry[3])
              and re.match(options.only, f"{entry[0]} {entry[1]}")]
    if options.list:
        for number, name, _, slow in chosen:
            print(number, name, "(slow)" if slow else "")
        return 0
    Peer.patience = options.timeout
    if not options.url:
        parser.error("a URL is needed")
    return run_all(options, chosen)


def run_all(options, chosen):
    witness, failed = Witness(options.url), 0
    for number, name, run, _ in chosen:
        start = time.monotonic()
        problem = attempt(run, options.url, witness)
        failed += problem is not None
        if problem or options.verbose:
            print(f"{'FAILED' if problem else 'ok'} {number} {name}{': ' + problem if problem else ''} "
                  f"[{time.monotonic() - start:.2f} s]", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
