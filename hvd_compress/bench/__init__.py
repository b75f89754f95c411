"""Measuring compression: what it costs by itself (`micro`), always as ratios within one run."""
