"""Writes ilsvrc2012.txt, the wnids and names of the 1,000 classes of ILSVRC-2012, from the two places that have them:

    python -m linrep.corpora.ilsvrc2012 imagenet_lsvrc_2015_synsets.txt dict/data.noun

The wnids are a file of github.com/tensorflow/models, in research/slim/datasets; the classes of 2012 are those of 2015. The nouns
of WordNet 3.0 come with https://wordnetcode.princeton.edu/3.0/WordNet-3.0.tar.gz. A wnid is the letter n and the byte at which
its synset begins in data.noun, so only version 3.0 has the right ones.
"""

import re
import sys
import textwrap
from collections import Counter
from pathlib import Path

FILE = Path(__file__).with_suffix(".txt")
INSTEAD = {"n03126707": "construction crane", "n03710721": "tank suit"}
"""Classes that do not go by their first lemma, which is that of another class."""

_HEAD = """The 1,000 classes of ILSVRC-2012, written by ilsvrc2012.py beside this file: the wnids as
research/slim/datasets/imagenet_lsvrc_2015_synsets.txt of github.com/tensorflow/models lists them, and of each synset the first
lemma in dict/data.noun of WordNet 3.0. Two lemmas stand first in two synsets each. So that no two classes share a name,
n03126707 (also "crane", the machine) is called "construction crane" and n03710721 (also "maillot") is called by its second lemma,
"tank suit"."""
_WIDTH = 128
_WNID = re.compile(r"n(\d{8})")
_LICENSE = re.compile(r" +\d+ (.*)")  # a line of the license, which stands in front of the synsets


def listing(wnids: str, nouns: str) -> str:
    """The content of ilsvrc2012.txt.

    Args:
        wnids: A wnid on each line.
        nouns: The content of data.noun.

    Raises:
        ValueError: A wnid is none of WordNet's, is given twice, or two classes would share a name.
    """
    lines = nouns.splitlines()
    license = [found[1].strip() for line in lines if (found := _LICENSE.fullmatch(line))]
    synsets = dict(line.split(" ", 1) for line in lines if line[:1].isdigit())
    names = {wnid: INSTEAD.get(wnid) or _first_lemma(wnid, synsets) for wnid in wnids.split()}
    if len(names) < len(wnids.split()) or any(n > 1 for n in Counter(names.values()).values()):
        raise ValueError("a wnid is given twice, or two classes share a name: INSTEAD has the names to use instead")
    head = [f"# {line}".rstrip() for line in [*textwrap.wrap(_HEAD, _WIDTH), "", *license, ""]]
    return "\n".join([*head, *(f"{wnid} {names[wnid]}" for wnid in sorted(names))]) + "\n"


def _first_lemma(wnid: str, synsets: dict[str, str]) -> str:
    number = _WNID.fullmatch(wnid)
    if number is None or number[1] not in synsets:
        raise ValueError(f"{wnid!r} is no synset of this data.noun: is it that of WordNet 3.0?")
    # 01440764: 05 n 02 tench 0 Tinca_tinca 0 002 @ ...: file, part of speech, number of lemmas in hexadecimal, the lemmas
    return synsets[number[1]].split(" ")[3].replace("_", " ")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    FILE.write_text(listing(Path(sys.argv[1]).read_text("utf-8"), Path(sys.argv[2]).read_text("utf-8")), "utf-8")
