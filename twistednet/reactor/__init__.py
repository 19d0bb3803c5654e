"""A reactor whose connections run at the speed of the event loop.

Twisted's reactors watch descriptors, and Twisted's transports read from and write to them: each answer is buffered and
costs a turn of the loop and three system calls besides the one that sends it. asyncio's loops, uvloop above all, have
transports that do the same work in C. This reactor lets those carry the connections of Twisted protocols, which need
no change::

    from twistednet.reactor import install

    install()  # before anything imports twisted.internet.reactor

``docs/reactor.md`` says how to choose it in twistd, trial, pytest-twisted, Scrapy and daphne, and when it is not
faster.

Theory of operation
===================

The reactor is a subclass of Twisted's `AsyncioSelectorReactor`, which still does the rest: threads, processes, signals,
standard input and output, serial ports, datagrams on Unix sockets, connections adopted from elsewhere. The loop carries
TCP and Unix streams, of servers and of clients. It does not carry UDP, which would be slower: see `datagram`.

The life of a connection
    Twisted listens, accepts and connects with its own ports and connectors, and so with its addresses, log lines and
    time-outs, and its handling of too few descriptors. Then it makes a transport of its own, here an instance of a
    subclass that is defined in `stream`, and calls ``makeConnection``. By then the socket has been handed to the loop,
    which calls ``connection_made`` with its own transport, the *loop transport*, in its next turn. From then on

    ==============================  ========================================================================
    the loop                        becomes for Twisted
    ==============================  ========================================================================
    calls ``data_received``         ``dataReceived`` of the protocol
    calls ``eof_received``          the end of the stream: ``readConnectionLost``, or ``connectionLost``
    calls ``pause_writing``         a full buffer: ``pauseProducing`` of the producer, at this and every write
    calls ``resume_writing``        a writable socket: Twisted resumes the producer, closes, or half-closes
    calls ``connection_lost``       ``connectionLost``, with ``ConnectionLost``
    ==============================  ========================================================================

    When Twisted has called ``connectionLost``, the loop transport is aborted, and its later callbacks are ignored.

When bytes leave
    What a protocol writes in one turn of the loop is collected, and sent with one system call before the loop next
    waits for events, or as soon as 64 KiB have been collected. So a response that is written in pieces is one segment
    and one wake-up of the peer. Bytes that have been collected count as pending output: for back-pressure, and for
    ``loseConnection``, which sends them first. `LoopStream.write` says which connections need no collecting.

    Nothing is ever delivered inside ``write`` or ``loseConnection``; ``connectionLost`` comes in a later turn.

Which buffer is whose
    Collected bytes are in Twisted's buffer. After that the loop transport tries to send at once, and keeps what the
    kernel does not take: above 64 KiB it asks for a pause, and it asks for more when it has sent everything, as Twisted
    does.

    Nothing that is read is kept, with one exception: a loop starts to read even if the protocol has paused its
    transport in ``connectionMade``. The first chunk that comes is then kept until the protocol resumes.

Which object owns the descriptor
    The loop transport closes it. The socket object remains for queries (``getHandle``, ``getHost``, TCP options).

Descriptors sent over a Unix socket
    The loop can neither send nor receive them. A protocol that is an `IFileDescriptorReceiver` keeps Twisted's own
    transport; a connection over which one is sent is taken back from the loop, on a duplicate of its socket.

What is different from Twisted's own transports
    - TCP_NODELAY is on by default. With Nagle's algorithm an answer that is written in two turns takes 44 ms, because
      the second part waits for a delayed acknowledgement. ``setTcpNoDelay(False)`` turns it off.
    - Bytes may leave before the turn ends, so a burst of more than 64 KiB that the kernel takes at once does not pause
      a producer.
    - ``reactor.iterate(delay)`` runs for all of `delay`; Twisted's own returns after the first event.
    - A listen queue for which no length, or 50, is asked is as long as the system allows.
    - A connection is closed without a ``shutdown`` before: a process that was forked and has executed nothing keeps it
      open until it ends. A program that is executed inherits no descriptor.
    - A UDP port is not closed by an error, and reads at most 32 datagrams in a turn: see `datagram`.
    - When the reactor stops, connections that neither read nor write are closed with the others.

What is not supported
    - Windows.
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
