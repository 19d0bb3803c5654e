"""``twistednet links``: the textbook's getlinks.

A link is where an element's attribute leads to:

=================================  ==========================================================
element                            attributes
=================================  ==========================================================
``a`` ``area``                     ``href`` (in SVG, ``xlink:href`` too)
with ``--all``: ``link``           ``href``
``img``                            ``src`` ``srcset`` ``longdesc``
``script`` ``iframe`` ``frame``    ``src``
``embed`` ``track``
``source``                         ``src`` ``srcset``
``audio`` ``video``                ``src``, for video ``poster``
``form``                           ``action``
``input`` ``button``               ``formaction``, for input ``src``
``object``                         ``data``
``blockquote`` ``q`` ``ins``       ``cite``
``del``
=================================  ==========================================================

The page is parsed as browsers do it (HTML Standard §13.2), however broken it is. Its encoding is that of a byte order
mark, or what the server says, or what a ``meta`` in its first 1,024 bytes says; without any of them it is UTF-8
where that fits, and windows-1252 where it doesn't. Addresses are relative to the first ``base``, or to where the page
is from. What is in a ``template`` is in no page, and an address that no browser could follow is left out.

Sources: seed 002 §9; HTML Standard §2.4.3 (base), §4.8.4.2.1 (srcset); URL Standard §4.4 (the query is written in the
page's encoding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import click
import webencodings
from selectolax.lexbor import LexborHTMLParser, LexborNode

from twistednet.cli.client import Address, Call, ClientError, client_options, run, write
from twistednet.cli.http import Body, Wire, check_status, http_headers, http_url, read, request

MAX_PAGE = 2**26
"""The longest page that is taken, in bytes; the longest that are anyone's are a few MB."""

PRESCAN = 1024
"""How far into a page its ``meta`` is looked for (HTML Standard §13.2.3.2)."""

ANCHORS = {"a": ("href", "xlink:href"), "area": ("href",)}

ATTRIBUTES = {
    **ANCHORS,
    "link": ("href",),
    "img": ("src", "srcset", "longdesc"),
    "script": ("src",),
    "iframe": ("src",),
    "frame": ("src",),
    "embed": ("src",),
    "track": ("src",),
    "source": ("src", "srcset"),
    "audio": ("src",),
    "video": ("src", "poster"),
    "form": ("action",),
    "input": ("src", "formaction"),
    "button": ("formaction",),
    "object": ("data",),
    "blockquote": ("cite",),
    "q": ("cite",),
    "ins": ("cite",),
    "del": ("cite",),
}
"""Where links are, in the order of an element's links."""

WITH_TEXT = ("a", "button", "blockquote", "q", "ins", "del")
"""Elements whose content says what the link is."""

_AS_THEY_ARE = "!#$%&'()*+,-./:;=?@[]_~|"
"""What is not written with percent signs in an address, beside letters and digits."""

_CANDIDATE = re.compile(r"[\s,]*(\S*[^\s,])(?:,+|\s[^,]*(?:,|$)|$)")
"""One of the images of a ``srcset``."""


@dataclass(frozen=True)
class Link:
    """A link of a page: its absolute address, the element and the attribute it is in, and the element's text."""

    url: str
    tag: str
    attribute: str
    text: str


def decoded(page: bytes, http_charset: str | None = None) -> tuple[str, webencodings.Encoding]:
    """The text of `page`, and the encoding it was in.

    :param http_charset: what the server says that this is.
    """
    encoding = webencodings.lookup(http_charset or "") or _declared(page[:PRESCAN])
    if encoding is None:
        try:
            page.decode()
        except UnicodeDecodeError:
            encoding = webencodings.lookup("windows-1252")
    return webencodings.decode(page, encoding or webencodings.UTF8)


def _declared(start: bytes) -> webencodings.Encoding | None:
    for meta in LexborHTMLParser(start.decode("latin-1")).css("meta"):
        label = meta.attributes.get("charset")
        if label is None and (meta.attributes.get("http-equiv") or "").lower() == "content-type":
            found = re.search(r"charset\s*=\s*[\"']?([^\s\"';]+)", meta.attributes.get("content") or "", re.IGNORECASE)
            label = found and found[1]
        encoding = webencodings.lookup(label or "")
        if encoding is not None:
            # A page whose meta could be read is not in UTF-16, whatever that says.
            return webencodings.UTF8 if encoding.name.startswith("utf-16") else encoding
    return None


