"""Python's `websockets` against an echo server: python_websockets.py URL."""

import asyncio
import random
import sys

from websockets.asyncio.client import connect

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20)
SCRIPTS = "levada água κόσμε 日本語 한국어 \U0001f30a\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001d11e"
passed = failed = 0


def open_connection(url, **options):
    return connect(url, max_size=None, ping_interval=None, proxy=None, **options)


async def check(name, test):
    global passed, failed
    try:
        await asyncio.wait_for(test, 60)
        passed += 1
        print("ok", name)
    except Exception as problem:  # any failure of any kind is a failed check
        failed += 1
        print("FAILED", name, repr(problem)[:300])


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r:.100}, expected {wanted!r:.100}")


async def echo(url, message, **options):
    async with open_connection(url, **options) as socket:
        await socket.send(message)
        same(await socket.recv(), message)
    same(socket.close_code, 1000)


async def fragmented(url, pieces, whole):
    async with open_connection(url) as socket:
        await socket.send(pieces)
        same(await socket.recv(), whole)


async def ping(url):
    async with open_connection(url) as socket:
        for payload in (b"", b"ping", b"\xff" * 125):
            await (await socket.ping(payload))
        await socket.pong(b"unsolicited")
        await socket.send("after")
        same(await socket.recv(), "after")


async def close(url, code, reason):
    async with open_connection(url) as socket:
        await socket.close(code, reason)
    same(socket.close_code, code)


async def concurrent(url, count, rounds):
    async def one(number):
        async with open_connection(url) as socket:
            for i in range(rounds):
                await socket.send(f"{number} {i}")
                same(await socket.recv(), f"{number} {i}")

    await asyncio.gather(*(one(number) for number in range(count)))


async def pipelined(url, count):
    async with open_connection(url) as socket:

        async def send_all():
            for i in range(count):
                await socket.send(str(i))

        sender = asyncio.create_task(send_all())
        for i in range(count):
            same(await socket.recv(), str(i))
        await sender


async def main(url):
    for size in SIZES:
        await check(f"text of {size} bytes", echo(url, "t" * size))
        await check(f"binary of {size} bytes", echo(url, random.Random(size).randbytes(size)))
    await check("text in many scripts", echo(url, SCRIPTS))
    await check("large text in many scripts", echo(url, SCRIPTS * 10000))
    await check("compression offered", echo(url, SCRIPTS * 100, compression="deflate"))
    await check("no compression offered", echo(url, SCRIPTS, compression=None))
    await check("fragmented text", fragmented(url, list(SCRIPTS), SCRIPTS))
    await check("fragmented binary", fragmented(url, [b"", b"a" * 70000, b"", b"b"], b"a" * 70000 + b"b"))
    await check("ping and pong", ping(url))
    await check("close 1000", close(url, 1000, ""))
    await check("close 1001 with a reason", close(url, 1001, "going away"))
    await check("close 4999 with a reason in many scripts", close(url, 4999, "água 日本語 \U0001f30a"))
    await check("50 connections at the same time, 20 echoes each", concurrent(url, 50, 20))
    await check("1000 pipelined texts", pipelined(url, 1000))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(asyncio.run(main(sys.argv[1])))
