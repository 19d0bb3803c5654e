"""The reactor on asyncio's own loop: ``twistednet.reactor.asyncioreactor.AsyncioReactor``."""

from __future__ import annotations

import asyncio

from twistednet.reactor.loop import LoopReactor, install_reactor

__all__ = ["AsyncioReactor", "install"]


class AsyncioReactor(LoopReactor):
    """The reactor on asyncio's own loop.

    :param eventloop: the loop to run on; a new `asyncio.SelectorEventLoop` when left out.
    """

    def __init__(self, eventloop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(asyncio.SelectorEventLoop() if eventloop is None else eventloop)


def install(eventloop: asyncio.AbstractEventLoop | None = None) -> None:
    """Make it the global reactor, as `twisted.internet.asyncioreactor.install` does.

    :param eventloop: the loop to run on; a new `asyncio.SelectorEventLoop` when left out.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: when there is a reactor already.
    """
    install_reactor(AsyncioReactor(eventloop))
