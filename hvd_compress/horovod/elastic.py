"""Names of Horovod's for elastic jobs; they refuse, and say why."""

from __future__ import annotations

from typing import Any, NoReturn, final

from ..errors import ConfigurationError


def refuse(name: str) -> NoReturn:
    """Raise ConfigurationError for a name of Horovod's that belongs to elastic jobs."""
    raise ConfigurationError(
        f"{name} is for elastic jobs, in which ranks come and go: residuals and shared factors are made for a fixed "
        "number of ranks, so elastic jobs are not supported; start a job of fixed size and save checkpoints instead."
    )


@final
class CommitStateCallback:
    """Raises ConfigurationError: elastic jobs are not supported."""

    def __init__(self, state: Any, batches_per_commit: int = 1) -> None:
        refuse(type(self).__name__)


@final
class UpdateBatchStateCallback:
    """Raises ConfigurationError: elastic jobs are not supported."""

    def __init__(self, state: Any) -> None:
        refuse(type(self).__name__)


@final
class UpdateEpochStateCallback:
    """Raises ConfigurationError: elastic jobs are not supported."""

    def __init__(self, state: Any) -> None:
        refuse(type(self).__name__)
