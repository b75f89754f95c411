"""Origin: whose state a checkpoint holds, so that the state of another rank or compressor is never used."""

from __future__ import annotations

import json
from typing import final

import tensorflow as tf

from ..contract import Scope
from ..errors import ConfigurationError
from ..exchange import Plan
from ..exchange.saved import declared_leaves


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
        scopes = {leaf.scope for unit in plan.units for leaf in declared_leaves(unit, world_size).values()}
        # What is equal on all ranks is any rank's; a plan without state can go on from any.
        self._compared = list(self._own) if scopes - {Scope.REPLICATED} else ["compressor", "plan"] if scopes else []
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
        different = next((key for key in self._compared if saved.get(key) != self._own[key]), None)
        if different is None:
            return
        if different == "plan":
            told = "is of another model, other settings or another version of hvd_compress than this one"
        else:
            told = f"has {different}={saved.get(different)!r}, here it is {self._own[different]!r}"
        problem = (
            f"The saved compression state {told}; give every rank the checkpoint that it saved itself, in a job of the "
            "same size and with the same compressor, or leave the compression state out: hvd.load_model(..., "
            "compression_state=False), or a checkpoint of the model alone."
        )
        if not self._waits:
            raise ConfigurationError(problem)
        self.problem = problem

    def settle(self) -> None:
        """Say that the exchange is made: what is restored from now on is refused at once."""
        self._waits = False
