"""The reactor on asyncio's own loop, for ``twistd --reactor=twistednet-asyncio``."""

from __future__ import annotations

from twistednet.reactor import install as install_on


def install() -> None:
    """Make it the global reactor."""
    install_on("asyncio")
