"""Give those who ask for Twisted's asyncio reactor ours: in every process that a suite starts.

Daphne and Scrapy install Twisted's asyncio reactor by themselves, in child processes too, and Scrapy compares its exact
type. Each Python of a suite's environment runs this file when it starts, and it does nothing unless the variable
``TWISTEDNET_SUBSTITUTE`` names one of our loops.
"""

from __future__ import annotations

import asyncio
import os


def substitute(name: str) -> None:
    """Let ``asyncioreactor`` have our reactor in it, under the same name, and the loops be those called `name`."""
    from twisted.internet import asyncioreactor

    from twistednet.reactor import AsyncioReactor, LoopReactor, UvloopReactor
    from twistednet.reactor.loop import install_reactor

    base: type[LoopReactor] = AsyncioReactor
    if name == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        base = UvloopReactor
    # Scrapy's tests look for the name in its log.
    ours = type("AsyncioSelectorReactor", (base,), {"__module__": asyncioreactor.__name__})

    def install(eventloop: asyncio.AbstractEventLoop | None = None) -> None:
        install_reactor(ours(eventloop))

    asyncioreactor.AsyncioSelectorReactor = ours  # type: ignore[misc, assignment]
    asyncioreactor.install = install


if loop_name := os.environ.get("TWISTEDNET_SUBSTITUTE"):
    substitute(loop_name)
