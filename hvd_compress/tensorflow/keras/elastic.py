"""Stands where Horovod has its elastic training, which compression state does not follow: every name is refused."""

from __future__ import annotations

from typing import NoReturn

from ...horovod.elastic import refuse


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(f"hvd_compress.tensorflow.keras.elastic has no {name!r}.")
    refuse(f"hvd.elastic.{name}")
