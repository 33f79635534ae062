"""Trials: lists of them, their scores, and the error rates that the scores give."""
