"""Would every rank train a model of its own? The callbacks for Keras 3 and for tf_keras ask before `fit` trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.tensorflow as stock

from ..errors import ConfigurationError


def nested_optimizers(optimizer: Any) -> list[Any]:
    """Return an optimizer and those inside it (`LossScaleOptimizer`), outermost first."""
    found = []
    while optimizer is not None:
        found.append(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found


def check_exchanges(model: Any, model_class: Any, is_distributed: Callable[[Any], bool]) -> None:
    """Raise for a model that every rank would train by itself: its steps are those of Keras, its optimizer is plain.

    A model with a `train_step` of its own may exchange gradients there, by a tape.

    Args:
        model: that `fit` trains.
        model_class: `Model` of its Keras.
        is_distributed: tells it of one optimizer, without those inside it.

    Raises:
        ConfigurationError: it is such a model, and there are several ranks.
    """
    optimizer = getattr(model, "optimizer", None)
    own_step = type(model).train_step is not model_class.train_step or "train_step" in vars(model)
    layers = nested_optimizers(optimizer)
    # An optimizer that leaves variables to several others: each of these is distributed or not.
    several = any(hasattr(layer, "optimizers") for layer in layers)
    if stock.size() == 1 or optimizer is None or own_step or several or any(map(is_distributed, layers)):
        return
    raise ConfigurationError(
        f"The {type(optimizer).__name__} of this model is not distributed, so that every rank would train a model of "
        "its own: wrap it with hvd.DistributedOptimizer before model.compile(), or load a saved one by hvd.load_model."
    )
