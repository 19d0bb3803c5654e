"""The suites, and the versions that they are run with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

TWISTED = metadata.version("twisted")
UVLOOP = metadata.version("uvloop")

REACTORS = ("uvloop", "asyncio")
"""Ours, by the loop."""


@dataclass(frozen=True)
class Suite:
    """A suite: what is run, and in what environment."""

    name: str
    runner: str
    """What runs the tests: trial or pytest."""
    tests: tuple[str, ...]
    """What to run: names for trial, arguments for pytest."""
    requirements: tuple[str, ...]
    """What pip installs into the suite's environment, besides uvloop."""
    sample: tuple[str, ...] = ()
    """What to run instead where a sample is enough; such a run leaves out a suite that has none."""
    source: str = ""
    """The source distribution that the tests are in, ``NAME==VERSION``, if they are not installed with the package."""
    edits: tuple[tuple[str, str, str], ...] = ()
    """Changes to the source: a file, a text in it, and what takes its place. ``{port}`` is that of the Redis server,
    and ``{folder}`` the folder that the suite runs in."""
    left_out: tuple[str, ...] = ()
    """Trial's tests that are run on no reactor."""
    reference: str = "epoll"
    """The reactor that ours are compared with."""
    substitute: bool = False
    """Whether the suite installs Twisted's asyncio reactor, and is to get ours instead."""
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables."""
    redis: bool = False
    """Whether the suite needs a Redis server."""
    limit: float = 300.0
    """Seconds after which a run is ended."""
    times: float | None = None
    """How many times as long as on the reference reactor a whole run may take."""


def of_twisted(name: str, *sample: str, limit: float = 300.0, times: float | None = None) -> Suite:
    """Twisted's own tests in one of its packages."""
    return Suite(
        f"twisted.{name}",
        "trial",
        (f"twisted.{name}",),
        (f"twisted[all-non-platform]=={TWISTED}",),
        sample=tuple(f"twisted.{module}" for module in sample),
        # Run as root, this one changes the mode of /dev/null for good.
        left_out=("twisted.test.test_logfile.LogFileTests.test_cantChangeFileMode",),
        limit=limit,
        times=times,
    )


SUITES = (
    of_twisted("internet", "internet.test"),
    of_twisted(
        "test",
        *("test.test_tcp", "test.test_tcp_internals", "test.test_udp", "test.test_unix", "test.test_ssl"),
        *("test.test_policies", "test.test_internet", "test.test_defer", "test.test_threads", "test.test_ftp"),
    ),
    of_twisted("web", "web.test.test_webclient", "web.test.test_wsgi", "web.test.test_xmlrpc", limit=600, times=1.5),
    *(
        of_twisted(name)
        for name in (
            *("_threads", "application", "conch", "cred", "logger", "mail", "names", "pair", "persisted"),
            *("positioning", "protocols", "python", "runner", "scripts", "spread", "trial", "words"),
        )
    ),
    Suite(
        "txredisapi",
        "trial",
        ("tests",),
        ("txredisapi==1.6.0", f"twisted=={TWISTED}", "hiredis==3.5.0", "mock==5.2.0"),
        source="txredisapi==1.6.0",
        edits=(
            ("tests/mixins.py", "REDIS_PORT = 6379", "REDIS_PORT = {port}"),
            ("tests/test_unix_connection.py", '"/tmp/redis.sock"', '"{folder}/redis.sock"'),
            # These are among the ports that the system gives to clients, of whatever runs at the same time.
            ("tests/test_sentinel.py", "_port = 36379", "_port = 23379"),
            ("tests/test_sentinel.py", "_port = 36380", "_port = 23380"),
            ("tests/test_sentinel.py", "_port = 46379", "_port = 23381"),
            ("tests/test_sentinel.py", "[46379, 46380, 46381]", "[23381, 23382, 23383]"),
        ),
        redis=True,
    ),
    Suite(
        "autobahn",
        "trial",
        tuple(f"autobahn.{part}test" for part in ("", "twisted.", "websocket.", "rawsocket.", "wamp.", "nvx.")),
        ("autobahn[twisted,encryption,serialization,scram]==26.10.2", f"twisted[tls]=={TWISTED}", "pytest==9.2.0"),
        environment=(("USE_TWISTED", "1"),),
    ),
    Suite(
        "txtorcon",
        "trial",
        ("test",),
        ("txtorcon==26.6.0", f"twisted[tls]=={TWISTED}", "mock==5.2.0"),
        source="txtorcon==26.6.0",
    ),
    Suite(
        "daphne",
        "pytest",
        ("tests",),
        (
            *("daphne==4.2.3", f"twisted[tls,http2]=={TWISTED}", "django==5.2.19"),
            *("hypothesis==6.170.15", "pytest==9.2.0", "pytest-asyncio==1.5.0"),
        ),
        source="daphne==4.2.3",
        reference="stock-asyncio",
        substitute=True,
        limit=600,
    ),
    Suite(
        "scrapy",
        "pytest",
        ("tests", "-n", "2", "-m", "not requires_internet"),
        (
            *("scrapy==2.19.0", f"twisted[tls,http2]=={TWISTED}", "pytest==9.1.1"),
            *("attrs==26.1.0", "pexpect==4.9.0", "psutil==7.2.2", "pyftpdlib==2.2.0", "pygments==2.21.0"),
            *("pytest-rerunfailures==16.7", "pytest-timeout==2.4.0", "pytest-twisted==1.14.3", "pytest-xdist==3.8.0"),
            "sybil==10.1.0",
        ),
        source="scrapy==2.19.0",
        reference="stock-asyncio",
        substitute=True,
        limit=2400,
    ),
)
