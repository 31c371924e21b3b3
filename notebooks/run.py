"""Execute the notebooks over a workspace, into a folder: python notebooks/run.py FOLDER [--workspace DIR] [NAME ...].

Or, with --strip, take the outputs out of those that lie here, as git keeps them.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
LONGEST = 600
"""Seconds that a cell may take."""


def notebooks(names: list[str]) -> list[Path]:
    """The notebooks of some names, all if there are none, in their order."""
    there = sorted(HERE.glob("*.ipynb"))
    return [path for path in there if not names or any(name in path.stem for name in names)]


def strip(path: Path) -> bool:
    """Take outputs, counts and whatever an editor has left out of a notebook; says whether something was there."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    text = nbformat.writes(notebook, indent=1) + "\n"
    if text == path.read_text(encoding="utf-8"):
        return False
    path.write_text(text, encoding="utf-8")
    return True


def execute(path: Path, folder: Path, workspace: Path) -> float:
    """Run a notebook from the top and write it with its outputs; gives the seconds.

    Args:
        path: The notebook.
        folder: Where it is written.
        workspace: The results that it reads.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    os.environ["LINREP_WORKSPACE"] = str(workspace.resolve())
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # progress bars as widgets: there is nobody to look at them
    started, notebook = time.monotonic(), nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(HERE)}}
    # Over sockets in a folder of this user's, not over ports: nobody else can talk to the kernel.
    with tempfile.TemporaryDirectory() as own:
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{own}/kernel"}})
        NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", resources=where, config=sockets).execute()
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / path.name)
    return time.monotonic() - started


def main(argv: list[str] | None = None) -> int:
    """Parse, and do what is asked; says of each notebook how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where the executed notebooks go")
    parser.add_argument("names", nargs="*", help="parts of the names of those to run; all if none is given")
    parser.add_argument("--workspace", type=Path, default=HERE.parent / "runs", help="the results that they read")
    parser.add_argument("--strip", action="store_true", help="take the outputs out, and stop")
    args = parser.parse_args(argv)
    if args.strip:
        for path in notebooks([]):
            print(f"{path.name}: {'stripped' if strip(path) else 'nothing to strip'}")
        return 0
    if args.folder is None:
        parser.error("name a folder for the executed notebooks, or --strip")
    if not args.workspace.is_dir():
        print(f"error: no workspace at {args.workspace}: run 'make demo', or name one with --workspace", file=sys.stderr)
        return 1
    for path in notebooks(args.names):
        print(f"{path.name}: {execute(path, args.folder, args.workspace):.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
