"""How a recipe names a sparse autoencoder: a part of the sections of stages that read one."""

from pydantic import Field, model_validator

from linrep.config import Section


class NamedSae(Section):
    """An SAE that a stage is given: one of this recipe by its name, or one from elsewhere by its path."""

    sae: str = Field(
        default="",
        description="Name of an SAE that the recipe trains (topk-16-x8-s0), or how it begins (topk-16-x8); best: the one that "
        "the recipe's search recommends for the layer.",
    )
    path: str = Field(
        default="",
        description="Instead of a name: folder or file of an SAE from elsewhere, of any format that linrep.sae.formats reads, or "
        "hf://OWNER/NAME/FOLDER of one on the Hugging Face hub; raw activations go in.",
    )
    layer: int = Field(ge=0, description="Layer of the store that it was trained on.")
    insist: bool = Field(
        default=False,
        description="Take the SAE although it says that it is of another layer, model or modality; the results then say so.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "NamedSae":
        if bool(self.sae) == bool(self.path):
            raise ValueError("name the SAE by either sae or path" + (", not by both" if self.sae else ""))
        return self
