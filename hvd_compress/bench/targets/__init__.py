"""Targets: what speed is to be reached, judged by rows that were measured within one run."""

from .growth import growth_targets
from .micro import micro_targets
from .network import network_targets
from .report import target_table
from .target import Target, judge

__all__ = ["Target", "growth_targets", "judge", "micro_targets", "network_targets", "target_table"]
