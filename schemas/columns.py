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


def high_norm(whose: str, modality: str = "") -> list[pa.Field]:
    """How many tokens of high norm (attention sinks) a row's numbers are without, and where they stand.

    Args:
        whose: The tokens, in words.
        modality: Ends the names, where a row is about both.
    """
    ending = f"_{modality}" if modality else ""
    counted = f"{whose} above the harvest's limit for their norm, kept apart from the row's numbers; those of the whole store"
    places = "Places in the sequence where most of these stand, from 0, the most frequent first; 8 at most"
    return [
        column(f"n_high_norm{ending}", pa.int64(), counted, "tokens"),
        column(f"high_norm_positions{ending}", pa.list_(pa.int32()), places),
    ]
