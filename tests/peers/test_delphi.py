"""Delphi itself loads the cache of activations and cuts it into examples of one sample each.

It needs eai-delphi, which asks for vLLM, beside everything that features need. Elsewhere the test is skipped.
"""

import numpy as np
import pytest

from linrep.places import place

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own
F, N, CTX, PADDING = 6, 24, 4, 7


class Numbers:
    """A tokenizer whose words are the token ids."""

    def batch_decode(self, ids):
        return [str(i) for i in ids]


def test_delphi_takes_its_examples_from_our_cache(tmp_path):
    reason = "eai-delphi does not load here: pip install eai-delphi"
    loader = pytest.importorskip("delphi.latents.loader", reason=reason, exc_type=ImportError)
    pytest.importorskip("ray", reason="the features' plain path lies beside Ray's")
    from delphi.config import ConstructorConfig, SamplerConfig

    from linrep.features.exports.delphi import write_delphi
    from linrep.features.study import plan_study
    from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store

    images, texts = draw(N, F, 1), draw(N, F, 2)
    study = plan_study(write_store(tmp_path / "s", images, texts, np.arange(N) % 4), CONFIG, latents=identity(F))
    features = found_plainly(tmp_path / "w", study)
    write_delphi(features, "own", place(tmp_path / "cache"), splits=2, padding=PADDING, ctx=CTX)
    # By hand: the tokens of every sample four by four, and what each latent does on them.
    windows = []
    for letter, samples in (("i", images), ("t", texts)):
        for x in samples:
            for start in range(0, len(x), CTX):
                own = np.maximum(x[start : start + CTX], 0)
                ids = [99] * len(own) if letter == "i" else list(range(10 + start, 10 + start + len(own)))
                gap = CTX - len(own)
                windows.append((ids + [PADDING] * gap, np.concatenate([own, np.zeros((gap, F), np.float32)])))
    dataset = loader.LatentDataset(
        tmp_path / "cache",
        SamplerConfig(n_examples_train=4, n_examples_test=4, n_quantiles=2),
        ConstructorConfig(example_ctx_len=CTX, min_examples=1, n_non_activating=5),
        tokenizer=Numbers(),  # pyright: ignore[reportArgumentType]
    )
    records = {record.latent.latent_index: record for record in dataset}
    assert sorted(records) == list(range(F))
    for latent, record in records.items():
        firing = sorted((tuple(ids), tuple(np.float16(z[:, latent]))) for ids, z in windows if (z[:, latent] > 0).any())
        mine = sorted((tuple(one.tokens.tolist()), tuple(one.activations.numpy())) for one in record.examples)
        assert mine == firing
        assert record.per_context_frequency == pytest.approx(len(firing) / len(windows))
        silent = {tuple(ids) for ids, z in windows if not (z[:, latent] > 0).any()}
        assert {tuple(one.tokens.tolist()) for one in record.not_active} <= silent
