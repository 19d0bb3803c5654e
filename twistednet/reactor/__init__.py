"""A reactor whose connections run at the speed of the loop.

Twisted's reactors watch descriptors, and Twisted's transports read from and write to them: each answer is buffered,
and costs a turn of the loop and three calls of the system besides the one that sends it. asyncio's loops, uvloop above
all, have transports of their own that do the same work in C, and write at once. This reactor has Twisted's protocols
carried by those, with no change to a protocol::

    from twistednet.reactor import install

    install()  # before anything imports twisted.internet.reactor

or, for any Twisted application, ``twistd --reactor=twistednet ...``; ``twistednet-asyncio`` is the same on asyncio's
own loop where uvloop is installed too.

Theory of operation
===================

It is Twisted's `AsyncioSelectorReactor`, and what is not said here is done there: timers, threads, processes, signals,
standard input and output, serial ports, datagrams on Unix sockets, connections adopted from elsewhere. TCP and
Unix streams, of servers and clients, are carried by the loop. UDP is not, as that would be slower: see `datagram`.

The life of a connection
    Twisted listens, accepts and connects, as ever: with its own ports and connectors, and so with its addresses, its
    log lines, its time-outs, and its way out when descriptors run out. It then makes one of its own transports, an
    instance of a subclass that is defined in `stream`, and calls ``makeConnection``. By then the socket has been given
    to the loop, which comes with its own transport, the *carrier*, on its next turn. From there on

    ====================================  ====================================================================
    the loop                              is what Twisted knows as
    ====================================  ====================================================================
    has data                              ``dataReceived`` of the protocol, called by the loop
    reads the end of the stream           the end of the stream: ``readConnectionLost``, or ``connectionLost``
    fills its buffer                      a full buffer: ``pauseProducing`` of the producer
    has sent all, while somebody waits    a writable socket: Twisted resumes the producer, closes, half-closes
    closes by itself                      ``connectionLost``, with an error of the network's or the protocol's
    ====================================  ====================================================================

    and ``transport.write`` *is* the carrier's ``write``, as long as nothing needs to be seen to at every write. When
    Twisted has called ``connectionLost``, the carrier is told to close, and what it still says is not listened to.

    Nothing is ever delivered inside ``write`` or ``loseConnection``; ``connectionLost`` comes in a later turn.

Who owns which buffer
    What is written before the carrier has come (in ``connectionMade``) waits in Twisted's buffer. After that the only
    buffer is the carrier's: Twisted's stays empty. The carrier tries to write at once, and keeps what the system does
    not take; above 64 KiB it asks for a pause, and it asks for more when it has sent everything, as Twisted does.

    Nothing that is read is kept, with one exception: a loop starts to read even when the protocol has paused its
    transport in ``connectionMade``. The first piece that comes is then kept, and delivered when it is asked for.

Who owns the descriptor
    The carrier closes it. The socket object is there to be asked (``getHandle``, ``getHost``, TCP options).

Descriptors sent over a Unix socket
    The loop can neither send nor receive them. A protocol that is an `IFileDescriptorReceiver` keeps Twisted's own
    transport; a connection over which one is sent is taken back from the loop, on a duplicate of its socket.

What is different from Twisted's own transports
    - TCP_NODELAY is set on every connection, as the loops do.
    - A log line from ``dataReceived`` has no prefix that names the connection: putting one there costs as much as
      the rest of an echo.
    - A small write leaves at once, and not with the others of its turn: ``writeSequence`` is one write.
    - A listen queue for which nobody has asked a length, or for which 50 was asked, is as long as the system lets it.
    - A connection is closed without a ``shutdown`` before: a process that was forked off, and has executed nothing,
      keeps it open until it ends. What is executed inherits no descriptor.
    - A UDP port is not closed by an error, and takes at most 32 datagrams in a turn: see `datagram`.
    - When the reactor stops, connections that neither read nor write are closed with the others.

What is not supported
    - Windows.
    - Buffers other than bytes are refused by ``write`` late or not at all. Write bytes.
    - ``SystemExit`` and ``KeyboardInterrupt`` out of ``dataReceived`` end the loop where it is asyncio's, and only the
      connection where it is uvloop's.
    - The attributes of Twisted's transports that are not part of an interface: ``dataBuffer``, ``doWrite`` and such.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from twistednet.reactor.asyncioreactor import AsyncioReactor
from twistednet.reactor.loop import LoopReactor, install_reactor
from twistednet.reactor.uvloopreactor import UvloopReactor

__all__ = ["AsyncioReactor", "LoopReactor", "UvloopReactor", "install"]


def install(loop: asyncio.AbstractEventLoop | Literal["uvloop", "asyncio"] | None = None) -> LoopReactor:
    """Make this the global reactor.

    :param loop: a loop, or the name of one. Left out, uvloop when it is installed, and asyncio's own otherwise.
    :return: the reactor.
    :raises ImportError: when uvloop is named and not installed.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: when there is a reactor already.
    """
    reactor: LoopReactor
    if loop is None:
        try:
            reactor = UvloopReactor()
        except ImportError:
            reactor = AsyncioReactor()
    elif isinstance(loop, str):
        reactor = {"uvloop": UvloopReactor, "asyncio": AsyncioReactor}[loop]()
    else:
        reactor = LoopReactor(loop)
    install_reactor(reactor)
    return reactor
