"""The `ckptfix` command: one subcommand a file, loaded when it is called."""

INTERRUPTED = 130
"""The exit status after a signal: 128 and the number of SIGINT."""
