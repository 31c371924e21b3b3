"""Sends a bundle to its repository: first what would be sent, in lines; then, when asked for, one commit of what differs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linrep.errors import HubError
from linrep.hub.bundle import CARD, Bundle, Content
from linrep.repository.address import Address
from linrep.repository.files import Listing
from linrep.repository.refusals import has_token, hub_errors
from linrep.store.summary import size

READABLE = (".json", ".md", ".html", ".yaml", ".txt", ".csv", ".svg")
"""Endings of files that are searched for what they give away."""
MOST_NAMED = 5


@dataclass(frozen=True)
class Sending:
    """A bundle held against its repository.

    Attributes:
        address: The repository.
        bundle: What is to lie there.
        there: What lies there now; None where the repository is to be made.
        public: Whether everybody may see it.
        new: Files that are not there.
        changed: Files that are there with other bytes.
        same: Files that are there as they are here.
    """

    address: Address
    bundle: Bundle
    there: Listing | None
    public: bool
    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]

    @property
    def differs(self) -> tuple[str, ...]:
        """Files to send, sorted."""
        return tuple(sorted((*self.new, *self.changed)))


def plan_sending(bundle: Bundle, address: Address, there: Listing | None, public: bool, keep_card: bool = False) -> Sending:
    """Work out what is to be sent; nothing is.

    Args:
        bundle: The files.
        address: Where to.
        there: What lies there now.
        public: Whether a repository that is made is for everybody to see.
        keep_card: Leave a card that is there as it is.

    Raises:
        HubError: A file holds the token.
    """
    files, held = dict(bundle.files), {} if there is None else there.files
    if keep_card and CARD in held:
        del files[CARD]
    _check_token(files)
    new = tuple(path for path in files if path not in held)
    changed = tuple(path for path, content in files.items() if path in held and not held[path].is_same(content))
    same = tuple(path for path in files if path in held and path not in changed)
    return Sending(address, bundle, there, public if there is None else not there.private, new, changed, same)


def sending_lines(sending: Sending) -> list[str]:
    """What would be sent, and where, for a person to agree to."""
    from huggingface_hub import constants

    seen = "PUBLIC: everybody can see it" if sending.public else "private: only its owners see it"
    state, kind = ("is made now" if sending.there is None else "is there already"), sending.address.kind
    page = f"{constants.ENDPOINT}/{'datasets/' * (kind == 'dataset')}{sending.address.name}"
    lines = [page, f"  a {kind} repository; it {state}, {seen}", ""]
    wide = max((len(path) for path in sending.differs), default=0)
    for path in sending.differs:
        state = "changed" if path in sending.changed else "new"
        lines.append(f"  {state:8} {path:{wide}}  {size(_bytes_of(sending.bundle.files[path]))}")
    total = size(sum(_bytes_of(sending.bundle.files[path]) for path in sending.differs))
    held = f"; {len(sending.same)} files are there as they are here" if sending.same else ""
    lines += ["", f"{sending.bundle.what}: {len(sending.differs)} files, {total}{held}"]
    return lines + [f"- {note}" for note in (*sending.bundle.notes, *_given_away(sending))]


def send(sending: Sending) -> str:
    """Send what differs, as one commit; gives the commit's address.

    What was uploaded before an earlier try was stopped is not uploaded again.

    Raises:
        HubError: The hub does not take it, or somebody else has changed the repository meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    address, files = sending.address, sending.bundle.files
    api = HfApi(library_name="linrep")
    own: dict[str, Any] = {"repo_type": address.kind}
    if not has_token():
        raise HubError(f"nothing was sent to {address}: log in with `hf auth login`, or set HF_TOKEN")
    with hub_errors(address, writing=True):
        if sending.there is None:
            api.create_repo(address.name, private=not sending.public, exist_ok=True, **own)
        parent = None if sending.there is None else sending.there.commit
        additions = [CommitOperationAdd(path, files[path]) for path in sending.differs]
        done = api.create_commit(address.name, additions, commit_message=sending.bundle.what, parent_commit=parent, **own)
    return done.commit_url


def _bytes_of(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _readable(files: Any) -> Iterator[tuple[str, bytes]]:
    for path, content in files.items():
        if path.endswith(READABLE):
            yield path, content if isinstance(content, bytes) else content.read_bytes()


def _check_token(files: Any) -> None:
    from huggingface_hub import get_token

    token = get_token()
    for path, content in _readable(files):
        if token and token.encode() in content:
            raise HubError(f"{path} holds this machine's token of the hub: nothing was sent; take it out, and get a new token")


def _given_away(sending: Sending) -> Iterator[str]:
    """Paths of this machine that the files name, in lines."""
    own = sorted({*sending.bundle.paths, str(Path.home())} - {"/"}, key=len, reverse=True)
    found: dict[str, list[str]] = {}
    for path, content in _readable({path: sending.bundle.files[path] for path in sending.differs}):
        for one in own:
            if re.search(re.escape(one).encode() + rb"(?![\w-])", content):
                found.setdefault(one, []).append(path)
                break
    for one, named in found.items():
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        yield f"{one}, a path of this machine, is named in {', '.join(named[:MOST_NAMED])}{more}"
