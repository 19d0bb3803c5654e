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
=============================  =====================================================================================

A path is cut at its slashes first and each piece unquoted once after that, so that a slash, or a percent sign, in a
piece is part of a name. Names are bytes, whatever their encoding.

::

    C: GET /notes/a.txt HTTP/1.1 CR LF Host: localhost CR LF Range: bytes=-3 CR LF CR LF
    S: HTTP/1.1 206 Partial Content CR LF … Content-Range: bytes 2-4/5 CR LF Content-Length: 3 CR LF … CR LF llo

Real paths are looked at when a request comes: where others may change the folder meanwhile, they have to be trusted
not to lead out of it.

Sources: RFC 9110, RFC 9112; seed 001 (SimpleHTTPServer: "serves files from the current directory and below").
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from html import escape
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.web import http, pages
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from twisted.web.static import File, formatFileSize
from zope.interface import implementer

INDEX_NAMES = ("index.html", "index.htm")

READ_SIZE = 2**17
"""Bytes read from a file at a time: what Twisted gives to one ``send``."""

_RANGE = re.compile(rb"bytes=\s*(?:(?P<first>\d{1,18})\s*-\s*(?P<last>\d{0,18})|-\s*(?P<suffix>\d{1,18}))\s*")

_PAGE = """<!DOCTYPE html>
<html>
<head><meta charset="utf-8"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<table>
{rows}
</table>
</body>
</html>
"""


class Listing(Resource):
    """What is in a folder."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self.folder = folder

    def getChild(self, path: bytes, request: Request) -> IResource:
        return pages.notFound()

    def render_GET(self, request: Request) -> Any:
        try:
            rows = "\n".join(_rows(self.folder))
        except OSError:
            return pages.forbidden().render(request)
        title = f"Directory listing for {_shown(_path(request))}"
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return _PAGE.format(title=escape(title), rows=rows).encode()


def _rows(folder: Folder) -> Iterator[str]:
    with os.scandir(folder.path) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        child = folder.find(name)
        if child is not None:
            slash, size = ("/", "") if child.isdir() else ("", formatFileSize(child.getsize()))
            link = quote(os.fsencode(name), "") + slash
            text = escape(_shown(os.fsencode(name))) + slash
            yield f'<tr><td><a href="{link}">{text}</a></td><td>{size}</td></tr>'


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
        """What is called `name` in this folder, if it is to be served."""
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
        except OSError:
            return None
        # To open a pipe would be to wait for its writer.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        return Folder(path, root=self.root, hidden=self.hidden)

    def render_GET(self, request: Request) -> Any:
        try:
            return super().render_GET(request)
        except OSError:  # it was there a moment ago
            return pages.notFound().render(request)

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
        return FileProducer(request, fileForReading, offset, length)


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

    def __init__(self, request: Request, file: BinaryIO, offset: int, length: int) -> None:
        self.request = request
        self.file = file
        self.left = length
        self._paused = False
        file.seek(offset)

    def start(self) -> None:
        """Begin."""
        self.request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self.left and not self._paused:
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


@implementer(IHalfCloseableProtocol)
class Channel(http.HTTPChannel):
    """HTTP for a client that ends its stream when it has asked: it is answered all the same."""

    _input_ended = False

    def readConnectionLost(self) -> None:
        self._input_ended = True
        if not self._handlingRequest:
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def requestDone(self, request: Request) -> None:
        super().requestDone(request)
        if self._input_ended and not self._handlingRequest:
            self.loseConnection()


class FolderSite(Site):
    """Serves `folder` over HTTP/1.1, and logs each request in the Combined Log Format, escaped as ``repr`` does.

    :param reactor: the clock of the connections' timers; the global reactor when left out.
    """

    protocol = Channel  # type: ignore[assignment]
    noisy = False

    def __init__(self, folder: Folder, *, reactor: Any = None) -> None:
        super().__init__(folder, parsePOSTFormSubmission=False, reactor=reactor)

    def getResourceFor(self, request: Request) -> IResource:
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return pages.errorPage(http.NOT_ALLOWED, "Method Not Allowed", "Only GET and HEAD are allowed here.")
        return cast(IResource, super().getResourceFor(request))

    def getContentFile(self, length: int | None) -> Any:
        # Nobody reads what a client sends with its request; Twisted's own way is to keep it in a temporary file.
        return io.BytesIO() if length == 0 else open(os.devnull, "r+b")
