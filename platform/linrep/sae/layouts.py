"""How the matrices of an SAE lie in the files of other libraries: the part that most architectures share."""

from torch import Tensor

from linrep.sae.sae import Sae
from linrep.sae.tensors import Weights

Four = tuple[Tensor, Tensor, Tensor, Tensor]
"""encoder [f, d], b_enc [f], decoder [f, d], b_dec [d]: the first arguments of `Sae`."""


def straight(sae: Sae, bias: str = "b_enc") -> dict[str, Tensor]:
    """SAELens' names, and those of dictionary_learning's classes without linear layers: W_enc [d, f], W_dec [f, d]."""
    return {"W_enc": sae.encoder.t(), "W_dec": sae.decoder, "b_dec": sae.b_dec, bias: sae.b_enc}


def read_straight(weights: Weights, bias: str = "b_enc") -> Four:
    """The same, read.

    Raises:
        FormatError: One is missing or wrong.
    """
    (encoder,), (decoder,) = weights.take("W_enc", axes=("d", "f")), weights.take("W_dec", axes=("f", "d"))
    (b_dec,), (b_enc,) = weights.take("b_dec", axes=("d",)), weights.take(bias, axes=("f",))
    return encoder.t().contiguous(), b_enc, decoder, b_dec


def linear(sae: Sae, b_enc: str, b_dec: str) -> dict[str, Tensor]:
    """Of dictionary_learning's classes of linear layers: encoder.weight [f, d], decoder.weight [d, f]."""
    return {"encoder.weight": sae.encoder, "decoder.weight": sae.decoder.t(), b_enc: sae.b_enc, b_dec: sae.b_dec}


def read_linear(weights: Weights, b_enc: str, b_dec: str) -> Four:
    """The same, read.

    Raises:
        FormatError: One is missing or wrong.
    """
    (encoder,), (decoder,) = weights.take("encoder.weight", axes=("f", "d")), weights.take("decoder.weight", axes=("d", "f"))
    (written,), (gates,) = weights.take(b_dec, axes=("d",)), weights.take(b_enc, axes=("f",))
    return encoder, gates, decoder.t().contiguous(), written
