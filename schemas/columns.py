"""A column: a field of a table that carries its meaning and its unit."""

import pyarrow as pa


def column(name: str, type: pa.DataType, meaning: str, unit: str = "", nullable: bool = False) -> pa.Field:
    """A field with its contract in the metadata.

    Args:
        name: Name of the column.
        type: Arrow type of its values.
        meaning: What a value says, in one sentence.
        unit: Unit of the values, empty for names and counts.
        nullable: Whether a value may be missing.
    """
    return pa.field(name, type, nullable=nullable, metadata={"meaning": meaning, "unit": unit})
