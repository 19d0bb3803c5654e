"""``twistednet links``."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from urllib.parse import urljoin

import pytest
import webencodings
from justhtml import JustHTML

from tests.cli.running import run
from tests.cli.test_fetch import answer, http_server
from twistednet.cli.links import absolute, decoded, links_of

PAGE = Path(__file__).parent / "pages" / "underscore.html"
HOME = "https://underscorejs.org/"


def urls(
    page: str | bytes, url: str = "http://host/dir/page", *, every: bool = False, charset: str | None = None
) -> list[str]:
    """The addresses of the links of `page`."""
    content = page.encode() if isinstance(page, str) else page
    return [link.url for link in links_of(content, url, http_charset=charset, every=every)]


class GetLinks(html.parser.HTMLParser):
    """The textbook's program, in today's Python."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag in ("a", "area") and name == "href":
                self.found.append(urljoin(HOME, value or ""))


def links_by_justhtml(page: bytes) -> list[tuple[str, str]]:
    """The targets and texts of the links of `page`, as another parser that follows the standard has them."""
    tree = JustHTML(page.decode(errors="replace"), sanitize=False)
    return [
        ((node.attrs or {})["href"] or "", " ".join(node.to_text(separator="", strip=False).split()))
        for node in tree.query("a[href], area[href]")
    ]


def test_large_page() -> None:
    """On a large real page, two parsers that have nothing to do with ours find the same links, in the same order."""
    page = PAGE.read_bytes()
    found = list(links_of(page, HOME))
    parser = GetLinks()
    parser.feed(page.decode())
    assert len(found) > 400
    assert [link.url for link in found] == parser.found
    expected = [(urljoin(HOME, target), text) for target, text in links_by_justhtml(page)]
    assert [(link.url, link.text) for link in found] == expected


def test_large_page_broken() -> None:
    """It is so too where the page is broken: cut off, or with many a bracket, quote, end or space missing."""
    page = PAGE.read_bytes()
    broken = [page[:n] for n in (20_000, 33_333, 100_001)]
    for mark in (b">", b'"', b"</a>", b"</p>", b'="', b" "):
        pieces = page.split(mark)
        broken.append(b"".join(piece + (b"" if n % 11 == 0 else mark) for n, piece in enumerate(pieces)))
    for page in broken:
        expected = [(absolute(HOME, target, webencodings.UTF8), text) for target, text in links_by_justhtml(page)]
        assert len(expected) > 20
        expected = [(url, text) for url, text in expected if url is not None]
        found = list(links_of(page, HOME))
        assert [link.url for link in found] == [url for url, _ in expected]
        # Where there is no text, ours is the words that stand for a picture.
        assert all(link.text == text for link, (_, text) in zip(found, expected, strict=True) if text)


def test_absolute() -> None:
    """An address is relative to the page's."""
    assert urls(
        '<a href="x"><a href="/x"><a href="//other/x"><a href="../x"><a href="?q"><a href="#part"><a href>'
        '<a href="https://h:8080/y"><a href="mailto:a@example.com"><a href="javascript:alert(1)"><a name=no>'
    ) == [
        "http://host/dir/x",
        "http://host/x",
        "http://other/x",
        "http://host/x",
        "http://host/dir/page?q",
        "http://host/dir/page#part",
        "http://host/dir/page",
        "https://h:8080/y",
        "mailto:a@example.com",
        "javascript:alert(1)",
    ]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://base/b/", "http://base/b/x"),
        ("/b/", "http://host/b/x"),
        ("b/", "http://host/dir/b/x"),
        ("", "http://host/dir/x"),
        ("http://[bad", "http://host/dir/x"),
    ],
)
def test_base(base: str, expected: str) -> None:
    """The first base counts, wherever it is, for all links."""
    page = f'<a href=x><base target=_top><div><base href="{base}"><base href="http://second/"></div><a href=x>'
    assert urls(page) == [expected] * 2


