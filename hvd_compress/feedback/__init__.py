"""Feedback: wrappers with a memory."""

from .error_feedback import ErrorFeedback
from .momentum import Momentum
from .momentum_correction import MomentumCorrection
from .step_size import StepSizeScaling
from .weight_decay import LocalWeightDecay

__all__ = ["ErrorFeedback", "LocalWeightDecay", "Momentum", "MomentumCorrection", "StepSizeScaling"]
