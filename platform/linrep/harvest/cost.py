"""What a harvest costs on a GPU: floating-point operations from the model's own shapes, hours and money by a table of GPUs."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, PositiveFloat, ValidationError
from yaml import YAMLError, safe_load

from linrep.config import Section
from linrep.errors import RecipeError
from linrep.harvest.estimate import Estimate
from linrep.vlm.size import ModelSize

GPUS = Path(__file__).with_name("gpus.yaml")
"""The table that ships with the package."""
SPARE = 1.15
"""A card needs this many times the weights, for a micro-batch and what is copied off it."""


class Gpu(Section):
    """A kind of GPU.

    Attributes:
        tflops: Dense products in bfloat16 or float16, as its maker says, in 10^12 operations a second.
        memory_gb: Of one card, in 10^9 bytes.
        usd_per_hour: Price of one card with its share of the machine.
    """

    tflops: PositiveFloat
    memory_gb: PositiveFloat
    usd_per_hour: PositiveFloat


class GpuTable(Section):
    """Kinds of GPUs, and what share of their peak a forward pass reaches.

    Attributes:
        utilisation: Share of the peak.
        gpus: By name.
    """

    utilisation: float = Field(gt=0, le=1)
    gpus: dict[str, Gpu] = Field(min_length=1)


def read_gpus(file: Path = GPUS) -> GpuTable:
    """The table in a YAML file.

    Raises:
        RecipeError: There is no such file, or it is no such table.
    """
    try:
        return GpuTable.model_validate(safe_load(file.read_text()))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"--gpus {file}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"--gpus {file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def flops_of(found: Estimate, size: ModelSize) -> float:
    """Operations of a whole harvest."""
    return sum(part.n_used * size.flops(part.tokens.value, part.squares, part.patches) for part in found.parts)


@dataclass(frozen=True)
class Bill:
    """What a harvest costs on one kind of GPU.

    Attributes:
        name: Of the GPU.
        cards: How many hold the model together.
        hours: Of all cards together.
        usd: Their price.
    """

    name: str
    cards: int
    hours: float
    usd: float


def bills(flops: float, n_bytes: float, table: GpuTable) -> list[Bill]:
    """What some operations cost on each kind of GPU.

    Args:
        flops: Operations.
        n_bytes: Of the weights.
        table: The kinds.
    """
    found = []
    for name, gpu in table.gpus.items():
        hours = flops / (gpu.tflops * 1e12 * table.utilisation) / 3600
        cards = max(1, -int(-SPARE * n_bytes // (gpu.memory_gb * 1e9)))
        found.append(Bill(name, cards, hours, hours * gpu.usd_per_hour))
    return found
