"""`python -m selfdev` is the command `selfdev`."""

from selfdev.cli.cli import main

if __name__ == "__main__":
    main()
