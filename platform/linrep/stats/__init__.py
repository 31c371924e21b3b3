"""The floor under the analyses: intervals, their resampling, areas under curves, and nulls. It knows no stage."""
