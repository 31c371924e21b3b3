"""The judge that a recipe asks for."""

from collections.abc import Sequence

from linrep.places import Place, place
from linrep.steer.config import Chat, Exact, Forced, Human, Judge, Words
from linrep.steer.judges.chat import ChatJudge
from linrep.steer.judges.human import People
from linrep.steer.judges.readers import Rules, by_choice, by_parser, by_words
from linrep.steer.judges.verdict import JobJudge


def make_judge(config: Judge, replies: Place, classes: Sequence[str]) -> JobJudge:
    """The judge, not asked anything yet.

    Args:
        config: Which.
        replies: Folder where a server's replies are kept.
        classes: All classes with directions, where a sheet's distractors come from.
    """
    match config:
        case Words():
            return Rules(by_words)
        case Exact():
            return Rules(by_parser)
        case Forced():
            return Rules(by_choice)
        case Chat():
            return ChatJudge(config, replies)
        case Human():
            return People(config, place(config.sheet), classes)
