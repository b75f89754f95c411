"""How compressors print: as the shortest expression that makes them again."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any


class Settings:
    """Base of frozen dataclasses of settings; `repr` names only what differs from the defaults."""

    def __repr__(self) -> str:
        told = []
        positional = True
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if _default(field) is MISSING:
                told.append(repr(value) if positional else f"{field.name}={value!r}")
                continue
            positional = False
            if value != _default(field):
                told.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default
