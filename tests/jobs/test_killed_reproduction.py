"""All stages of the demo, killed at ten moments and begun again each time: tables and report are those of a run in one go."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml

from linrep.recipe import load_yaml, merge
from tests.jobs.test_quick_start import SMALL

ROOT = Path(__file__).parents[2]
KILLS = 10
CLOCKS = ("seconds",)
"""Columns that are times."""
ASIDE = {"mlartifacts", "corpora", "worlds"}
"""Folders of a workspace that hold no table of a stage."""


def command(recipe: Path, workspace: Path) -> list[str]:
    return [sys.executable, "jobs/reproduce.py", "--config", str(recipe), "--workspace", str(workspace)]


def start(recipe: Path, workspace: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("a") as stream:
        return subprocess.Popen(command(recipe, workspace), cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True)


def finish(recipe: Path, workspace: Path, log: Path) -> None:
    assert start(recipe, workspace, log).wait(1500) == 0, log.read_text()[-3000:]


def kill(driver: subprocess.Popen[bytes]) -> None:
    """End a driver as the system does when memory is short; Ray's processes end when they notice it."""
    family = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait(60)
    _, left = psutil.wait_procs(family, timeout=60)
    assert not left


def tables_by_stage(workspace: Path) -> dict[str, list[Path]]:
    """Files of tables by the folder of their stage."""
    folders = [folder for folder in workspace.glob("*") if folder.name not in ASIDE]
    found = {folder.name: list(folder.rglob("*.parquet")) for folder in folders}
    return {stage: files for stage, files in found.items() if files}


def tables(workspace: Path) -> dict[str, pl.DataFrame]:
    """Every table by its path in the workspace, without times."""
    files = sorted(file for of_stage in tables_by_stage(workspace).values() for file in of_stage)
    return {str(file.relative_to(workspace)): pl.read_parquet(file).drop(CLOCKS, strict=False) for file in files}


def report(workspace: Path) -> str:
    """What people read, without where it lies."""
    text = "".join((workspace / f"report.{form}").read_text() for form in ("md", "html")).replace(str(workspace), "WORKSPACE")
    # Bounded: figures stand in the page as long words, in which an endless search from each letter takes minutes.
    return re.sub(r"[^\s\"'<>]{0,300}recipe\.yaml", "RECIPE", text)


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_with_the_same_tables_and_report(tmp_path: Path) -> None:
    recipe, log, draw = tmp_path / "recipe.yaml", tmp_path / "log", random.Random(14)
    recipe.write_text(yaml.safe_dump(merge(load_yaml(str(ROOT / "recipes" / "demo.yaml")), SMALL)))
    whole, killed = tmp_path / "whole" / "ws", tmp_path / "killed" / "ws"
    finish(recipe, whole, log)
    # By what is written, not by the clock: a machine may be fast now and slow then.
    written = tables_by_stage(whole)
    stages = sorted(written, key=lambda stage: min(file.stat().st_mtime for file in written[stage]))
    drawn = [(stages[i * len(stages) // KILLS], draw.uniform(0, 0.9)) for i in range(KILLS)]
    kills = 0
    for stage, share in sorted(drawn, key=lambda moment: (stages.index(moment[0]), moment[1])):
        wanted, driver = share * len(written[stage]), start(recipe, killed, log)
        while driver.poll() is None and len(tables_by_stage(killed).get(stage, ())) <= wanted:
            time.sleep(0.2)
        time.sleep(draw.uniform(0, 2))
        if driver.poll() is not None:
            break
        kill(driver)
        kills += 1
    assert kills >= KILLS - 1, f"it ended after {kills} kills: {log.read_text()[-3000:]}"
    finish(recipe, killed, log)
    expected, found = tables(whole), tables(killed)
    assert len(expected) > 50
    assert found.keys() == expected.keys()
    assert [path for path in expected if not found[path].equals(expected[path])] == []
    assert report(killed) == report(whole)
    assert report(whole).count('class="thumbs"') >= 5  # of steered answers, and of latents