def test_broken_markup() -> None:
    """A page is read as browsers read it."""
    assert urls(
        "<!-- <a href=comment> --><script>'<a href=script>'</script><style><a href=style></style>"
        "<textarea><a href=textarea></textarea><title><a href=title></title><template><a href=template></template>"
        "<p><A HREF='one'>1<a HREF=two>2</p></a></b><table><a href=three>outside<tr><td><a\nhref\n=\nfour>"
        '</table><a href="five&amp;5&lt;" href="second">&#x41;</a><a title="a>b" href=six/><a href="last'
    ) == [f"http://host/dir/{name}" for name in ("one", "two", "three", "four", "five&5%3C", "six/")]


def test_odd_addresses() -> None:
    """Addresses are one a line, in ASCII; those that lead nowhere are left out."""
    assert urls(
        '<a href="  x\ny\tz ">'  # as browsers: stripped, and nothing in between
        '<a href="a b|c\\d">'
        '<a href="http://[bad/">'
        '<a href="//bücher.example:8080/ü?ü#ü">'
        '<a href="50%25%zz">'
        '<a href="\x00\x1b[31m">'
        f'<a href="//{"ü" * 64}/">'
    ) == [
        "http://host/dir/xyz",
        "http://host/dir/a%20b|c%5Cd",
        "http://xn--bcher-kva.example:8080/%C3%BC?%C3%BC#%C3%BC",
        "http://host/dir/50%25%zz",
        "http://host/dir/%EF%BF%BD%1B[31m",
    ]


@pytest.mark.parametrize(
    ("page", "charset", "name"),
    [
        ("<a href=é>日".encode(), None, "utf-8"),
        ("<a href=é>".encode("cp1252"), None, "windows-1252"),
        ("<meta charset=koi8-r><a href=ж>".encode("koi8-r"), None, "koi8-r"),
        ("<meta http-equiv=Content-Type content='x;Charset=\"sjis\"'><a href=日>".encode("cp932"), None, "shift_jis"),
        ("<meta charset=latin1><a href=€>".encode("cp1252"), None, "windows-1252"),
        ("<meta charset=utf-16><a href=é>".encode(), None, "utf-8"),
        ("<meta charset=nonsense><meta charset=koi8-r><a href=ж>".encode("koi8-r"), None, "koi8-r"),
        (b"<!-- <meta charset=koi8-r> --><meta charset=utf-8>" + "<a href=é>".encode(), None, "utf-8"),
        (b"x" * 1024 + b"<meta charset=koi8-r>" + "<a href=é>".encode(), None, "utf-8"),
        ("<meta charset=utf-8><a href=ж>".encode("koi8-r"), "KOI8-R", "koi8-r"),
        ("<meta charset=utf-8><a href=é>".encode(), "unheard-of", "utf-8"),
        ("\ufeff<meta charset=koi8-r><a href=é>".encode(), "koi8-r", "utf-8"),
        ("\ufeff<a href=日>".encode("utf-16-le"), None, "utf-16le"),
        ("\ufeff<a href=日>".encode("utf-16-be"), "utf-8", "utf-16be"),
    ],
)  # fmt: skip
def test_encoding(page: bytes, charset: str | None, name: str) -> None:
    """The encoding is that of the byte order mark, the server, the meta, or a guess, in that order."""
    text, encoding = decoded(page, charset)
    assert encoding.name == name
    (url,) = urls(page, charset=charset)
    assert url == urls(f"<a href={text.rpartition('href=')[2]}")[0]
    assert "%EF%BF%BD" not in url


def test_query_encoding() -> None:
    """A query is written in the page's encoding, as a browser sends it; what that does not have, as a reference."""
    page = "<meta charset=windows-1252><a href='é?q=é€&amp;r'><a href='?日'>".encode("cp1252", "xmlcharrefreplace")
    assert urls(page) == ["http://host/dir/%C3%A9?q=%E9%80&r", "http://host/dir/page?%26%2326085%3B"]
    assert urls("\ufeff<a href=?é>".encode("utf-16-le")) == ["http://host/dir/page?%C3%A9"]


