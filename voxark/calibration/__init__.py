"""Calibration and fusion: scores become log-likelihood ratios."""
