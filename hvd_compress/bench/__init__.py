"""Measuring: what compression costs by itself, growing, and in training; always as ratios within one run."""
