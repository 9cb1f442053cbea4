"""Test cases for one side of a WebSocket, as scripts, and how they are run: what conformance.py and conformance_client.py
share.

A case is an id, a name and a script, a list of steps:
    bytes          are sent
    tuple          is an event that must come next (peer.py lists them); ("close", code) leaves the reason open
    callable       is called with the peer
The events must come exactly so: nothing missing, nothing more, in this order. What must not happen is proved by
what comes first; only `quiet` waits, and briefly. A witness, connected all the time, must be served after each case.
The subject is what is tested: Side.connect(subject) makes a connection with it, whose open() shakes hands.
"""

import random
import re
import time

from peer import BINARY, TEXT, Breach, Side, close_frame, frame

KIB, MIB = 1024, 1024 * 1024
ECHO = {TEXT: "text", BINARY: "binary"}
WORDS = ("levada ", "água ", "κόσμε ", "日本 ", "\U0001f30a ", "x")
CASES, IDS = [], set()


class Unexpected(Exception):
    pass


# --- steps -----------------------------------------------------------------------------------------------------


def end(peer):
    """The subject ends TCP, cleanly and at once: a server by itself, a client when we, the server, have ended ours."""
    if Side.is_server:
        peer.half_close()
    expect(peer, ("end",), timeout=1.0)


def end_or_reset(peer):
    """The same; a reset will do where we sent more than the subject had to read."""
    if Side.is_server:
        peer.half_close()
    expect(peer, ("end",), ("reset",), timeout=1.0)


def quiet(peer):
    """Nothing comes: neither bytes nor an end."""
    expect(peer, ("timeout",), timeout=0.02)


def reply(peer):
    """Answers the subject's close as a well-behaved peer does."""
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
    """The subject fails the connection with this code and TCP ends."""
    return [("close", code), reply, ending, lambda peer: peer.expect_report("closed", str(code), "local")]


def bye(peer):
    """We close, the subject answers."""
    for step in (close_frame(1000), ("close", 1000), end):
        run_step(peer, step)
    peer.expect_report("closed", "1000", "peer")


BYE = [bye]


def show(event):
    return "(%s)" % " ".join(
        f"{part[:24]!r}.. {len(part)} bytes" if isinstance(part, bytes) and len(part) > 40 else repr(part)
        for part in event)


def expect(peer, *wanted, timeout=None):
    got = peer.event(timeout)
    if not any(got[:len(want)] == want for want in wanted):
        raise Unexpected(f"expected {' or '.join(map(show, wanted))}, got {show(got)}")


def refuse(problem):
    raise Unexpected(problem)


def run_step(peer, step):
    if isinstance(step, bytes):
        peer.send(step)
    elif isinstance(step, tuple):
        expect(peer, step)
    else:
        step(peer)


def run_script(subject, script, shake_hands=True):
    with Side.connect(subject) as peer:
        if shake_hands:
            peer.open()
        for step in script:
            run_step(peer, step)
        peer.finish()


# --- the table -------------------------------------------------------------------------------------------------


def case(number, name, script, slow=False, shake_hands=True, ready=True):
    """Adds a case. `script` is a list, a function that makes one when the case runs (for large payloads), or, with
    ready=False, a function of the subject that does everything itself."""
    assert number not in IDS, number
    IDS.add(number)

    def run(subject):
        if not ready:
            script(subject)
        else:
            run_script(subject, script() if callable(script) else script, shake_hands)
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


# --- running ---------------------------------------------------------------------------------------------------


class Witness:
    """A connection that lives through all cases: what one peer does must not harm another."""

    def __init__(self, subject):
        self.subject, self.count, self.peer = subject, 0, None

    def check(self):
        self.count += 1
        try:
            if self.peer is None:
                self.peer = Side.connect(self.subject)
                self.peer.open()
            token = b"witness %d" % self.count
            self.peer.send(frame(TEXT, token))
            expect(self.peer, ("text", token))
        except (Breach, Unexpected, OSError) as problem:
            self.peer = None
            return f"another connection suffered: {problem}"
        return None


def attempt(run, subject, witness):
    try:
        run(subject)
    except (Breach, Unexpected, OSError, ValueError) as problem:
        return str(problem) or type(problem).__name__
    return witness.check()


def add_options(parser):
    parser.add_argument("--only", metavar="REGEX", default="", help="cases whose id and name match from the beginning")
    parser.add_argument("--fast", action="store_true", help="leave out the slow cases (large messages)")
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="how long to wait for an event")
    parser.add_argument("--verbose", action="store_true", help="print what passes, too")


def choose(options, groups):
    """Fills the table; the cases that the options ask for. With --list prints them."""
    for group in groups:
        group()
    chosen = [entry for entry in CASES if not (options.fast and entry[3])
              and re.match(options.only, f"{entry[0]} {entry[1]}")]
    for number, name, _, slow in chosen if options.list else ():
        print(number, name, "(slow)" if slow else "")
    return chosen


def run_all(options, chosen, subject):
    witness, failed = Witness(subject), 0
    for number, name, run, _ in chosen:
        start = time.monotonic()
        problem = attempt(run, subject, witness)
        failed += problem is not None
        if problem or options.verbose:
            print(f"{'FAILED' if problem else 'ok'} {number} {name}{': ' + problem if problem else ''} "
                  f"[{time.monotonic() - start:.2f} s]", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0