def links_of(page: bytes, url: str, *, http_charset: str | None = None, every: bool = False) -> Iterator[Link]:
    """The links of `page`, in its order.

    :param url: where it is from.
    :param http_charset: its encoding, where the server says so.
    :param every: not only those of ``a`` and ``area``.
    """
    text, encoding = decoded(page, http_charset)
    document = LexborHTMLParser(text)
    base = document.css_first("base[href]")
    if base is not None:
        url = absolute(url, base.attributes["href"] or "", encoding) or url
    kinds = ATTRIBUTES if every else ANCHORS
    for node in document.css("*"):
        for attribute in kinds.get(node.tag or "", ()):
            if attribute not in node.attributes:
                continue
            value = node.attributes[attribute] or ""
            for target in _CANDIDATE.findall(value) if attribute == "srcset" else [value]:
                target = absolute(url, target, encoding)
                if target is not None:
                    yield Link(target, node.tag or "", attribute, _text(node))


def absolute(base: str, target: str, encoding: webencodings.Encoding) -> str | None:
    """Where `target` leads to from `base`, in ASCII; nothing if it leads nowhere.

    :param encoding: what the characters of its query are written in.
    """
    target = re.sub(r"[\t\r\n]", "", target.strip("".join(map(chr, range(33)))))
    if encoding.name.startswith(("utf-16", "replacement")):
        encoding = webencodings.UTF8
    try:
        parts = urlsplit(urljoin(base, target))
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    except ValueError:
        return None
    if not parts.scheme:  # the base is one that nothing can be relative to
        return None
    query = "".join(
        # What the encoding has no bytes for is written as a browser does, &#8364; in percent signs.
        quote(c, _AS_THEY_ARE) if c.isascii() else quote(encoding.codec_info.encode(c, "xmlcharrefreplace")[0], "")
        for c in parts.query
    )
    path, fragment = (quote(part, _AS_THEY_ARE) for part in (parts.path, parts.fragment))
    url = urlunsplit((parts.scheme, quote(host, _AS_THEY_ARE), path, query, fragment))
    try:
        urlsplit(url)
    except ValueError:  # the name of the host, in ASCII, has a bracket in it
        return None
    return url


def _text(node: LexborNode) -> str:
    text = " ".join(node.text().split()) if node.tag in WITH_TEXT else ""
    image = node if "alt" in node.attributes else node.css_first("img[alt]")
    return text or (image.attributes["alt"] if image is not None else None) or ""


def charset_of(response: Any) -> str | None:
    """The encoding that an HTTP response says its body is in."""
    header = Message()
    for value in response.headers.getRawHeaders(b"content-type", [])[-1:]:
        header["content-type"] = value.decode("latin-1")
    return header.get_content_charset()


@click.command()
@click.argument("page", metavar="{URL | FILE}")
@click.option("--all", "every", is_flag=True, help="Images, scripts, styles, frames and forms too.")
@client_options
def links(page: str, every: bool, timeout: float, as_json: bool) -> None:
    """Print where the links of a page lead to, one a line, in the order of the page.

    --json prints one JSON array of objects, with url, tag, attribute and text.
    """

    def show(content: bytes, url: str, http_charset: str | None = None) -> None:
        found = links_of(content, url, http_charset=http_charset, every=every)
        if as_json:
            write(json.dumps([asdict(link) for link in found], ensure_ascii=False).encode() + b"\n")
        else:
            write("".join(link.url + "\n" for link in found).encode())

    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", page):
        try:
            path = Path(page).resolve()
            show(path.read_bytes(), path.as_uri())
        except OSError as error:
            raise click.ClickException(f"{page}: {error.strerror}") from None
        return
    wanted = http_url(page)

    async def main(call: Call) -> None:
        wire = Wire(call.reactor)
        answered, response = await request(call, wire, "GET", wanted, http_headers(()))
        check_status(response)
        content = bytearray()

        def take(data: bytes) -> None:
            content.extend(data)
            if len(content) > MAX_PAGE:
                raise ClientError(f"{answered.to_text()}: longer than {MAX_PAGE} bytes")

        await read(call, wire, response, Body(call, wire, take))
        show(bytes(content), answered.to_text(), charset_of(response))

    run(Call(Address(endpoint=page), timeout, as_json), main)
