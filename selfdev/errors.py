"""The one exception that reaches a user: a sentence with the thing, its value, the rule and the next step."""


class SelfdevError(Exception):
    """The work could not be done; `str(error)` is the sentence to print. The command line exits with 1."""
