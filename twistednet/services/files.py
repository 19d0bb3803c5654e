"""``twistd files``."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from twistednet.services.base import StreamServiceOptions, make_service
from twistednet.services.folder import Folder, FolderSite


def _folder(path: str) -> str:
    if not os.path.isdir(path):
        raise usage.UsageError(f"--root {path}: not a folder")
    if not os.access(path, os.R_OK | os.X_OK):
        raise usage.UsageError(f"--root {path}: not a folder that can be read")
    # Before twistd goes to another folder.
    return os.path.realpath(path)


class Options(StreamServiceOptions):
    command = "files"
    default_port = 8000
    descriptors = 2  # a socket, and the file or folder that is being sent
    longdesc = (
        "Serves a folder and everything below it over HTTP, for reading: no way leads out of it. A folder is shown "
        "by its index.html, or as a list."
    )
    optParameters = [["root", "r", None, "The folder to serve. [default: the current one]", _folder]]
    optFlags = [["hidden", None, "Serve the files and folders with a dot in front of their names too."]]

    def postOptions(self) -> None:
        self["root"] = self["root"] or _folder(".")


def makeService(options: Options, reactor: Any = None) -> IService:
    site = FolderSite(Folder(options["root"], hidden=bool(options["hidden"])), reactor=reactor)
    return make_service(options, factory=site, reactor=reactor)
