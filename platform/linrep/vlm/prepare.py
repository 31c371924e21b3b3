"""Samples to what the model takes: tiles, token ids, and the role of each position. Needs a CPU and the model's small files."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from linrep.sample import Sample, Skipped
from linrep.vlm.card import ModelCard, describe
from linrep.vlm.config import IMAGE, PLACEHOLDERS, TEXT, ModelConfig, Turn, check_prompt
from linrep.vlm.families import family_of
from linrep.vlm.family import Tiles
from linrep.vlm.files import locate
from linrep.vlm.image import BadImage, decode
from linrep.vlm.passage import Passage
from linrep.vlm.prepared import Marks, Prepared, Role, without_image
from linrep.vlm.processor import Processor, check_processor, load_processor
from linrep.vlm.prompts import doubled_start, follow
from linrep.vlm.tokens import Layout, one_after_the_other
from linrep.vlm.turns import Script, Scripts


class Preparer:
    """Turns a sample into a `Prepared`, or into a `Skipped` that says why not. Picklable; never raises for a bad sample.

    Token ids equal those that the official processor gives for the same text and image, and tiles those that its Pillow
    version cuts. Image positions are never cut: a sequence beyond the model's longest is skipped.

    Args:
        processor: The model's, with a fast tokenizer.
        card: Of the same model.
        image_prompt: For images; holds `<image>` once. None: the chat's, or the image alone.
        pair_prompt: For images with a caption; holds `<image>` and `{text}` once each. None: the chat's, or the two alone.
        text_prompt: For texts; holds `{text}` once. None: the chat's, or the text alone.
        chat: Turns that the model's own template puts into a prompt; then it is known where each turn lies.
        image_size: Squash every image to this height and width first, as the paper does with (336, 336); None keeps its own.
        max_text_tokens: A longer text is cut there, at the end of a token; the prepared sample's `text` is what is left. Of a
            document its own text counts, and images behind the cut are left out.

    Attributes:
        decoding: Entered while an image is decoded: who measures time puts a clock here.

    Raises:
        ModelError: The processor and the model disagree, or the model has no template for the chat.
        ValueError: A prompt lacks its placeholder or begins with two start tokens, or a number is out of range.
    """

    def __init__(
        self,
        processor: Processor,
        card: ModelCard,
        *,
        image_prompt: str | None = None,
        pair_prompt: str | None = None,
        text_prompt: str | None = None,
        chat: Sequence[Turn] | None = None,
        image_size: tuple[int, int] | None = None,
        max_text_tokens: int = 512,
    ) -> None:
        given = {"image": image_prompt, "pair": pair_prompt, "text": text_prompt}
        usual = follow(IMAGE)._asdict()
        for name, prompt in given.items():
            try:
                check_prompt(usual[name] if prompt is None else prompt, *(one for one in PLACEHOLDERS if one in usual[name]))
            except ValueError as error:
                raise ValueError(f"{name}_prompt {error}") from None
        if image_size is not None and min(image_size) < 1:
            raise ValueError(f"image_size must be a positive height and width, got {image_size}")
        if max_text_tokens < 1:
            raise ValueError(f"max_text_tokens must be at least 1, got {max_text_tokens}")
        check_processor(processor, card)
        self.card, self.family = card, family_of(card.family)
        self.tokenizer, self.images = processor.tokenizer, processor.image_processor
        self.image_token = str(self.tokenizer.convert_ids_to_tokens(card.image_token_id))
        self.image_size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
        self.max_text_tokens = max_text_tokens
        made = (Scripts.of(Script(IMAGE)) if chat is None else processor.scripts(chat, card))._asdict()
        self.scripts: dict[str, Script] = {}
        for name, prompt in given.items():
            own = made[name] if prompt is None or prompt == made[name].prompt else Script(prompt)
            self.scripts[name] = replace(own, prompt=self.family.dress(own.prompt, IMAGE, self.tokenizer))
        example = self.family.spelling(None, self.image_token, self.tokenizer)
        for name, script in self.scripts.items():
            why = doubled_start(self.tokenizer, script.prompt.replace(IMAGE, example))
            if why is not None:
                raise ValueError(f"{name}_prompt {why}")
        self._bare: dict[str, _Encoded] = {}
        self.decoding: Callable[[], AbstractContextManager[None]] = nullcontext

    @classmethod
    def from_path(cls, config: ModelConfig, **options: Any) -> "Preparer":
        """A preparer from a model's small files; takes the keyword options of the class.

        Raises:
            ModelError: As `describe`, or the processor cannot be loaded.
        """
        return cls(load_processor(locate(config)[0]), describe(config), **options)

    def __call__(self, sample: Sample) -> Prepared | Skipped:
        """The sequence of a sample, or why there is none.

        A sample of modality image uses its image alone, text its text alone, pair both. A document stands where a text does.
        """
        try:
            return self._prepare(sample)
        except (BadImage, _Unfit) as reason:
            return Skipped(without_image(sample), str(reason))

    def _prepare(self, sample: Sample) -> Prepared:
        text = sample.text
        if sample.modality != "image" and (not text or not text.strip()):
            raise _Unfit("empty text")
        if sample.modality == "document":
            return self._document(sample)
        if sample.modality == "text":
            text, encoded = self._cut_text(text or "", lambda seen: self._encode("text", Passage.of(seen), ""))
            return self._fit(replace(sample, image=None, text=text), encoded, (), ())
        if sample.image is None:
            raise _Unfit("no image bytes")
        image = self._opened(sample.image)
        plan = self._layout(image, among=False)
        spelled = self.family.spelling(plan, self.image_token, self.tokenizer)
        if sample.modality == "pair":
            text, encoded = self._cut_text(text or "", lambda seen: self._encode("pair", Passage.of(seen), spelled))
        else:
            encoded = self._image_alone(spelled)
        return self._fit(replace(sample, image=None, text=text), encoded, (image,), (plan,))

    def _document(self, sample: Sample) -> Prepared:
        """A text with its images in their places. Images behind the place where it is cut are left out."""
        text, n = sample.text or "", len(sample.images)
        if not self.family.interleaved:
            raise _Unfit(f"{self.family.title} takes one image before all text, and no document")
        if not n or text.count(IMAGE) != n:
            raise _Unfit(
                f"the text has other places than images: {text.count(IMAGE)} and {n}" if n else "the document shows no image"
            )
        images = []
        for i, data in enumerate(sample.images):
            try:
                images.append(self._opened(data))
            except BadImage as reason:
                raise _Unfit(f"image {i + 1} of {n}: {reason}") from None

        def plans(seen: str) -> list[Layout]:
            shown = seen.count(IMAGE)
            return [self._layout(image, among=shown > 1) for image in images[:shown]]

        def encode(seen: str) -> _Encoded:
            spelled = [self.family.spelling(plan, self.image_token, self.tokenizer) for plan in plans(seen)]
            return self._encode("text", Passage.showing(seen, spelled), "")

        seen, encoded = self._cut_text(text, encode)
        shown = plans(seen)
        if not shown:
            raise _Unfit(f"no image is shown within the first {self.max_text_tokens} tokens of the document's text")
        return self._fit(replace(sample, images=(), text=seen), encoded, images[: len(shown)], shown)

    def _opened(self, data: bytes) -> Image.Image:
        with self.decoding():
            image = decode(data)
        if self.image_size is None:
            return image
        return image.resize((self.image_size[1], self.image_size[0]), Image.Resampling(int(self.images.resample)))

    def _layout(self, image: Image.Image, among: bool) -> Layout:
        lay_out = self.family.layout_among if among else self.family.layout
        try:
            return lay_out((image.height, image.width), self.card.vision)
        except ValueError as reason:
            raise _Unfit(str(reason)) from None

    def _image_alone(self, spelled: str) -> "_Encoded":
        """The prompt of an image without a text: few there are, as images of many sizes are spelled alike."""
        if spelled not in self._bare:
            if len(self._bare) > 4096:
                self._bare.clear()
            self._bare[spelled] = self._encode("image", Passage.of(""), spelled)
        return self._bare[spelled]

    def _fit(self, sample: Sample, encoded: "_Encoded", images: Sequence[Image.Image], plans: Sequence[Layout]) -> Prepared:
        """Put the maps of the images' positions in the places of their placeholders, a run of them in each."""
        nowhere = np.full(len(encoded.ids), -1, np.int16)
        if not plans:
            if encoded.images_at:
                raise _Unfit(f"the text holds the image placeholder {self.image_token!r}")
            self._check_length(len(encoded.ids))
            return Prepared(sample, encoded.ids, encoded.role, nowhere, nowhere, nowhere, nowhere, marks=encoded.marks)
        runs = tuple(n for plan in plans for n in plan.runs)
        if len(encoded.images_at) != len(runs):
            raise _Unfit(f"the text holds the image placeholder {self.image_token!r}")
        self._check_length(len(encoded.ids) - len(runs) + sum(runs))
        tiles = [self._cut(image, plan) for image, plan in zip(images, plans, strict=True)]
        found = plans[0].map if len(plans) == 1 else one_after_the_other([plan.map for plan in plans])
        of_image = np.repeat(np.arange(len(plans), dtype=np.int16), [plan.n_tokens for plan in plans])
        sizes = [self.family.sizes(plan) for plan in plans]
        starts = np.cumsum((0, *runs))

        def spliced(around: np.ndarray, inside: np.ndarray) -> np.ndarray:
            parts, last = [], 0
            for at, start, end in zip(encoded.images_at, starts, starts[1:], strict=False):
                parts += [around[last:at], inside[start:end]]
                last = at + 1
            return np.concatenate([*parts, around[last:]])

        return Prepared(
            sample=sample,
            input_ids=spliced(encoded.ids, np.full(len(of_image), self.card.image_token_id, np.int32)),
            role=spliced(encoded.role, found.role),
            tile=spliced(nowhere, found.tile),
            row=spliced(nowhere, found.row),
            col=spliced(nowhere, found.col),
            image=spliced(nowhere, of_image),
            pixels=tiles[0] if len(tiles) == 1 else np.concatenate(tiles),
            sizes={name: [own[name] for own in sizes] for name in sizes[0]},
            image_sizes=tuple(plan.image_size for plan in plans),
            grids=tuple(plan.grid for plan in plans),
            marks=None if encoded.marks is None else encoded.marks.moved(dict(zip(encoded.images_at, runs, strict=True))),
        )

    def _cut(self, image: Image.Image, plan: Layout) -> Tiles:
        tiles = self.family.cut(image, plan, self.images)
        if len(tiles) != plan.tiles:
            raise _Unfit(f"the processor cuts it into {len(tiles)} tiles, the family's layout has {plan.tiles}")
        return tiles

    def _check_length(self, n: int) -> None:
        if n > self.card.max_positions:
            raise _Unfit(f"sequence of {n} positions is beyond the model's {self.card.max_positions}")

    def _cut_text(self, text: str, encode: "Callable[[str], _Encoded]") -> tuple[str, "_Encoded"]:
        """As much of a text as fits, and its encoding; cut texts are encoded again, as tokens at the cut may differ."""
        whole = encoded = encode(text)
        seen, n = text, self.max_text_tokens
        while encoded.n_text > self.max_text_tokens:
            seen = text[: whole.text_ends[n - 1]] if n else ""
            if not seen.strip():
                raise _Unfit(f"no text left within {self.max_text_tokens} tokens")
            encoded = encode(seen)
            n -= 1
        return seen, encoded

    def _encode(self, name: str, passage: Passage, spelled: str) -> "_Encoded":
        """Token ids of a filled prompt with a placeholder for each run of image positions, and which of them hold the text."""
        script = self.scripts[name].put({IMAGE: spelled})
        before = script.prompt.partition(TEXT)[0]
        script = script.put({TEXT: passage.written})
        full = script.prompt
        out = self.tokenizer(full, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
        ids = np.asarray(out["input_ids"], np.int32)
        spans = np.asarray(out["offset_mapping"], np.int64).reshape(-1, 2)
        of_text, text_ends = passage.own(spans - len(before))
        (images,) = np.nonzero(ids == self.card.image_token_id)
        return _Encoded(
            ids=ids,
            role=np.where(of_text, Role.TEXT, Role.TEMPLATE).astype(np.uint8),
            images_at=tuple(images.tolist()),
            text_ends=text_ends,
            marks=_marks(script, spans),
        )


def _marks(script: Script, spans: Int64[np.ndarray, "t 2"]) -> Marks | None:
    """The tokens of a script, of which the tokenizer says which characters each one holds."""
    if not script.turns:
        return None
    begins, ends = spans.T
    held = np.flatnonzero(ends > begins)  # a start token holds none

    def first(char: int) -> int:
        return int(held[np.argmax(ends[held] > char)])

    def last(end: int) -> int:
        return int(held[np.flatnonzero(begins[held] < end)[-1]])

    turns = tuple((first(a), last(b)) for a, b in script.turns)
    return Marks(turns, script.question, None if script.answer is None else first(script.answer))


class _Encoded(NamedTuple):
    ids: Int32[np.ndarray, " t"]
    role: UInt8[np.ndarray, " t"]
    images_at: tuple[int, ...]
    text_ends: Int64[np.ndarray, " n"]
    marks: Marks | None

    @property
    def n_text(self) -> int:
        return len(self.text_ends)


class _Unfit(ValueError):
    """Why a sample is skipped."""
