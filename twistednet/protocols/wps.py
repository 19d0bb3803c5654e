r"""wps: the remote command (``w``, ``ps``).

.. code-block:: abnf

    question = name ending           ; see twistednet.protocols.framing
    answer   = *OCTET [cut]          ; what the command writes on its standard output, then the server closes
             / "error: " *CHAR LF    ; LF or CR LF: a whole line in any case
    cut      = "error: " *CHAR LF    ; a line by itself: the output was longer, or the command did not end

Only the first message of a connection is looked at. The name chooses a row of the operator's table, by an exact
match; nothing else of the client's reaches the command: no shell, no argument, an environment that is always the
same, standard input and standard error ``/dev/null``.

::

    C: ps LF    S: ···PID TTY···LF ···LF (close)
    C: ls LF    S: error: no such command; there are: ps, w LF (close)

Few commands run at once, clients that ask for the same share a run and its answer, and what a command may write and
how long it may take have a limit: see `twistednet.protocols.commands`.

Bad input: any other name gets that line; so does a message longer than 16,384 bytes, its own. A command that
can't be run, or fails without having written anything, gets an error line as well. Where all the clients that wait
for a command have left, it is ended.

Sources: seed 002 §5.2, whose server runs the client's two bytes in a shell and drops the last line of the output.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twistednet.protocols.commands import CommandError, CommandRunner, ICommandReactor
from twistednet.protocols.flow import StreamClient
from twistednet.protocols.framing import MESSAGE_GAP, MessageFactory, OneMessageProtocol

COMMANDS: Mapping[str, Sequence[str]] = {"ps": ("/usr/bin/ps",), "w": ("/usr/bin/w",)}
"""The textbook's two."""


class Command(OneMessageProtocol):
    """Runs the command that the client names, sends its output, and closes."""

    factory: CommandFactory
    _asked: Deferred[bytes] | None = None

    def answer_message(self, message: bytes) -> None:
        argv = self.factory.argv.get(message)
        if argv is None:
            self.refuse(f"no such command; there are: {', '.join(sorted(self.factory.commands))}")
            return
        self._asked = self.factory.runner.run(argv)
        self._asked.addCallbacks(self._answered, self._failed)

    def _answered(self, output: bytes) -> None:
        self.transport.write(output)
        self.close()

    def _failed(self, failure: Failure) -> None:
        failure.trap(CommandError, CancelledError)
        if not self.closing:
            self.refuse(str(failure.value))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._asked is not None:
            self._asked.cancel()


class CommandFactory(MessageFactory[Command]):
    """Serves `Command`.

    :param commands: for each name the command, as an absolute path, and its arguments.
    :param runner: runs them, for other factories too; one of its own when left out.
    :param message_gap: see `MessageFactory`.
    :param reactor: the clock, and what runs the commands of a runner of its own; the global reactor when left out.
    :raises ValueError: for a name that is empty or could not be sent as a message, or a relative path.
    """

    protocol = Command

    def __init__(
        self,
        *,
        commands: Mapping[str, str | Sequence[str]] = COMMANDS,
        runner: CommandRunner | None = None,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(message_gap=message_gap, reactor=reactor)
        # A path alone will do where there are no arguments.
        table = {name: [argv] if isinstance(argv, str) else list(argv) for name, argv in commands.items()}
        for name, argv in table.items():
            if not name or not name.isprintable() or name != name.strip():
                raise ValueError(f"{name!r} can't be the name of a command")
            if not argv or not os.path.isabs(argv[0]):
                raise ValueError(f"{name}: the command must be an absolute path")
        self.commands = table
        self.runner = runner or CommandRunner(reactor=cast("ICommandReactor | None", reactor))
        self.argv = {name.encode(): argv for name, argv in table.items()}


class CommandClient(StreamClient):
    """Names a command and receives its output."""

    def run(self, name: bytes) -> Deferred[bytes]:
        """Ask for the command called `name`.

        :return: fires with all its output (empty where `received` has been replaced) when the server has closed;
            fails with the reason when the connection breaks.
        """
        self.send(name + b"\n")
        return self.finished().addCallback(lambda _: self.answer)
