"""The file of a lease in an object store: written only where it is as it was read, if the store and its client can say so."""

import json
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from linrep.places import Place

SETTLE_SECONDS = 1.0
"""Without conditional writes: two drivers that write at once see each other's lease within this time."""
CONFLICT, CONFLICTS = 409, 5
"""What S3 answers while it decides between two writes, and how often such a write is tried again."""
CANNOT = {"NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed"}
"""What a store answers that has no conditional writes."""


class Holder(NamedTuple):
    """A lease as it was read.

    Attributes:
        said: What its file says.
        version: Another one after each write.
    """

    said: dict[str, Any]
    version: str


def lease_file(file: Place) -> "PlainFile | ConditionalFile":
    """The file at a place: with conditional writes on S3 where boto3 is installed, since pyarrow has none, else without.

    Source: Amazon S3, "Conditional writes" (If-None-Match since 2024-08, If-Match since 2024-11).
    """
    plain = PlainFile(file)
    if file.files.type_name != "s3":
        return plain
    try:
        import boto3  # noqa: F401
    except ImportError:
        return plain
    return ConditionalFile(file, client(file), plain)


@dataclass
class PlainFile:
    """A file in a store without conditional writes: written, and read again after a while. Of two drivers that write within that
    time the last one holds it; one whose write takes longer may be missed.

    Attributes:
        file: Where it lies.
    """

    file: Place

    def read(self) -> Holder | None:
        """What is there; None where there is nothing."""
        try:
            said = self.file.read_json()
        except FileNotFoundError:
            return None
        return Holder(said, json.dumps(said))

    def write(self, said: dict[str, Any], over: Holder | None) -> Holder | None:
        """Write over what was read, or where nothing was; None if another one has written since."""
        now = self.read()
        if now is not None and (over is None or now.said != over.said):
            return None
        self.file.write_json(said)
        ours = over is not None and over.said["id"] == said["id"]  # a renewal has nobody to wait for
        return Holder(said, json.dumps(said)) if ours else self.settled(said)

    def settled(self, said: dict[str, Any]) -> Holder | None:
        """What was written, where it is still there when all who wrote at the same time must have done so."""
        time.sleep(SETTLE_SECONDS)
        now = self.read()
        return now if now is not None and now.said["id"] == said["id"] else None


@dataclass
class ConditionalFile:
    """A file on S3, written with If-None-Match and If-Match: of any number of drivers that write at once exactly one succeeds.

    Attributes:
        file: Where it lies.
        client: Of boto3.
        plain: What stands in where the store turns out to know no conditions.
    """

    file: Place
    client: Any
    plain: PlainFile
    _knows: bool | None = field(default=None, init=False)

    def read(self) -> Holder | None:
        """What is there; None where there is nothing."""
        if self._knows is False:
            return self.plain.read()
        try:
            got = self.client.get_object(**self._where)
            return Holder(json.loads(got["Body"].read()), got["ETag"])
        except Exception as error:
            if _status(error) == 404:
                return None
            if self._knows is None:  # boto3 finds no key, or no way, where pyarrow may
                self._knows = False
                return self.plain.read()
            raise OSError(f"cannot read {self.file}: {error}") from error

    def write(self, said: dict[str, Any], over: Holder | None) -> Holder | None:
        """Write over what was read, or where nothing was; None if another one has written since."""
        if self._knows is False:
            return self.plain.write(said, over)
        done = self._written(said, {"IfNoneMatch": "*"} if over is None else {"IfMatch": over.version})
        if self._knows is None and done is not None:
            # A store that does not know the condition takes a write that it must refuse.
            self._knows = self._put(said, {"IfNoneMatch": "*"}) in (CONFLICT, 412)
            return done if self._knows else self.plain.settled(said)
        return self.plain.write(said, over) if self._knows is False else done

    @property
    def _where(self) -> dict[str, str]:
        bucket, _, key = self.file.path.partition("/")
        return {"Bucket": bucket, "Key": key}

    def _written(self, said: dict[str, Any], condition: dict[str, str]) -> Holder | None:
        done, left = self._put(said, condition), CONFLICTS
        while done == CONFLICT and left:
            time.sleep(SETTLE_SECONDS / CONFLICTS)
            done, left = self._put(said, condition), left - 1
        if isinstance(done, Holder):
            return done
        if self._knows is False:
            return None
        now = self.read()  # an earlier try whose answer was lost may be what is there
        return now if now is not None and now.said == said else None

    def _put(self, said: dict[str, Any], condition: dict[str, str]) -> Holder | int:
        """What is there now, or the status of a refusal."""
        body = (json.dumps(said, indent=1) + "\n").encode()
        try:
            return Holder(said, self.client.put_object(**self._where, Body=body, **condition)["ETag"])
        except Exception as error:
            code, status = getattr(error, "response", {}).get("Error", {}).get("Code", ""), _status(error)
            if status in (404, CONFLICT, 412):
                return status
            if code not in CANNOT and type(error).__name__ != "ParamValidationError":  # the latter: a boto3 that is too old
                raise OSError(f"cannot write {self.file}: {error}") from error
            self._knows = False
            return 0


def client(file: Place) -> Any:
    """boto3's client of the store that a place lies in, with the same key, region and endpoint as pyarrow's."""
    import boto3
    from botocore.config import Config

    options, (name, _, password) = dict(parse_qsl(file.options)), file.key.partition(":")
    endpoint = options.get("endpoint_override")
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    key = {"aws_access_key_id": unquote(name), "aws_secret_access_key": unquote(password)} if password else {}
    patience = Config(connect_timeout=10, read_timeout=20, retries={"max_attempts": 3})
    return boto3.client("s3", region_name=getattr(file.files, "region", None), endpoint_url=endpoint, config=patience, **key)


def _status(error: Exception) -> int | None:
    return getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
