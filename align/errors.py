"""Names the errors that a user's input can cause, and hides the warnings that no user can mend."""

import signal
import warnings

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


INTERRUPTED = 128 + signal.SIGINT  # the exit code after Ctrl-C, as a shell would say

USER_ERRORS = (RecipeError, DataError, RunError, OSError)  # OSError: a model or a folder that is not there


def quiet_upstream() -> None:
    """Hide deprecations that TRL 1.16 causes inside transformers: nothing a user of ours could mend."""
    for name in ("gradient_checkpointing", "is_gradient_checkpointing"):
        warnings.filterwarnings("ignore", message=f"`{name}` is deprecated", category=FutureWarning)
