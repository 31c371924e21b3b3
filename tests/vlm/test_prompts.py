"""Prompts: one place, what is left out follows the image's, what differs is said, and so is a missing start token."""

import itertools

import pytest

from linrep.harvest.config import HarvestConfig
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from linrep.vlm.processor import load_processor
from linrep.vlm.prompts import around, bare_starts, doubled_start, filled_in, prompts_differ

BEFORE = ("", "USER: ", "[INST] ", "<s>[INST] ")
AFTER = ("", "\nWhat is shown? [/INST]", " ASSISTANT:")


@pytest.mark.parametrize(("before", "after"), itertools.product(BEFORE, AFTER))
def test_prompts_left_out_follow_the_images_and_do_not_differ(before, after):
    config = HarvestConfig(image_prompt=f"{before}<image>{after}")
    assert around(config.pair_prompt) == around(config.text_prompt) == around(config.image_prompt) == (before, after)
    assert prompts_differ(config.model_dump()) == ()
    assert HarvestConfig(**config.model_dump()) == config
    assert HarvestConfig(image_prompt=config.image_prompt, pair_prompt=None, text_prompt=None) == config


def test_every_difference_of_prompts_is_said():
    forms = list(itertools.product(("", "A "), ("", " B")))
    for image, pair, text in itertools.product(forms, repeat=3):
        config = HarvestConfig(
            image_prompt=f"{image[0]}<image>{image[1]}",
            pair_prompt=f"{pair[0]}<image>, {{text}}{pair[1]}",
            text_prompt=f"{text[0]}{{text}}{text[1]}",
        )
        wrong = sum(a != b for other in (pair, text) for a, b in zip(image, other, strict=True))
        said = prompts_differ(config.model_dump())
        assert len(said) == wrong, said
    assert prompts_differ({"image_prompt": "A <image>", "pair_prompt": "A <image> {text}", "text_prompt": "{text}"}) == (
        "before a text stands nothing, before an image alone 'A '",
    )
    assert prompts_differ({}) == ()


def test_the_harvests_text_prompt_reaches_the_sequence(config, make):
    harvest = HarvestConfig(image_prompt="USER: <image>\nWhat? ASSISTANT:")
    prepare = Preparer.from_path(config, **harvest.prompts)
    image, text = prepare(make(size=(20, 20))), prepare(make(text="a boat"))
    # Before the text stand the words that stand before the image, and the last token is the same.
    first = int((text.role == Role.TEXT).argmax())
    assert first == 2
    assert text.input_ids[:first].tolist() == image.input_ids[:first].tolist()
    assert text.input_ids[-1] == image.input_ids[-1]


@pytest.mark.parametrize("field", ["image_prompt", "pair_prompt", "text_prompt"])
def test_a_doubled_start_token_is_refused(config, field, folder):
    inside = {"image_prompt": "<image>", "pair_prompt": "<image> {text}", "text_prompt": "{text}"}[field]
    with pytest.raises(ValueError, match=rf"{field} begins with two start tokens: the tokenizer puts one '<s>'"):
        Preparer.from_path(config, **{field: f"<s>{inside}"})
    tokenizer = load_processor(folder).tokenizer
    assert doubled_start(tokenizer, "<image>") is None


class Bare:
    """A tokenizer of words that puts no start token, and may know of one."""

    def __init__(self, start=None, puts=False):
        self.words: dict[str, int] = {}
        self.bos_token, self.puts = start, puts
        self.bos_token_id = None if start is None else self.id(start)

    def id(self, word):
        return self.words.setdefault(word, len(self.words))

    def __call__(self, text, verbose=False):
        words = text.replace("<image>", " <image> ").split()
        ids = [self.id(word) for word in ([self.bos_token] if self.puts else []) + words]
        return type("Out", (), {"input_ids": ids})


def test_a_sequence_that_does_not_begin_with_its_start_token_is_said():
    prompts = filled_in({"image_prompt": "<image> what ?"})
    assert bare_starts(Bare("<s>", puts=True), prompts) == ()
    assert bare_starts(Bare("<s>"), filled_in({"image_prompt": "<s> <image> what ?"})) == ()
    lines = bare_starts(Bare(), prompts)
    assert len(lines) == 3
    assert lines[0].startswith("image_prompt: the model has no start token, and nothing stands before the content")
    assert "begin with the start token '<s>', and nothing" in bare_starts(Bare("<s>"), prompts)[0]
    # A model without a start token is used to words in its place: these take the attention, not the image.
    assert bare_starts(Bare(), filled_in({"image_prompt": "see : <image>"})) == ()
    assert len(bare_starts(Bare("<s>"), filled_in({"image_prompt": "see : <image>"}))) == 3
    assert doubled_start(Bare("<s>", puts=True), "<s> <image>") is not None
