"""Documents become sequences: the cut, what is left out behind it, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from linrep.sample import Sample, Skipped
from linrep.vlm.passage import Passage
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from tests.vlm.test_turns import IN_PARTS, LONG

WORDS = ("The old tree ", " stands near ", " the house on the hill.")


@pytest.fixture(scope="module")
def show(png):
    def document(*words, sizes=None):
        sizes = sizes or [(30 + 20 * i, 40) for i in range(len(words) - 1)]
        images = tuple(png(*size, seed=i) for i, size in enumerate(sizes))
        text = "<image>".join(words)
        return Sample(id="d", corpus="documents", modality="document", uri="u", split="train", text=text, images=images)

    return document


def test_own_words_of_a_passage_by_hand():
    """Six tokens: "ab" and "c" of the words, the image, one that begins before it is over, "d", and a template's."""
    passage = Passage.showing("abc<image>d", ["<i>"])
    own, ends = passage.own(np.array([[0, 2], [2, 3], [3, 5], [5, 6], [6, 7], [7, 9]]))
    assert own.tolist() == [True, True, False, False, True, False]
    assert ends.tolist() == [2, 3, 11]


def test_a_document_is_cut_after_its_own_tokens_and_shows_the_images_before_the_cut(preparer, config, show):
    whole = preparer(show(*WORDS))
    assert whole.sample.text == "<image>".join(WORDS)
    counts = [int(((whole.role == Role.TEXT) & before).sum()) for before in np.tri(len(whole), dtype=bool)[whole.image >= 0]]
    first, second = counts[0], counts[-1]  # own tokens before the first image, and before the second
    assert 0 < first < second < whole.n_text_tokens
    # A tokenizer of this kind begins each stretch of text with a token of its space alone.
    for n, shown in ((first, 0), (first + 2, 1), (second, 1), (second + 2, 2), (whole.n_text_tokens, 2)):
        found = Preparer.from_path(config, max_text_tokens=n)(show(*WORDS))
        if not shown:
            assert isinstance(found, Skipped)
            assert found.reason == f"no image is shown within the first {n} tokens of the document's text"
            continue
        assert found.n_text_tokens <= n
        assert "<image>".join(WORDS).startswith(found.sample.text)
        assert found.sample.text.count("<image>") == len(found.image_sizes) == shown
        alone = preparer(show(*found.sample.text.split("<image>")))
        assert alone.input_ids.tolist() == found.input_ids.tolist()
        assert (alone.pixels == found.pixels).all()


def test_images_alone_are_a_document_and_one_image_is_laid_out_as_if_alone(preparer, make, show):
    found = preparer(show("", "", ""))
    assert found.n_text_tokens == 0
    assert found.image_sizes == ((30, 40), (50, 40))
    one, image = preparer(show("", "")), preparer(make(size=(30, 40)))
    assert one.input_ids.tolist() == image.input_ids.tolist()
    assert one.image_size is None  # the store's columns of one image are those of samples with one
    assert image.image_size == (30, 40)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": ()}, "the document shows no image"),
        ({"text": "no place"}, "the text has other places than images: 0 and 2"),
        ({"text": " "}, "empty text"),
    ],
)
def test_a_document_that_does_not_fit_its_images_is_skipped(preparer, show, change, reason):
    found = preparer(replace(show(*WORDS), **change))
    assert isinstance(found, Skipped)
    assert found.reason == reason
    assert found.sample.images == ()


def test_a_bad_image_is_named(preparer, show):
    sample = show(*WORDS)
    found = preparer(replace(sample, images=(sample.images[0], b"no image")))
    assert found.reason.startswith("image 2 of 2: not an image of JPEG")


def test_a_document_beyond_the_models_longest_sequence_is_skipped_whole(config, preparer, show):
    few = Preparer.from_path(config)
    few.card = replace(few.card, max_positions=len(preparer(show(*WORDS))) - 1)
    assert (
        few(show(*WORDS)).reason
        == f"sequence of {few.card.max_positions + 1} positions is beyond the model's {few.card.max_positions}"
    )


def test_turns_of_a_chat_lie_around_a_document(vlm, show):
    processor = replace(vlm.processor, template=IN_PARTS)
    found = Preparer(processor, vlm.card, chat=LONG)(show(*WORDS))
    first, last = found.marks.turns[1]
    inside = found.input_ids[first : last + 1][found.role[first : last + 1] < Role.IMAGE]
    assert "".join(processor.tokenizer.decode(inside).split()) == f"{''.join(WORDS)}user: what?".replace(" ", "")
    assert (found.image[first : last + 1] >= 0).sum() == found.n_image_tokens
