"""A write that fails leaves what it would have replaced, byte for byte.

On a disk, and in an object store, where pyarrow completes an upload whose stream is dropped.
"""

import contextlib
import gc
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from linrep.places import PendingFile, Place, place
from linrep.store.write import writing_chunk
from schemas import SAMPLES

OLD = b"old" * 100_000
SIZES = [0, 100, 6 * 2**20, 30 * 2**20]
"""Nothing, a small upload, one of several parts, and many."""


@pytest.fixture(params=["disk", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return place(tmp_path)
    bucket: Callable[[str], str] = request.getfixturevalue("bucket")
    return place(bucket(f"writes-{secrets.token_hex(4)}"))


def write_half(file: Place, size: int) -> None:
    with file.writing() as stream:
        stream.write(b"n" * size)
        raise RuntimeError("the cause")


@pytest.mark.parametrize("size", SIZES)
def test_a_failed_write_leaves_the_old_file(folder: Place, size: int) -> None:
    file = folder / "checkpoint.pt"
    file.write_bytes(OLD)
    with pytest.raises(RuntimeError, match="the cause"):
        write_half(file, size)
    gc.collect()
    assert file.read_bytes() == OLD
    assert folder.names() == ["checkpoint.pt"]
    file.write_bytes(b"new")  # and the next one replaces it
    assert file.read_bytes() == b"new"


def test_a_publication_that_fails_leaves_the_old_file(folder: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "checkpoint.pt"
    file.write_bytes(OLD)

    def fails(self: PendingFile) -> None:
        raise OSError("gone away")

    with monkeypatch.context() as patch:
        patch.setattr(PendingFile, "publish", fails)
        with pytest.raises(OSError, match="gone away"):
            file.write_bytes(b"new" * 1000)
    gc.collect()
    assert file.read_bytes() == OLD


OPENED = """
import sys
from linrep.places import PendingFile, place
PendingFile(place(sys.argv[1]) / "file").stream.write(b"n" * 12_000_000)
"""


def test_an_interrupt_while_an_upload_begins_leaves_the_old_file(bucket: Callable[[str], str]) -> None:
    """The signal comes while the store has not yet answered; it is raised where nobody holds the stream."""
    where = bucket("interrupted")
    (place(where) / "file").write_bytes(OLD)
    with socket.create_server(("127.0.0.1", 0)) as slow:
        store = where.rpartition("=")[2]
        child = subprocess.Popen(
            [sys.executable, "-c", OPENED, where.replace(store, f"127.0.0.1:{slow.getsockname()[1]}")], stderr=subprocess.PIPE
        )
        slow.settimeout(60)
        threading.Thread(target=forward, args=(slow, store, child), daemon=True).start()
        _, said = child.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert (place(where) / "file").read_bytes() == OLD


def forward(slow: socket.socket, store: str, child: subprocess.Popen[bytes]) -> None:
    """Pass connections on to the store; the first one only after a signal to the child, who waits for the answer."""
    host, _, port = store.partition(":")
    signalled = False
    while True:
        try:
            near, _ = slow.accept()
        except OSError:
            return
        if not signalled:
            child.send_signal(signal.SIGINT)
            signalled = True
        far = socket.create_connection((host, int(port)))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=pour, args=(one, other), daemon=True).start()


def pour(one: socket.socket, other: socket.socket) -> None:
    """Everything that comes from the one to the other, until it ends."""
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def test_a_chunk_that_is_discarded_leaves_the_committed_files(folder: Place) -> None:
    """A task that is tried again writes the same names; its footers go nowhere when it fails."""
    schema = pa.schema([("vector", pa.binary(4)), ("norm", pa.float32())])
    table = pa.table({"vector": [b"1234"], "norm": [1.0]}, schema)
    for fails in (False, True):
        with writing_chunk(folder, 0, schema) as writer:
            writer.vectors("pooled", 1, "image", pa.concat_tables([table] * (2 if fails else 1)))
            writer._flush("pooled/layer=1/modality=image/part-000000.parquet")
            if not fails:
                writer.commit(SAMPLES.empty_table(), {}, 1, 1, (), 0.0, "float32")
                before = {path: (folder / path).read_bytes() for path, _ in folder.walk()}
    gc.collect()
    assert {path: (folder / path).read_bytes() for path, _ in folder.walk()} == before


KILLED = """
import os, signal, sys
from linrep.places import place
file = place(sys.argv[1]) / "checkpoint.pt"
with file.writing() as stream:
    stream.write(b"n" * {size})
    {end}
"""


@pytest.mark.parametrize("size", [100, 12_000_000])
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(1)", "raise KeyboardInterrupt"])
def test_a_process_that_ends_in_a_write_leaves_the_old_file(folder: Place, end: str, size: int) -> None:
    (folder / "checkpoint.pt").write_bytes(OLD)
    program = KILLED.format(end=end, size=size)
    ended = subprocess.run([sys.executable, "-c", program, folder.uri], capture_output=True, timeout=60)
    assert ended.returncode != 0
    assert (folder / "checkpoint.pt").read_bytes() == OLD
