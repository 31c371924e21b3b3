"""What to steer, how strongly, what to ask, and who judges the answers: the `steer` section of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from linrep.chat_server import ChatServer
from linrep.config import Section
from linrep.named_sae import NamedSae

INTERCHANGE = "interchange"
"""The edit that gives the last token another run's stream."""
TOKENS = ("other_tokens", "shuffled_tokens")
"""Controls of knock-outs: as many other patches, or the same tokens in another order."""
SAME_CLASS = "same_class"
DONORS = ("image", "text", "text_centred", SAME_CLASS)
"""Whose stream the last token is given: another image's or a text's of the target class, the latter also with the images'
mean for the texts'; and another image's of the source class, the control."""
CONTROLS = (
    "random",
    "orthogonal",
    "unembedding",
    "shuffled_mean",
    "text_shuffled_mean",
    "text_rest",
    "covariance",
    SAME_CLASS,
    *TOKENS,
)
"""Directions and subspaces that should do less, and tokens or donors that should matter less."""
MADE_HERE = ("random", "orthogonal", "unembedding", "sae_latent", "sae_sparse", "text_matched", "text_rest")
"""Directions that are not among the probes'."""
MATCHED = "text_matched", "text_rest"
"""Made of the class means of both modalities: the texts' direction at matched dose, and its part across the images'."""


def one_image(prompt: str) -> str:
    """The prompt, if it has a place for one image."""
    if prompt.count("<image>") != 1:
        raise ValueError(f"must contain <image> once, got {prompt!r}")
    return prompt


Fraction = Annotated[float, Field(ge=0, le=1)]


class ImageTokens(Section):
    """All positions of the image, its newlines included."""

    kind: Literal["image"] = Field(default="image", description="All image tokens.")


class Patches(Section):
    """The patches whose centre lies in a box of the image, in the base view and in the crops alike."""

    kind: Literal["patches"] = Field(default="patches", description="Patches inside a box of the image.")
    box: tuple[Fraction, Fraction, Fraction, Fraction] = Field(
        description="Left, top, right and bottom as fractions of the image's width and height."
    )

    @model_validator(mode="after")
    def _has_an_inside(self) -> "Patches":
        left, top, right, bottom = self.box
        if left >= right or top >= bottom:
            raise ValueError(f"the box must have left < right and top < bottom, got {list(self.box)}")
        return self


class LastToken(Section):
    """The last position of the prompt: where the answer, or the sample's text, is about to begin."""

    kind: Literal["last"] = Field(default="last", description="The last token of the prompt.")


class Everywhere(Section):
    """All positions, start token and template included, and everything that is generated."""

    kind: Literal["everywhere"] = Field(default="everywhere", description="All positions, generated ones included.")


Site = Annotated[ImageTokens | Patches | LastToken | Everywhere, Field(discriminator="kind")]


