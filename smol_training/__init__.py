"""A real language model that looks at the embedded world: SmolLM2-135M behind a projector that is trained here.

Needs the extra `smol` (gguf, accelerate). Nothing of it is installed with the package; `make smol` builds the model and runs
`recipes/smol.yaml` on it.
"""
