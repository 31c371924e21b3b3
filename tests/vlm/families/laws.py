"""The laws of a family, held against the model and the processor as transformers alone runs them.

A family's test inherits them and says how a tiny model of it is written.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from linrep.vlm.batch import collate
from linrep.vlm.config import ModelConfig, Turn
from linrep.vlm.decode import Edited, at_last, embed, embed_ids, greedy, logits, run, run_from, stack
from linrep.vlm.families import family_of
from linrep.vlm.hooks import edit, forward, record
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.processor import quiet
from linrep.vlm.tokens import patch_box
from linrep.vlm.unembed import read_unembedding
from tests.vlm.families.document_laws import DocumentLaws
from tests.vlm.families.official import middle, noise, official_processor, official_stream, sample
from tests.vlm.families.silence import quiet_attention, silent
from tests.vlm.families.site_laws import SiteLaws
from tests.vlm.families.tiny import close, each_is_as_alone

CHATML = (
    "{{% for m in messages %}}<s>{{{{ m['role'] }}}}\n{{% for p in m['content'] %}}"
    "{{% if p['type'] == 'image' %}}{image}{{% else %}}{{{{ p['text'] }}}}{{% endif %}}{{% endfor %}}</s>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<s>assistant\n{{% endif %}}"
)
"""A template that begins and ends each turn with a token, and writes its parts one by one."""

SIZES = ((40, 60), (64, 33), (90, 90))
"""Height and width of images: wide, tall and square."""


class ImageLaws(SiteLaws):
    """What holds of every family."""

    processor: str
    """Class of its processor in transformers."""
    call: dict[str, Any] = {}  # noqa: RUF012
    """What its call takes beside text and images."""
    placeholder: str
    """What stands for an image in the text that it is called with."""
    prompt = "<image> what is this ?"
    """How our recipe says that prompt."""
    bidirectional = False
    """Whether a patch feels the patches after it."""

    @staticmethod
    def write(folder: Path) -> Path:
        """Write the tiny model."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        with quiet():
            return self.write(tmp_path_factory.mktemp("tiny") / "model")

    @pytest.fixture(scope="class")
    def config(self, folder: Path) -> ModelConfig:
        return ModelConfig(path=str(folder))

    @pytest.fixture(scope="class")
    def vlm(self, config: ModelConfig) -> VLM:
        return load(config, None)

    @pytest.fixture(scope="class")
    def official(self, folder: Path) -> Any:
        with quiet():
            return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    @pytest.fixture(scope="class")
    def preparer(self, config: ModelConfig) -> Preparer:
        return Preparer.from_path(config, image_prompt=self.prompt)

    @pytest.fixture(scope="class")
    def prepared(self, preparer: Preparer) -> list[Prepared]:
        given = [
            *(sample(noise(*size, seed)) for seed, size in enumerate(SIZES)),
            sample(noise(50, 40, 7), "A red boat lies in the harbour."),
            sample(text="The old tree stands near the house."),
        ]
        found = [preparer(one) for one in given]
        assert all(isinstance(one, Prepared) for one in found), found
        return found  # type: ignore[return-value]

    def test_tokens_and_pixels_are_those_of_the_official_processor(self, folder, preparer, vlm, monkeypatch):
        processor = official_processor(folder, self.processor, monkeypatch)
        for seed, size in enumerate((*SIZES, (33, 150), (20, 20), (200, 120))):
            image = noise(*size, seed)
            mine = preparer(sample(image))
            text = self.prompt.replace("<image>", self.placeholder)
            theirs = processor(images=[image], text=[text], return_tensors="pt", **self.call)
            assert mine.input_ids.tolist() == theirs["input_ids"][0].tolist()
            ours = collate([mine], vlm).beside
            named = set(theirs) & set(ours)
            assert "pixel_values" in named
            for name in named:
                wanted = theirs[name].to(ours[name].dtype).reshape(ours[name].shape)
                torch.testing.assert_close(ours[name], wanted, atol=2e-5, rtol=0)

    def test_a_chats_tokens_are_those_of_the_official_processor(self, folder, vlm, monkeypatch):
        """With one start token, and each turn where its words are."""
        official = official_processor(folder, self.processor, monkeypatch)
        official.video_processor = SimpleNamespace(num_frames=1, fps=1, video_sampling={"max_frames": 1, "fps": 1})  # some look
        template = CHATML.format(image=self.placeholder)
        mine = replace(vlm.processor, template=template)
        said = [("user", "<image>What is shown ?"), ("assistant", "A red boat."), ("user", "Where is it ?")]
        chat = [Turn(role=role, content=content) for role, content in said]
        preparer, image = Preparer(mine, vlm.card, chat=chat), noise(40, 60)
        one = preparer(sample(image))
        messages = [{"role": role, "content": parts(content, image)} for role, content in said]
        theirs = official.apply_chat_template(
            messages, chat_template=template, tokenize=True, add_generation_prompt=True, return_dict=True, **self.call
        )
        assert one.input_ids.tolist() == np.asarray(theirs["input_ids"])[0].tolist()

        def words(first: int, last: int) -> str:
            own = one.role[first : last + 1] < Role.IMAGE
            return mine.tokenizer.decode(one.input_ids[first : last + 1][own]).strip()

        assert [words(*turn) for turn in one.marks.turns[1:]] == ["A red boat.", "Where is it ?"]
        first, last = one.marks.turns[0]
        assert words(first, last).endswith("What is shown ?")
        assert (one.role[first : last + 1] >= Role.IMAGE).sum() == one.n_image_tokens
        assert one.marks.question == 2
        assert words(one.marks.answer, len(one) - 1).replace(" ", "") == "<s>assistant"

    def test_the_count_of_image_tokens_is_the_features_that_the_model_makes(self, vlm, prepared):
        """The model itself refuses a batch where they differ."""
        for one in prepared:
            with record(vlm, [0]):
                forward(vlm, collate([one], vlm))

    def test_hook_at_k_equals_the_whole_models_stream(self, vlm, official, prepared):
        """Layer k is what enters block k of the official model, and layer n what enters its final norm."""
        for one in prepared:
            inputs = collate([one], vlm).inputs()
            theirs = official_stream(official, inputs)
            with record(vlm, range(4)) as mine:
                forward(vlm, collate([one], vlm))
            for k in range(4):
                close(mine[k], theirs[k])

    @pytest.mark.parametrize("depth", [0, 1, 2, 3])
    def test_cut_after_a_layer_the_stream_is_the_whole_models(self, config, vlm, prepared, depth):
        cut = load(config, depth)
        batch = collate(prepared, vlm)
        with record(vlm, [depth]) as whole:
            forward(vlm, batch)
        with record(cut, [depth]) as mine:
            forward(cut, collate(prepared, cut))
        real = batch.attention_mask
        close(mine[depth][real], whole[depth][real])

    def test_a_batch_equals_its_samples_alone(self, vlm, prepared):
        each_is_as_alone(vlm, prepared)

    def test_an_edit_moves_only_its_positions(self, vlm, prepared):
        batch = collate(prepared, vlm)
        mask = batch.image_mask.clone()
        mask[0] = False
        with record(vlm, [1]) as plain:
            forward(vlm, batch)
        with edit(vlm, {1: lambda h: h + 1}, mask), record(vlm, [1]) as edited:
            forward(vlm, batch)
        assert torch.equal((plain[1] != edited[1]).any(-1), mask)

    def test_generation_equals_the_official_models(self, vlm, official, prepared):
        """Through a cached prefix and in a padded batch, against `generate` on each sample alone."""
        streams = embed(vlm, prepared)
        cuts = [0 if vlm.family.attention == "prefix" else len(one) - 2 for one in streams]
        first = None if not any(cuts) else run(vlm, *stack([one[:cut] for one, cut in zip(streams, cuts, strict=True)]))[0]
        rest, real = stack([one[cut:] for one, cut in zip(streams, cuts, strict=True)])
        context, hidden = run(vlm, rest, real, first)
        vlm.model.generation_config.eos_token_id = None
        said = greedy(vlm, context, logits(vlm, at_last(hidden, real)), 5)
        for one, mine in zip(prepared, said, strict=True):
            prompt = collate([one], vlm, "left").prompt()
            with quiet():
                out = official.generate(**prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False, eos_token_id=None)
            assert mine == out[0, len(one) :].tolist()[: len(mine)]

    def test_an_edit_in_generation_is_felt_and_leaves_no_trace(self, vlm, prepared):
        batch = collate(prepared[:2], vlm, "left")
        options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
        options |= {"return_dict_in_generate": True, "output_logits": True}
        before = vlm.model.generate(**batch.prompt(), **options)
        with edit(vlm, {1: lambda h: -2 * h}, batch.image_mask, generated=True):
            edited = vlm.model.generate(**batch.prompt(), **options)
        assert (edited.logits[0] - before.logits[0]).abs().max() > 1e-3
        after = vlm.model.generate(**batch.prompt(), **options)
        assert torch.equal(after.sequences, before.sequences)
        assert all(torch.equal(a, b) for a, b in zip(after.logits, before.logits, strict=True))

    @pytest.mark.parametrize("layer", [0, 1, 2, 3])
    def test_a_pass_begun_at_the_edited_layer_equals_the_whole_edited_pass(self, vlm, prepared, layer):
        """Keys and values of every block, and what a token that follows reads."""
        stream, real = stack(embed(vlm, prepared))
        mask = real & (torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
        edited = Edited({layer: lambda h, rows: -2 * h + rows[:, None]}, mask)
        with record(vlm, [layer]) as found:
            plain, _ = run(vlm, stream, real)
        whole, of_whole = run(vlm, stream, real, None, edited)
        mine, hidden = run_from(vlm, layer, found[layer], stream, real, plain, edited)
        for a, b in zip(mine.cache.layers, whole.cache.layers, strict=True):
            close(a.keys.transpose(1, 2)[real], b.keys.transpose(1, 2)[real])
            close(a.values.transpose(1, 2)[real], b.values.transpose(1, 2)[real])
        close(hidden[real], of_whole[real])
        next_one = embed_ids(vlm, torch.full((len(real), 1), 5)), torch.ones(len(real), 1, dtype=torch.bool)
        close(run(vlm, *next_one, mine)[1], run(vlm, *next_one, whole)[1])
        moved = any((a.keys != b.keys).any() for a, b in zip(plain.cache.layers, whole.cache.layers, strict=True))
        assert moved == (layer < 3)
        again, _ = run(vlm, stream, real, None, edited)  # no block is left out afterwards
        assert all(torch.equal(a.keys, b.keys) for a, b in zip(again.cache.layers, whole.cache.layers, strict=True))

    def test_a_patchs_box_is_where_its_pixels_are(self, vlm, preparer, monkeypatch):
        """Pixels in the middle of a box are changed: of its view, exactly its placeholder moves, and one far away does not."""
        for module in quiet_attention(vlm):
            monkeypatch.setattr(module, "forward", silent(module))
        n_tried = 0
        for seed, (height, width) in enumerate(((96, 96), (96, 160), (150, 90))):
            image = noise(height, width, seed)
            one = preparer(sample(image))
            before = embed(vlm, [one])[0].h
            plan = family_of(vlm.card.family).layout((height, width), vlm.card.vision)
            patches = np.flatnonzero(one.role == Role.IMAGE)
            for i in patches[:: max(1, len(patches) // 9)]:
                left, top, right, bottom = patch_box(plan, int(one.tile[i]), int(one.row[i]), int(one.col[i]))
                inside = middle(left, right, width), middle(top, bottom, height)
                if inside[0] is None or inside[1] is None:
                    continue
                changed = np.asarray(image).copy()
                changed[inside[1], inside[0]] = 255 - changed[inside[1], inside[0]]
                after = embed(vlm, [preparer(sample(Image.fromarray(changed)))])[0].h
                moved = (after - before).float().norm(dim=-1).numpy()
                same = patches[(one.tile[patches] == 0) == (one.tile[i] == 0)]
                assert same[moved[same].argmax()] == i, (plan.image_size, i)
                far = [
                    j
                    for j in same
                    if max(abs(int(one.row[j]) - int(one.row[i])), abs(int(one.col[j]) - int(one.col[i]))) > self.reach
                ]
                assert moved[far].max(initial=0) < 0.05 * moved[i]
                n_tried += 1
        assert n_tried > 12

    reach = 1
    """Patches beside a box that feel its pixels through scaling."""

    def test_direct_words_are_those_of_the_models_own_norm_and_head(self, config, vlm):
        h = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            theirs = vlm.model.get_output_embeddings()(vlm.text.norm(h)).softmax(-1)
        close(read_unembedding(config).logits(h).softmax(-1), theirs, 1e-4)


class Laws(ImageLaws, DocumentLaws):
    """What holds of every family whose images can stand anywhere in a text."""


def parts(content: str, image: Image.Image) -> list[dict[str, Any]]:
    """What is said and shown, as transformers takes it."""
    pieces = content.partition("<image>")
    return [{"type": "image", "image": image} if p == "<image>" else {"type": "text", "text": p} for p in pieces if p]
