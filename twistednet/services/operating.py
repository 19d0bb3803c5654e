"""What an operator is told, and by what: a log for machines, and a word on privileges that nobody needs."""

from __future__ import annotations

import os
import sys

from twisted.logger import FileLogObserver, Logger, globalLogPublisher, jsonFileLogObserver

log = Logger()


def log_as_json(path: str) -> FileLogObserver:
    """From now on, log to `path` too, one object of JSON a line, as Twisted's ``eventsFromJSONLogFile`` reads it.

    The file is opened here, with the privileges and in the folder that there are now, and is added to. It stays open
    until the process ends: the last lines come after every service has stopped.

    :param path: a file, or ``-`` for standard output.
    :raises OSError: where that can't be written.
    """
    # twistd puts its log in the place of sys.stdout later; what is there now is kept.
    file = sys.stdout if path == "-" else open(path, "a", encoding="ascii")  # noqa: SIM115
    # Without the separator of RFC 7464, which most readers of such logs don't know.
    observer = jsonFileLogObserver(file, recordSeparator="")
    globalLogPublisher.addObserver(observer)
    return observer


def warn_of_privileges(name: str) -> None:
    """Log a line if the process is root, or can be root again; to be called when it has shed what it would.

    :param name: the service's name.
    """
    if os.geteuid() == 0:
        log.warn("{name} runs as root: start it with --uid and --gid, and it is only until it listens", name=name)
    elif os.getuid() == 0:
        log.warn("{name} runs with --euid: whoever takes it over can be root again; leave --euid out", name=name)
