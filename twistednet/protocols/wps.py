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
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IPushProducer, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistednet.protocols.flow import StreamClient
from twistednet.protocols.framing import MESSAGE_GAP, MessageFactory, MessageProtocol

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
"""The whole environment of every command."""

COMMANDS: Mapping[str, Sequence[str]] = {"ps": ("/usr/bin/ps",), "w": ("/usr/bin/w",)}
"""The textbook's two."""


class Command(MessageProtocol):
    """Runs the command that the client names, sends its output, and closes."""

    factory: CommandFactory
    log = Logger()
    _run: _Run | None = None

    def lineReceived(self, line: bytes) -> None:
        if self._run is not None:
            return
        argv = self.factory.argv.get(line)
        if argv is None:
            self.refuse(f"no such command; there are: {', '.join(sorted(self.factory.commands))}")
            return
        run = self._run = _Run(self)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            process = self.factory.process_reactor.spawnProcess(
                run, argv[0], argv, env=self.factory.environment, childFDs={0: null, 1: "r", 2: null}
            )
        except OSError as error:
            self._run = None
            self.log.error("can't run {command}: {reason}", command=argv[0], reason=error.strerror)
            self.refuse("the command can't be run")
            return
        finally:
            os.close(null)
        # From here on the command is what makes output; of the input only its end is of interest.
        self.transport.unregisterProducer()
        self.transport.registerProducer(cast(IPushProducer, process), True)
        self.transport.resumeProducing()

    def lineLengthExceeded(self, line: bytes) -> None:
        if self._run is None:
            super().lineLengthExceeded(line)

    def input_answered(self) -> None:
        if self._run is None:
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._run is not None:
            self._run.stop()


class _Run(ProcessProtocol):
    """One run of a command for one client."""

    transport: IProcessTransport
    _wrote = False

    def __init__(self, client: Command) -> None:
        self._client = client

    def outReceived(self, data: bytes) -> None:
        self._wrote = True
        self._client.transport.write(data)

    def processEnded(self, reason: Failure) -> None:
        ended = cast(ProcessTerminated, reason.value)  # or ProcessDone, which has the same attributes
        status = ended.exitCode
        if self._wrote or status == 0:
            self._client.close()
        else:
            how = f"with status {status}" if status is not None else f"on signal {ended.signal}"
            self._client.refuse(f"the command failed {how}")

    def stop(self) -> None:
        try:
            self.transport.signalProcess("TERM")
        except ProcessExitedAlready:
            pass


class CommandFactory(MessageFactory[Command]):
    """Serves `Command`.

    :param commands: for each name the command and its arguments, the command as an absolute path.
    :param environment: the whole environment of the commands.
    :param message_gap: see `MessageFactory`.
    :param reactor: runs the commands, and is the clock; the global reactor when left out.
    :raises ValueError: for a name that is empty or could not be sent as a message, or a relative path.
    """

    protocol = Command

    def __init__(
        self,
        *,
        commands: Mapping[str, Sequence[str]] = COMMANDS,
        environment: Mapping[str, str] = ENVIRONMENT,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(message_gap=message_gap, reactor=reactor)
        for name, argv in commands.items():
            if not name or not name.isprintable() or name != name.strip():
                raise ValueError(f"{name!r} can't be the name of a command")
            if not argv or not os.path.isabs(argv[0]):
                raise ValueError(f"{name}: the command must be an absolute path")
        self.commands = dict(commands)
        self.environment = dict(environment)
        self.argv = {name.encode(): list(argv) for name, argv in commands.items()}

    @cached_property
    def process_reactor(self) -> IReactorProcess:
        return cast(IReactorProcess, self.reactor)


class CommandClient(StreamClient):
    """Names a command and receives its output."""

    def run(self, name: bytes) -> Deferred[bytes]:
        """Ask for the command called `name`.

        :return: fires with all its output (empty where `received` has been replaced) when the server has closed;
            fails with the reason when the connection breaks.
        """
        self.send(name + b"\n")
        return self.finished().addCallback(lambda _: self.answer)
