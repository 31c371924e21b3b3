"""What the lenses of sharing need of each model: how names are cut into its tokens, and its output matrix where it is at hand."""

from collections.abc import Mapping

from linrep.cluster.object_tokens import words_of
from linrep.contents.sources import located
from linrep.errors import LinrepError, ModelError, RecipeError
from linrep.recipe import Recipe
from linrep.sharing.lens_tokens import labels_of
from linrep.sharing.study import LensWords, Pairs, Study
from linrep.store.read import Store
from linrep.vlm.config import ModelConfig
from linrep.vlm.files import locate
from linrep.vlm.processor import load_processor
from linrep.vlm.unembed import check_unembedding


def lens_words(study: Study, recipes: Mapping[str, Recipe]) -> tuple[dict[str, LensWords], tuple[str, ...]]:
    """What the lenses need of each model of a study, and why a lens is left out.

    Args:
        study: What is compared.
        recipes: Recipe of each model that has one; of another the harvest says which it is.
    """
    found, notes = {}, []
    if study.config.lens is None:
        return {}, ()
    for model, store in study.stores.items():
        try:
            config = recipes[model].model if model in recipes else _model_of(store)
            found[model], why = _words(located(config), store, study.pairs[model])
        except LinrepError as error:
            why = f"LatentLens is left out: {error}"
        notes += [] if why is None else [f"{model} model: {why}"]
    return found, tuple(notes)


def _words(config: ModelConfig, store: Store, pairs: Pairs) -> tuple[LensWords, str | None]:
    """What the lenses need of a model, and why the logit lens is left out.

    Raises:
        LinrepError: There is no token of a single image, no name, or no tokenizer.
    """
    if "tokens" not in store.manifest.views:
        raise RecipeError(f"{store.place} has no view tokens")
    labels = labels_of(pairs)
    if not labels:
        raise RecipeError("pairs have no classes and no attributes")
    tokenizer = load_processor(locate(config)[0]).tokenizer
    words = {name: words_of(values, tokenizer) for name, (values, _) in labels.items()}
    try:
        check_unembedding(config)
    except ModelError as error:
        return LensWords(words), f"the logit lens is left out: {error}"
    return LensWords(words, config), None


def _model_of(store: Store) -> ModelConfig:
    return ModelConfig(path=store.manifest.model["path"], revision=store.manifest.model.get("revision"))
