"""Files of a repository are fetched once, verified, and taken from the cache where there is no hub; what leads astray is not."""

from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from linrep.errors import HubError
from linrep.repository.address import Address, parse
from linrep.repository.files import fetched, is_safe, listing, pinned
from tests.hub.conftest import point_to
from tests.hub.fake_hub import READS, WRITES, Answer, Asked, FakeHub, refused

FILES = {"a/cfg.json": b"{}", "a/w.safetensors": bytes(range(256)) * 40, "b/cfg.json": b"[]", "b/ae.pt": b"pickle"}
ADDRESS = Address("model", "me/saes")


def takes(path: str) -> bool:
    return path.endswith((".json", ".safetensors"))


@pytest.fixture
def there(hub: FakeHub) -> FakeHub:
    hub.make("me/saes").put(FILES)
    return hub


def contents(folder: Path, paths: tuple[str, ...]) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in paths}


def gets(hub: FakeHub) -> list[str]:
    return [one.path for one in hub.asked if one.method == "GET" and "/api/" not in one.path and one.host != "localhost"]


def test_what_is_fetched_has_the_bytes_of_the_repository(there: FakeHub) -> None:
    found = fetched(ADDRESS, takes)
    assert contents(found.folder, found.files) == {path: FILES[path] for path in ("a/cfg.json", "a/w.safetensors", "b/cfg.json")}
    assert found.left == ("b/ae.pt",)
    assert found.commit == there.of("me/saes").head
    assert not any("ae.pt" in path for path in gets(there))


def test_a_second_fetch_asks_for_no_file(there: FakeHub) -> None:
    fetched(ADDRESS, takes)
    there.asked.clear()
    fetched(ADDRESS, takes)
    assert gets(there) == []


def test_a_stopped_fetch_goes_on(there: FakeHub) -> None:
    def fault(one: Asked) -> Answer | None:
        return refused(403, "", "not now") if one.path.endswith("b/cfg.json") else None

    there.fault = fault
    with pytest.raises(HubError, match="403: not now"):
        fetched(ADDRESS, takes)
    there.fault = lambda one: None
    there.asked.clear()
    assert fetched(ADDRESS, takes).files == ("a/cfg.json", "a/w.safetensors", "b/cfg.json")
    assert len([path for path in gets(there) if path.endswith("b/cfg.json")]) == 1
    assert not [path for path in gets(there) if "/a/" in path]


def test_a_changed_cache_is_fetched_anew(there: FakeHub) -> None:
    first = fetched(ADDRESS, takes)
    for path in ("a/w.safetensors", "b/cfg.json"):
        blob = (first.folder / path).resolve()
        blob.write_bytes(b"X" + blob.read_bytes()[1:])
    found = fetched(ADDRESS, takes)
    assert contents(found.folder, found.files) == {path: FILES[path] for path in found.files}


def test_what_stays_wrong_is_refused(there: FakeHub) -> None:
    def fault(one: Asked) -> Answer | None:
        return Answer(200, b"X" * 10240) if one.host.startswith("localhost") else None

    there.fault = fault
    with pytest.raises(HubError, match=r"a/w\.safetensors of hf://me/saes is not what the hub says"):
        fetched(ADDRESS, takes)


def test_the_cache_serves_where_the_hub_is_not_reached(there: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetched(ADDRESS, takes)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetched(ADDRESS, takes).files == first.files
    assert pinned("hf://me/saes/a") == f"hf://me/saes@{first.commit}/a"
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, so the hub is not asked for the model repository me/other"):
        fetched(Address("model", "me/other"), takes)
    point_to("http://127.0.0.1:9", tmp_path, monkeypatch)
    assert fetched(ADDRESS, takes).files == first.files
    with pytest.raises(HubError, match=r"cannot reach http://\S+:9 for the model repository me/other, and the cache"):
        fetched(Address("model", "me/other"), takes)


def test_a_pinned_address_stays_where_it_was(there: FakeHub) -> None:
    before = pinned("hf://me/saes/a")
    assert before == f"hf://me/saes@{there.of('me/saes').head}/a"
    there.of("me/saes").put({"a/cfg.json": b"{} "})
    found = fetched(parse(before), takes)
    assert (found.folder / "a/cfg.json").read_bytes() == b"{}"
    assert pinned(before) == before


def test_missing_and_private_repositories_say_so(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.make("me/secret", private=True).put(FILES)
    with pytest.raises(HubError, match=r"no model repository me/none on http://127\S+, or this token may not see it"):
        fetched(Address("model", "me/none"), takes)
    monkeypatch.setenv("HF_TOKEN", READS)
    assert fetched(Address("model", "me/secret"), takes).files
    monkeypatch.delenv("HF_TOKEN")
    assert listing(Address("model", "me/secret")) is None
    with pytest.raises(
        HubError, match=r"no model repository me/secret on \S+, or it is private: log in with `hf auth login`, or"
    ):
        fetched(Address("model", "me/secret"), takes)
    with pytest.raises(HubError, match="no dataset repository me/secret"):
        fetched(Address("dataset", "me/secret"), takes)
    monkeypatch.setenv("HF_TOKEN", "hf_forged")
    with pytest.raises(HubError, match=r"refuses .* \(401: .*log in anew") as error:
        fetched(Address("model", "me/secret"), takes)
    assert "hf_forged" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", WRITES)
    with pytest.raises(HubError, match="has no revision 'v9'"):
        fetched(Address("model", "me/secret", "v9"), takes)


def test_the_token_goes_to_the_hub_alone(there: FakeHub) -> None:
    """Large files lie on another host: they are asked for without it."""
    fetched(ADDRESS, takes)
    elsewhere = [one for one in there.asked if one.host.startswith("localhost")]
    assert elsewhere
    assert {one.token for one in elsewhere} == {None}


@pytest.mark.parametrize(
    "path",
    ["../x.json", "a/../../x.json", "/x.json", "a\\..\\x.json", "C:/x.json", "a/\u202ex.json", "a/x\n.json", "a./x.json", ""],
)
def test_a_repository_whose_names_lead_astray_is_refused(hub: FakeHub, path: str) -> None:
    assert not is_safe(path)
    hub.make("me/saes").put({**FILES, path: b"{}"})
    hub.asked.clear()
    with pytest.raises(HubError, match="leads astray"):
        fetched(ADDRESS, takes)
    assert gets(hub) == []


def test_names_that_differ_in_case_and_hidden_ones(hub: FakeHub) -> None:
    hub.make("me/saes").put({**FILES, ".x/cfg.json": b"{}"})
    assert fetched(ADDRESS, takes).files == ("a/cfg.json", "a/w.safetensors", "b/cfg.json")
    hub.of("me/saes").put({"A/cfg.json": b"{}"})
    with pytest.raises(HubError, match="differ only in case"):
        fetched(ADDRESS, takes)


def test_more_bytes_than_reckoned_with_are_refused(there: FakeHub) -> None:
    with pytest.raises(HubError, match=r"more than the 0\.0 GB"):
        fetched(ADDRESS, takes, most_bytes=10_243)
    assert gets(there) == []
    assert fetched(ADDRESS, takes, most_bytes=10_244).files


@pytest.mark.parametrize(
    "text",
    ["hf://me", "hf://me/x/../../y", "hf://spaces/me/x", "hf://../x", "hf://me/x/a\\b", "hf://buckets/a/b", "s3://a/b", "hf://"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(HubError, match="an address reads hf://OWNER/NAME/FOLDER"):
        parse(text)


@pytest.mark.parametrize("text", ["hf://me/x", "hf://datasets/me/x@main", "hf://me/x@refs/pr/1/a/b"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text)) == text
