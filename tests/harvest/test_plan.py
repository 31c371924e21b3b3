"""The plan: what a corpus holds is looked up once, and again when the user says so."""

from linrep.harvest.config import HarvestConfig
from linrep.harvest.plan import Plan, plan_harvest
from linrep.places import place
from tests.conftest import encoded_image, write_corpora


def test_a_mended_corpus_is_seen_when_it_is_indexed_anew_and_makes_another_store(random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_images=4, n_texts=2, n_pairs=1)

    def plan(reindex: bool = False) -> Plan:
        return plan_harvest("t", corpora, random_vlm, HarvestConfig(), place(tmp_path / "ws"), reindex=reindex)

    before = plan()
    mended = tmp_path / "corpora/images/n01/p001.JPEG"
    mended.write_bytes(encoded_image(7) + b"\0" * 11)
    assert plan().index.digest == before.index.digest  # the index stands
    after = plan(reindex=True)
    size = {row["path"]: row["size"] for row in after.index.runs["images"].to_pylist()}["n01/p001.JPEG"]
    assert size == mended.stat().st_size
    assert after.place.path != before.place.path
    assert after.index_place.path == before.index_place.path
    assert plan().index.digest == after.index.digest  # and so does the new one
