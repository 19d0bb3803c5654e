"""The ``twistednet`` command."""

from __future__ import annotations

from importlib import import_module

import click

MODULES = {
    **dict.fromkeys(("chargen", "daytime", "discard", "qotd", "systat", "time"), "simple"),
    **{
        name: name
        for name in (
            "bench",
            "echo",
            "fetch",
            "greeter",
            "letters",
            "links",
            "lookup",
            "ports",
            "repeat",
            "reverse",
            "support",
            "udpok",
            "wps",
        )
    },
}
"""In which module of this package each subcommand is."""


class Subcommands(click.Group):
    """Imports a subcommand when it is called: the clients of the web, say, import much that the others don't need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        command: click.Command = getattr(import_module(f"twistednet.cli.{MODULES[cmd_name]}"), cmd_name)
        return command


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twistednet")
def main() -> None:
    """Clients for the services of twistednet, and a few for the rest of the network.

    Those of the services take the server's HOST and PORT, or a Twisted endpoint string such as unix:/path or
    tls:host:port in their place.

    Exit status: 0 answered as expected, 1 a wrong answer or none, 2 wrong usage, 3 refused, 4 timed out, 5 name
    not found.
    """
