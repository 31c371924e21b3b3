"""The row contracts: one Arrow schema per table, whose field metadata holds meaning and unit.

`python -m schemas` writes the tables of columns in the documentation from them.
"""

from schemas.activations import SAMPLES, STATISTICS, vectors
from schemas.columns import column

__all__ = ["SAMPLES", "STATISTICS", "column", "vectors"]
