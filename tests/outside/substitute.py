"""Give those who ask for Twisted's asyncio reactor ours: in every process that a suite starts.

Daphne and Scrapy install Twisted's asyncio reactor by themselves, in child processes too, and Scrapy compares its exact
type. Each Python of a suite's environment runs this file when it starts, and it does nothing unless the variable
``TWISTEDNET_SUBSTITUTE`` names one of our loops.
"""

from __future__ import annotations

import asyncio
import os


def substitute(name: str) -> None:
    """Let ``asyncioreactor`` have our reactor in it, and the loops be those called `name`."""
    from twisted.internet import asyncioreactor as theirs

    from twistednet.reactor import asyncioreactor, uvloopreactor

    if name == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        theirs.AsyncioSelectorReactor = uvloopreactor.UvloopReactor  # type: ignore[misc]
        theirs.install = uvloopreactor.install
    else:
        theirs.AsyncioSelectorReactor = asyncioreactor.AsyncioReactor  # type: ignore[misc]
        theirs.install = asyncioreactor.install


if loop_name := os.environ.get("TWISTEDNET_SUBSTITUTE"):
    substitute(loop_name)
