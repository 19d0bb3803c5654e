"""The end of a service."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.services.running import PATIENCE, Twistd, connect, receive, receive_all
from tests.wire import Wire
from twistednet.policies.limits import LimitedFactory, Limits
from twistednet.protocols.counters import Counters
from twistednet.protocols.echo import EchoFactory
from twistednet.services.stopping import DrainingService, Signals


class Reactor(Clock):
    """Is stopped, and runs what comes from other threads at once."""

    stopped = 0

    def stop(self) -> None:
        self.stopped += 1

    def callFromThread(self, call: Any) -> None:
        call()


class StoppingTests(SynchronousTestCase):
    """`DrainingService` and `Signals`."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.counters = Counters()
        self.service = DrainingService("example", self.counters)

    def connected(self) -> Wire:
        """A connection of the service's."""
        factory = LimitedFactory(EchoFactory(), Limits(), counters=self.counters, reactor=self.reactor)
        self.service.drain_at_stop(factory, 5)
        self.service.startService()
        return Wire.to(factory)

    def test_datagrams_only(self) -> None:
        """A service without connections stops, and has counters."""
        self.service.startService()
        self.successResultOf(self.service.stopService())
        self.assertIs(self.service.counters, self.counters)

    def test_drains(self) -> None:
        """It has stopped when its connections have ended, and says how they did."""
        wire = self.connected().send(b"hello")
        self.assertEqual(self.service.counters.bytes_sent, 5)
        with capturedLogs() as events:
            stopped = self.service.stopService()
            self.reactor.advance(0.1)
            self.reactor.advance(0.1)
            wire.read()
            self.assertNoResult(stopped)
            wire.end()
            self.successResultOf(stopped)
        (event,) = events
        self.assertEqual((event["name"], event["idle"], event["finished"], event["reset"]), ("example", 1, 0, 0))

    def test_signals(self) -> None:
        """The first stops the reactor, the second resets what is open."""
        wire = self.connected()
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            Signals(self.reactor, self.service).install()
            signal.raise_signal(signal.SIGTERM)
            self.assertEqual((self.reactor.stopped, wire.closed), (1, False))
            signal.raise_signal(signal.SIGINT)
            self.assertEqual((self.reactor.stopped, wire.closed), (1, True))
        finally:
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
                signal.signal(number, handler)

    def test_signals_without_connections(self) -> None:
        """The second signal has nothing to reset where there are only datagrams."""
        signals = Signals(self.reactor, self.service)
        signals._stop()
        signals._stop()
        self.assertEqual(self.reactor.stopped, 1)


def test_delivers(tmp_path: Path) -> None:
    """Stopped in the middle of a long answer, it delivers all of it, and serves nobody else."""
    with Twistd(tmp_path, "repeat", "--port", "0", "--copies", "1000", endpoints=1) as twistd:
        port = twistd.port()
        with connect(port) as client:
            client.sendall(b"x" * 9999 + b"\n")
            received = len(receive(client, 1))
            twistd.process.send_signal(signal.SIGTERM)
            twistd.wait_until_logged("stopping; a second signal stops at once")
            twistd.wait_until_logged(f"(TCP Port {port} Closed)")
            try:
                connect(port).close()
            except ConnectionRefusedError:
                refused = True
            assert refused
            received += len(receive_all(client))
        assert received == 10_000_000
        assert twistd.wait() == 0
        assert "repeat stopped: 0 connections were idle, 1 have finished, 0 were reset" in twistd.log


def test_second_signal(tmp_path: Path) -> None:
    """A second signal doesn't wait for who doesn't read."""
    with (
        Twistd(tmp_path, "repeat", "--port", "0", "--drain", "1000", endpoints=1) as twistd,
        connect(twistd.port()) as client,
    ):
        client.sendall(b"x" * 9999 + b"\n")
        receive(client, 1)
        twistd.process.send_signal(signal.SIGTERM)
        twistd.wait_until_logged("stopping; a second signal stops at once")
        time.sleep(0.3)
        assert twistd.process.poll() is None
        twistd.process.send_signal(signal.SIGINT)
        assert twistd.process.wait(PATIENCE) == 0
        assert "1 were reset" in twistd.log
