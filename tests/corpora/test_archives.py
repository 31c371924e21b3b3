"""Laws of archives: whatever a member's kind and a tar's format, its bytes are those that `tarfile` reads, or a reason."""

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from linrep.corpora.archive import Archive, BadMember
from linrep.corpora.streams import uncompressed
from linrep.errors import CorpusError
from linrep.places import place
from linrep.sample import Skipped

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
BLOCK = 512


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % BLOCK)


def sparse_data(rng: random.Random) -> tuple[list[tuple[int, int]], bytes, int]:
    """Where the pieces of a sparse file lie, their bytes one behind the other, and its size; a hole may begin or end it."""
    at, pieces, stored = rng.choice([0, 1024]), [], b""
    for _ in range(rng.randint(1, 7)):
        size = BLOCK * rng.randint(1, 3)
        pieces.append((at, size))
        stored += rng.randbytes(size)
        at += size + BLOCK * rng.randint(1, 9)
    return pieces, stored, at if rng.random() < 0.5 else sum(pieces[-1])


def whole(pieces: list[tuple[int, int]], stored: bytes, size: int) -> bytes:
    data, at = bytearray(size), 0
    for offset, n in pieces:
        data[offset : offset + n] = stored[at : at + n]
        at += n
    return bytes(data)


def old_gnu_sparse(name: str, pieces: list[tuple[int, int]], stored: bytes, size: int) -> bytes:
    """A sparse member as GNU tar wrote it at first: four pieces in the header, twenty-one in each block that follows."""

    def field(number: int) -> bytes:
        return b"%011o\0" % number

    info = tarfile.TarInfo(name)
    info.size, info.type = len(stored), tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    first, rest = pieces[:4], pieces[4:]
    header[386:482] = b"".join(field(a) + field(b) for a, b in first).ljust(96, b"\0")
    header[482], header[483:495] = bool(rest), field(size)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    more = b"".join(field(a) + field(b) for a, b in rest).ljust(BLOCK if rest else 0, b"\0")
    return bytes(header) + more + padded(stored)


def pax_sparse(version: str, name: str, pieces: list[tuple[int, int]], stored: bytes, size: int) -> bytes:
    """A sparse member in extended headers, of one of their three versions."""
    numbers = [number for piece in pieces for number in piece]
    if version == "1.0":
        plan = padded(b"".join(b"%d\n" % number for number in [len(pieces), *numbers]))
        fields = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name)]
        fields.append(("GNU.sparse.realsize", str(size)))
    else:
        plan = b""
        fields = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(pieces)))]
        if version == "0.0":
            keys = itertools.cycle(("GNU.sparse.offset", "GNU.sparse.numbytes"))
            fields += [(key, str(number)) for key, number in zip(keys, numbers, strict=False)]
        else:
            fields += [("GNU.sparse.map", ",".join(map(str, numbers))), ("GNU.sparse.name", name)]
    records = b""
    for key, value in fields:
        body = f" {key}={value}\n".encode()
        length = len(body) + len(str(len(body) + 2))
        records += str(length).encode() + body if len(str(length)) + len(body) == length else b"%d" % (length + 1) + body
    extended = tarfile.TarInfo("PaxHeaders/x")
    extended.type, extended.size = tarfile.XHDTYPE, len(records)
    info = tarfile.TarInfo(name if version == "0.0" else "GNUSparseFile.0/x")
    info.size = len(plan + stored)
    return extended.tobuf(tarfile.USTAR_FORMAT) + padded(records) + info.tobuf(tarfile.USTAR_FORMAT) + padded(plan + stored)


