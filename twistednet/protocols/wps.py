r"""wps: the remote command (``w``, ``ps``).

.. code-block:: abnf

    question = name ending           ; see twistednet.protocols.framing
    answer   = *OCTET                ; all that the command writes on its standard output, then the server closes
             / "error: " *CHAR LF    ; LF or CR LF: a whole line in any case

Only the first message of a connection is looked at. The name chooses a row of the operator's table, by an exact
match; nothing else of the client's reaches the command: no shell, no argument, an environment that is always the
same, standard input and standard error ``/dev/null``.

::

    C: ps LF    S: ···PID TTY···LF ···LF (close)
    C: ls LF    S: error: no such command; there are: ps, w LF (close)

Bad input: any other name gets that line; so does a message longer than 16,384 bytes, its own. A command that
can't be run, or fails without having written anything, gets an error line as well. Where the client leaves, the
command is sent SIGTERM.

Sources: seed 002 §5.2, whose server runs the client's two bytes in a shell and drops the last line of the output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IPushProducer, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.protocols.flow import StreamClient
from twistednet.protocols.framing import MESSAGE_GAP, MessageFactory, OneMessageProtocol

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
"""The whole environment of every command."""

COMMANDS: Mapping[str, Sequence[str]] = {"ps": ("/usr/bin/ps",), "w": ("/usr/bin/w",)}
"""The textbook's two."""


@implementer(IPushProducer)
class CommandRun(ProcessProtocol):
    """One run of a command, for whoever wants its output; a producer of it, which can be paused.

    :param output: called with what the command writes on its standard output, as it comes.
    :param ended: called at the end, with ``None`` or, where the command failed without having written anything,
        with how.
    """

    transport: IProcessTransport
    _wrote = False

    def __init__(self, output: Callable[[bytes], object], ended: Callable[[str | None], object]) -> None:
        self._output = output
        self._ended = ended

    def start(self, reactor: IReactorProcess, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run ``argv[0]`` with `argv`; what it reads, and what it writes on its standard error, is ``/dev/null``.

        :raises OSError: where it can't be run.
        """
        null = os.open(os.devnull, os.O_RDWR)
        try:
            reactor.spawnProcess(self, argv[0], argv, env=environment, childFDs={0: null, 1: "r", 2: null})
        finally:
            os.close(null)

    def outReceived(self, data: bytes) -> None:
        self._wrote = True
        self._output(data)

    def processEnded(self, reason: Failure) -> None:
        end = cast(ProcessTerminated, reason.value)  # or ProcessDone, which has the same attributes
        if self._wrote or end.exitCode == 0:
            self._ended(None)
        else:
            how = f"with status {end.exitCode}" if end.exitCode is not None else f"on signal {end.signal}"
            self._ended(f"the command failed {how}")

    def pauseProducing(self) -> None:
        cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        cast(IPushProducer, self.transport).resumeProducing()

    def stopProducing(self) -> None:
        """Whoever asked for it calls `stop`, on learning that the connection is gone."""

    def stop(self) -> None:
        """Send it SIGTERM, if it still runs."""
        try:
            self.transport.signalProcess("TERM")
        except ProcessExitedAlready:
            pass


class Command(OneMessageProtocol):
    """Runs the command that the client names, sends its output, and closes."""

    factory: CommandFactory
    log = Logger()
    _run: CommandRun | None = None

    def answer_message(self, message: bytes) -> None:
        argv = self.factory.argv.get(message)
        if argv is None:
            self.refuse(f"no such command; there are: {', '.join(sorted(self.factory.commands))}")
            return
        run = CommandRun(self.transport.write, self._ended)
        try:
            run.start(cast(IReactorProcess, self.factory.reactor), argv, self.factory.environment)
        except OSError as error:
            self.log.error("can't run {command}: {reason}", command=argv[0], reason=error.strerror)
            self.refuse("the command can't be run")
            return
        self._run = run
        self.produce(run, streaming=True)

    def _ended(self, failure: str | None) -> None:
        if failure is None:
            self.close()
        else:
            self.refuse(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._run is not None:
            self._run.stop()


class CommandFactory(MessageFactory[Command]):
    """Serves `Command`.

    :param commands: for each name the command, as an absolute path, and its arguments.
    :param environment: the whole environment of the commands.
    :param message_gap: see `MessageFactory`.
    :param reactor: runs the commands, and is the clock; the global reactor when left out.
    :raises ValueError: for a name that is empty or could not be sent as a message, or a relative path.
    """

    protocol = Command

    def __init__(
        self,
        *,
        commands: Mapping[str, str | Sequence[str]] = COMMANDS,
        environment: Mapping[str, str] = ENVIRONMENT,
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
        self.environment = dict(environment)
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
