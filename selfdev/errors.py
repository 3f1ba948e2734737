"""The one exception that reaches a user: a sentence with the thing, its value, the rule and the next step."""


def one_line(text: str) -> str:
    """A text with a space for everything that is not printable: breaks, control codes, lone surrogates."""
    return "".join(c if c.isprintable() else " " for c in text)


class SelfdevError(Exception):
    """The work could not be done; `str(error)` is the sentence to print, always one line. The command line
    exits with 1."""

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))