def test_all() -> None:
    """With --all, everything that a page leads to or is made of is there."""
    page = """
        <link href=1><script src=2></script><img src=3 srcset="4 1x, 5,6 2x ,7" alt=" Picture "><iframe src=8></iframe>
        <form action=9><input type=image src=10 formaction=11><button formaction=12>Go</button></form>
        <picture><source srcset=13></picture><video src=14 poster=15><source src=16><track src=17></video>
        <audio src=18></audio><object data=19></object><embed src=20><blockquote cite=21></blockquote><q cite=22></q>
        <ins cite=23></ins><del cite=24></del><map><area href=25 alt=Area></map><svg><a xlink:href=26>S</a></svg>
        <a href=27> two
        words </a><a href=28><img alt=Alt></a><img srcset="29,"><img srcset=" , ">"""
    found = list(links_of(page.encode(), "http://host/", every=True))
    expected = [*map(str, range(1, 5)), "5,6", *map(str, range(7, 30))]
    assert [link.url.removeprefix("http://host/") for link in found] == expected
    texts = {link.url.removeprefix("http://host/"): link.text for link in found}
    assert {url: text for url, text in texts.items() if text} == {
        **dict.fromkeys(("3", "4", "5,6", "7"), " Picture "),
        "12": "Go",
        "25": "Area",
        "26": "S",
        "27": "two words",
        "28": "Alt",
    }
    assert [link.url.removeprefix("http://host/") for link in links_of(page.encode(), "http://host/")] == [
        "25",
        "26",
        "27",
        "28",
    ]


def test_nesting() -> None:
    """A page that is nothing but opening tags is no harder than others."""
    assert len(urls("<div><a href=x></a>" * 20_000)) == 20_000


# The command


def test_file(tmp_path: Path) -> None:
    """A file's links are relative to where it is."""
    (tmp_path / "a b.html").write_bytes(b"<a href=x>X</a><a href=http://host/>")
    expected = f"file://{tmp_path}/x\nhttp://host/\n".encode()
    assert run("links", tmp_path / "a b.html") == (0, expected, "")
    (tmp_path / "empty").touch()
    assert run("links", tmp_path / "empty") == (0, b"", "")
    status, output, errors = run("links", tmp_path / "none")
    assert (status, output, errors) == (1, b"", f"Error: {tmp_path}/none: No such file or directory\n")


def test_url() -> None:
    """A page's links are relative to where it was found in the end, and in the encoding that the server says."""
    page = "<a href=ж>ж</a><img src=i>".encode("koi8-r")
    with http_server(
        answer(b"", b"302 Found", b"Location: /moved/"),
        answer(page, b"200 OK", b'Content-Type: text/html;charset="koi8-r"'),
    ) as server:
        status, output, errors = run("links", "--json", "--all", server.url)
    assert (status, errors) == (0, "")
    assert json.loads(output) == [
        {"url": f"{server.url}/moved/%D0%B6", "tag": "a", "attribute": "href", "text": "ж"},
        {"url": f"{server.url}/moved/i", "tag": "img", "attribute": "src", "text": ""},
    ]


def test_failures() -> None:
    """What goes wrong is told as fetch tells it."""
    with http_server(answer(b"<a href=x>", b"404 Not Found")) as server:
        assert run("links", server.url) == (1, b"", "twistednet links: 404 Not Found\n")
    with http_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<a href=x>") as server:
        assert run("links", server.url)[:2] == (1, b"")
    with http_server(answer(b"x" * (2**26 + 1))) as server:
        assert run("links", server.url) == (1, b"", f"twistednet links: {server.url}/: longer than 67108864 bytes\n")
    assert run("links", "ftp://host/")[0] == 2
