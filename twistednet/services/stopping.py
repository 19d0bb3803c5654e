"""The end of a service: in good order at the first signal, at once at the second."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from twistednet.policies.addresses import AddressRules
from twistednet.policies.datagrams import FilteredDatagramProtocol
from twistednet.policies.limits import Drained, LimitedFactory
from twistednet.protocols.counters import Counters


class DrainingService(MultiService):
    """Ports and the connections that came by them: when it stops, it listens no more, and drains the connections.

    :param name: the service's name, for the log.
    :param counters: what it has done.
    :param rules: which hosts may use it; all when left out. The attribute may be replaced while the service runs.
    """

    log = Logger()
    factory: LimitedFactory | None = None

    def __init__(self, name: str, counters: Counters, rules: AddressRules | None = None) -> None:
        super().__init__()
        self.service_name = name
        self._counters = counters
        self._rules = rules
        self._filters: list[LimitedFactory | FilteredDatagramProtocol] = []

    @property
    def rules(self) -> AddressRules | None:
        """Which hosts may connect and send datagrams. Connections that are open are not looked at again."""
        return self._rules

    @rules.setter
    def rules(self, rules: AddressRules | None) -> None:
        self._rules = rules
        for each in self._filters:
            each.rules = rules

    def apply_rules_in(self, part: LimitedFactory | FilteredDatagramProtocol) -> None:
        """Have `part` follow the service's rules, now and whenever they are replaced."""
        self._filters.append(part)
        part.rules = self._rules

    @property
    def counters(self) -> Counters:
        """What it has done, up to now."""
        return self._counters if self.factory is None else self.factory.counters

    def drain_at_stop(self, factory: LimitedFactory, seconds: float) -> None:
        """Have the connections of `factory` drained when this stops, in so many seconds at most."""
        self.factory = factory
        self.seconds = seconds

    def stopService(self) -> Deferred[Any]:
        stopped: Deferred[Any] = super().stopService()
        if self.factory is None:
            return stopped
        drained = self.factory.drain(self.seconds).addCallback(self._say)
        return gatherResults([stopped, drained], consumeErrors=True)

    def _say(self, drained: Drained) -> None:
        self.log.info(
            "{name} stopped: {idle} connections were idle, {finished} have finished, {reset} were reset",
            name=self.service_name,
            idle=drained.idle,
            finished=drained.finished,
            reset=drained.reset,
        )


class Signals:
    """Stops the reactor at the first SIGTERM or SIGINT, and at the second resets what is still open.

    Twisted's own way with signals ends the process by the signal, even where everything has been delivered; this one
    ends it with status 0.

    :param reactor: what to stop.
    :param service: whose connections to reset.
    """

    log = Logger()

    def __init__(self, reactor: Any, service: DrainingService) -> None:
        self._reactor = reactor
        self._service = service
        self._stopping = False

    def install(self) -> None:
        """Take the signals over from the reactor, which must be running."""
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self.log.info("stopping; a second signal stops at once")
            with suppress(ReactorNotRunning):  # the service is stopping it by itself
                self._reactor.stop()
        elif self._service.factory is not None:
            self._service.factory.reset()
