"""A real Ray head on this machine, for tests that submit jobs: its own ports, its own folder, its own token, and gone afterwards.

Never `ray stop`: that ends every Ray on the machine. Only processes that carry this head's mark in their environment are ended.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "LINREP_TEST_HEAD"


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        address: Of the dashboard, where jobs are submitted: http://127.0.0.1:port.
        gcs: Of the cluster itself, for `ray.init(address=...)`: 127.0.0.1:port.
        env: The environment of a client: the token and no trace of other clusters.
        metrics: Where Prometheus would read the node's.
    """

    address: str
    gcs: str
    env: dict[str, str]
    metrics: str

    def submit(
        self, entrypoint: Sequence[str], *, working_dir: Path, runtime_env: Path, timeout_s: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run `ray job submit` to its end. Its exit status is 0 when the job succeeded; output and errors are in `stdout`."""
        command = ["job", "submit", "--working-dir", str(working_dir), "--runtime-env", str(runtime_env), "--", *entrypoint]
        return self.run([*ray(), *command], timeout_s)

    def run(self, command: Sequence[str], timeout_s: float = 180, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a client of this head; output and errors are in `stdout`."""
        return subprocess.run(
            command, env=self.env | {"RAY_API_SERVER_ADDRESS": self.address} | env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


def ray() -> list[str]:
    """The `ray` command of this Python, whatever PATH says."""
    return [sys.executable, "-m", "ray.scripts.scripts"]


@contextlib.contextmanager
def local_head(
    n_cpus: int = 4, object_store_bytes: int = 200_000_000, timeout_s: float = 120, node: Mapping[str, str] | None = None
) -> Iterator[Head]:
    """Start a head with token authentication, yield it, and end it and all that it started.

    Args:
        node: Further environment of the node, which its clients do not have: keys of a store, as an instance's role gives them.
        n_cpus: Logical CPUs, which may exceed the real ones.
        object_store_bytes: Size of the object store.
        timeout_s: How long the head may take to answer.

    Raises:
        TimeoutError: It did not answer; the message ends with its log.
    """
    # Short, because the paths of Ray's sockets below it must stay under 108 characters: pytest's tmp_path is too long.
    folder = Path(tempfile.mkdtemp(prefix="lr", dir="/tmp"))
    mark = uuid.uuid4().hex
    token = folder / "token"
    token.write_text(uuid.uuid4().hex)
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    # A job's entrypoint is looked up on the head's PATH: `python` must be this one.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    gcs, dashboard, client, agent, metrics = free_ports(5)
    command = [*ray(), "start", "--head", "--block", "--include-dashboard=true", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    command += [
        f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}",
        f"--metrics-export-port={metrics}",
    ]
    command += [f"--temp-dir={folder / 'ray'}", f"--num-cpus={n_cpus}", f"--object-store-memory={object_store_bytes}"]
    log = folder / "log"
    process = None
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env=env | dict(node or {}) | {MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        address = f"http://127.0.0.1:{dashboard}"
        wait_for(f"{address}/api/jobs/", token.read_text(), process, log, timeout_s)
        yield Head(address, f"127.0.0.1:{gcs}", env, f"http://127.0.0.1:{metrics}/metrics")
    finally:
        end(mark)
        if process is not None:
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(url: str, token: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    """Return once the jobs server answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise TimeoutError(
        f"the head did not answer at {url} (exit status {process.poll()})\n{log.read_text(errors='replace')[-3000:]}"
    )


def marked(mark: str) -> list[psutil.Process]:
    """The processes that carry the mark, and the descendants of those.

    Descendants too: Ray's agents and workers set their process title, which overwrites the environment that others can read.
    """
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found |= {process, *process.children(recursive=True)}
    return list(found)


def end(mark: str, patience_s: float = 5) -> None:
    """End every marked process, kindly first, and wait until none is left."""
    known = set(marked(mark))  # before the first signal: an orphan is nobody's descendant
    for process in known:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(known, timeout=patience_s)
    left = {process for process in known | set(marked(mark)) if process.is_running()}  # is_running knows a reused id
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=patience_s)
