"""Python's `websockets` with permessage-deflate against an echo server that agrees to it, with takeover, when asked:
python_deflate.py [--fast] URL.

Every combination of the four parameters that zlib can do (it does not compress with a window of 8 bits): one connection
each, on which messages of 16 bytes to 128 KiB, text and binary, whole and fragmented, are echoed and compared."""

import asyncio
import itertools
import random
import sys

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SIZES = (16, 100, 128, 1000, 4096, 16384, 131072)
LARGE_FROM = 16384
NAMES = ("ana", "bruno", "carla", "duarte")


def message(size, source, number):
    """Half of them compress well; each differs from the others."""
    if number % 4 == 3:
        data = source.randbytes(size)
    else:
        items = (f'{{"id":{source.randrange(10**6)},"user":"{source.choice(NAMES)}"}},' for _ in range(size // 20 + 1))
        data = "".join(items).encode()[:size]
    return data if number % 2 else data.decode()


def pieces(whole, source):
    cut = sorted(source.randrange(len(whole) + 1) for _ in range(3))
    return [whole[a:b] for a, b in zip([0, *cut], [*cut, len(whole)])]


async def run(url, parameters, count):
    server_bits, client_bits, server_reset, client_reset = parameters
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover=server_reset,
        client_no_context_takeover=client_reset,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )
    source = random.Random(repr(parameters))
    options = {"compression": None, "extensions": [factory], "max_size": None, "ping_interval": None, "proxy": None}
    async with connect(url, **options) as socket:
        extension = socket.protocol.extensions[0]
        got = (extension.remote_no_context_takeover, extension.local_no_context_takeover)
        if got != (server_reset, client_reset) or extension.remote_max_window_bits > server_bits:
            raise AssertionError(f"agreed on {extension!r}")
        for number in range(count):
            size = SIZES[number % len(SIZES)]
            if size >= LARGE_FROM and number % 3:
                size //= 64
            whole = message(size, source, number)
            await socket.send(pieces(whole, source) if number % 5 == 4 else whole)
            echo = await socket.recv()
            if echo != whole:
                raise AssertionError(f"message {number} of {size} bytes came back as another")


async def main(arguments):
    fast = "--fast" in arguments
    url = arguments[-1]
    bits = (9, 12, 15) if fast else range(8, 16)
    passed = failed = 0
    for parameters in itertools.product(bits, bits, (False, True), (False, True)):
        if parameters[1] == 8:
            continue
        name = "server_bits=%d client_bits=%d server_reset=%d client_reset=%d" % parameters
        try:
            await asyncio.wait_for(run(url, parameters, 100 if fast else 1000), 120)
            passed += 1
            print("ok", name, flush=True)
        except Exception as problem:  # any failure of any kind is a failed check
            failed += 1
            print("FAILED", name, repr(problem)[:300], flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(asyncio.run(main(sys.argv[1:])))
