"""Stands where Horovod has its elastic training, which compression state does not follow: every name is refused."""

from __future__ import annotations

from typing import NoReturn

from ..errors import ConfigurationError


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(f"hvd_compress.keras.elastic has no {name!r}.")
    raise ConfigurationError(
        f"hvd.elastic.{name}: elastic jobs change the number of workers, which compression state does not follow; "
        "start with a fixed number (horovodrun -np N) and save the model every epoch."
    )
