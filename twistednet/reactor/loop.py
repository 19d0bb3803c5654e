"""The reactor itself: Twisted's asyncio reactor, with streams that the loop carries. See the package's docstring."""

# ruff: noqa: N803 (the parameters of Twisted's methods have the names that Twisted gives them)

from __future__ import annotations

import asyncio
import signal
import socket
from math import ceil
from time import monotonic, time
from typing import Any

from twisted.internet._signals import _MultiSignalHandling
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import DelayedCall
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.main import CONNECTION_LOST, installReactor
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.process import reapAllProcesses
from twisted.python import context, log
from twisted.python.failure import Failure

from twistednet.reactor.datagram import MulticastPort
from twistednet.reactor.datagram import Port as UDPPort
from twistednet.reactor.log_context import LogContext
from twistednet.reactor.stream import Connector, PlainStream, Port, UNIXConnector, UNIXPort

__all__ = ["BACKLOG", "TWISTEDS_BACKLOG", "LoopReactor", "install_reactor"]

TWISTEDS_BACKLOG = 50
"""The length of the listen queue that Twisted asks for by default."""
BACKLOG = 4096
"""The length that is used instead: Linux's own limit since 5.4. In a queue of 50 a burst of connects is dropped, and
each client tries again after a second."""

LONGEST = 86400.0
"""Seconds after which the timers are looked at, at the latest."""

CLOCK_STEP = 0.5
"""When the time of day has moved by so many seconds more or less than the monotonic clock, it has been set."""

DIRECT_SECONDS = 1.0
"""For so long at most, writes of a connection go straight to the loop before they are collected again, to see whether
its protocol still answers each arrival with exactly one write."""


class LoopReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor, with streams that the loop carries.

    :param loop: the loop to run on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.streams: set[PlainStream] = set()
        """The connections that the loop carries."""
        self.direct: set[PlainStream] = set()
        """Those whose writes go straight to the loop."""
        self._ending_direct: asyncio.TimerHandle | None = None
        self._to_flush: dict[PlainStream, None] = {}
        self._stop_requested = False
        self._wall_offset = time() - monotonic()
        super().__init__(loop)
        callers = PlainStream.data_received.__code__, PlainStream.eof_received.__code__
        context.setDefault(log.ILogContext, LogContext(*callers))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that this reactor runs on."""
        return self._asyncioEventloop

    def _signalsFactory(self) -> Any:
        return _MultiSignalHandling((super()._signalsFactory(), ChildSignal(self.loop)))

    # Running

    def run(self, installSignalHandlers: bool = True) -> None:
        self.startRunning(installSignalHandlers=installSignalHandlers)
        if self._started:  # and not crashed by what callWhenRunning has called
            self._run_loop()
        self._justStopped = False

    def iterate(self, delay: float = 0) -> None:
        """Run for `delay` seconds; with 0, handle what is ready, and return.

        A loop can't run within itself. Called while the reactor runs, this sends what has been written and calls the
        timers that are due, and reads nothing.
        """
        self.runUntilCurrent()
        if self.loop.is_running():
            self._flush()
            return
        ending = self.loop.call_later(delay, self._stop_loop) if delay else self.loop.call_soon(self._stop_loop)
        self._run_loop()
        ending.cancel()

    def crash(self) -> None:
        PosixReactorBase.crash(self)
        if self.loop.is_running():
            self._stop_loop()

    def _run_loop(self) -> None:
        self._stop_requested = False
        self.loop.run_forever()

    def _stop_loop(self) -> None:
        # uvloop keeps a second request for the next run, which it would end at once.
        if not self._stop_requested:
            self._stop_requested = True
            self.loop.stop()

    # Timers

    def seconds(self) -> float:
        """The time of day, as of Twisted's reactors: twisted.web dates its log with it.

        When it has been set to another, the pending timers are moved with it, so that each comes after the time that
        was asked for. The loop's own timers go by the monotonic clock.
        """
        now = time()
        offset = now - monotonic()
        step = offset - self._wall_offset
        if not -CLOCK_STEP < step < CLOCK_STEP:
            self._wall_offset = offset
            for call in (*self._pendingTimedCalls, *self._newTimedCalls):
                call.time += step
        return now

    _scheduledAt: float | None  # type: ignore[assignment]
    _timerHandle: asyncio.Handle | None  # type: ignore[assignment]

    def callLater(self, delay: float, callable: Any, *args: object, **kwargs: object) -> DelayedCall:  # noqa: A002
        call = PosixReactorBase.callLater(self, delay, callable, *args, **kwargs)
        self._schedule(delay)
        return call

    def _reschedule(self) -> None:
        timeout = self.timeout()
        if timeout is not None:
            self._schedule(timeout)

    def _schedule(self, delay: float) -> None:
        """Have the timers looked at after `delay` seconds, unless that happens before."""
        when = self.loop.time() + delay
        if self._scheduledAt is not None and self._scheduledAt <= when:
            return
        if self._timerHandle is not None:
            self._timerHandle.cancel()
        self._scheduledAt = when
        if delay <= 0:
            self._timerHandle = self.loop.call_soon(self._onTimer)
        else:
            # The loops count in milliseconds. Woken too early, they would turn without pause until the time has come.
            self._timerHandle = self.loop.call_later(ceil(min(delay, LONGEST) * 1000) / 1000, self._onTimer)

    # Writes that have been collected

    def flush_soon(self, stream: PlainStream) -> None:
        """Send what `stream` has collected before the loop next waits for events."""
        if not self._to_flush:
            self.loop.call_soon(self._flush)
        self._to_flush[stream] = None

    def flushes_soon(self, stream: PlainStream) -> bool:
        """Whether something was written to `stream` in this turn."""
        return stream in self._to_flush

    def _flush(self) -> None:
        streams, self._to_flush = self._to_flush, {}
        for stream in streams:
            try:
                stream.flush()
            except BaseException:  # a producer's, from pauseProducing
                log.err()

    def writes_directly(self, stream: PlainStream) -> None:
        """The writes of `stream` go straight to the loop, until `DIRECT_SECONDS` have passed."""
        self.direct.add(stream)
        if self._ending_direct is None:
            self._ending_direct = self.loop.call_later(DIRECT_SECONDS, self._end_direct)

    def _end_direct(self) -> None:
        self._ending_direct = None
        for stream in list(self.direct):
            stream.collect_writes()

    # What Twisted asks a reactor about its descriptors

    def addReader(self, reader: Any) -> None:
        reader.startReading() if reader in self.streams else super().addReader(reader)

    def removeReader(self, reader: Any) -> None:
        reader.stopReading() if reader in self.streams else super().removeReader(reader)

    def addWriter(self, writer: Any) -> None:
        writer.startWriting() if writer in self.streams else super().addWriter(writer)

    def removeWriter(self, writer: Any) -> None:
        writer.stopWriting() if writer in self.streams else super().removeWriter(writer)

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *(stream for stream in self.streams if stream.reading)]

    def getWriters(self) -> list[Any]:
        return [*super().getWriters(), *(stream for stream in self.streams if stream.writing)]

    def removeAll(self) -> list[Any]:
        streams = [stream for stream in self.streams if stream.reading or stream.writing]
        for stream in streams:
            stream.stopReading()
            stream.stopWriting()
        return [*super().removeAll(), *streams]

    def disconnectAll(self) -> None:
        super().disconnectAll()
        for stream in list(self.streams):
            log.callWithLogger(stream, stream.connectionLost, Failure(CONNECTION_LOST))

    # What Twisted asks a reactor for

    def listenTCP(self, port: Any, factory: Any, backlog: int = TWISTEDS_BACKLOG, interface: str = "") -> Port:
        listening = Port(port, factory, queue_length(backlog), interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> Connector:
        connector = Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = TWISTEDS_BACKLOG, mode: int = 0o666, wantPID: int = 0
    ) -> UNIXPort:
        listening = UNIXPort(address, factory, queue_length(backlog), mode, self, wantPID)
        listening.startListening()
        return listening

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: int = 0) -> UNIXConnector:
        connector = UNIXConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: socket.AddressFamily, factory: Any) -> Any:
        listening: Any
        if addressFamily == socket.AF_UNIX:
            listening = UNIXPort._fromListeningDescriptor(self, fileDescriptor, factory)
        elif addressFamily in (socket.AF_INET, socket.AF_INET6):
            listening = Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        else:
            raise UnsupportedAddressFamily(addressFamily)
        listening.startListening()
        return listening

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> UDPPort:
        listening = UDPPort(port, protocol, interface, maxPacketSize, self)
        listening.startListening()
        return listening

    def listenMulticast(
        self,
        port: int,
        protocol: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> MulticastPort:
        listening = MulticastPort(port, protocol, interface, maxPacketSize, self, listenMultiple)
        listening.startListening()
        return listening


class ChildSignal:
    """Handles SIGCHLD by itself, because the loops take the signal wakeup descriptor from Twisted: uvloop as soon as
    it runs, asyncio when a signal handler is added to it.

    :param loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def install(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: self._loop.call_soon_threadsafe(reapAllProcesses))
        signal.siginterrupt(signal.SIGCHLD, False)

    def uninstall(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def queue_length(backlog: int) -> int:
    """The length of the listen queue when `backlog` is asked for."""
    return BACKLOG if backlog == TWISTEDS_BACKLOG else backlog


def install_reactor(reactor: LoopReactor) -> None:
    """Make `reactor` the global one, and its loop the current one of asyncio.

    :raises twisted.internet.error.ReactorAlreadyInstalledError: when there is a reactor already.
    """
    installReactor(reactor)
    asyncio.set_event_loop(reactor.loop)
