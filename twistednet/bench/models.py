"""Echo servers of several makes, each as short as its textbook has it: ``python -m twistednet.bench.models NAME PORT``.

They listen on 127.0.0.1, set TCP_NODELAY (Twisted's own does not; it is as it is), and run until they are killed. Like
their originals they keep no one from filling their memory: they are for comparing, not for use.

Sources: seed 004, the chapter on concurrency (a process per client, a thread per client, a ``select`` loop); the
documentation of asyncio (protocols, streams).
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
import threading
from typing import Any, cast

HOST = "127.0.0.1"

BACKLOG = 1024

READ_SIZE = 65536


def listen(port: int) -> socket.socket:
    """A socket that listens."""
    return socket.create_server((HOST, port), backlog=BACKLOG)


def accept(listening: socket.socket) -> socket.socket:
    """The next client."""
    client, _ = listening.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def serve_one(client: socket.socket) -> None:
    """Echo to one client until it has ended."""
    with client:
        try:
            while data := client.recv(READ_SIZE):
                client.sendall(data)
        except ConnectionError:
            pass


def threads(port: int) -> None:
    """A thread per client."""
    listening = listen(port)
    while True:
        threading.Thread(target=serve_one, args=(accept(listening),), daemon=True).start()


def forks(port: int) -> None:
    """A process per client."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries the children
    listening = listen(port)
    while True:
        client = accept(listening)
        if os.fork() == 0:
            listening.close()
            serve_one(client)
            os._exit(0)
        client.close()


def select_loop(port: int) -> None:
    """One process that asks `select` who is ready (1,024 descriptors at most); answers wait for their reader."""
    listening = listen(port)
    answers: dict[socket.socket, bytes] = {}
    while True:
        # Who has not taken the last answer is not read from.
        readable, writable, _ = select.select(
            [listening, *(client for client, answer in answers.items() if not answer)],
            [client for client, answer in answers.items() if answer],
            [],
        )
        for ready in readable:
            if ready is listening:
                client = accept(listening)
                client.setblocking(False)
                answers[client] = b""
                continue
            try:
                data = ready.recv(READ_SIZE)
                answers[ready] = data[ready.send(data) :]
            except BlockingIOError:
                answers[ready] = data
            except ConnectionError:
                data = b""
            if not data:
                del answers[ready]
                ready.close()
        for ready in writable:
            try:
                answers[ready] = answers[ready][ready.send(answers[ready]) :]
            except ConnectionError:
                del answers[ready]
                ready.close()


class EchoProtocol(asyncio.Protocol):
    """A bare asyncio protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        self.write(data)


async def serve_protocol(port: int) -> None:
    """A bare protocol on the running loop."""
    server = await asyncio.get_running_loop().create_server(EchoProtocol, HOST, port, backlog=BACKLOG)
    await server.serve_forever()


def asyncio_protocol(port: int) -> None:
    """A bare protocol on asyncio's own loop."""
    asyncio.run(serve_protocol(port))


def uvloop_protocol(port: int) -> None:
    """A bare protocol on uvloop."""
    import uvloop

    uvloop.run(serve_protocol(port))


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo to one client, with asyncio's streams."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def asyncio_streams(port: int) -> None:
    """asyncio's streams on its own loop."""

    async def serve() -> None:
        server = await asyncio.start_server(echo_stream, HOST, port, backlog=BACKLOG)
        await server.serve_forever()

    asyncio.run(serve())


def wire(port: int) -> None:
    """Twisted's own Echo on its epoll reactor."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory
    from twisted.protocols.wire import Echo

    factory: Factory[Any] = Factory.forProtocol(Echo)
    net: Any = reactor
    net.listenTCP(port, factory, backlog=BACKLOG, interface=HOST)
    net.run()


MODELS = {
    "wire": wire,
    "asyncio": asyncio_protocol,
    "streams": asyncio_streams,
    "uvloop": uvloop_protocol,
    "threads": threads,
    "forks": forks,
    "select": select_loop,
}

if __name__ == "__main__":
    MODELS[sys.argv[1]](int(sys.argv[2]))
