"""The weights released with the paper: a pickled ReLU SAE whose input scale stands in the file's name.

f = ReLU(fc1 x + b1), x' = fc2 f + b2, trained on x * sqrt(d) / norm; the name ends in `norm13.996978.pkl`.
"""

import re

from linrep.errors import FormatError
from linrep.places import Place
from linrep.sae.architectures.relu import Rectify
from linrep.sae.formats.files import read_pickle
from linrep.sae.sae import Sae
from linrep.sae.tensors import Weights


def read(file: Place) -> Sae:
    """Read an SAE that takes raw activations and gives the latents that it gave in training.

    Raises:
        FormatError: The name holds no norm, or the file is not such a pickle.
    """
    norm = re.search(r"_norm(\d+(?:\.\d+)?)\.pkl$", file.name)
    if norm is None or float(norm[1]) == 0:
        raise FormatError(f"{file.name} does not end in _norm<mean norm>.pkl, so the scale of its inputs is unknown: rename it")
    weights = Weights(file, read_pickle(file), {})
    (encoder,) = weights.take("fc1.weight", axes=("f", "d"))
    (b_enc,) = weights.take("fc1.bias", axes=("f",))
    (decoder,) = weights.take("fc2.weight", axes=("d", "f"))
    (b_dec,) = weights.take("fc2.bias", axes=("d",))
    weights.finish()
    layer = re.search(r"layer(\d+)", file.name)
    about = {"architecture": "relu", "file": file.name} | ({} if layer is None else {"layer": int(layer[1])})
    scale = encoder.shape[1] ** 0.5 / float(norm[1])
    return Sae(encoder * scale, b_enc, decoder.t() / scale, b_dec / scale, Rectify(), sees_centred=False, about=about)
