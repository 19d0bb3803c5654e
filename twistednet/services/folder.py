"""A folder and what is below it, as a web site: ``twisted.web.static.File`` with its edges taken off.

=============================  =====================================================================================
the client asks for            the server
=============================  =====================================================================================
a file                         sends it: its type by its name, ``application/octet-stream`` where that says nothing
one range of a file            sends that (206); a range past the end gets 416; several ranges, or none that can be
                               read, the whole file, as RFC 9110 §14.2 allows
a folder, ``/`` at its end     sends its ``index.html`` or ``index.htm``, or else a list of what is in it
a folder, no ``/``             says where it is (302)
anything that is not below     404: ``..`` in whatever writing, a link that leads out of the folder, a name with a
the folder, not there, hidden  dot in front (or a link to one), a pipe, a device
or no file
what it may not read           403
any method but GET and HEAD    405, and drops what is sent with it
anything, while descriptors    503, with ``Retry-After``
or memory have run out
=============================  =====================================================================================

A path is cut at its slashes first and each piece unquoted once after that, so that a slash, or a percent sign, in a
piece is part of a name. Names are bytes, whatever their encoding.

::

    C: GET /notes/a.txt HTTP/1.1 CR LF Host: localhost CR LF Range: bytes=-3 CR LF CR LF
    S: HTTP/1.1 206 Partial Content CR LF … Content-Range: bytes 2-4/5 CR LF Content-Length: 3 CR LF … CR LF llo

A folder is listed in pieces of `NAMES` and `ROWS`, which a ``Cooperator`` runs between other events, and a file is sent
`READS` pieces a turn: neither keeps other clients waiting. A list is made as fast as the client reads it. What HTTP
itself needs for that is in `http_channel`.

Real paths are looked at when a request comes: where others may change the folder meanwhile, they have to be trusted
not to lead out of it.

Sources: RFC 9110, RFC 9112; seed 001 (SimpleHTTPServer: "serves files from the current directory and below").
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import cached_property
from html import escape
from itertools import islice
from time import perf_counter
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.task import Cooperator
from twisted.web import http, pages
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from twisted.web.static import File, formatFileSize
from zope.interface import implementer

from twistednet.services.http_channel import Channel, DiscardedBody

INDEX_NAMES = ("index.html", "index.htm")

READ_SIZE = 2**17
"""Bytes read from a file at a time: what Twisted gives to one ``send``."""

READS = 4
"""How many of them are read in one turn: a client that takes them as fast as they come leaves time for the others."""

NAMES = 500
"""How many names of a folder are read and sorted at a time."""

ROWS = 10
"""How many rows of a list of a folder are made at a time."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a system that has no more descriptors or memory for us."""

LISTING_SLICE = 0.004
"""Seconds of each turn for making lists of folders, whoever has asked for them."""

RETRY_AFTER = b"5"
"""Seconds after which a client may try again when descriptors or memory have run out."""

_RANGE = re.compile(rb"bytes=\s*(?:(?P<first>\d{1,18})\s*-\s*(?P<last>\d{0,18})|-\s*(?P<suffix>\d{1,18}))\s*")

_PAGE_BEGIN = """<!DOCTYPE html>
<html>
<head><meta charset="utf-8"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<table>
"""

_PAGE_END = """</table>
</body>
</html>
"""


def _unavailable(error: OSError) -> IResource:
    """The page for what could not be opened or looked at because of `error`."""
    if error.errno in EXHAUSTED:
        return _Busy()
    return pages.forbidden() if error.errno in (errno.EACCES, errno.EPERM) else pages.notFound()


class _Busy(Resource):
    """Descriptors or memory have run out."""

    isLeaf = True

    def render(self, request: Request) -> Any:
        request.setHeader(b"retry-after", RETRY_AFTER)
        return pages.errorPage(http.SERVICE_UNAVAILABLE, "Service Unavailable", "Try again later.").render(request)


