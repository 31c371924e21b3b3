"""Backends that are asked in words and images: a chat server, or any function that answers a list of texts and images."""

from collections.abc import Sequence

from PIL import Image

from linrep.chat import ChatClient, Message, NoAnswer
from linrep.contents.stored import Contents
from linrep.errors import RecipeError, ServiceError
from linrep.interpret.backends import Effort, Said
from linrep.interpret.config import Chat
from linrep.interpret.images import data_url
from linrep.interpret.prompts import Part, explain_parts, judge_parts, read_explanation, read_judgement
from linrep.interpret.views import Evidence, Task, View
from linrep.places import Place
from linrep.store.layout import Modality

CHARACTERS_PER_TOKEN = 4
"""Of English text, for the estimate."""
EXPLANATION_TOKENS, ANSWER_TOKENS, REQUEST_TOKENS, ROOM = 40, 3, 200, 400
"""Completion of an explanation, and of one answer; instructions of a request; completion at most."""


class ChatBackend:
    """A model behind an OpenAI-compatible server; what it has answered once is not asked again, by whatever run.

    Args:
        config: Server, model, limits.
        contents: Images and texts.
        cache: Folder of kept replies.
        pause: Seconds before the second try, see `ChatClient`.
    """

    needs_images = True

    def __init__(self, config: Chat, contents: Contents, cache: Place, pause: float = 1.0) -> None:
        self._config, self._contents = config, contents
        self._client = ChatClient(config, cache, pause)
        self.source, self.parallel, self.batch = f"chat:{config.model}", config.parallel, config.batch

    def check(self) -> None:
        """Make sure that the server is there and lets us in."""
        self._client.check()

    def pay_for(self, chunk: str) -> None:
        """Name the chunk of work that is asked about from here on: what it paid for before it was cut off is its own."""
        self._client.payer = chunk

    def explain(self, evidence: Evidence) -> Said:
        """What the model says; an error where it never answers as asked."""
        messages = _messages(explain_parts(evidence, self._contents))
        found = self._client.ask(messages, read_explanation, max_tokens=ROOM)
        if isinstance(found, NoAnswer):
            self._leave_if_away(found)
            return Said(None, found.reason)
        return Said(found)

    def judge(self, task: Task, explanation: str, views: Sequence[View]) -> list[bool | None]:
        """The model's answers; none where it never answers as asked."""
        messages = _messages(judge_parts(task, explanation, views, self._contents))
        found = self._client.ask(messages, lambda said: read_judgement(said, len(views)), max_tokens=ROOM)
        if isinstance(found, NoAnswer):
            self._leave_if_away(found)
            return [None for _ in views]
        return list(found)

    def _leave_if_away(self, answer: NoAnswer) -> None:
        """A server that went away must not pass for one that knows no answer: the chunk is done again when it is back."""
        if answer.away:
            raise ServiceError(
                f"the server at {self._config.url} no longer answers ({answer.reason}): nothing is lost, "
                "run the same command again when it does"
            )

    def alike(self, one: str, other: str, modality: Modality) -> bool:
        """Whether both are the same sentence."""
        return one.strip().lower() == other.strip().lower()

    def refuse(self, explanation: str) -> str | None:
        """Any sentence will do."""
        return None

    def estimate(self, explained: Sequence[Evidence], asked: Sequence[Sequence[View]]) -> Effort:
        """Requests and tokens, by rules of thumb, if nothing were kept.

        Raises:
            RecipeError: It costs more than the budget.
        """
        shown = [(*evidence.active, *evidence.silent) for evidence in explained]
        calls = len(shown) + len(asked)
        prompt = REQUEST_TOKENS * calls + sum(self._tokens(view) for views in (*shown, *asked) for view in views)
        completion = EXPLANATION_TOKENS * len(shown) + ANSWER_TOKENS * sum(map(len, asked))
        cost = (prompt * self._config.price[0] + completion * self._config.price[1]) / 1e6
        if self._config.budget is not None and cost > self._config.budget:
            raise RecipeError(
                f"interpret would cost about {cost:,.2f} ({calls:,} calls), and interpret.backend.budget allows "
                f"{self._config.budget:,.2f}: ask less (interpret.latents, interpret.score) or raise it"
            )
        return Effort(calls, prompt, completion, cost)

    def _tokens(self, view: View) -> int:
        if view.modality == "image":
            return self._config.image_tokens
        return 5 + sum(map(len, self._contents.window(view.sample, view.centre).pieces)) // CHARACTERS_PER_TOKEN

    def spent(self) -> Effort:
        """As the server counted, what chunks paid for before they were cut off included."""
        usage = self._client.usage
        return Effort(usage.requests, usage.prompt_tokens, usage.completion_tokens, usage.cost, usage.cached, usage.uncounted)


def _messages(parts: Sequence[Part]) -> list[Message]:
    content = [
        {"type": "image_url", "image_url": {"url": data_url(part)}}
        if isinstance(part, Image.Image)
        else {"type": "text", "text": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]
