"""The page of an asking in a real browser, from disk: what a person does on it works, and hostile texts stay text."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from linrep.directions import DirectionSet
from linrep.explorer.asked import write_asked
from linrep.places import place
from linrep.reading.asked import Asked, LatentNote
from linrep.reading.attribution import attribute
from linrep.reading.changes import NamedLatent, clamp_of
from linrep.reading.live import answers_under, read_live
from linrep.reading.probes import ProbeReading
from linrep.reading.read import Reader, ReadSae
from linrep.sae.controls import random_sae
from linrep.steer.config import Dose, ImageTokens
from linrep.steer.vectors import Vectors
from linrep.vlm.config import ModelConfig
from linrep.vlm.image import decode
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.unembed import read_unembedding
from tests.pages import browse, needs_chromium
from tests.reading.workspace import SAMPLE

HOSTILE = '</script><img src=x onerror="window.attacked=1"><script>window.attacked=1</script>\u202e\u2028\u2029 "\' &amp; \x00'
DRIVE = Path(__file__).with_name("drive.js")


def hostile_page(folder: Path, model: ModelConfig) -> Path:
    """A page on which every text that can be somebody's is hostile."""
    vlm, sae = load(model, None), ReadSae(2, HOSTILE, random_sae(torch.randn(64, 32), 24, 4))
    prepared = Preparer.from_path(model, image_prompt="a <image> what is it ?")(SAMPLE)
    reading, answer = read_live(vlm, prepared, Reader([sae], read_unembedding(model)), (0, 2), {}, 2)
    probes = [
        ProbeReading(HOSTILE, view, layer, HOSTILE, 0.7, HOSTILE, 0.2, 0.9, 0.5)
        for view in ("pooled", "last")
        for layer in (0, 2)
    ]
    change = clamp_of(NamedLatent(3, 9.0), [sae], Vectors(DirectionSet(()), Dose()), ImageTokens())
    notes = {(2, HOSTILE, latent): LatentNote(HOSTILE, "class", HOSTILE, 0.5, (HOSTILE,)) for latent in range(24)}
    asked = Asked(
        prompt=HOSTILE,
        name=HOSTILE,
        answer=type(answer)(HOSTILE, answer.first),
        reading=type(reading)(**{**vars(reading), "probes": tuple(probes)}),
        words=(HOSTILE,) * vlm.card.vocab_size,
        changed=tuple(answers_under(vlm, prepared, [change], {}, 2)),
        attributed=attribute(vlm, prepared, [sae], lambda layer, h: torch.zeros(len(h), dtype=torch.bool)),
        latents=notes,
        made_from={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
        missing=(HOSTILE,),
    )
    assert SAMPLE.image is not None
    return Path(write_asked(place(folder), asked, vlm.card, decode(SAMPLE.image)).path)


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 380])
def test_a_page_works_from_disk_and_hostile_texts_stay_text(random_vlm, tmp_path, width):
    index = hostile_page(tmp_path / "a page #1", random_vlm)
    (index.parent / "drive.js").write_text(DRIVE.read_text())
    index.write_text(index.read_text().replace("<script ", '<script src="drive.js"></script>\n<script ', 1))
    dom = browse(index.as_uri(), tmp_path, "--dump-dom", f"--window-size={width},1000")
    found = re.search(r"<title>seen ([^<]+)</title>", dom)
    assert found is not None, dom[:3000]
    seen = json.loads(unquote(found[1]))
    assert seen["errors"] == []
    assert not seen["attacked"]
    assert seen["scripts"] == 0
    assert seen["heading"] == HOSTILE
    assert seen["image"] == 56
    assert seen["patches"] > 16
    assert (seen["tabbable"], seen["moved"], seen["pressed"], seen["shown"]) == (1, 1, 1, "true")
    assert seen["down"] == 1 + 4  # four patches a row in the whole view
    assert HOSTILE.partition("\u202e")[0] in seen["panel"]
    strengths = [float(text) for text in seen["latents"]]
    assert strengths == sorted(strengths, reverse=True)
    assert len(strengths) == 4
    assert 1 <= seen["hot"] <= seen["patches"]
    assert seen["probes"] == [3, 3]
    assert seen["word"].startswith("Word of the prompt")
    assert seen["wide"]
