"""Where images, texts, image-text pairs and documents lie, and which of them to take: the `corpora` section of a recipe."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_serializer, model_validator

from linrep.config import Section
from linrep.corpora.kinds import DocumentFiles, ImageFolder, ImageParquet, ImageTar, PairFiles, PairTar, Source, TextFiles

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_DEFAULT_KIND = {"images": "folder", "text": "files", "pairs": "files", "documents": "files"}
_NAMED = "The sources, each under a name of its own. Ids begin with {0}.NAME, or with {0} alone where the name is {0}."
_EXAMPLE = {"mine": {"path": "data/mine", "weight": 0.5}}


class Splits(Section):
    """Shares of the samples held out; the rest is for training."""

    val: float = Field(default=0.1, ge=0, lt=1, description="Share of the samples kept for choosing hyperparameters.")
    test: float = Field(default=0.1, ge=0, lt=1, description="Share of the samples kept for reported numbers.")

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> "Splits":
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on: their sum must be below 1")
        return self


ImageSource = Annotated[ImageFolder | ImageParquet | ImageTar, Field(discriminator="kind")]
TextSource = TextFiles
PairSource = Annotated[PairFiles | PairTar, Field(discriminator="kind")]
DocumentSource = DocumentFiles


def _named(sources: dict[str, Any]) -> dict[str, Any]:
    odd = next((name for name in sources if not _NAME.fullmatch(name)), None)
    if odd is not None or not sources:
        said = "no source" if odd is None else f"a source called {odd!r}"
        raise ValueError(f"holds {said}: give each a name of lower-case letters, digits, - and _")
    return sources


class Images(Section):
    """Images from several sources."""

    kind: Literal["several"] = Field(default="several", description="Images from several sources.")
    sources: Annotated[dict[str, ImageSource], AfterValidator(_named)] = Field(
        description=_NAMED.format("images"), examples=[_EXAMPLE]
    )


class Text(Section):
    """Texts from several sources."""

    kind: Literal["several"] = Field(default="several", description="Texts from several sources.")
    sources: Annotated[dict[str, TextSource], AfterValidator(_named)] = Field(
        description=_NAMED.format("text"), examples=[_EXAMPLE]
    )


class Pairs(Section):
    """Image-caption pairs from several sources."""

    kind: Literal["several"] = Field(default="several", description="Image-caption pairs from several sources.")
    sources: Annotated[dict[str, PairSource], AfterValidator(_named)] = Field(
        description=_NAMED.format("pairs"), examples=[_EXAMPLE]
    )


class Documents(Section):
    """Documents from several sources."""

    kind: Literal["several"] = Field(default="several", description="Documents from several sources.")
    sources: Annotated[dict[str, DocumentSource], AfterValidator(_named)] = Field(
        description=_NAMED.format("documents"), examples=[_EXAMPLE]
    )


Several = Images | Text | Pairs | Documents


class Corpora(Section):
    """What the model looks at and reads; at least one of images, text, pairs and documents."""

    images: Annotated[ImageFolder | ImageParquet | ImageTar | Images, Field(discriminator="kind")] | None = Field(
        default=None, description="Images, with labels where there are any."
    )
    text: Annotated[TextFiles | Text, Field(discriminator="kind")] | None = Field(
        default=None, description="Texts without images."
    )
    pairs: Annotated[PairFiles | PairTar | Pairs, Field(discriminator="kind")] | None = Field(
        default=None, description="Images with a caption each."
    )
    documents: Annotated[DocumentFiles | Documents, Field(discriminator="kind")] | None = Field(
        default=None, description="Texts with images in them, one or several each."
    )
    splits: Splits = Field(default=Splits(val=0.1, test=0.1), description="Shares held out, fixed by a hash of each sample.")

    @model_serializer(mode="wrap")
    def _without_documents(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # The digests of recipes without documents are those that they had before there were any.
        return {name: value for name, value in dump(self).items() if (name, value) != ("documents", None)}

    @model_validator(mode="before")
    @classmethod
    def _say_the_kinds(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return values | {c: _with_kinds(values[c], kind) for c, kind in _DEFAULT_KIND.items() if c in values}

    @model_validator(mode="after")
    def _need_one(self) -> "Corpora":
        if not self.sources:
            raise ValueError("no corpus: give at least one of images, text, pairs and documents")
        return self

    @property
    def sources(self) -> dict[str, Source]:
        """Every source that is given, in a fixed order, by the word that its ids begin with.

        That is the corpus (`text`) where it is the only source, or has this name among several; else corpus and name
        (`text.wiki`). No id of one source therefore begins as those of another do.
        """
        return {key: one for corpus in _DEFAULT_KIND for key, one in _keyed(corpus, getattr(self, corpus))}

    def with_sources(self, changed: Mapping[str, Source]) -> "Corpora":
        """The same corpora with some sources in the place of those of the same key."""
        update: dict[str, Any] = {}
        for corpus in _DEFAULT_KIND:
            given = getattr(self, corpus)
            if isinstance(given, Several):
                own = {name: changed.get(_key(corpus, name), one) for name, one in given.sources.items()}
                update[corpus] = given.model_copy(update={"sources": own})
            elif corpus in changed:
                update[corpus] = changed[corpus]
        return self.model_copy(update=update)


def corpus_of(key: str) -> str:
    """The corpus of a source: images, text, pairs or documents.

    >>> corpus_of("text.wiki"), corpus_of("pairs")
    ('text', 'pairs')
    """
    return key.partition(".")[0]


def field_of(key: str) -> str:
    """The recipe's field that a source stands in.

    >>> field_of("text.wiki"), field_of("pairs")
    ('corpora.text.sources.wiki', 'corpora.pairs')
    """
    corpus, _, name = key.partition(".")
    return f"corpora.{corpus}.sources.{name}" if name else f"corpora.{corpus}"


def _keyed(corpus: str, given: Source | Several | None) -> list[tuple[str, Source]]:
    if isinstance(given, Several):
        return sorted(((_key(corpus, name), one) for name, one in given.sources.items()), key=lambda one: one[0])
    return [] if given is None else [(corpus, given)]


def _key(corpus: str, name: str) -> str:
    return corpus if name == corpus else f"{corpus}.{name}"


def _with_kinds(value: Any, default: str) -> Any:
    """A corpus whose sources say their kind, the default one where the recipe does not."""
    if not isinstance(value, dict):
        return value
    named = value.get("sources")
    if named is None:
        return {"kind": default, **value}
    own = {name: _with_kinds(one, default) for name, one in named.items()} if isinstance(named, dict) else named
    return {"kind": "several", **value, "sources": own}
