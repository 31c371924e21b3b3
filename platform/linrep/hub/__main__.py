"""Share with others through the Hugging Face hub: `python -m linrep.hub push saes WORKSPACE OWNER/NAME`, or `pull`.

push says what it would send, and sends it once it is agreed to: with --yes, or by an answer on the terminal. The token comes from
HF_TOKEN or from `hf auth login`.
"""

import argparse
import sys
import tempfile
from typing import get_args

from linrep.errors import HubError, LinrepError
from linrep.hub.bundle import Bundle, Wishes
from linrep.hub.pull import of_either_kind, pull, pulled_lines
from linrep.hub.results import bundle_results
from linrep.hub.saes import SaeChoice, bundle_saes
from linrep.hub.sample import SampleChoice, bundle_sample
from linrep.hub.sending import plan_sending, send, sending_lines
from linrep.places import place
from linrep.repository.address import Address, is_address, parse
from linrep.repository.files import MOST_BYTES, Listing, listing
from linrep.store.layout import View

INTERRUPTED = 130
"""Exit status after Ctrl-C, as the jobs have it."""


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; 0 done, 1 where the message says what to mend or what to agree to."""
    args = _parser().parse_args(argv)
    try:
        return _pull(args) if args.command == "pull" else _push(args)
    except LinrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m linrep.hub", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    push = commands.add_parser("push", help="say what would be sent, and send it once that is agreed to")
    whats = push.add_subparsers(dest="what", required=True)
    saes = whats.add_parser("saes", help="SAEs to a model repository, in SAELens' layout")
    saes.add_argument("--recipe", default="", help="the recipe's name, where the workspace has SAEs of several")
    saes.add_argument("--sae", action="append", default=[], help="a name, or how it begins (topk-16-x8); may be repeated; all")
    saes.add_argument("--layer", action="append", default=[], type=int, help="a layer; may be repeated; all")
    saes.add_argument("--base-model", default="", help="the model's name on the hub, where its path does not say it")
    saes.add_argument("--dataset", action="append", default=[], help="name on the hub of what was harvested; may be repeated")
    results = whats.add_parser("results", help="report, tables and recipe to a dataset repository")
    results.add_argument("--stage", action="append", default=[], help="a stage's results; may be repeated; all that are complete")
    sample = whats.add_parser("sample", help="some samples of a store, with their vectors, to a dataset repository")
    sample.add_argument("--samples", type=int, default=256, help="how many, as many of each modality; 256")
    sample.add_argument("--layer", action="append", default=[], type=int, help="a layer; may be repeated; all of the store")
    sample.add_argument("--view", action="append", default=[], choices=get_args(View), help="a view; may be repeated; all")
    sample.add_argument("--with-texts", action="store_true", help="send the corpora's texts, and vectors of their tokens, too")
    sample.add_argument("--with-images", action="store_true", help="send the corpora's images, too")
    for one in (saes, results, sample):
        one.add_argument("workspace", help="folder or URI")
        one.add_argument("repository", help="OWNER/NAME")
        one.add_argument("--license", default="", help="as the hub names it: apache-2.0, cc-by-4.0, ...")
        one.add_argument("--public", action="store_true", help="make a repository that everybody sees; private otherwise")
        one.add_argument("--keep-card", action="store_true", help="leave the card that is there as it is")
        one.add_argument("--yes", action="store_true", help="send it")
    get = commands.add_parser("pull", help="SAEs, results or a sample into a folder, verified")
    get.add_argument("repository", help="OWNER/NAME, or an address: hf://datasets/OWNER/NAME@REVISION/FOLDER")
    get.add_argument("target", help="folder or URI to write to: empty, or pulled into before")
    get.add_argument("--most-gb", type=float, default=MOST_BYTES / 1e9, help="refuse more than this; 20")
    return parser


def _pull(args: argparse.Namespace) -> int:
    given = args.repository
    address = parse(given) if is_address(given) else of_either_kind(parse(f"hf://{given}").name)
    target = place(args.target)
    found = pull(address, target, int(args.most_gb * 1e9))
    print("\n".join(pulled_lines(address, target, found)))
    return 0


def _push(args: argparse.Namespace) -> int:
    kind = "model" if args.what == "saes" else "dataset"
    name = args.repository.removeprefix("hf://").removeprefix("datasets/")
    address = Address(kind, parse(f"hf://{name}").name)
    if name != address.name:
        raise HubError(f"{args.repository!r:.200} is no name of a repository: it reads OWNER/NAME")
    there = listing(address)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = _bundle(args, address, there, scratch)
        sending = plan_sending(bundle, address, there, args.public, args.keep_card)
        if not sending.differs:
            print(f"Nothing to do: {address} holds these {len(sending.same)} files as they are here.")
            return 0
        print("\n".join(sending_lines(sending)), flush=True)
        if not args.yes and not _agreed():
            print("Nothing was sent: repeat the command with --yes to send it.", file=sys.stderr)
            return 1
        print(f"Sent: {send(sending)}")
    return 0


def _bundle(args: argparse.Namespace, address: Address, there: Listing | None, scratch: str) -> Bundle:
    workspace = place(args.workspace)
    if args.what == "saes":
        wishes = Wishes(args.license, args.base_model, tuple(args.dataset))
        choice = SaeChoice(args.recipe, tuple(args.sae), tuple(args.layer))
        return bundle_saes(workspace, address.name, choice, wishes, there)
    if args.what == "results":
        return bundle_results(workspace, address.name, args.stage, Wishes(args.license), place(scratch))
    chosen = SampleChoice(args.samples, tuple(args.layer), tuple(args.view), args.with_texts, args.with_images)
    return bundle_sample(workspace, address.name, chosen, Wishes(args.license), place(scratch))


def _agreed() -> bool:
    """Whether a person at the terminal says yes; nobody there is no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input("Send this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


if __name__ == "__main__":
    sys.exit(main())
