"""The plan: what a corpus holds is looked up once, and again when the user says so."""

from linrep.corpora import Splits
from linrep.corpora.index import build_index
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


def test_a_source_has_a_digest_of_its_own_which_others_do_not_change(random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_images=4, n_texts=2, n_pairs=1)
    every = build_index(corpora)
    assert len(set(every.digests.values())) == 3
    for name in every.digests:
        alone = build_index(corpora.model_copy(update={other: None for other in every.digests if other != name}))
        assert alone.digests == {name: every.digests[name]}
    splits = corpora.model_copy(update={"splits": Splits(val=0.2, test=0.1)})
    assert not set(build_index(splits).digests.values()) & set(every.digests.values())
    (tmp_path / "corpora/images/n01/p001.JPEG").write_bytes(encoded_image(7) + b"\0" * 11)
    again = build_index(corpora)
    assert {name for name in every.digests if again.digests[name] != every.digests[name]} == {"images"}
    plan = plan_harvest("t", corpora, random_vlm, HarvestConfig(chunk_size=2), place(tmp_path / "ws"))
    assert {name: counts["digest"] for name, counts in plan.manifest.corpora.items() if name != "digest"} == again.digests
    assert [plan.manifest.source_of(chunk.number) for chunk in plan.chunks] == [chunk.source for chunk in plan.chunks]
    assert plan_harvest("t", corpora, random_vlm, HarvestConfig(), place(tmp_path / "ws")).index.digests == again.digests
