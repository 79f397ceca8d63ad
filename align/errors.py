"""The errors that a user's input can cause: of a run, of data, of a recipe."""

from .findings import SHOWN_LINE, printable


class RunError(ValueError):
    """A run directory that cannot be used as asked. The message says what to do."""


class DataError(ValueError):
    """Data that cannot be trained on as it is. The message names the source, the rows and the reasons."""


class RecipeError(ValueError):
    """A recipe that cannot be run as written; one line per problem: where, which rule, which value, what to do.

    Control characters are escaped, so that a recipe cannot write to the terminal that shows what is wrong with it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(printable(line, SHOWN_LINE) for line in message.split("\n")))
