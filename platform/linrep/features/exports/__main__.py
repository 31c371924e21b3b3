"""Write features for other tools: `python -m linrep.features.exports neuronpedia ARTEFACT FOLDER`, or `delphi`."""

import argparse
import sys

from linrep.contents.sources import located
from linrep.errors import LinrepError, StoreError
from linrep.features.artefact import Features, open_features
from linrep.features.exports.delphi import next_lines as after_delphi
from linrep.features.exports.delphi import write_delphi
from linrep.features.exports.neuronpedia import CANNOT_SHOW, USER, Interpreted, Names, name_of, write_neuronpedia
from linrep.features.exports.neuronpedia_load import next_lines, write_load
from linrep.places import Place, place
from linrep.records import MANIFEST, read_object, repair_of_whole
from linrep.store.tables import read_table
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.unembed import read_words
from schemas.interpret import EXPLANATIONS, SCORES

INTERPRETATIONS = "interpretations"
"""Folder of a workspace, see `linrep.interpret.artefact`."""


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
    parser.add_argument("--explanations", help="neuronpedia: results of jobs/interpret.py; those of the workspace if not named")
    parser.add_argument("--author", default="line-of-sight", help="neuronpedia: who is named for the SAE")
    parser.add_argument(
        "--user", default=USER, help="neuronpedia: id of the account that owns the rows; every instance has this one"
    )
    parser.add_argument("--explained-by", help="neuronpedia: its name for the method of the explanations, if it has one")
    parser.add_argument("--explained-with", help="neuronpedia: its name for the model that explained, if it has one")
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
            print("\n".join([str(where), *after_delphi(where, args.ctx)]))
            return 0
        path = args.model or found.about.model
        config = located(ModelConfig(path=path))
        card, words, interpreted = describe(config), read_words(config), _interpreted(found, args.explanations)
        called = args.model_name or ("line-of-sight-demo" if path == "demo://model" else path.rstrip("/").rsplit("/", 1)[-1])
        names = Names(name_of(called), card.n_layers, card.width, args.author, args.user, args.explained_by, args.explained_with)
        where = write_neuronpedia(found, own.name, words, place(args.target), names, own.layer, interpreted)
        write_load(where, names)
        explained = (where / "explanations").is_folder()
        said = "with explanations" if explained else "without explanations: jobs/interpret.py makes some of these features"
        print("\n".join([f"{where}, {said}", CANNOT_SHOW, *next_lines(where, names)]))
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _interpreted(features: Features, named: str | None) -> Interpreted | None:
    """Explanations of some features: those that are named, else those that the workspace holds.

    Raises:
        StoreError: They are of other features, not complete, or several.
    """
    if named is not None:
        here = place(named)
        if not _is_of(features, here):
            raise StoreError(
                f"no complete interpretations of {features.name} at {here}: run jobs/interpret.py with the same recipe"
            )
        return _read(here)
    folder = features.place.parent.parent / INTERPRETATIONS
    there = [folder / name for name in folder.names() if _is_of(features, folder / name)]
    if len(there) > 1:
        shown = ", ".join(map(str, there))
        raise StoreError(f"{len(there)} interpretations are of {features.name}, name one (--explanations): {shown}")
    return _read(there[0]) if there else None


def _is_of(features: Features, here: Place) -> bool:
    if not (here / MANIFEST).is_file():
        return False
    head = read_object(here / MANIFEST, repair_of_whole(here))
    parents = head.get("parents")
    own = isinstance(parents, dict) and parents.get("features") == features.digest
    return own and head.get("stage") == "interpret" and head.get("status") == "complete"


def _read(here: Place) -> Interpreted:
    explanations, scores = (
        read_table(here, f"{name}.parquet", repair=repair_of_whole(here), schema=schema)
        for name, schema in (("explanations", EXPLANATIONS), ("scores", SCORES))
    )
    return Interpreted(explanations, scores)


if __name__ == "__main__":
    sys.exit(main())
