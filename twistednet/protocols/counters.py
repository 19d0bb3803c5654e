"""What a service counts, in one place for whoever wants to read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counters:
    """What a service has done since it was made: plain numbers that only grow, to be read at any time."""

    connections: int = 0
    """Connections that were served."""
    refused: Counter[str] = field(default_factory=Counter)
    """Connections that were closed at once, by the limit that they would have exceeded."""
    timed_out: Counter[str] = field(default_factory=Counter)
    """Connections that were closed for want of progress, by the time-out."""
    bytes_received: int = 0
    """Octets of connections, TLS and such taken off."""
    bytes_sent: int = 0
    """Octets handed to connections to send."""
    messages: int = 0
    """Messages of text protocols that were taken."""
    datagrams: int = 0
    """Datagrams that came."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Datagrams that were not answered, by the reason."""
    children: int = 0
    """Commands that were started."""
