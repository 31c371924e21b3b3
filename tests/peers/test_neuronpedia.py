"""Neuronpedia's own client reads the records of our bulk import, named as its database names them.

The client (`pip install neuronpedia`, 1.2.1 when this was written) knows the records that the site hands out. The import has no
package of its own: `tests/features/test_exports.py` holds it to the fields of the site's importer. Without the client, or Ray,
this is skipped.
"""

import gzip
import json

import numpy as np
import pytest

from linrep.places import place

F, N = 6, 24
WORDS = tuple(f" w{i}" for i in range(40))


def rows(path) -> list[dict]:
    raw = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines()]


def test_the_client_finds_our_sets_sources_and_activations(tmp_path):
    reason = "the client does not load here: pip install neuronpedia"
    client = pytest.importorskip("neuronpedia.np_activation", reason=reason, exc_type=ImportError)
    pytest.importorskip("ray", reason="the features' plain path lies beside Ray's")
    from neuronpedia.np_source_set import SourceSet
    from neuronpedia.requests.source_activation_request import SourceActivationRequest

    from linrep.features.exports.neuronpedia import Names, write_neuronpedia
    from linrep.features.study import plan_study
    from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store

    images, texts = draw(N, F, 1), draw(N, F, 2)
    study = plan_study(write_store(tmp_path / "s", images, texts, np.arange(N) % 4), CONFIG, latents=identity(F))
    features = found_plainly(tmp_path / "w", study)
    write_neuronpedia(features, "own", WORDS, place(tmp_path), Names("m"))
    here = tmp_path / "m/0-own-resid-pre"
    (own,), (source,) = rows(here / "sourceset.jsonl"), rows(here / "source.jsonl")
    # The database fills in what an import may leave out.
    found = SourceSet.from_np_db_json({"urls": [], **own, "sources": [source]})
    assert found.get_source_for_layer_number(0).id == "0-own-resid-pre"
    assert (found.name, found.model_id) == ("own-resid-pre", "m")
    # It takes the set's name from the source's.
    assert SourceActivationRequest._get_source_set_from_source(None, source["id"]) == own["name"]  # pyright: ignore
    acts = rows(here / "activations/batch-0.jsonl.gz")
    assert acts
    empty = dict.fromkeys(("binMin", "binMax", "binContains"))
    for row in acts:
        one = client.Activation.from_np_db_json({**empty, **row, "source": row["layer"]})
        number = int(row["dataIndex"][1:])
        z = (images if row["dataIndex"].startswith("i") else texts)[number][:, one.index]
        assert one.source == source["id"]
        assert max(one.values) == z.max()
        assert len(one.tokens) == len(one.values)
