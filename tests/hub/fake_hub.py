"""A hub on this machine: what huggingface_hub really asks of one, in memory, with every request kept.

It speaks the endpoints of the real one as huggingface_hub 2.4 calls them: making a repository, what it holds (with and without
digests), checking a card, upload modes, LFS uploads, commits in ndjson, and files with their headers; large files are redirected
to another host name, which gets no token. Xet is not spoken: a client is to be started with HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITES, READS = "hf_writes_everywhere", "hf_reads_everywhere"
"""Tokens that the hub knows."""
LARGE = (".safetensors", ".parquet", ".png", ".pt")
PAGE = 3
"""Entries of a page of a tree: few, so that there are several."""


@dataclass(frozen=True)
class Blob:
    """A file's content, and whether it lies with the large ones."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class FakeRepository:
    """A repository: its commits, oldest first, each with all files of it by path; and the commits that tags name."""

    private: bool = False
    commits: list[tuple[str, dict[str, Blob]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Blob]:
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, dict[str, Blob]] | None:
        if revision == "main":
            return self.commits[-1]
        wanted = self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)

    def put(self, files: dict[str, bytes]) -> None:
        """A commit of somebody: these files, whatever their names, beside those that are there."""
        own = {path: Blob(content, path.endswith(LARGE)) for path, content in files.items()}
        self.commit({**(self.files if self.commits else {}), **own})

    def commit(self, files: dict[str, Blob]) -> None:
        said = json.dumps([len(self.commits), sorted((path, blob.etag) for path, blob in files.items())])
        self.commits.append((hashlib.sha1(said.encode()).hexdigest(), files))


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    host: str
    token: str | None
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def changes(self) -> bool:
        """Whether it makes or changes something."""
        batch = self.path.endswith("/objects/batch")
        return batch or self.method == "PUT" or re.search(r"/repos/create$|/commit/", self.path) is not None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def refused(status: int, code: str, message: str) -> Answer:
    return as_json({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    """A file as trees list it."""
    own = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.etag[:40]}
    return {**own, "lfs": {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}} if blob.large else own


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}


