"""Python's `websockets` with permessage-deflate against an echo server that agrees to it, with takeover, when asked:
python_deflate.py [--fast] [--paths] URL.

Every combination of the four parameters that it can do (it gives zlib the window that was agreed on, and zlib does not
compress with one of 8 bits): 1000 messages each (100 with --fast) of 16 bytes to 128 KiB, text and binary, whole and
fragmented, are echoed and compared. Where both windows are the same, what it compresses has zlib's usual level, else
the fast one. With --paths the server is deflate_server.cc: some of its paths, too, that bound windows, share contexts or
send final blocks."""

import asyncio
import collections
import itertools
import random
import sys

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SIZES = [16 << power for power in range(14)]
PATIENCE = 120  # seconds for a message
IN_FLIGHT = 8  # messages on their way
POOL = 1 << 20  # bytes that messages are cut from


def make_pool():
    """Text that compresses well, and bytes that do not."""
    source = random.Random(1)
    text = "".join(f'{{"id":{source.randrange(10**6)},"user":"ana"}},' for _ in range(POOL // 23))
    return text[:POOL], source.randbytes(POOL)


def message(number, source, pool):
    """(the message, whether it is sent in fragments)"""
    text, noise = pool
    size, form = SIZES[number % len(SIZES)], number // len(SIZES)
    at = source.randrange(POOL - size)
    if form % 2 == 0:
        data = text[at : at + size]
    else:
        data = noise[at : at + size] if form % 4 == 1 else text[at : at + size].encode()
    return data, form // 2 % 2 == 1


def pieces(whole, source):
    cut = sorted(source.randrange(len(whole) + 1) for _ in range(3))
    return [whole[a:b] for a, b in zip([0, *cut], [*cut, len(whole)])]


ALL = (15, 15, False, False)
# (path, what to ask for, what is then agreed on): the windows of the server and the client, and who resets.
PATHS = [("/9/15/3", ALL, (9, 15, False, False)), ("/12/10/0", ALL, (12, 10, True, True)),
         ("/15/9/1", ALL, (15, 9, False, True)), ("/8/12/2", (10, 11, False, False), (8, 11, True, False)),
         ("/final", ALL, (15, 15, True, True))]


async def run(url, parameters, count, pool, agreed=None):
    server_bits, client_bits, server_reset, client_reset = parameters
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover=server_reset,
        client_no_context_takeover=client_reset,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
        compress_settings={"level": 6 if server_bits == client_bits else 1},
    )
    source = random.Random(repr(parameters))
    options = {"compression": None, "extensions": [factory], "max_size": None, "ping_interval": None, "proxy": None}
    async with connect(url, **options) as socket:
        extension = socket.protocol.extensions[0]
        got = (extension.remote_max_window_bits, extension.local_max_window_bits,
               extension.remote_no_context_takeover, extension.local_no_context_takeover)
        if got != (agreed or parameters):
            raise AssertionError(f"agreed on {extension!r}")
        sent = collections.deque()
        window = asyncio.Semaphore(IN_FLIGHT)

        async def send_all():
            for number in range(count):
                await window.acquire()
                whole, fragmented = message(number, source, pool)
                sent.append(whole)
                await socket.send(pieces(whole, source) if fragmented else whole)

        async def receive_all():
            for number in range(count):
                if await asyncio.wait_for(socket.recv(), PATIENCE) != sent[0]:
                    raise AssertionError(f"message {number} of {len(sent[0])} came back as another")
                sent.popleft()
                window.release()

        sending = asyncio.create_task(send_all())
        try:
            await receive_all()
        finally:
            sending.cancel()


async def main(arguments):
    fast = "--fast" in arguments
    url = arguments[-1]
    bits = (8, 9, 12, 15) if fast else range(8, 16)
    pool = make_pool()
    passed = failed = 0
    todo = [("", parameters, parameters) for parameters in itertools.product(bits, bits, (False, True), (False, True))
            if parameters[1] != 8]
    if "--paths" in arguments:
        todo += PATHS
    for path, parameters, agreed in todo:
        name = path + " server_bits=%d client_bits=%d server_reset=%d client_reset=%d" % parameters
        try:
            await run(url.rstrip("/") + (path or "/"), parameters, 100 if fast else 1000, pool, agreed)
            passed += 1
            print("ok", name, flush=True)
        except Exception as problem:  # any failure of any kind is a failed check
            failed += 1
            print("FAILED", name, repr(problem)[:300], flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(asyncio.run(main(sys.argv[1:])))
