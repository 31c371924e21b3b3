"""The laws of documents, held against the model and the processor as transformers alone runs them; `Laws` inherits them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from linrep.sample import Sample
from linrep.vlm.batch import collate
from linrep.vlm.decode import embed
from linrep.vlm.families import layout
from linrep.vlm.hooks import forward, record
from linrep.vlm.patches import patches_of
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.tokens import patch_box
from tests.vlm.families.official import middle, noise, official_processor, official_stream, sample
from tests.vlm.families.silence import quiet_attention, silent
from tests.vlm.families.site_laws import hooked_patches, tower_rows
from tests.vlm.families.tiny import close, each_is_as_alone

WORDS = ("A red boat lies in the harbour.", " Beside it stands a tower: ", " The sky is grey.")
FIRST, SECOND = (40, 60), (90, 64)
"""Height and width of the two images of a document."""


def document(images: list[Image.Image], words: tuple[str, ...] = WORDS) -> Sample:
    """A document with an image after each of its texts but the last."""
    data = []
    for image in images:
        out = io.BytesIO()
        image.save(out, "PNG")
        data.append(out.getvalue())
    text = "<image>".join(words)
    return Sample(id="d", corpus="documents", modality="document", uri="u", split="train", text=text, images=tuple(data))


class DocumentLaws:
    """What holds of documents in every family whose images can stand anywhere."""

    @pytest.fixture(scope="class")
    def shown(self, preparer) -> Prepared:
        """A document of two images."""
        found = preparer(document([noise(*FIRST, 1), noise(*SECOND, 2)]))
        assert isinstance(found, Prepared), found
        return found

    def test_a_documents_tokens_and_pixels_are_those_of_the_official_processor(self, folder, preparer, vlm, monkeypatch):
        processor = official_processor(folder, self.processor, monkeypatch)
        for n, words in ((2, WORDS), (2, ("", "", "")), (1, (WORDS[0], WORDS[2])), (3, ("", "a ", "\n", " b"))):
            images = [noise(*size, seed) for seed, size in enumerate((FIRST, SECOND, (64, 33))[:n])]
            mine = preparer(document(images, words))
            text = preparer.scripts["text"].prompt.replace("{text}", self.placeholder.join(words))
            theirs = processor(images=[images], text=[text], return_tensors="pt", **self.call)
            assert mine.input_ids.tolist() == theirs["input_ids"][0].tolist()
            ours = collate([mine], vlm).beside
            named = set(theirs) & set(ours)
            assert "pixel_values" in named
            tiles = [layout(size, vlm.card, among=n > 1).tiles for size in mine.image_sizes]
            for name in named:
                wanted = theirs[name].to(ours[name].dtype)
                if wanted.numel() != ours[name].numel():  # filled up to the image of most tiles
                    wanted = torch.cat([own[:k] for own, k in zip(wanted, tiles, strict=True)])
                torch.testing.assert_close(ours[name], wanted.reshape(ours[name].shape), atol=2e-5, rtol=0)

    def test_a_documents_positions_are_its_words_and_its_images_in_order(self, preparer, shown, vlm):
        """Between the images stand the words that stand there, and what a family writes around an image is none of them."""
        assert shown.image_sizes == (FIRST, SECOND)
        own = [np.flatnonzero(shown.image == i) for i in range(2)]
        for at, size in zip(own, shown.image_sizes, strict=True):
            plan = layout(size, vlm.card, among=True)
            for name in ("role", "tile", "row", "col"):
                assert getattr(shown, name)[at].tolist() == getattr(plan.map, name).tolist()
        assert ((shown.image >= 0) == (shown.role >= Role.IMAGE)).all()
        cuts = [0, own[0][0], own[1][0], len(shown)]
        for words, first, last in zip(WORDS, cuts, cuts[1:], strict=False):
            ids = shown.input_ids[first:last][shown.role[first:last] == Role.TEXT]
            assert preparer.tokenizer.decode(ids).strip() == words.strip()

    def test_hook_at_k_equals_the_whole_models_stream_of_a_document(self, vlm, official, shown):
        theirs = official_stream(official, collate([shown], vlm).inputs())
        with record(vlm, range(4)) as mine:
            forward(vlm, collate([shown], vlm))
        for k in range(4):
            close(mine[k], theirs[k])

    def test_a_documents_patches_of_the_tower_are_parts_of_their_own_images_tokens(self, vlm, official, shown):
        own = patches_of(shown, vlm.card)
        for i in range(2):
            at = own.position[(own.image == i) & (own.position >= 0)]
            assert sorted(set(at.tolist())) == np.flatnonzero((shown.image == i) & (shown.role == Role.IMAGE)).tolist()
        patches, _ = tower_rows(vlm, [shown])["d"]
        close(patches, hooked_patches(official, vlm, shown))

    def test_a_batch_of_a_document_an_image_and_a_text_equals_each_alone(self, vlm, preparer, shown):
        """The document stands between others, whose images come before and after its own."""
        beside = [sample(noise(64, 33, 3)), sample(text=WORDS[0]), sample(noise(40, 60, 4), WORDS[2])]
        one, text, pair = (preparer(given) for given in beside)
        given = [one, text, shown, preparer(document([noise(90, 90, 5)], WORDS[:2])), pair]
        each_is_as_alone(vlm, given)

    def test_pixels_of_the_second_image_move_its_own_positions_alone(self, vlm, preparer, shown, monkeypatch):
        """Of a view exactly the patch that is mapped there moves most; nothing of the first image and no word does."""
        for module in quiet_attention(vlm):
            monkeypatch.setattr(module, "forward", silent(module))
        first, second = noise(*FIRST, 1), noise(*SECOND, 2)
        before = embed(vlm, [shown])[0].h
        plan = layout(SECOND, vlm.card, among=True)
        patches = np.flatnonzero((shown.image == 1) & (shown.role == Role.IMAGE))
        n_tried = 0
        for i in patches[:: max(1, len(patches) // 12)]:
            left, top, right, bottom = patch_box(plan, int(shown.tile[i]), int(shown.row[i]), int(shown.col[i]))
            across, down = middle(left, right, SECOND[1]), middle(top, bottom, SECOND[0])
            if across is None or down is None:
                continue
            changed = np.asarray(second).copy()
            changed[down, across] = 255 - changed[down, across]
            after = embed(vlm, [preparer(document([first, Image.fromarray(changed)]))])[0].h
            moved: Tensor = (after - before).float().norm(dim=-1)
            assert moved[torch.from_numpy(shown.image != 1)].max() == 0
            same = patches[(shown.tile[patches] == 0) == (shown.tile[i] == 0)]
            assert same[int(moved[same].argmax())] == i
            n_tried += 1
        assert n_tried > 3