class FakeHub:
    """The hub, from `with` to its end.

    Attributes:
        repositories: By kind and name.
        stored: Large files that were uploaded, committed or not, by SHA-256.
        asked: Every request, in order.
        fault: Gives the answer to a request that is to go wrong, None for the others; it may also wait, or raise to hang up.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], FakeRepository] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.fault: Callable[[Asked], Answer | None] = lambda asked: None
        self._lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _all(self) -> None:
                split = urlsplit(self.path)
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self._body()
                one = Asked(
                    self.command, unquote(split.path), parse_qs(split.query), self.headers["Host"], token, headers, body
                )  # fmt: skip
                try:
                    found = hub.answer(one)
                except ConnectionAbortedError:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(found.status)
                self.send_header("Content-Length", found.headers.get("Content-Length", str(len(found.body))))
                for name, value in found.headers.items():
                    if name != "Content-Length":
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(found.body)

            do_GET = do_HEAD = do_POST = do_PUT = _all

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    found = b""
                    while size := int(self.rfile.readline(), 16):
                        found += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    return found
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def changes(self) -> list[Asked]:
        """Requests that make or change something."""
        return [one for one in self.asked if one.changes]

    def of(self, name: str, kind: str = "model") -> FakeRepository:
        return self.repositories[kind, name]

    def make(self, name: str, kind: str = "model", private: bool = False) -> FakeRepository:
        """A new repository, as the hub makes one: with one file."""
        made = FakeRepository(private)
        made.put({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.repositories[kind, name] = made
        return made

    def answer(self, one: Asked) -> Answer:
        with self._lock:
            self.asked.append(one)
        found = self.fault(one)
        if found is not None:
            return found
        with self._lock:
            return self._answer(one)

    def _answer(self, one: Asked) -> Answer:
        if one.host.startswith("localhost"):
            return self._content(one, self.stored[one.path.rsplit("/", 1)[-1]], {})
        if one.token is not None and one.token not in (WRITES, READS):
            return refused(401, "", "Invalid credentials in Authorization header")
        if one.path == "/api/repos/create":
            return self._create(one)
        if one.path == "/api/validate-yaml":
            return self._validate(one)
        if one.path.startswith("/uploads/"):
            self.stored[one.path.rsplit("/", 1)[-1]] = one.body
            return Answer(200)
        patterns: dict[str, Callable[..., Answer]] = {
            r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/revision/(.+))?": self._info,
            r"/api/(model|dataset)s/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?": self._tree,
            r"/api/(model|dataset)s/([^/]+/[^/]+)/paths-info/([^/]+)": self._paths,
            r"/api/(model|dataset)s/([^/]+/[^/]+)/preupload/([^/]+)": self._preupload,
            r"/api/(model|dataset)s/([^/]+/[^/]+)/commit/([^/]+)": self._commit,
            r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._batch,
            r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self._resolve,
        }
        for pattern, answer in patterns.items():
            found = re.fullmatch(pattern, one.path)
            if found:
                kind, name, *rest = found.groups()
                kind = {"datasets/": "dataset", None: "model"}.get(kind, kind)
                repository = self.repositories.get((kind, name))
                if repository is None or (repository.private and one.token is None):
                    return refused(401 if one.token is None else 404, "RepoNotFound", "Repository not found")
                return answer(one, repository, name, *rest)
        return refused(404, "", f"no such page: {one.path}")

    def _create(self, one: Asked) -> Answer:
        if one.token != WRITES:
            return refused(403 if one.token else 401, "", "You don't have the rights to create a repository")
        asked = one.json()
        kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        if (kind, name) in self.repositories:
            return refused(409, "", "You already created this repository")
        self.make(name, kind, asked.get("visibility") == "private")
        return as_json({"url": f"{self.url}/{'datasets/' * (kind == 'dataset')}{name}"})

    def _validate(self, one: Asked) -> Answer:
        found = re.match(r"---\n(.*?)\n---\n", one.json()["content"], re.DOTALL)
        try:
            value = yaml.safe_load(found[1]) if found else None
        except yaml.YAMLError as error:
            return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return as_json({"errors": [], "warnings": [] if value else [{"message": "empty or missing yaml metadata"}]})

    def _info(self, one: Asked, repository: FakeRepository, name: str, revision: str | None) -> Answer:
        found = repository.at(revision or "main")
        if found is None:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = []
        for path, blob in sorted(found[1].items()):
            more: dict[str, Any] = {}
            if one.query.get("blobs"):
                more = {"size": len(blob.content), "blobId": hashlib.sha1(blob.content).hexdigest() if blob.large else blob.etag}
                if blob.large:
                    more["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": 130}
            siblings.append({"rfilename": path, **more})
        return as_json({"id": name, "sha": found[0], "private": repository.private, "siblings": siblings, "tags": []})

    def _tree(self, one: Asked, repository: FakeRepository, name: str, revision: str, folder: str | None) -> Answer:
        found = repository.at(revision)
        if found is None:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        inside = f"{folder}/" if folder else ""
        files = {path: blob for path, blob in found[1].items() if path.startswith(inside)}
        if folder and not files:
            return refused(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        whole = one.query.get("recursive", ["false"])[0].lower() == "true"
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {".", folder}
        listed = {path for path in {*files, *folders} if path.startswith(inside) and (whole or "/" not in path[len(inside) :])}
        entries = [_entry(path, files[path]) if path in files else _folder(path) for path in sorted(listed)]
        start = int(one.query.get("cursor", ["0"])[0])
        more = start + PAGE < len(entries)
        query = "&".join(f"{key}={value[0]}" for key, value in one.query.items() if key != "cursor")
        link = {"Link": f'<{self.url}{one.path}?{query}&cursor={start + PAGE}>; rel="next"'} if more else {}
        return as_json(entries[start : start + PAGE], **link)

    def _paths(self, one: Asked, repository: FakeRepository, name: str, revision: str) -> Answer:
        found = repository.at(revision)
        if found is None:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        form = parse_qs(one.body.decode())
        asked = form["paths"] if "paths" in form else one.json()["paths"]
        folders = [path for path in asked if any(own.startswith(f"{path}/") for own in found[1])]
        entries = [_entry(path, found[1][path]) for path in asked if path in found[1]]
        return as_json(entries + [_folder(path) for path in folders])

    def _preupload(self, one: Asked, repository: FakeRepository, name: str, revision: str) -> Answer:
        if one.token != WRITES:
            return refused(403, "", "Forbidden: you are not allowed to write here")
        modes = []
        for file in one.json()["files"]:
            own = {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
            there = repository.files.get(file["path"])
            modes.append({**own, "shouldIgnore": False, "oid": there.etag if there else None})
        return as_json({"files": modes})

    def _batch(self, one: Asked, repository: FakeRepository, name: str) -> Answer:
        objects = []
        for own in one.json()["objects"]:
            href = f"{self.url}/uploads/{own['oid']}"
            objects.append({**own} if own["oid"] in self.stored else {**own, "actions": {"upload": {"href": href}}})
        return as_json({"transfer": "basic", "objects": objects})

    def _commit(self, one: Asked, repository: FakeRepository, name: str, revision: str) -> Answer:
        if one.token != WRITES:
            return refused(403, "", "Forbidden: you are not allowed to write here")
        lines = [json.loads(line) for line in one.body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != repository.head:
            return refused(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repository.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            else:
                content = self.stored[value["oid"]]
                assert (line["key"], len(content), hashlib.sha256(content).hexdigest()) == (
                    "lfsFile", value["size"], value["oid"]
                )  # fmt: skip
                files[value["path"]] = Blob(content, True)
        repository.commit(files)
        return as_json({"commitUrl": f"{self.url}/{name}/commit/{repository.head}", "commitOid": repository.head})

    def _resolve(self, one: Asked, repository: FakeRepository, name: str, revision: str, path: str) -> Answer:
        found = repository.at(revision)
        if found is None:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blob = found[1].get(path)
        if blob is None:
            return refused(404, "EntryNotFound", "Entry not found")
        own = {"X-Repo-Commit": found[0], "ETag": f'"{blob.etag}"'}
        if not blob.large:
            return self._content(one, blob.content, own)
        self.stored[blob.sha256] = blob.content
        linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
        return Answer(302, b"", {**own, **linked, "Location": f"http://localhost:{self.port}/content/{blob.sha256}"})

    def _content(self, one: Asked, content: bytes, headers: dict[str, str]) -> Answer:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", one.headers.get("range", ""))
        if asked is None or one.method == "HEAD":
            return Answer(200, content, {**headers, "Content-Length": str(len(content))})
        start, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        return Answer(206, content[start : last + 1], {**headers, "Content-Range": f"bytes {start}-{last}/{len(content)}"})
