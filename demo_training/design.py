"""What is trained, and for how long: each committed model is one design, and one command trains them all."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Budget:
    """How long each stage trains; the committed weights come from these numbers, see `training.json` beside them.

    n_scenes: images to learn from; pair_share: share of them, and of the scenes in words, that show two objects; n_turns:
    most questions about one context; *_rate: peak learning rates; projector_only: first steps of the image stage, in which the
    decoder stays as it is; decoder_rate, blind_share, blind_blocks: see `fit_images`.
    """

    n_scenes: int = 16000
    pair_share: float = 0.0
    n_turns: int = 8
    text_steps: int = 1000
    text_batch: int = 12
    text_rate: float = 2e-3
    tower_epochs: int = 7
    tower_batch: int = 64
    tower_rate: float = 3e-3
    image_steps: int = 1500
    image_batch: int = 12
    image_rate: float = 2e-3
    projector_only: int = 150
    decoder_rate: float = 0.5
    blind_share: float = 0.7
    blind_blocks: int = 4


@dataclass(frozen=True)
class Design:
    """Shape of the model and contents of its lessons.

    n_blocks: blocks of the decoder; feature_layer: hidden state of the tower that the decoder gets. Negative: counted from the
    end, and the whole tower is kept. Positive: the tower's later blocks, which are then needed in training only, are dropped.
    facts: whether facts are asked, too, see `demo_training.facts`; interleaved: share of one-object contexts of the image stage
    in which a sentence about a second object follows; described_share: share of image batches in which words take the image's
    place.
    """

    n_blocks: int = 6
    feature_layer: int = -2
    facts: bool = False
    interleaved: float = 0.0
    described_share: float = 0.0
    budget: Budget = field(default_factory=Budget)


LOOKING = Design(
    n_blocks=8,
    feature_layer=2,
    facts=True,
    interleaved=0.5,
    described_share=0.3,
    budget=Budget(
        n_scenes=8000,
        pair_share=0.3,
        text_steps=700,
        tower_epochs=3,
        image_steps=2400,
        projector_only=0,
        decoder_rate=0.5,
        blind_share=0.0,
        blind_blocks=0,
    ),
)

DESIGNS = {"demo": Design(), "looking": LOOKING}
"""By the name that `--design` takes; each is the last part of its model's path, `demo://model` and `demo://looking`."""
