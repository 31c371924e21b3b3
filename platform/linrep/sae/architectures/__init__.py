"""The SAE architectures, one file each, and the one list of them: docs/extending.md shows how to add one."""

from linrep.sae.architecture import Architecture
from linrep.sae.architectures.archetypal import ArchetypalTraining
from linrep.sae.architectures.batch_topk import BatchTopKTraining
from linrep.sae.architectures.gated import Gate, GatedTraining
from linrep.sae.architectures.jumprelu import Above, JumpReLUTraining
from linrep.sae.architectures.matching_pursuit import MatchingPursuitTraining, Pursuit
from linrep.sae.architectures.matryoshka import MatryoshkaTraining
from linrep.sae.architectures.relu import Rectify, ReLUTraining
from linrep.sae.architectures.topk import Largest, TopKTraining
from linrep.sae.config import Activation
from linrep.sae.sae import Rule

ARCHITECTURES: dict[str, type[Architecture]] = {
    "relu": ReLUTraining, "topk": TopKTraining, "batch_topk": BatchTopKTraining, "matryoshka": MatryoshkaTraining,
    "jumprelu": JumpReLUTraining, "gated": GatedTraining, "matching_pursuit": MatchingPursuitTraining,
    "archetypal": ArchetypalTraining,
}  # fmt: skip
"""By the `kind` of the recipe's section."""
RULES: tuple[type[Rule], ...] = (Rectify, Largest, Above, Gate, Pursuit)
"""What trained SAEs choose by; several architectures may share one."""


def architecture_of(activation: Activation) -> Architecture:
    """How an SAE of a recipe's section is trained and saved."""
    return ARCHITECTURES[activation.kind](activation)
