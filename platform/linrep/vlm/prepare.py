"""Samples to what the model takes: tiles, token ids, and the role of each position. Needs a CPU and the model's small files."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from linrep.sample import Sample, Skipped
from linrep.vlm.card import ModelCard, describe
from linrep.vlm.config import IMAGE, PLACEHOLDERS, TEXT, ModelConfig, Turn, check_prompt
from linrep.vlm.families import family_of
from linrep.vlm.files import locate
from linrep.vlm.image import BadImage, decode
from linrep.vlm.prepared import Marks, Prepared, Role, without_image
from linrep.vlm.processor import Processor, check_processor, load_processor
from linrep.vlm.prompts import doubled_start, follow
from linrep.vlm.tokens import Layout
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
        max_text_tokens: A longer text is cut there, at the end of a token; the prepared sample's `text` is what is left.

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

    @classmethod
    def from_path(cls, config: ModelConfig, **options: Any) -> "Preparer":
        """A preparer from a model's small files; takes the keyword options of the class.

        Raises:
            ModelError: As `describe`, or the processor cannot be loaded.
        """
        return cls(load_processor(locate(config)[0]), describe(config), **options)

    def __call__(self, sample: Sample) -> Prepared | Skipped:
        """The sequence of a sample, or why there is none.

        A sample of modality image uses its image alone, text its text alone, pair both.
        """
        try:
            return self._prepare(sample)
        except (BadImage, _Unfit) as reason:
            return Skipped(without_image(sample), str(reason))

    def _prepare(self, sample: Sample) -> Prepared:
        text = sample.text
        if sample.modality != "image" and (not text or not text.strip()):
            raise _Unfit("empty text")
        if sample.modality == "text":
            text, encoded = self._cut_text("text", text or "", "")
            return self._fit(replace(sample, image=None, text=text), encoded, None, None)
        if sample.image is None:
            raise _Unfit("no image bytes")
        image = decode(sample.image)
        if self.image_size is not None:
            image = image.resize((self.image_size[1], self.image_size[0]), Image.Resampling(int(self.images.resample)))
        try:
            plan = self.family.layout((image.height, image.width), self.card.vision)
        except ValueError as reason:
            raise _Unfit(str(reason)) from None
        spelled = self.family.spelling(plan, self.image_token, self.tokenizer)
        if sample.modality == "pair":
            text, encoded = self._cut_text("pair", text or "", spelled)
        else:
            encoded = self._image_alone(spelled)
        self._check_length(len(encoded.ids) - len(plan.runs) + plan.n_tokens)
        return self._fit(replace(sample, image=None, text=text), encoded, plan, self.family.cut(image, plan, self.images))

    def _image_alone(self, spelled: str) -> "_Encoded":
        """The prompt of an image without a text: few there are, as images of many sizes are spelled alike."""
        if spelled not in self._bare:
            if len(self._bare) > 4096:
                self._bare.clear()
            self._bare[spelled] = self._encode("image", "", spelled)
        return self._bare[spelled]

    def _fit(self, sample: Sample, encoded: "_Encoded", plan: Layout | None, pixels: Any) -> Prepared:
        """Put the map of the image's positions in the places of its placeholders, a run of them in each."""
        nowhere = np.full(len(encoded.ids), -1, np.int16)
        if plan is None:
            self._check_length(len(encoded.ids))
            return Prepared(sample, encoded.ids, encoded.role, nowhere, nowhere, nowhere, marks=encoded.marks)
        if len(encoded.images_at) != len(plan.runs):
            raise _Unfit(f"the text holds the image placeholder {self.image_token!r}")
        if len(pixels) != plan.tiles:
            raise _Unfit(f"the processor cuts it into {len(pixels)} tiles, the family's layout has {plan.tiles}")
        found, starts = plan.map, np.cumsum((0, *plan.runs))

        def spliced(around: np.ndarray, inside: np.ndarray) -> np.ndarray:
            parts, last = [], 0
            for at, start, end in zip(encoded.images_at, starts, starts[1:], strict=False):
                parts += [around[last:at], inside[start:end]]
                last = at + 1
            return np.concatenate([*parts, around[last:]])

        return Prepared(
            sample=sample,
            input_ids=spliced(encoded.ids, np.full(plan.n_tokens, self.card.image_token_id, np.int32)),
            role=spliced(encoded.role, found.role),
            tile=spliced(nowhere, found.tile),
            row=spliced(nowhere, found.row),
            col=spliced(nowhere, found.col),
            pixels=pixels,
            sizes=self.family.sizes(plan),
            image_size=plan.image_size,
            grid=plan.grid,
            marks=None if encoded.marks is None else encoded.marks.moved(dict(zip(encoded.images_at, plan.runs, strict=True))),
        )

    def _check_length(self, n: int) -> None:
        if n > self.card.max_positions:
            raise _Unfit(f"sequence of {n} positions is beyond the model's {self.card.max_positions}")

    def _cut_text(self, modality: str, text: str, spelled: str) -> tuple[str, "_Encoded"]:
        """As much of a text as fits, and its encoding; cut texts are encoded again, as tokens at the cut may differ."""
        whole = encoded = self._encode(modality, text, spelled)
        seen, n = text, self.max_text_tokens
        while encoded.n_text > self.max_text_tokens:
            seen = text[: whole.text_ends[n - 1]] if n else ""
            if not seen.strip():
                raise _Unfit(f"no text left within {self.max_text_tokens} tokens")
            encoded = self._encode(modality, seen, spelled)
            n -= 1
        return seen, encoded

    def _encode(self, modality: str, text: str, spelled: str) -> "_Encoded":
        """Token ids of a filled prompt with a placeholder for each run of image positions, and which of them hold the text."""
        script = self.scripts[modality].put({IMAGE: spelled})
        before = script.prompt.partition(TEXT)[0]
        script = script.put({TEXT: text})
        full = script.prompt
        out = self.tokenizer(full, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
        ids = np.asarray(out["input_ids"], np.int32)
        spans = np.asarray(out["offset_mapping"], np.int64).reshape(-1, 2)
        start, end = len(before), len(before) + len(text)
        of_text = (spans[:, 0] < end) & (spans[:, 1] > start) & (spans[:, 1] > spans[:, 0])
        (inside,) = np.nonzero(of_text)
        if len(inside):  # one stretch: byte-level tokenizers give tokens of mere spaces within it an empty span
            of_text[inside[0] : inside[-1] + 1] = True
        (images,) = np.nonzero(ids == self.card.image_token_id)
        if modality == "text" and len(images):
            raise _Unfit(f"the text holds the image placeholder {self.image_token!r}")
        return _Encoded(
            ids=ids,
            role=np.where(of_text, Role.TEXT, Role.TEMPLATE).astype(np.uint8),
            images_at=tuple(images.tolist()),
            text_ends=np.maximum.accumulate(np.minimum(spans[of_text, 1], end) - start),
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
