"""Chats: what a model's template makes of them is the prompt, and it is known where each turn lies."""

import json
from dataclasses import replace

import pytest

from linrep.errors import ModelError
from linrep.harvest.config import HarvestConfig
from linrep.vlm.config import Turn
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from linrep.vlm.processor import load_processor
from linrep.vlm.turns import write_script

IN_PARTS = (
    "{% for m in messages %}{{ m['role'] | upper }}: {% for p in m['content'] if p['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for p in m['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""Images first, as LLaVA's."""
AS_STRINGS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('Only two roles!') }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
"""Turns as strings, a start token, and nothing before an answer, as Mistral's."""
STRIPPED = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}SYSTEM: You are kind. {% endif %}{% for m in messages %}"
    "<{{ m['role'] }}>{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] | trim }}{% endif %}"
    "{% endfor %}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""What is said is stripped, and there is a system's turn where the chat has none."""


def chat(*turns):
    return [Turn(role=role, content=content) for role, content in turns]


ASKED = chat(("user", "<image>What is it?"))
LONG = chat(("system", "Be short."), ("user", "<image>user: what?"), ("assistant", "A boat."), ("user", "user"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_processor(folder).tokenizer


@pytest.mark.parametrize(
    ("template", "turns", "prompt", "said", "answer"),
    [
        (IN_PARTS, ASKED, "USER: <image>\nWhat is it? ASSISTANT:", ["<image>\nWhat is it?"], "ASSISTANT:"),
        (AS_STRINGS, ASKED, "[INST] <image>What is it? [/INST]", ["<image>What is it?"], None),
        (
            STRIPPED,
            chat(("user", "<image> \n What is it? ")),
            "SYSTEM: You are kind. <user><image>What is it?</><assistant>",
            ["<image>What is it?"],
            "<assistant>",
        ),
        (
            IN_PARTS,
            LONG,
            "SYSTEM: Be short. USER: <image>\nuser: what? ASSISTANT: A boat. USER: user ASSISTANT:",
            ["Be short.", "<image>\nuser: what?", "A boat.", "user"],
            "ASSISTANT:",
        ),
        (
            IN_PARTS,
            chat(("user", "Look at <image>well"), ("assistant", "It is a")),
            "USER: <image>\nLook at well ASSISTANT: It is a",
            ["<image>\nLook at well", "It is a"],
            "It is a",
        ),
    ],
)
def test_a_script_is_what_the_template_writes_without_a_second_start_token(tokenizer, template, turns, prompt, said, answer):
    found = write_script(turns, tokenizer, template, "<image>")
    assert found.prompt == prompt
    assert [found.prompt[a:b] for a, b in found.turns] == said
    assert (None if found.answer is None else found.prompt[found.answer :]) == answer
    assert turns[found.question].role == "user"


@pytest.mark.parametrize(
    ("template", "turns", "reason"),
    [
        (None, ASKED, "has no chat template"),
        (AS_STRINGS, chat(("system", "Be short."), ("user", "<image>")), "refuses the chat: Only two roles!"),
        ("{{ messages[0]['content'][1]['text'] | upper }}<image>", ASKED, "changes what a turn says, or leaves it out"),
        ("{{ messages[0]['content'][1]['text'] }}", ASKED, "does not write an image as '<image>', once"),
        ("<image>{{ messages[0]['content'][1]['text'] }}<image>", ASKED, "does not write an image as '<image>', once"),
        ("<image>", ASKED, "leaves it out"),
    ],
)
def test_a_template_that_cannot_tell_the_chat_is_refused_in_one_line(tokenizer, template, turns, reason):
    with pytest.raises(ModelError, match=reason) as caught:
        write_script(turns, tokenizer, template, "<image>")
    assert "\n" not in str(caught.value)


def test_texts_stand_where_the_image_stands_and_marks_follow_the_image(config, folder, make):
    processor = replace(load_processor(folder), template=IN_PARTS)
    preparer = Preparer(processor, Preparer.from_path(config).card, chat=LONG)
    found = [preparer(one) for one in (make(size=(20, 20)), make(size=(20, 20), text="on the hill"), make(text="a boat"))]

    def words(one, first, last):
        own = one.role[first : last + 1] < Role.IMAGE
        return processor.tokenizer.decode(one.input_ids[first : last + 1][own]).strip()

    for one in found:
        (first, last), marks = one.marks.turns[1], one.marks
        said = [words(one, *turn) for turn in marks.turns]
        assert (said[0], said[2:]) == ("Be short.", ["A boat.", "user"])
        assert said[1].endswith("user: what?")
        inside = one.role[first : last + 1]
        assert (inside >= Role.IMAGE).sum() == one.n_image_tokens
        assert (inside == Role.TEXT).sum() == one.n_text_tokens
        assert words(one, marks.answer, len(one) - 1) == "ASSISTANT:"
        assert list(one.input_ids).count(processor.tokenizer.bos_token_id) == 1
    # A prompt that is given beside the chat is no chat.
    plain = Preparer(processor, preparer.card, chat=LONG, text_prompt="{text}")
    assert plain(make(text="a boat")).marks is None
    assert plain(make(size=(20, 20))).marks == found[0].marks


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json"])
def test_the_template_is_found_wherever_checkpoints_keep_it(folder, tmp_path, name):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load_processor(tmp_path).template is None
    place = tmp_path / name
    known = json.loads(place.read_text()) if place.is_file() else {}
    place.write_text(IN_PARTS if name.endswith("jinja") else json.dumps({**known, "chat_template": IN_PARTS}))
    assert load_processor(tmp_path).template == IN_PARTS


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "chat is empty|is empty: give at least"),
        ([{"role": "user", "content": "hello"}], "must hold <image> exactly once over all turns, got it 0 times"),
        ([{"role": "user", "content": "<image><image>"}], "got it 2 times"),
        ([{"role": "user", "content": "<image> {text}"}], r"must not hold \{text\}"),
        ([{"role": "human", "content": "<image>"}], "'system', 'user' or 'assistant'"),
    ],
)
def test_a_chat_that_is_none_is_refused(turns, reason):
    with pytest.raises(ValueError, match=reason):
        HarvestConfig(chat=turns)


def test_a_chats_prompts_and_prompts_of_ones_own_are_not_both_given(tokenizer, folder, config):
    processor = replace(load_processor(folder), template=IN_PARTS)
    scripts = processor.scripts(ASKED, Preparer.from_path(config).card)
    found = HarvestConfig(chat=ASKED).scripted(scripts)
    assert found.prompts == {
        "image_prompt": "USER: <image>\nWhat is it? ASSISTANT:",
        "pair_prompt": "USER: <image>\n{text}\nWhat is it? ASSISTANT:",
        "text_prompt": "USER: {text}\nWhat is it? ASSISTANT:",
    }
    assert HarvestConfig(**found.model_dump()).scripted(scripts) == found
    for field, prompt in (("image_prompt", "A <image>"), ("text_prompt", "say {text}")):
        with pytest.raises(ValueError, match=f"harvest.chat and harvest.{field} both say what stands around"):
            HarvestConfig(chat=ASKED, **{field: prompt}).scripted(scripts)


def test_an_empty_prompt_is_not_one_that_is_left_out(config):
    with pytest.raises(ValueError, match="image_prompt must hold <image> exactly once"):
        Preparer.from_path(config, image_prompt="")
