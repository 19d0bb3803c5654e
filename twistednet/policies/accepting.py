"""A listening port that has a long queue, and rests when the system has nothing left to accept with.

Where descriptors or memory have run out, ``accept`` fails, the connection stays in the listen queue, and the port is
readable still: a loop would come back at once, and spin. Twisted has an answer to the first of these errors (EMFILE: it
closes what it can't keep), and logs two lines for each connection; to the others it has none.

And its listen queue of 50 is too short for a burst of connects: those beyond are dropped, and sent again after a
second.

Here the queue is as long as the system lets it, unless another length was asked for; and the port is not looked at
for `REST` seconds. Connections wait meanwhile in the queue, where the system has put them, and are served when there
is room again.

Source: accept(2), *Errors*; nginx rests for 500 ms (``accept_mutex_delay``).
"""

from __future__ import annotations

import socket
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM, EWOULDBLOCK
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twistednet.policies.elapsed import elapsed_clock
from twistednet.policies.sparse_log import SparseLog
from twistednet.reactor.loop import BACKLOG, TWISTEDS_BACKLOG

REST = 0.1
"""Seconds."""

NOTHING_LEFT = frozenset((EMFILE, ENFILE, ENOBUFS, ENOMEM))
"""What ``accept`` fails with where it is for want of something."""


class RestingSocket:
    """Stands for the listening socket of a port, and has it rest.

    :param port: one of Twisted's stream ports, or ours.
    :param reactor: the clock.
    """

    log = Logger()

    def __init__(self, port: Any, reactor: IReactorTime) -> None:
        self._port = port
        self._reactor = reactor
        self._socket: socket.socket = port.socket
        self._sparse_log = SparseLog(self.log, elapsed_clock(reactor))

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        :raises BlockingIOError: where there is none, or nothing to accept it with.
        """
        try:
            return self._socket.accept()
        except OSError as error:
            if error.errno not in NOTHING_LEFT:
                raise
            self._sparse_log.warn("no connection can be accepted for now: {reason}", reason=error.strerror)
            self._port.stopReading()
            self._reactor.callLater(REST, self._go_on)
            raise BlockingIOError(EWOULDBLOCK, error.strerror) from error

    def _go_on(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def accept_patiently(port: Any, reactor: IReactorTime) -> None:
    """Lengthen the listen queue of `port`, and have it rest when there is nothing left to accept with.

    :param port: a listening port; one that does not accept, of datagrams say, is left as it is.
    """
    if isinstance(getattr(port, "socket", None), socket.socket) and port.socket.type == socket.SOCK_STREAM:
        if port.backlog == TWISTEDS_BACKLOG:
            port.socket.listen(BACKLOG)
        port.socket = RestingSocket(port, reactor)