class Listing(Resource):
    """What is in a folder."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self.folder = folder

    def getChild(self, path: bytes, request: Request) -> IResource:
        return pages.notFound()

    def render_GET(self, request: Request) -> Any:
        try:
            entries = os.scandir(self.folder.path)
        except OSError as error:
            return _unavailable(error).render(request)
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        if request.method == b"HEAD":
            entries.close()
            request.finish()
        else:
            title = escape(f"Directory listing for {_shown(_path(request))}")
            site: Any = request.site
            ListingProducer(request, _page(self.folder, title, entries)).start(site.cooperator)
        return NOT_DONE_YET

    render_HEAD = render_GET


def _page(folder: Folder, title: str, entries: Any) -> Iterator[str]:
    """The page that lists `entries` of `folder`, piece by piece; empty pieces while the names are read.

    :raises OSError: where they can't all be read.
    """
    with entries:
        runs = []
        while run := sorted(entry.name for entry in islice(entries, NAMES)):
            runs.append(run)
            if len(run) == NAMES:
                yield ""
    yield _PAGE_BEGIN.format(title=title)
    names = heapq.merge(*runs)  # sorting all of them at once would take too long
    while some := list(islice(names, ROWS)):
        yield "".join(map(folder.row, some))
    yield _PAGE_END


@implementer(IPushProducer)
class ListingProducer:
    """Sends the pieces of a page as the answer to `request`, as fast as the reader takes them.

    Where an error of the system keeps the rest from being made, the connection is closed.
    """

    def __init__(self, request: Request, pieces: Iterator[str]) -> None:
        self.request = request
        self._pieces = pieces
        self._paused = self._ended = False

    def start(self, cooperator: Cooperator) -> None:
        """Begin, with the time that `cooperator` has for it."""
        self._task = cooperator.cooperate(self._send())
        self.request.registerProducer(self, True)

    def _send(self) -> Iterator[None]:
        try:
            for piece in self._pieces:
                if piece:
                    self.request.write(piece.encode())
                yield
        except OSError:
            self._ended = True
            self.request.unregisterProducer()
            self.request.loseConnection()
        else:
            self._ended = True
            self.request.unregisterProducer()
            self.request.finish()

    def pauseProducing(self) -> None:
        if not self._paused and not self._ended:
            self._paused = True
            self._task.pause()

    def resumeProducing(self) -> None:
        if self._paused and not self._ended:
            self._paused = False
            self._task.resume()

    def stopProducing(self) -> None:
        if not self._ended:
            self._ended = True
            self._task.stop()


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _path(request: Request) -> bytes:
    return b"/" + b"/".join(request.prepath or ())


class Folder(File):
    """The folder at `path`, or a file below it.

    :param root: the real path of the folder that is served, which nothing may lead out of.
    :param hidden: whether names with a dot in front are served too.
    """

    contentEncodings: dict[str, str] = {}  # a .tar.gz is what is asked for, not a way to send a .tar
    contentTypes = {
        **File.contentTypes,
        ".gz": "application/gzip",
        ".bz2": "application/x-bzip2",
        ".xz": "application/x-xz",
        ".zst": "application/zstd",
    }

    def __init__(self, path: str, *, root: str | None = None, hidden: bool = False) -> None:
        super().__init__(path, defaultType="application/octet-stream")
        self.root = os.path.realpath(path) if root is None else root
        self.hidden = hidden

    def getChild(self, path: bytes, request: Request) -> IResource:
        if not self.isdir():
            return pages.notFound()
        if path:
            return self.find(os.fsdecode(path)) or pages.notFound()
        for name in INDEX_NAMES:
            index = self.find(name)
            if index is not None and index.isfile():
                return index
        return Listing(self)

    def find(self, name: str) -> Folder | None:
        """What is called `name` in this folder, if it is to be served.

        :raises OSError: where the system has no memory to tell.
        """
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return None
        path = os.path.join(self.path, name)
        real = os.path.realpath(path)
        if os.path.commonpath((self.root, real)) != self.root:
            return None
        if not self.hidden and any(part.startswith(".") for part in (name, *real[len(self.root) :].split("/"))):
            return None
        try:
            mode = os.stat(real).st_mode
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return None
        # To open a pipe would be to wait for its writer.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        # A folder by its real path, so that no path gets longer at each turn through links that lead back.
        return Folder(real if stat.S_ISDIR(mode) else path, root=self.root, hidden=self.hidden)

    def row(self, name: str) -> str:
        """The row for what is called `name` in the list of this folder; nothing for what is not served."""
        child = self.find(name)
        if child is None:
            return ""
        slash, size = ("/", "") if child.isdir() else ("", formatFileSize(child.getsize()))
        link = quote(os.fsencode(name), "") + slash
        text = escape(_shown(os.fsencode(name))) + slash
        return f'<tr><td><a href="{link}">{text}</a></td><td>{size}</td></tr>\n'

    def render_GET(self, request: Request) -> Any:
        try:
            return super().render_GET(request)
        except OSError as error:
            return _unavailable(error).render(request)

    render_HEAD = render_GET

    def redirect(self, request: Request) -> Any:
        # Not out of the request's own URI, which may be no ASCII, or the address of another site.
        request.redirect(quote(_path(request), "/").encode() + b"/")
        return b""

    def makeProducer(self, request: Request, fileForReading: BinaryIO) -> FileProducer:  # noqa: N803
        size = self.getFileSize()
        offset, length = 0, size
        wanted = _RANGE.fullmatch(request.getHeader(b"range") or b"")
        unchanged = request.getHeader(b"if-range") in (None, http.datetimeToString(request.lastModified))
        if wanted is not None and unchanged:
            offset, length = _stretch(wanted, size)
            if length:
                request.setResponseCode(http.PARTIAL_CONTENT)
                request.setHeader(b"content-range", b"bytes %d-%d/%d" % (offset, offset + length - 1, size))
            else:
                request.setResponseCode(http.REQUESTED_RANGE_NOT_SATISFIABLE)
                request.setHeader(b"content-range", b"bytes */%d" % size)
        self._setContentHeaders(request, length)
        site: Any = request.site
        return FileProducer(request, fileForReading, offset, length, site.reactor.callLater)


def _stretch(wanted: re.Match[bytes], size: int) -> tuple[int, int]:
    """Where the range begins in a file of `size` bytes, and how many bytes it has; none if it is past the end."""
    if wanted["suffix"]:
        length = min(int(wanted["suffix"]), size)
        return size - length, length
    first = int(wanted["first"])
    end = min(int(wanted["last"] or size) + 1, size)
    return first, max(0, end - first)


@implementer(IPushProducer)
class FileProducer:
    """Sends a stretch of a file as the answer to `request`, as fast as the reader takes it.

    What is promised is sent, also when the file has grown meanwhile; when it has shrunk, the connection is closed,
    which is all that can be said then. (Twisted's own producers send too much, or try for ever.)
    """

    def __init__(
        self, request: Request, file: BinaryIO, offset: int, length: int, call_later: Callable[..., IDelayedCall]
    ) -> None:
        self.request = request
        self.file = file
        self.left = length
        self._paused = False
        self._call_later = call_later
        self._next: IDelayedCall | None = None
        file.seek(offset)

    def start(self) -> None:
        """Begin, unless the transport is full."""
        self.request.registerProducer(self, True)
        if not self._paused:
            self._send()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._next is None:
            self._send()

    def _send(self) -> None:
        """Send up to `READS` pieces, and go on in the next turn."""
        self._next = None
        for _ in range(READS):
            if self._paused or not self.left:
                break
            data = self._read()
            self.left -= len(data)
            self.request.write(data)
            if not data:
                self.file.close()
                self.request.loseConnection()
                return
        if not self.left and not self.file.closed:
            self.file.close()
            self.request.unregisterProducer()
            self.request.finish()
        elif not self._paused:
            self._next = self._call_later(0, self._send)

    def _read(self) -> bytes:
        try:
            return self.file.read(min(self.left, READ_SIZE))
        except OSError:
            return b""

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True
        self.file.close()
        if self._next is not None:
            self._next.cancel()
            self._next = None


class FolderRequest(Request):
    """A request to a `FolderSite`, which may have any ``If-Modified-Since``."""

    site: Any

    def setLastModified(self, when: float) -> Any:
        try:
            return super().setLastModified(when)
        except (AssertionError, IndexError):  # no date, and twisted.web expects ValueError only
            return None


class FolderSite(Site):
    """Serves `folder` over HTTP/1.1, and logs each request in the Combined Log Format, escaped as ``repr`` does.

    It has no time-outs: put it into a `LimitedFactory`.

    :param reactor: the clock of the connections' timers; the global reactor when left out.
    """

    protocol = Channel  # type: ignore[assignment]
    requestFactory = FolderRequest
    noisy = False
    reactor: Any

    def __init__(self, folder: Folder, *, reactor: Any = None) -> None:
        super().__init__(folder, parsePOSTFormSubmission=False, reactor=reactor, timeout=None)

    @cached_property
    def cooperator(self) -> Cooperator:
        """Shares the time for making lists of folders among their requests."""

        def slice_ends() -> Callable[[], bool]:
            end = perf_counter() + LISTING_SLICE
            return lambda: perf_counter() >= end

        return Cooperator(slice_ends, lambda work: self.reactor.callLater(0, work))

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]  # twisted.web offers h2 where it can, which `Channel` can't

    def getResourceFor(self, request: Request) -> IResource:
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return pages.errorPage(http.NOT_ALLOWED, "Method Not Allowed", "Only GET and HEAD are allowed here.")
        try:
            return cast(IResource, super().getResourceFor(request))
        except OSError as error:
            return _unavailable(error)

    def getContentFile(self, length: int | None) -> DiscardedBody:
        return DiscardedBody()
