"""`python -m promptseg`."""

import sys

from promptseg.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
