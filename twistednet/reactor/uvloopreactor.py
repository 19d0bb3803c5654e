"""The reactor on uvloop: ``twistednet.reactor.uvloopreactor.UvloopReactor``."""

from __future__ import annotations

import asyncio

from twistednet.reactor.loop import LoopReactor, install_reactor

__all__ = ["UvloopReactor", "install"]


class UvloopReactor(LoopReactor):
    """The reactor on uvloop.

    :param eventloop: the loop to run on; a new one of uvloop's when left out.
    :raises ImportError: when uvloop is not installed.
    """

    def __init__(self, eventloop: asyncio.AbstractEventLoop | None = None) -> None:
        if eventloop is None:
            import uvloop

            eventloop = uvloop.new_event_loop()
        super().__init__(eventloop)


def install(eventloop: asyncio.AbstractEventLoop | None = None) -> None:
    """Make it the global reactor, as `twisted.internet.asyncioreactor.install` does.

    :param eventloop: the loop to run on; a new one of uvloop's when left out.
    :raises ImportError: when uvloop is not installed.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: when there is a reactor already.
    """
    install_reactor(UvloopReactor(eventloop))
