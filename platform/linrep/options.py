"""Options of the jobs that are no fields of a recipe: what they are called, what they mean, and which job has them."""

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from linrep.errors import RecipeError


class Options(BaseSettings):
    """What a command line may hold beside the recipe's fields; `job` names the one job that has an option."""

    model_config = SettingsConfigDict(cli_parse_none_str="null", cli_implicit_flags=True, cli_enforce_required=False)
    config: str | None = Field(
        default=None, description="The recipe, a YAML file. Without it: the one that the workspace remembers."
    )
    workspace: str = Field(default="runs", description="Folder or URI (s3://, gs://) of everything that is made. Default: runs.")
    reindex: bool = Field(default=False, description="Look at the corpora again: they changed since their index was built.")
    print_config: bool = Field(default=False, alias="print-config", description="Print the recipe with all overrides, and stop.")
    evaluate: str | None = Field(
        default=None, description="Only evaluate this SAE, in any format that is known.", json_schema_extra={"job": "train_sae"}
    )
    until: str | None = Field(default=None, description="The last stage to run.", json_schema_extra={"job": "reproduce"})
    only: str | None = Field(default=None, description="The one stage to run.", json_schema_extra={"job": "reproduce"})
    dry_run: bool = Field(
        default=False,
        alias="dry-run",
        description="Say what is there and what would run.",
        json_schema_extra={"job": "reproduce"},
    )
    gpus: str | None = Field(
        default=None, description="A table of GPUs in YAML; without it the package's.", json_schema_extra={"job": "plan"}
    )
    image: str | None = Field(default=None, description="The image to ask about, a file.", json_schema_extra={"job": "ask"})
    text: str | None = Field(
        default=None, description="What to ask; without it the recipe's question.", json_schema_extra={"job": "ask"}
    )
    latent: tuple[str, ...] = Field(
        default=(), description="A latent to set to a value; 309@4=4.0 says the layer.", json_schema_extra={"job": "ask"}
    )
    edit: tuple[str, ...] = Field(
        default=(), description="Classes to turn into each other, at a layer, by a strength.", json_schema_extra={"job": "ask"}
    )
    site: str = Field(
        default="image", description="Where edits act: image, last or everywhere.", json_schema_extra={"job": "ask"}
    )
    serve: bool = Field(
        default=False, description="Pages on this machine, until Ctrl-C.", json_schema_extra={"job": "ask explore"}
    )
    port: int = Field(default=8300, description="Port of these pages.", json_schema_extra={"job": "ask explore"})


VALUES = {"config": "RECIPE.yaml", "workspace": "DIR", "evaluate": "SAE", "until": "STAGE", "only": "STAGE", "gpus": "FILE",
          "image": "FILE", "text": "QUESTION", "latent": "309=4.0", "edit": "A:B@4=2", "site": "SITE", "port": "N"}  # fmt: skip
"""What follows the options that belong to no section, as the help shows it."""


def own_options() -> dict[str, tuple[str, str]]:
    """Options that belong to no section: the jobs that have them, or "" for all, and what they mean."""
    found = {}
    for name, field in Options.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        found[field.alias or name] = (str(extra.get("job", "")), field.description or "")
    return found


def asked_options(overrides: dict[str, Any]) -> dict[str, Any]:
    """The options of the jobs that ask and plan, taken out of the others.

    Raises:
        RecipeError: A port is none.
    """
    gpus, image, text, site = (overrides.pop(name, None) for name in ("gpus", "image", "text", "site"))
    latents, edits = (tuple(map(str, overrides.pop(name, None) or ())) for name in ("latent", "edit"))
    serve, port = overrides.pop("serve", False), str(overrides.pop("port", 8300))
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise RecipeError(f"--port {port}: a port is a number from 1 to 65535; for example --port 8300")
    return {
        "gpus": gpus,
        "image": image,
        "text": text,
        "latents": latents,
        "edits": edits,
        "site": site or "image",
        "serve": int(port) if serve else None,
    }
