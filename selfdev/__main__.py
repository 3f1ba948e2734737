"""`python -m selfdev` is the command `selfdev`."""

from __future__ import annotations

import sys

from selfdev.workers.heap import with_large_pages


def main() -> None:
    """Entry point of the command `selfdev`."""
    if sys.argv[1:2] == ["merge"]:  # which asks for gigabytes once
        with_large_pages()
    from selfdev.cli.cli import main as command

    command()


if __name__ == "__main__":
    main()
