"""Where corpora and model really lie: paths of the embedded world, and a record, beside the index, of where samples came from."""

import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from pydantic import ValidationError

from linrep.config import digest
from linrep.corpora import Corpora
from linrep.corpora.index import Index
from linrep.corpora.kinds import Source
from linrep.demo import MODELS, model_folder
from linrep.demo.config import DemoWorld
from linrep.demo.world import FORM, write_world
from linrep.errors import CorpusError, ModelError
from linrep.places import Place, place
from linrep.records import read_record, write_record
from linrep.repository.address import is_address
from linrep.store.manifest import Manifest
from linrep.vlm.config import ModelConfig

DEMO = "demo://"
"""Paths that begin so lie in the embedded world: demo://images, demo://captions.jsonl, demo://text.jsonl, demo://model,
demo://looking."""

WORLD = "world.json"
"""Written last: where it lies, the embedded world is whole."""

SOURCES = "sources.json"
"""Beside an index: where the corpora lie that it lists."""


@dataclass(frozen=True)
class Sources:
    """Where the samples of an index came from, as plain values of a recipe's sections; it decides no number.

    Attributes:
        corpora: The section `corpora`, with whole paths and without their secrets.
        demo: The section `demo`, where corpora lie in the embedded world.
    """

    corpora: dict[str, Any]
    demo: dict[str, Any] | None


def write_sources(folder: Place, corpora: Corpora, demo: DemoWorld | None) -> None:
    """Record beside an index where its corpora lie.

    Args:
        folder: The index's.
        corpora: As the recipe names them.
        demo: The embedded world, if some of them lie there.
    """
    values = corpora.with_sources({key: _whole(source) for key, source in corpora.sources.items()}).model_dump(mode="json")
    kept = demo is not None and bool(inside_world(corpora))
    write_record(folder / SOURCES, Sources(values, demo.model_dump(mode="json") if kept and demo is not None else None))


def _whole(source: Source) -> Source:
    """The source with whole paths."""
    given = {name: getattr(source, name, None) for name in ("path", "image_root")}
    whole = {name: _whole_path(path) for name, path in given.items() if path is not None}
    return source.model_copy(update=whole)


def _whole_path(path: str) -> str:
    return path if path.startswith(DEMO) or is_address(path) else str(place(path))


def find_sources(workspace: Place, manifest: Manifest) -> tuple[Index, Corpora]:
    """The index that a harvest was made of, and its corpora where they really lie.

    Args:
        workspace: Where the harvest lies.
        manifest: Its manifest.

    Raises:
        CorpusError: The index is not there any more, or nothing says where its corpora lie.
    """
    again = "run jobs/harvest.py with the same recipe again: it looks for the corpora, and keeps the harvest"
    wanted = manifest.corpora.get("digest")
    names = (workspace / "corpora").names()
    for name in sorted(names, key=lambda name: not name.startswith(f"{manifest.name}-")):
        folder = workspace / "corpora" / name
        if not ((folder / "index.json").is_file() and (folder / SOURCES).is_file()):
            continue
        index = Index.read(folder)
        if index.digest != wanted:
            continue
        record = read_record(folder / SOURCES, Sources, f"delete it and {again}")
        try:
            corpora = Corpora.model_validate(record.corpora)
            demo = None if record.demo is None else DemoWorld.model_validate(record.demo)
        except ValidationError:
            raise CorpusError(f"{folder / SOURCES} describes no corpora: delete it and {again}") from None
        return index, index.pinned(moved(corpora, None if demo is None else write_demo(workspace, demo)))
    raise CorpusError(f"no corpora in {workspace} are those of the harvest {manifest.name}-{manifest.digest}: {again}")


def located(model: ModelConfig) -> ModelConfig:
    """The model's configuration with a path that can be opened on this machine.

    Raises:
        ModelError: The embedded world has no such model.
    """
    if not model.path.startswith(DEMO):
        return model
    name = model.path.removeprefix(DEMO)
    if name not in MODELS:
        raise ModelError(f"model.path {model.path}: the embedded world has {' and '.join(DEMO + one for one in MODELS)}")
    return model.model_copy(update={"path": str(model_folder(name))})


def inside_world(corpora: Corpora) -> dict[str, Source]:
    """The sources whose files lie in the embedded world."""
    return {key: source for key, source in corpora.sources.items() if source.path.startswith(DEMO)}


def moved(corpora: Corpora, world: Place | None) -> Corpora:
    """The corpora with paths that can be opened."""
    if world is None:
        return corpora
    inside = inside_world(corpora)
    there = {key: s.model_copy(update={"path": (world / s.path.removeprefix(DEMO)).uri}) for key, s in inside.items()}
    return corpora.with_sources(there)


def world_place(workspace: Place, demo: DemoWorld) -> Place:
    """Where the embedded world lies in the workspace."""
    return workspace / "worlds" / f"demo-{digest(demo, FORM)}"


def keep_world(world: Place, workspace: Place, demo: DemoWorld) -> None:
    """Bring an embedded world that was written elsewhere into the workspace."""
    folder = world_place(workspace, demo)
    if (folder / WORLD).is_file():
        return
    if folder.local:
        growing = Path(folder.path).with_name(f".{folder.name}-{secrets.token_hex(4)}")
        try:
            shutil.copytree(world.path, growing)
            growing.rename(folder.path)
        except OSError:
            if not (folder / WORLD).is_file():  # another process may have been faster
                raise
        finally:
            shutil.rmtree(growing, ignore_errors=True)
        return
    mark = (world / WORLD).read_bytes()
    (world / WORLD).files.delete_file((world / WORLD).path)
    pafs.copy_files(world.path, folder.path, pafs.LocalFileSystem(), folder.files)
    (folder / WORLD).write_bytes(mark)


def write_demo(workspace: Place, demo: DemoWorld) -> Place:
    """Where the embedded world lies in the workspace; written there the first time."""
    folder = world_place(workspace, demo)
    if folder.local:
        write_world(Path(folder.path), demo)
    elif not (folder / WORLD).is_file():
        with tempfile.TemporaryDirectory() as temporary:
            keep_world(place(write_world(Path(temporary) / "world", demo)), workspace, demo)
    return folder
