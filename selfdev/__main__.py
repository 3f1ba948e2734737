"""`python -m selfdev` is the command `selfdev`."""

from __future__ import annotations

import os
import sys

from selfdev.workers.heap import with_large_pages


def main() -> None:
    """Entry point of the command `selfdev`."""
    # Threads of torch that wait would spin, and on busy cores take the work's own time. Noted when torch is
    # loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if sys.argv[1:2] == ["merge"]:  # which asks for gigabytes once
        with_large_pages()
    from selfdev.cli.cli import main as command

    command()


if __name__ == "__main__":
    main()
