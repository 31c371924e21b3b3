"""Clocks are for progress, costs, locks and waiting: no module that computes a result reads one."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "platform" / "linrep"
CLOCKS = {"time", "datetime", "timeit", "sched"}
LOADS = {"getloadavg", "cpu_count", "mem_get_info", "virtual_memory"}
ALLOWED = {
    # seconds on record in commits, which no result reads
    "harvest/chunk.py", "harvest/take.py",
    # where the time of a harvest goes, which is printed and logged and kept nowhere
    "harvest/clock.py",
    "steer/chunk.py", "probe/artefact.py", "sae/layer.py", "sae/pack.py", "cluster/evaluate_sae.py",
    "cluster/sharing.py", "cluster/ask.py", "cluster/regions.py", "features/artefact.py",
    "cluster/features.py", "cluster/probe.py", "demo/train.py",
    # bars, waiting, leases, deadlines of requests, dates in manifests and runs
    "cluster/progress.py", "cluster/reproduce.py",
    "cluster/train_sae.py", "cluster/tune_sae.py", "cluster/lock.py", "cluster/lease_file.py",
    "cluster/stop.py", "chat.py", "retry.py", "store/manifest.py", "tracking/runs.py", "tracking/database.py",
}  # fmt: skip


def reads(source: str) -> set[str]:
    """Clock modules that are imported, under any name, and calls that ask how busy the machine is."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[0] for a in node.names} & CLOCKS
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module.partition(".")[0]} & CLOCKS
            found |= {a.name for a in node.names} & LOADS
        elif isinstance(node, ast.Attribute) and node.attr in LOADS:
            found.add(node.attr)
    return found


@pytest.mark.parametrize("source", [
    "import time", "import time as t", "from time import monotonic", "def f():\n    from datetime import datetime",
    "import os\nos.cpu_count()", "from os import getloadavg", "torch.cuda.mem_get_info()",
])  # fmt: skip
def test_a_clock_is_seen_however_it_is_read(source):
    assert reads(source)


def test_no_result_reads_a_clock():
    found = {p.relative_to(ROOT).as_posix(): reads(p.read_text(encoding="utf-8")) for p in ROOT.rglob("*.py")}
    assert {name: what for name, what in found.items() if what and name not in ALLOWED} == {}
    assert {name for name in ALLOWED if name in found and not found[name]} == set()  # the list names only who needs it