def plain(name: str, data: bytes, form: int, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(form, "utf-8", "surrogateescape") + padded(data)


def random_archive(seed: int) -> bytes:
    """Members of every kind in one order of many, in one or more archives one behind the other."""
    rng, form = random.Random(seed), list(FORMS.values())[seed % 3]
    parts: list[bytes] = []
    names: list[str] = []
    for i in range(rng.randint(6, 14)):
        long = "" if form == tarfile.USTAR_FORMAT else rng.choice(["", "é" * 70 + "/", "long/" * 40])
        name = f"{long}m{i}.jpg"
        kind = rng.choice(
            ["file", "empty", "old", "0.0", "0.1", "1.0", "hard", "soft", "folder", "pipe", "odd", "global", "zeros"]
        )
        data = rng.randbytes(rng.randint(1, 3000))
        if kind in ("file", "empty", "odd"):
            parts.append(plain(name, b"" if kind == "empty" else data, form, type=b"Q" if kind == "odd" else tarfile.REGTYPE))
        elif kind == "old":
            parts.append(old_gnu_sparse(f"m{i}.jpg", *sparse_data(rng)))
            name = f"m{i}.jpg"
        elif kind in ("0.0", "0.1", "1.0"):
            name = f"m{i}.jpg" if kind == "0.0" else name
            parts.append(pax_sparse(kind, name, *sparse_data(rng)))
        elif kind in ("hard", "soft"):
            target = rng.choice([*names, "nowhere.jpg"])
            is_soft = kind == "soft"
            parts.append(plain(f"l{i}.jpg", b"", form, type=tarfile.SYMTYPE if is_soft else tarfile.LNKTYPE, linkname=target))
            name = f"l{i}.jpg"
        elif kind == "global":
            parts.append(tarfile.TarInfo.create_pax_global_header({"comment": "made here"}) + plain(f"m{i}.jpg", data, form))
            name = f"m{i}.jpg"
        elif kind == "zeros":
            parts.append(b"\0" * BLOCK * rng.choice([2, 20]))
            continue
        else:
            parts.append(plain(name, b"", form, type=tarfile.DIRTYPE if kind == "folder" else tarfile.FIFOTYPE))
            continue
        names.append(name)
    return b"".join(parts) + b"\0" * 1024


def test_every_member_of_every_format_has_the_bytes_that_tarfile_reads(tmp_path):
    n_read = n_bad = 0
    for seed in range(120):
        data = random_archive(seed)
        (tmp_path / "a.tar").write_bytes(data)
        with tarfile.open(tmp_path / "a.tar", ignore_zeros=True, encoding="utf-8") as official:
            expected = [m for m in official.getmembers() if not m.isdir() and not m.isdev()]
            file = place(tmp_path / "a.tar")
            with uncompressed(file) as raw:
                archive = Archive(file, raw)
                found = list(archive.members(0))
                assert [m.name for m in found] == [m.name for m in expected]
                for mine, theirs in zip(found, expected, strict=True):
                    try:
                        stream = official.extractfile(theirs)
                        right = None if stream is None else stream.read()
                    except (KeyError, RecursionError):
                        right = None
                    if right is None:
                        with pytest.raises(BadMember, match=r"link|no file"):
                            archive.read(mine)
                        n_bad += 1
                    else:
                        assert archive.read(mine) == right
                        n_read += 1
                if not archive.is_global:  # and from any member on, as a reader of a chunk has it
                    at = found[len(found) // 2].offset
                    assert [m.name for m in Archive(file, raw).members(at)] == [m.name for m in found[len(found) // 2 :]]
    assert n_read > 400
    assert n_bad > 20


@pytest.mark.parametrize("kind", ["old", "0.0", "0.1", "1.0"])
def test_a_sparse_image_is_read_whole(world, kind):
    pieces, stored, size = sparse_data(random.Random(5))
    member = old_gnu_sparse("a.jpg", pieces, stored, size) if kind == "old" else pax_sparse(kind, "a.jpg", pieces, stored, size)
    (world.root / "s.tar").write_bytes(member + plain("a.cls", b"3", tarfile.USTAR_FORMAT) + b"\0" * 1024)
    (sample,) = world.samples(images={"kind": "tar", "path": str(world.root / "s.tar")})
    assert (sample.image, sample.class_name) == (whole(pieces, stored, size), "3")


@pytest.mark.parametrize(
    "form", ["gnu", "oldgnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"]
)
def test_what_gnu_tar_writes_of_a_sparse_file_is_read_back(world, form):
    tar = shutil.which("tar")
    if tar is None or b"GNU tar" not in subprocess.run([tar, "--version"], capture_output=True, check=False).stdout:
        pytest.skip("GNU tar is not installed")
    with open(world.root / "a.jpg", "wb") as file:
        for at in (8192, 65536, 200_000):
            file.seek(at)
            file.write(b"some bytes")
        file.truncate(1 << 18)
    command = [tar, "--sparse", "--hole-detection=raw", *f"--format={form}".split(), "-cf", "s.tar", "a.jpg"]
    subprocess.run(command, cwd=world.root, check=True)
    (sample,) = world.samples(images={"kind": "tar", "path": str(world.root / "s.tar")})
    assert sample.image == (world.root / "a.jpg").read_bytes()
    assert (world.root / "s.tar").stat().st_size < 1 << 17


def zstandard(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tgz", "tbz2", "txz", "TAR.GZ"])
@pytest.mark.parametrize("chunk_size", [3, 100])
def test_a_shard_is_the_same_however_it_is_compressed(world, ending, chunk_size):
    data = b"".join(plain(f"{i:03d}.jpg", b"image %d" % i, tarfile.PAX_FORMAT) for i in range(150)) + b"\0" * 1024
    kind = {"tgz": "gz", "tbz2": "bz2", "txz": "xz"}.get(ending, ending.lower().removeprefix("tar").removeprefix("."))
    (world.root / f"s.{ending}").write_bytes(COMPRESS[kind](data) if kind else data)
    samples = world.samples(chunk_size, images={"kind": "tar", "path": str(world.root)})
    assert [s.image for s in samples] == [b"image %d" % i for i in range(150)]


def test_archives_one_behind_the_other_are_all_read_and_what_follows_is_counted(world):
    one = plain("a.jpg", b"1", tarfile.GNU_FORMAT) + b"\0" * 10240
    two = plain("b.jpg", b"2", tarfile.GNU_FORMAT) + b"\0" * 1024
    (world.root / "s.tar").write_bytes(one + two + b"no header at all" * 100)
    images = {"kind": "tar", "path": str(world.root / "s.tar")}
    assert [s.image for s in world.samples(images=images)] == [b"1", b"2"]
    assert world.index(images=images).summary()["images"].left_out == {"members": {"bytes behind the end of the archive": 1}}


@pytest.mark.parametrize("again", [False, True])
def test_two_members_of_one_name_are_refused_by_name_wherever_they_lie(world, again):
    members = [plain("a.jpg", b"1", tarfile.GNU_FORMAT), plain("a.cls", b"0", tarfile.GNU_FORMAT)]
    between = [plain("b.jpg", b"3", tarfile.GNU_FORMAT)] if again else []
    (world.root / "s.tar").write_bytes(b"".join([*members, *between, *members]) + b"\0" * 1024)
    with pytest.raises(
        CorpusError, match=rf"id 's.tar/a' as a key is given twice: in s.tar record 0 and s.tar record {1 + again}"
    ):
        world.index(images={"kind": "tar", "path": str(world.root / "s.tar")})


def test_links_are_followed_within_the_archive_and_never_out_of_it(world):
    (world.root / "secret.jpg").write_bytes(b"secret")
    form = tarfile.GNU_FORMAT
    links = [("b", tarfile.LNKTYPE, "d/a.jpg"), ("d/c", tarfile.SYMTYPE, "a.jpg"), ("e", tarfile.SYMTYPE, "../secret.jpg")]
    links += [
        ("f", tarfile.SYMTYPE, str(world.root / "secret.jpg")),
        ("g", tarfile.SYMTYPE, "g.jpg"),
        ("h", tarfile.LNKTYPE, "i.jpg"),
    ]
    data = plain("d/a.jpg", b"1", form)
    data += b"".join(plain(f"{key}.jpg", b"", form, type=kind, linkname=target) for key, kind, target in links)
    (world.root / "d").mkdir()
    (world.root / "d/s.tar").write_bytes(data + b"\0" * 1024)
    found = world.outcomes(2, images={"kind": "tar", "path": str(world.root / "d")})
    images = {one.id.rpartition("/")[2]: one.image for one in found if not isinstance(one, Skipped)}
    assert images == {"a": b"1", "b": b"1", "c": b"1"}
    reasons = [one.reason for one in found if isinstance(one, Skipped)]
    assert len(reasons) == 4
    assert all("is a link" in reason for reason in reasons)


def test_an_archive_cut_short_anywhere_gives_members_or_one_clear_line(tmp_path):
    """No cut and no damaged byte ends in a foreign error, and none takes long."""
    rng = random.Random(0)
    data = b"".join(random_archive(seed)[:-1024] for seed in (1, 2, 4)) + b"\0" * 1024
    file, lines = place(tmp_path / "a.tar"), []
    for trial in range(250):
        broken = bytearray(data[: rng.randrange(len(data))] if trial % 2 else data)
        for _ in range(0 if trial % 3 == 1 else 6):
            broken[rng.randrange(len(broken)) if rng.random() < 0.5 or len(broken) < BLOCK else rng.randrange(BLOCK)] = (
                rng.randrange(256)
            )
        Path(tmp_path / "a.tar").write_bytes(broken)
        try:
            with uncompressed(file) as raw:
                archive = Archive(file, raw)
                for member in archive.members(0):
                    with contextlib.suppress(BadMember):
                        archive.read(member)
        except CorpusError as error:
            lines.append(str(error))
    assert len(lines) > 50
    assert all(str(file) in line and "\n" not in line for line in lines)


def test_a_member_of_negative_size_does_not_go_round_for_ever(tmp_path):
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-1024 + (1 << 96)).to_bytes(12, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(plain("b.jpg", b"x" * 600, tarfile.GNU_FORMAT) + bytes(header) + b"\0" * 1024)
    file = place(tmp_path / "a.tar")
    with uncompressed(file) as raw, pytest.raises(CorpusError, match="damaged at byte"):
        list(Archive(file, raw).members(0))


def test_a_name_that_is_not_utf8_still_names_its_bytes(world):
    info = tarfile.TarInfo("caf\udce9.jpg")
    info.size = 1
    for i, form in enumerate(FORMS.values()):
        with tarfile.open(world.root / f"{i}.tar", "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
            archive.addfile(info, io.BytesIO(b"%d" % i))
    samples = world.samples(images={"kind": "tar", "path": str(world.root)})
    assert [(s.id, s.image) for s in samples] == [(f"images/{i}.tar:0", b"%d" % i) for i in range(3)]


def test_a_compressed_shard_is_decompressed_a_few_times_and_not_for_every_record(world, monkeypatch):
    data = random.Random(0).randbytes(100_000)
    members = b"".join(plain(f"{i:04d}.jpg", data, tarfile.GNU_FORMAT) for i in range(100)) + b"\0" * 1024
    n_read = 0
    real = gzip.GzipFile.read

    def counted(self, size=-1):
        nonlocal n_read
        part = real(self, size)
        n_read += len(part)
        return part

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    (world.root / "s.tar").write_bytes(gzip.compress(members, 1))
    images = {"kind": "tar", "path": str(world.root / "s.tar")}
    corpora, (chunk,) = world.corpora(images=images), world.chunks(1000, images=images)
    n_read = 0
    assert len(world.read(chunk, corpora)) == 100
    assert len(members) <= n_read < 4 * len(members)
