"""Laws of a harvest's last words: every count of the index and of the commits is in them."""

from linrep.corpora.names import unspoken
from linrep.harvest.account import account
from linrep.store.commit import Commit


def commit(chunk, *skipped):
    return Commit(chunk=chunk, n_samples=3, n_tokens=9, skipped=tuple(skipped), files=(), seconds=0.1, precision="float32")


CORPORA = {
    "digest": "0123456789",
    "images": {
        "n_samples": 1200,
        "n_unlabelled": 30,
        "classes": {"tench": 5, "n99999999": 4, "7": 3},
        "left_out": {"files": {"left by an operating system or a tool": 12, "of an image format that is not decoded (.heic)": 2}},
    },
    "pairs": {"n_samples": 10, "n_unlabelled": 0, "classes": {}, "left_out": {}},
}


def test_the_last_words_hold_every_count():
    commits = {
        0: commit(0, ("images/a", "no such file"), ("pairs/x", "https addresses are not fetched ('https://x'): download")),
        1: commit(1, ("pairs/y", "https addresses are not fetched ('https://y'): download")),
    }
    assert account(CORPORA, commits) == [
        "images: 1,199 of 1,200 samples read, 1 skipped; 30 without a label; 14 files left out (12 left by an operating system "
        "or a tool, 2 of an image format that is not decoded (.heic))",
        "2 of 3 class names are no words (n99999999, 7): no answer holds them; set corpora.images.names",
        "pairs: 8 of 10 samples read, 2 skipped",
        "skipped: 2 https addresses are not fetched, 1 no such file",
    ]


def test_names_that_are_words_are_not_spoken_of():
    assert unspoken(["tench", "boat"]) == []
    assert account({"text": {"n_samples": 1, "n_unlabelled": 0, "classes": {}, "left_out": {}}}, {0: commit(0)}) == [
        "text: 1 of 1 samples read, 0 skipped"
    ]


def test_each_of_several_sources_has_a_line_of_its_own():
    counts = {"n_samples": 4, "n_unlabelled": 0, "classes": {}, "left_out": {}}
    commits = {0: commit(0, ("text.wiki/a", "empty text"), ("text/b", "empty text"), ("text.wiki/c", "empty text"))}
    assert account({"text": counts, "text.wiki": counts}, commits)[:2] == [
        "text: 3 of 4 samples read, 1 skipped",
        "text.wiki: 2 of 4 samples read, 2 skipped",
    ]


def test_documents_are_counted_by_what_is_wrong_and_it_is_said_who_leaves_them_out():
    counts = {"n_samples": 9, "n_unlabelled": 0, "classes": {}, "left_out": {}}
    why = ("image 1 of 2: no such file", "image 4 of 4: no such file", "the document shows no image")
    commits = {0: commit(0, *((f"documents.web/{i}", reason) for i, reason in enumerate(why)))}
    assert account({"documents.web": counts}, commits) == [
        "documents.web: 6 of 9 samples read, 3 skipped",
        "SAEs train on tokens of documents; probes, features, sharing, regions and steering leave documents out",
        "skipped: 2 no such file, 1 the document shows no image",
    ]
