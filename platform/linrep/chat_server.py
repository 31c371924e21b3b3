"""Where a chat model answers: a part of the sections that can ask one. `linrep.chat` is its client."""

from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from linrep.config import Section


class ChatServer(Section):
    """Where a chat model answers; its key is read from an environment variable, never from the recipe."""

    url: str = Field(
        description="Address up to and without /chat/completions, for example http://localhost:8000/v1.",
        examples=["http://localhost:8000/v1"],
    )
    model: str = Field(description="Name of the model.")
    key_variable: str = Field(default="OPENAI_API_KEY", description="Environment variable that holds the key; unset for none.")
    proxy_variable: str | None = Field(
        default=None, description="Environment variable with the address of a proxy to go through (HTTPS_PROXY); null for none."
    )
    timeout: PositiveFloat = Field(default=60, description="Seconds that one request may take, to the last byte of the reply.")
    tries: PositiveInt = Field(default=5, description="Times that a request is made before its answer goes without a verdict.")
    parallel: PositiveInt = Field(default=8, description="Requests at once.")
    price: tuple[float, float] = Field(default=(0.0, 0.0), description="Cost of a million prompt and completion tokens.")

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            raise ValueError(f"is no address: {url!r}") from None
        if not good or parts.query or parts.fragment:
            raise ValueError(f"must be http(s)://host[:port]/path and no more, got {url!r}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a name or password: put the key into the environment variable that key_variable names")
        return url
