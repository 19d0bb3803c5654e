"""The ``twistednet`` command: a client for each service, a subcommand each."""
