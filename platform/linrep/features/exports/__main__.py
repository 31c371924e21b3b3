"""Write features for other tools: `python -m linrep.features.exports neuronpedia ARTEFACT FOLDER`, or `delphi`."""

import argparse
import sys

from linrep.demo import model_folder
from linrep.errors import LinrepError
from linrep.features.artefact import open_features
from linrep.features.exports.delphi import write_delphi
from linrep.features.exports.neuronpedia import write_neuronpedia
from linrep.places import place
from linrep.vlm.config import ModelConfig
from linrep.vlm.unembed import read_words


def main(argv: list[str] | None = None) -> int:
    """Parse, write, and say where; 1 where the message says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m linrep.features.exports", description=__doc__)
    parser.add_argument("format", choices=("neuronpedia", "delphi"))
    parser.add_argument("features", help="the results of jobs/features.py: their folder, or a workspace with just one")
    parser.add_argument("target", help="folder or URI to write to")
    parser.add_argument("--sae", help="as the tables call it; the first one where none is named")
    parser.add_argument("--layer", type=int, help="the SAE's layer, where several layers have one of this name")
    parser.add_argument("--model", help="neuronpedia: where the model lies, if not where the harvest found it")
    parser.add_argument("--model-name", help="neuronpedia: what it calls the model; the last part of its path if not named")
    parser.add_argument("--ctx", type=int, default=32, help="delphi: tokens of a row, a multiple of its example_ctx_len")
    parser.add_argument("--samples", type=int, default=4096, help="delphi: samples of each modality, at most")
    args = parser.parse_args(argv)
    try:
        found = open_features(args.features)
        first = found.saes[0]
        layer = first.layer if args.sae is None and args.layer is None else args.layer
        own = found.sae(args.sae or first.name, layer)
        if args.format == "delphi":
            where = write_delphi(found, own.name, place(args.target), samples=args.samples, ctx=args.ctx, layer=own.layer)
        else:
            path = args.model or found.about.model
            words = read_words(ModelConfig(path=str(model_folder()) if path == "demo://model" else path))
            name = args.model_name or path.rstrip("/").rsplit("/", 1)[-1]
            where = write_neuronpedia(found, own.name, words, place(args.target), name, layer=own.layer)
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
