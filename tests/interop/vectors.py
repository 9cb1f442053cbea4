"""The cases that hold for both sides alike, for conformance.py and conformance_client.py.

Groups 1 to 7, 9 and 10 are numbered as the Autobahn test suite numbers its cases, so that a reader can map them; groups
above 20 are what no suite checks. frame() masks or does not, as Side says.
"""

import select

from cases import (BYE, ECHO, KIB, MIB, any_of, case, chop, echo_case, echoes, end, end_or_reset, eof, expect, fails,
                   human, is_utf8, number_of, payload_of, quiet, run_script, run_step, send, text_of)
from peer import (BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Side, Wire, body, close_frame, first_bad_octet,
                  fragments, frame, wrong_key)


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
    octets = body(data[:bad + 1])
    case(number + "/fail-fast-frame", f"{label} fails at octet {bad}, inside the frame",
         [header, chop(octets[:bad], 1), quiet, octets[bad:], *fails(1007)])


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
             [frame(TEXT, b"", size=100000) + body(spoilt), *fails(1007)])
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


# --- what no suite checks --------------------------------------------------------------------------------------


def directions_and_lengths():
    before, wrong = frame(TEXT, b"before"), "masked" if Side.is_server else "unmasked"
    for i, (opcode, payload) in enumerate(((TEXT, b"hello"), (TEXT, b""), (BINARY, b"\xff" * 200), (PING, b"p"), (PONG, b""),
                                           (CLOSE, b"\x03\xe8"), (CLOSE, b""), (BINARY, b"x" * 70000)), 1):
        bad = frame(opcode, payload, key=wrong_key())
        case(f"22.1.{i}", f"{wrong} frame, opcode {opcode}, {len(payload)} bytes", [bad, *fails(1002, end_or_reset)])
        case(f"22.1.{i}/after", f"text, then {wrong} frame, opcode {opcode}, {len(payload)} bytes",
             [before + bad, ("text", b"before"), *fails(1002, end_or_reset)])
    case("22.1.20", f"{wrong} continuation", [frame(TEXT, b"a", fin=False) + \
         frame(CONTINUATION, b"b", key=wrong_key()), *fails(1002)])
    case("22.1.21", f"{wrong} frame is refused before the payload has come",
         [frame(BINARY, b"", key=wrong_key(), size=1000), *fails(1002)])
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


def tcp_ends():
    hello, big = frame(TEXT, b"hello"), payload_of(BINARY, MIB)
    case("23.3.1", "TCP ends after the handshake", [eof, any_of(("end",), ("close", 1002), ("close", None))])
    case("23.3.2", "TCP ends inside a header", [hello[:3], eof, any_of(("end",), ("close", 1002))])
    case("23.3.3", "TCP ends inside a payload", [hello[:-2], eof, any_of(("end",), ("close", 1002))])
    case("23.3.4", "TCP ends between fragments", [frame(TEXT, b"a", fin=False), eof, any_of(("end",), ("close", 1002))])
    case("23.3.5", "a text and at once the end of TCP: the echo still comes", [hello, eof, ("text", b"hello")])
    case("23.3.6", "a close and at once the end of TCP: the close still comes",
         [close_frame(1000), eof, ("close", 1000), end])
    case("23.3.7", "1 MiB and at once the end of TCP: the echo still comes", [frame(BINARY, big), eof, ("binary", big)])


def resets():
    hello, big = frame(TEXT, b"hello"), frame(BINARY, payload_of(BINARY, 4 * MIB))
    points = [("after the handshake", b"")]
    points += [(f"after {n} octets of a frame", frame(TEXT, b"a" * 200)[:n]) for n in range(1, 9)]
    points += [("inside a payload", hello[:-1]), ("between fragments", frame(TEXT, b"a", fin=False)),
               ("right after a text", hello), ("right after 200 pings", frame(PING, b"p" * 100) * 200),
               ("right after a close", close_frame(1000)), ("right after a violation", frame(TEXT, b"", rsv=7)),
               ("inside 4 MiB", big[:2 * MIB]), ("right after 4 MiB", big)]
    for i, (name, data) in enumerate(points, 2):
        case(f"25.{i}", f"RST {name}", [data, Wire.reset])
    case("25.41", "200 connections reset with echoes under way", reset_many, ready=False)
    case("25.42", "RST while the subject cannot write", reset_unread, ready=False)


def reset_many(subject):
    peers = [Side.connect(subject) for _ in range(200)]
    for peer in peers:
        peer.open()
        peer.send(frame(BINARY, b"x" * 5000) * 3)
    for peer in peers:
        peer.reset()
        peer.finish()


def reset_unread(subject):
    with Side.connect(subject) as peer:
        peer.open()
        stuff(peer)
        peer.reset()
        peer.finish()


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
    case("26.8", "200 connections at the same time, 20 echoes each", lambda subject: together(subject, 200, 20), ready=False)


def interleaved(subject):
    with Side.connect(subject) as one, Side.connect(subject) as two:
        one.open()
        two.open()
        for part, fin in ((b"first", False), (b"second", False), (b"third", True)):
            for peer, opcode, tag in ((one, TEXT, b"1"), (two, BINARY, b"2")):
                peer.send(frame(opcode if part == b"first" else CONTINUATION, tag + part, fin=fin))
        expect(two, ("binary", b"2first2second2third"))
        expect(one, ("text", b"1first1second1third"))


def stuff(peer):
    """Sends binaries of 64 KiB and reads none of the echoes, until the subject takes no more or has 32 MiB. Returns how
    many it began and what is missing of the last one."""
    message = frame(BINARY, payload_of(BINARY, 64 * KIB))
    sent = 0
    while sent < 32 * MIB and select.select([], [peer.socket], [], 0.2)[1]:
        sent += peer.socket.send(message[sent % len(message):])
    missing = -sent % len(message)
    return (sent + missing) // len(message), message[len(message) - missing:]


def slow_reader(subject):
    with Side.connect(subject) as peer:
        peer.open()
        count, rest = stuff(peer)
        peer.send(rest)
        for _ in range(count):
            expect(peer, ("binary", payload_of(BINARY, 64 * KIB)))
        for step in BYE:
            run_step(peer, step)


def slow_and_fast(subject):
    with Side.connect(subject) as slow:
        slow.open()
        stuff(slow)
        run_script(subject, [frame(TEXT, b"fast"), ("text", b"fast"), *BYE])
        slow.reset()
        slow.finish()


def many_connections(subject):
    for i in range(2000):
        run_script(subject, [frame(TEXT, b"%d" % i), ("text", b"%d" % i), *BYE])


def together(subject, count, rounds):
    peers = [Side.connect(subject) for _ in range(count)]
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


BOTH_SIDES = (framing, pings, reserved, fragmentation, utf8, closing, limits, directions_and_lengths, tcp_ends, resets, ordering)
