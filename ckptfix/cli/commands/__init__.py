"""One subcommand a file, each with a `command`, named as the file."""
