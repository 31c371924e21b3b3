"""Linear representations in vision-language LLMs: harvest, probe, steer, decompose, compare."""

__version__ = "0.1.0"
