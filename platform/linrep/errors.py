"""The error family: what a user can cause, each with one clear line.

Every error is also a standard exception, so that callers need not import this module to catch it, and every error is built
from its message alone, so that it survives pickling between processes.
"""


class LinrepError(Exception):
    """Base of all errors that a user can mend; jobs print the message without a traceback."""


class RecipeError(LinrepError, ValueError):
    """A recipe, or a command-line override of one, asks for something that cannot be."""


class CorpusError(LinrepError, ValueError):
    """A corpus is missing, empty, or not in the layout that its kind promises."""


class PlaceError(LinrepError, ValueError):
    """A path or a URI names no place that can be read or written."""


class ModelError(LinrepError, ValueError):
    """A model folder or hub name cannot be used, or lacks the layer that was asked for."""


class StoreError(LinrepError, ValueError):
    """A store is missing, unfinished, damaged, or lacks what was asked of it."""


class WorkspaceBusy(LinrepError, RuntimeError):
    """Another driver is writing the same artefact."""


class TooManySkipped(LinrepError, RuntimeError):
    """More samples were skipped than the recipe allows."""


class ServiceError(LinrepError, RuntimeError):
    """A server that the job needs (tracking, cluster) does not answer or refuses."""


class TrainingFailed(LinrepError, RuntimeError):
    """Training cannot go on: its loss is not finite."""


class FormatError(LinrepError, ValueError):
    """A saved SAE is in no format that is known, is damaged, or does something that no SAE here does."""


class HubError(LinrepError, RuntimeError):
    """A repository of the Hugging Face hub is not there or not to be reached, refuses, or holds what is not taken."""
