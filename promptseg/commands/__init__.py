"""One module a subcommand, imported only when it is called.

Each has `add_arguments(parser)` and `run(arguments) -> int`, the exit status, and imports
nothing heavy at its top.
"""
