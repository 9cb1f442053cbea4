"""An echo server made of Python's `websockets`, for checking_client.cc and deflate_client.cc, which say
what its paths do. Prints its URL first; ends on SIGTERM. With two arguments, certificate and key, it speaks TLS."""

import asyncio
import contextlib
import http
import signal
import ssl
import sys
from urllib.parse import unquote

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory


async def serve_one(socket):
    verb, _, rest = socket.request.path.removeprefix("/").partition("/")
    if verb == "close":
        code, _, reason = rest.partition("/")
        return await socket.close(int(code), unquote(reason))
    if verb == "ping":
        await (await socket.ping(b"are you there"))
        await socket.send("pong")
    with contextlib.suppress(ConnectionClosed):  # with another code than 1000
        async for message in socket:
            size = {"fragments": 1000, "thirds": -(-len(message) // 3)}.get(verb)
            if size:
                message = [message[at : at + size] for at in range(0, len(message), size)]
            await socket.send(message)


def refuse(connection, request):
    return connection.respond(http.HTTPStatus.FORBIDDEN, "no\n") if request.path == "/refuse" else None


async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    deflate = ServerPerMessageDeflateFactory()  # what the client asks for
    options = {"compression": None, "extensions": [deflate], "process_request": refuse}
    options |= {"subprotocols": ["levada.echo"], "select_subprotocol": choose}
    scheme = "ws"
    if len(sys.argv) == 3:
        scheme = "wss"
        options["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options["ssl"].load_cert_chain(sys.argv[1], sys.argv[2])
    async with serve(serve_one, "127.0.0.1", 0, max_size=None, ping_interval=None, **options) as server:
        print(f"listening {scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await ended.wait()


def choose(connection, offered):
    return "levada.echo" if "levada.echo" in offered else None


asyncio.run(main())