class Dose(Section):
    """How strongly directions are added."""

    strengths: tuple[PositiveFloat, ...] = Field(
        default=(0.25, 0.5, 1.0), description="Strengths of the dose-response, rising; the unedited run is always there."
    )
    relative: bool = Field(
        default=True,
        description="In units of each token's own norm; else of the mean difference of the pair, to whose norm all directions "
        "are brought.",
    )

    @field_validator("strengths")
    @classmethod
    def _rising(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if not strengths or list(strengths) != sorted(set(strengths)):
            raise ValueError(f"must rise without repeats, got {list(strengths)}")
        return strengths


class Erase(Section):
    """Which subspaces the edit erase takes out of the stream."""

    subspaces: tuple[str, ...] = Field(
        default=("class_mean", "text_class_mean", "leace", "random", "covariance"),
        description="class_mean, leace, inlp (text_ before one: of texts' tokens), and the controls random and covariance.",
    )
    ranks: tuple[PositiveInt, ...] | None = Field(
        default=None, description="Numbers of dimensions to erase; null: as many as class means span, the classes less one."
    )

    @field_validator("subspaces")
    @classmethod
    def _known(cls, subspaces: tuple[str, ...]) -> tuple[str, ...]:
        there = [f"{modality}{name}" for modality in ("", "text_") for name in ("class_mean", "leace", "inlp")]
        wrong = [name for name in subspaces if name not in (*there, "random", "covariance")]
        if wrong or not subspaces or len(set(subspaces)) < len(subspaces):
            raise ValueError(f"must name some of {', '.join((*there, 'random', 'covariance'))}, each once, got {list(subspaces)}")
        return subspaces

    @field_validator("ranks")
    @classmethod
    def _rising(cls, ranks: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ranks is not None and (not ranks or list(ranks) != sorted(set(ranks))):
            raise ValueError(f"must rise without repeats, got {list(ranks)}")
        return ranks


class Question(Section):
    """A question about the image."""

    prompt: str = Field(description="The whole prompt; holds <image> once.")
    about: str = Field(default="class", description="What it asks for: class, or another attribute that the edit should keep.")

    @field_validator("prompt")
    @classmethod
    def _has_image(cls, prompt: str) -> str:
        return one_image(prompt)


class Asking(Section):
    """What the model is asked under every edit."""

    questions: tuple[Question, ...] = Field(
        default=(Question(prompt="[INST] <image>\nWhat is shown in this image? [/INST]"),),
        description="Free questions, answered greedily.",
    )
    choice: str = Field(
        default="[INST] <image>\nIs this a {first} or a {second}? Answer with one word. [/INST]",
        description="Prompt of the forced choice; {first} and {second}, if it holds them, are the two names in a drawn order.",
    )
    answer: str = Field(default=" {name}", description="How a name continues that prompt.")
    max_new_tokens: PositiveInt = Field(default=20, description="Tokens of a free answer, at most.")

    @field_validator("choice")
    @classmethod
    def _has_image(cls, prompt: str) -> str:
        if ("{first}" in prompt) != ("{second}" in prompt):
            raise ValueError(f"must hold both {{first}} and {{second}}, or neither, got {prompt!r}")
        return one_image(prompt)

    @field_validator("answer")
    @classmethod
    def _has_name(cls, answer: str) -> str:
        if answer.count("{name}") != 1:
            raise ValueError(f"must hold {{name}} once, got {answer!r}")
        return answer

    @model_validator(mode="after")
    def _asks_for_the_class(self) -> "Asking":
        if not any(question.about == "class" for question in self.questions):
            raise ValueError("no question is about the class: at least one must be")
        return self


class Damage(Section):
    """Held-out texts whose likelihood under the edit says what else it breaks."""

    texts: NonNegativeInt = Field(default=4, description="Texts for each pair; 0 measures no damage.")
    candidates: PositiveInt = Field(
        default=1, description="Texts drawn for each one kept: the likeliest without an edit, worded as the model has learnt."
    )
    prompt: str = Field(default="<image>\n", description="What comes before the text; holds <image> once.")
    matched: PositiveFloat = Field(default=0.1, description="Damage in nats a token at which efficacies are compared.")

    @field_validator("prompt")
    @classmethod
    def _has_image(cls, prompt: str) -> str:
        return one_image(prompt)


class Words(Section):
    """Looks for the two names in the answer; coherence is the share of word triples that are no repeats."""

    kind: Literal["words"] = Field(default="words", description="The names, as whole words.")


class Exact(Section):
    """Reads the embedded world's sentences exactly, colours and grounds too."""

    kind: Literal["exact"] = Field(default="exact", description="The embedded world's own parser.")


class Forced(Section):
    """Scores by the probability of the target in the forced choice; does not read the answer."""

    kind: Literal["forced"] = Field(default="forced", description="The forced choice's probability.")


class Chat(ChatServer):
    """Asks an OpenAI-compatible chat server."""

    kind: Literal["chat"] = Field(default="chat", description="A chat model behind an OpenAI-compatible server.")


class Human(Section):
    """Writes a shuffled sheet of four-way choices to be filled in, and reads it when it comes back."""

    kind: Literal["human"] = Field(default="human", description="A sheet for people.")
    sheet: str = Field(description="The CSV file: written where it is missing, read where it is.")
    max_answers: PositiveInt = Field(default=400, description="Answers on the sheet, drawn by a hash.")


Judge = Annotated[Words | Exact | Forced | Chat | Human, Field(discriminator="kind")]


class SteerSae(NamedSae):
    """An SAE whose latents steer at its layer, too: directions sae_latent and sae_sparse, edit clamp."""

    k: PositiveInt = Field(default=20, description="Latents of the sparse reconstruction of a direction.")


class SteerConfig(Section):
    """A plan of cells: pairs x samples x sites x layers x directions x strengths. Only `judge` and `insist` decide no run."""

    pairs: tuple[tuple[str, str], ...] | PositiveInt | None = Field(
        default=None,
        description="Ordered pairs of class names, source and target; or how many to draw: every class is once a source and once "
        "a target before any is again; null: 24, or all where the classes have fewer.",
        examples=[24],
    )
    images: PositiveInt = Field(default=8, description="Held-out images of the source class for each pair.")
    sites: tuple[Site, ...] = Field(
        default=(ImageTokens(), LastToken()), description="Where edits act: image, patches, last, everywhere."
    )
    layers: tuple[NonNegativeInt, ...] | Literal["all"] = Field(
        default="all", description="Layers k at which edits act, one at a time; all: those that the probes have."
    )
    max_layers: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Most layers to take: evenly spread, the first and the last among them."
    )
    directions: tuple[str, ...] = Field(
        default=("class_mean", "ridge", "ridge_pattern", "random", "shuffled_mean"),
        description="Directions to add: kinds of the probes' (text_ before one: as found in texts), or random, orthogonal, "
        "unembedding, sae_latent, sae_sparse; text_matched (the texts' direction with as much of the images' as class_mean has), "
        "text_rest (what it has beside that).",
    )
    edits: tuple[Literal["ablate", "swap", "clamp", "zero", "mean", "interchange", "erase"], ...] = Field(
        default=("zero", "mean"),
        description="Further edits: class direction ablated, classes swapped, latent clamped, tokens set to zero or their mean, "
        "the last token's stream taken from another image or a text, class subspaces erased; each with its control.",
    )
    erase: Erase = Field(default=Erase(), description="What the edit erase takes out.")
    dose: Dose = Field(default=Dose(), description="Strengths of the additions.")
    edit_high_norm: bool = Field(
        default=False, description="Edit attention sinks too: positions whose norm is above the harvest's limit."
    )
    ask: Asking = Field(default=Asking(), description="What the model is asked.")
    damage: Damage = Field(default=Damage(), description="What else the edits break.")
    judge: Judge = Field(default=Words(), description="Who reads the answers; another one judges the same runs again.")
    sae: SteerSae | None = Field(default=None, description="An SAE of latents to steer with.")
    probes: str | None = Field(default=None, description="File of directions; null: those of this recipe's probe job.")
    insist: bool = Field(
        default=False, description="Run though no unedited answer can be read by the judge, or names of classes are no words."
    )
    chunk_size: PositiveInt = Field(default=512, description="Cells per chunk: the unit of work, retry and commit.")
    seed: int = Field(default=0, description="Seed of the pairs, the samples and the random directions.")

    @field_validator("directions")
    @classmethod
    def _distinct(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"a direction stands twice: {', '.join(kinds)}")
        return kinds

    @field_validator("sites")
    @classmethod
    def _one_of_each(cls, sites: tuple[Site, ...]) -> tuple[Site, ...]:
        kinds = [site.kind for site in sites]
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError(f"must name sites, each kind once, got {kinds}")
        return sites

    @field_validator("layers")
    @classmethod
    def _rising(cls, layers: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if isinstance(layers, tuple) and (not layers or list(layers) != sorted(set(layers))):
            raise ValueError(f"must rise without repeats, got {list(layers)}")
        return layers

    @field_validator("pairs", mode="before")
    @classmethod
    def _a_number(cls, pairs: object) -> object:
        """The command line takes a lone number for a list of one."""
        if isinstance(pairs, list) and len(pairs) == 1 and str(pairs[0]).isdigit():
            return int(pairs[0])
        return pairs

    @field_validator("pairs")
    @classmethod
    def _different(cls, pairs: tuple[tuple[str, str], ...] | int | None) -> tuple[tuple[str, str], ...] | int | None:
        if isinstance(pairs, tuple):
            if not pairs or len(set(pairs)) < len(pairs):
                raise ValueError("must name pairs, each once, or say how many to draw")
            same = [source for source, target in pairs if source == target]
            if same:
                raise ValueError(f"a pair needs two classes, got {same[0]!r} twice")
        return pairs

    @model_validator(mode="after")
    def _has_its_sae(self) -> "SteerConfig":
        wanting = {*self.directions, *self.edits} & {"sae_latent", "sae_sparse", "clamp"}
        if wanting and self.sae is None:
            raise ValueError(f"{sorted(wanting)[0]} needs an SAE: set steer.sae.sae and steer.sae.layer")
        return self

    @model_validator(mode="after")
    def _has_a_last_token(self) -> "SteerConfig":
        if INTERCHANGE in self.edits and not any(site.kind == "last" for site in self.sites):
            raise ValueError(f"{INTERCHANGE} acts at the last token: name the site last in steer.sites")
        return self
