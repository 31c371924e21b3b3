"""Small corpora on disk, made anew for each test, and the real data where it is present."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk, Index, build_index
from linrep.corpora.read import read
from linrep.sample import Sample, Skipped

WNIDS = {"n01440764": "tench", "n03000684": "chain saw", "n03888257": "parachute"}


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade % 256, 40, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


class World:
    """A folder to put corpora in, and short ways to write and read them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image_folder(self, folder: str = "photos", per_class: int = 4) -> str:
        for c, wnid in enumerate(WNIDS):
            for i in range(per_class):
                self.bytes(f"{folder}/train/{wnid}/{wnid}_{i}.JPEG", jpeg(10 * c + i))
        self.bytes(f"{folder}/classes.json", json.dumps(WNIDS).encode())
        return str(self.root / folder / "train")

    def bytes(self, name: str, data: bytes) -> str:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(file)

    def jsonl(self, name: str, records: list[dict]) -> str:
        return self.bytes(name, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode())

    def parquet(self, name: str, columns: dict, row_group_size: int = 1000, schema: pa.Schema | None = None) -> str:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema=schema), file, row_group_size=row_group_size)
        return str(file)

    @staticmethod
    def corpora(**sections: object) -> Corpora:
        return Corpora.model_validate(sections)

    @staticmethod
    def index(**sections: object) -> Index:
        return build_index(Corpora.model_validate(sections))

    @staticmethod
    def chunks(chunk_size: int = 100, **sections: object) -> list[Chunk]:
        return build_index(Corpora.model_validate(sections)).chunks(chunk_size)

    @staticmethod
    def outcomes(chunk_size: int = 100, **sections: object) -> list[Sample | Skipped]:
        corpora = Corpora.model_validate(sections)
        return [one for chunk in build_index(corpora).chunks(chunk_size) for one in read(chunk, corpora)]

    @classmethod
    def samples(cls, chunk_size: int = 100, **sections: object) -> list[Sample]:
        found = cls.outcomes(chunk_size, **sections)
        assert not [one for one in found if isinstance(one, Skipped)]
        return [one for one in found if isinstance(one, Sample)]

    @staticmethod
    def read(chunk: Chunk, corpora: Corpora) -> list[Sample]:
        found = list(read(chunk, corpora))
        assert not [one for one in found if isinstance(one, Skipped)]
        return [one for one in found if isinstance(one, Sample)]

    @classmethod
    def skipped(cls, **sections: object) -> dict[str, str]:
        return {one.sample.id: one.reason for one in cls.outcomes(100, **sections) if isinstance(one, Skipped)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
