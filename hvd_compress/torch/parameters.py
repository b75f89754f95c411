"""Which parameters are exchanged, under which names, in which groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..contract import Spec
from ..errors import ConfigurationError

Named = tuple[str, torch.nn.Parameter]


def named_gradients(optimizer: torch.optim.Optimizer, named_parameters: Iterable[Any] | None) -> list[Named]:
    """Return (name, parameter) of every parameter that the optimizer trains, in the order named.

    Args:
        optimizer: the user's.
        named_parameters: pairs of name and parameter, usually `model.named_parameters()`; None numbers them.

    Raises:
        ConfigurationError: a name is used twice, a parameter has none, or one is not floating point.
    """
    groups = optimizer.param_groups
    if named_parameters is None:
        named: list[Any] = [
            (f"allreduce.noname.{i}.{j}", p) for i, group in enumerate(groups) for j, p in enumerate(group["params"])
        ]
    else:
        named = list(named_parameters)
    _check_names(named)
    trained = {p: None for group in groups for p in group["params"]}
    unnamed = len(trained.keys() - {p for _, p in named})
    if unnamed:
        raise ConfigurationError(
            f"named_parameters leaves {unnamed} parameter(s) of the optimizer without a name; pass "
            "model.named_parameters() of the whole model."
        )
    chosen: dict[torch.nn.Parameter, str] = {}
    for name, p in named:
        if p not in trained:
            continue
        if not p.dtype.is_floating_point:
            kind = str(p.dtype).removeprefix("torch.")
            raise ConfigurationError(
                f"Parameter {name!r} is {kind}; gradients are real floating-point: leave it out of the optimizer."
            )
        if p.requires_grad:
            chosen.setdefault(p, name)  # a tied parameter has one gradient, under its first name
    return [(name, p) for p, name in chosen.items()]


def _check_names(named: list[Any]) -> None:
    seen: set[str] = set()
    for pair in named:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ConfigurationError(
                f"named_parameters holds {type(pair).__name__}, not (name, parameter); pass model.named_parameters()."
            )
        if pair[0] in seen:
            raise ConfigurationError(
                f"Parameter name {pair[0]!r} is used twice in named_parameters; give every parameter a name of its own."
            )
        seen.add(pair[0])


def specs_in_gradient_order(named: Sequence[Named]) -> list[tuple[str, Spec]]:
    """Return (name, spec), last parameter first: about the order in which backward makes the gradients."""
    return [(name, Spec(tuple(p.shape), str(p.dtype).removeprefix("torch."))) for name, p in reversed(named)]


def group_names(named: Sequence[Named], groups: int | Sequence[Sequence[Any]] | None) -> list[list[str]]:
    """Return the names of each group of parameters that must travel together.

    Args:
        named: what is exchanged.
        groups: None, a number of groups of about equal length, or lists of parameters.

    Raises:
        ConfigurationError: groups holds something else, or a parameter twice.
    """
    if groups is None or groups == 0:
        return []
    if isinstance(groups, int):
        if groups < 0:
            raise ConfigurationError(f"groups={groups}: give a number of groups of at least 0, or lists of parameters.")
        length = max(1, -(-len(named) // groups))
        return [[name for name, _ in named[i : i + length]] for i in range(0, len(named), length)]
    name_of: dict[torch.Tensor, str] = {p: name for name, p in named}
    seen: set[torch.Tensor] = set()
    for p in (p for group in groups for p in group):
        if not isinstance(p, torch.Tensor):
            raise ConfigurationError(f"groups holds {type(p).__name__}; give lists of parameters.")
        if p in seen:
            raise ConfigurationError(
                f"groups holds parameter {name_of.get(p, '?')!r} twice; once is all it can travel."
            )
        seen.add(p)
    return [[name_of[p] for p in group if p in name_of] for group in groups]
