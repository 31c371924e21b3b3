"""What an edit does not touch is run once: an image below the edited layer, and a prompt before the edited position."""

from collections import Counter

import pytest

from linrep.steer.cells import cells
from linrep.steer.config import Damage
from linrep.steer.sites import ImageTokens, LastToken
from linrep.steer.steerer import Steerer
from linrep.steer.vectors import Vectors
from linrep.vlm.taps import passed_through
from tests.steer.conftest import sample
from tests.steer.test_steerer import CONFIG, directions

LAYER, PROMPT = 3, "<image> see :"


@pytest.fixture
def given(steer_vlm, monkeypatch):
    """Positions that each block is given and runs, padding included, by the length of a sequence in the pass."""
    seen = Counter()
    for i, block in enumerate(steer_vlm.text.layers):

        def counted(h, *args, block=i, plain=block.forward, **kwargs):
            seen[block, h.shape[1]] += h.shape[0]
            return plain(h, *args, **kwargs)

        monkeypatch.setattr(block, "forward", counted)
    return seen


@pytest.mark.parametrize("site", [ImageTokens(), LastToken()], ids=lambda site: site.kind)
def test_an_edited_text_runs_its_image_again_only_above_the_edit(steer_vlm, given, site):
    config = CONFIG.model_copy(update={"sites": (site,), "damage": Damage(prompt=PROMPT, texts=1, candidates=1)})
    steerer = Steerer(steer_vlm, config, (LAYER,), Vectors(directions(), config.dose), tokens_per_batch=10**6)
    one = sample(0, "a red boat")
    prefix = len(steerer.prompts.prepare(one, PROMPT)) - 1
    rows = steerer.damage([one], "boat", "tall tree").tables["damage"]
    ran = sum(row.get("error") is None for row in rows)
    assert ran == len(cells(config, (LAYER,))) > 8
    edited = ran - 1 if site.kind == "image" else sum(row["direction"] == "other_tokens" for row in rows)
    assert edited
    assert [given[block, prefix] for block in range(4)] == [1, 1, 1, 1 + edited]
    text = len(steerer.prompts.prepare(one, PROMPT, True)) - prefix
    assert [given[block, text] for block in range(4)] == [ran] * 4


def test_a_module_that_is_passed_through_keeps_the_method_that_stood_in_for_its_own(steer_vlm, given):
    block = steer_vlm.text.layers[0]
    mine = block.forward
    with passed_through(block):
        assert block.forward is not mine
    assert block.forward is mine
    assert not given
