"""Origin: whose state a checkpoint holds, so that the state of another rank or compressor is never used."""

from __future__ import annotations

import json
from typing import final

import tensorflow as tf

from ..errors import ConfigurationError
from ..exchange import Plan


@final
class Origin(tf.train.experimental.PythonState):
    """Rank, world size and plan of an exchange; saved with its state, and compared when that is restored.

    TensorFlow restores it before any variable, so that a refusal leaves all variables as they were.

    Args:
        rank: of this worker.
        world_size: number of workers.
        plan: of the exchange.
    """

    def __init__(self, rank: int, world_size: int, plan: Plan) -> None:
        self._own = {
            "rank": rank,
            "world_size": world_size,
            "compressor": repr(plan.compressor),
            "plan": plan.digest.hex(),
        }
        self._waits = True
        self.problem: str | None = None

    def serialize(self) -> str:
        return json.dumps(self._own)

    def deserialize(self, string_value: bytes | str) -> None:
        """Compare with what was saved.

        Raises:
            ConfigurationError: it is of another rank, world size, compressor or model. Not raised while the exchange
                is being made: then `problem` says so, and all ranks raise together.
        """
        saved = json.loads(string_value)
        different = next((key for key, own in self._own.items() if saved.get(key) != own), None)
        if different is None:
            return
        if different == "plan":
            told = "is of another model, other settings or another version of hvd_compress than this one"
        else:
            told = f"has {different}={saved.get(different)!r}, here it is {self._own[different]!r}"
        problem = (
            f"The saved compression state {told}; give every rank the checkpoint that it saved itself, in a job of the "
            "same size and with the same compressor, or leave the compression state out of what is restored."
        )
        if not self._waits:
            raise ConfigurationError(problem)
        self.problem = problem

    def settle(self) -> None:
        """Say that the exchange is made: what is restored from now on is refused at once."""
        self._waits = False
