"""Judges: interchangeable functions from answers to verdicts."""
