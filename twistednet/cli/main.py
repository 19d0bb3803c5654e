"""The ``twistednet`` command."""

from __future__ import annotations

import click

from twistednet.cli.echo import echo
from twistednet.cli.letters import letters
from twistednet.cli.reverse import reverse
from twistednet.cli.udpok import udpok
from twistednet.cli.wps import wps


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twistednet")
def main() -> None:
    """Clients for the services of twistednet.

    Each takes the server's HOST and PORT, or a Twisted endpoint string such as unix:/path or tls:host:port in
    their place.

    Exit status: 0 answered as expected, 1 a wrong answer or none, 2 wrong usage, 3 refused, 4 timed out, 5 name
    not found.
    """


for command in (echo, letters, reverse, udpok, wps):
    main.add_command(command)
