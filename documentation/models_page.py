"""The page of models: a table of families, made from what their files say."""

from linrep.vlm.families import families
from linrep.vlm.family import Family

HEAD = ["| family | `model_type` | image tokens an image | attention in the image | stored as |", "|---|---|---|---|---|"]


def model_tables() -> str:
    """The families in a table, then each with checkpoints and known limits."""
    shown = sorted(families(), key=lambda one: one.title.lower())
    return "\n".join([*HEAD, *map(_row, shown), "", *(line for one in shown for line in _about(one))])


def _row(one: Family) -> str:
    types = ", ".join(f"`{name}`" for name in one.model_types)
    return f"| {one.title} | {types} | {one.tokens} | {one.attention} | {one.storage} |"


def _about(one: Family) -> list[str]:
    names = ", ".join(f"`{name}`" for name in one.checkpoints)
    return [f"**{one.title}**: {names}.", "", *(f"- {limit}" for limit in one.limits), ""]
