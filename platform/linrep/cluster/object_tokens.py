"""Where the objects of image-caption pairs are: patches that regions cover, and the word for the class in the caption."""

from collections.abc import Callable, Sequence
from typing import Any

from linrep.cluster.inputs import regions
from linrep.contents.sources import located
from linrep.errors import LinrepError
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.sharing.study import ObjectTokens, Pairs
from linrep.vlm.files import locate
from linrep.vlm.processor import load_processor


def object_tokens(recipe: Recipe, workspace: Place) -> Callable[[Pairs], ObjectTokens] | str:
    """What says where the objects of a recipe's pairs are; or why that is not known."""
    try:
        found = regions(recipe, workspace)
        if found is None:
            return "the recipe has no section regions, which says where objects are"
        tokenizer = load_processor(locate(located(recipe.model))[0]).tokenizer
    except LinrepError as error:
        return str(error)
    return lambda pairs: ObjectTokens(found, words_of(pairs.classes, tokenizer))


def words_of(classes: Sequence[str], tokenizer: Any) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each class the ways in which a text's tokens may spell it: at the beginning and after a space, small and capital.

    Of several names with commas between them each counts. A name with an unknown token is in no text.

    Args:
        classes: Their names.
        tokenizer: Of the model.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    found = []
    for name in classes:
        names = [one.strip() for one in name.replace("_", " ").split(",") if one.strip()]
        forms = [before + form for one in names for form in (one, one[:1].upper() + one[1:]) for before in ("", " ")]
        ways = {tuple(tokenizer(form, add_special_tokens=False, verbose=False).input_ids) for form in forms}
        found.append(tuple(sorted(way for way in ways if way and unknown not in way)))
    return tuple(found)
