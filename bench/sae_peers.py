"""One training step of other libraries' TopK SAEs, as their own trainers take it, behind one small interface.

Each starts from the weights it is given, with PyTorch's Adam as its trainer has it and a constant learning rate.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor


class Peer(Protocol):
    """An SAE in training."""

    def step(self, x: Tensor) -> None:
        """Take one step."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs as the SAE sees them."""
        ...


class SaeLens:
    """SAELens' TopKTrainingSAE with `SAETrainer._train_step`: clipping at 1 and counts of firing included."""

    def __init__(self, decoder: Tensor, b_dec: Tensor, k: int, rate: float) -> None:
        lens, inner = import_module("sae_lens"), import_module("sae_lens.saes.sae")
        f, d = decoder.shape
        self.sae = lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(d_in=d, d_sae=f, k=k, device="cpu"))
        self.sae.W_dec.data, self.sae.W_enc.data = decoder.clone(), decoder.t().clone().contiguous()
        self.sae.b_dec.data = b_dec.clone()
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=rate, betas=(0.9, 0.999))
        self.input, self.taken = inner.TrainStepInput, 0
        self.since, self.frequency = torch.zeros(f), torch.zeros(f)

    def step(self, x: Tensor) -> None:
        """Take one step."""
        dead = self.since > 1000
        given = self.input(sae_in=x, dead_neuron_mask=dead, coefficients={}, n_training_steps=self.taken, is_logging_step=False)
        out = self.sae.training_forward_pass(step_input=given)
        with torch.no_grad():
            fired = out.feature_acts.bool().float()
            did = fired.sum(-2).bool()
            self.since += 1
            self.since[did.to_dense() if did.is_sparse else did] = 0
            self.frequency += fired.sum(0)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.taken += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs as the SAE sees them."""
        return self.sae.decode(self.sae.encode(x))


class Sparsify:
    """sparsify's SparseCoder with its trainer's steps: parallel gradients removed, decoder rows kept at norm 1."""

    def __init__(self, decoder: Tensor, b_dec: Tensor, k: int, rate: float) -> None:
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its kernels are for CUDA
        coder = import_module("sparsify")
        f, d = decoder.shape
        self.sae = coder.SparseCoder(d, coder.SparseCoderConfig(num_latents=f, k=k))
        self.sae.encoder.weight.data, self.sae.W_dec.data = decoder.clone(), decoder.clone()
        self.sae.b_dec.data = b_dec.clone()
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=rate)

    def step(self, x: Tensor) -> None:
        """Take one step."""
        self.sae.set_decoder_norm_to_unit_norm()
        out = self.sae(x)
        (out.fvu + out.auxk_loss / 32).backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs as the SAE sees them."""
        return self.sae(x).sae_out


class DictionaryLearning:
    """dictionary_learning's TopKTrainer."""

    def __init__(self, decoder: Tensor, b_dec: Tensor, k: int, rate: float) -> None:
        top_k = import_module("dictionary_learning.trainers.top_k")
        f, d = decoder.shape
        self.trainer = top_k.TopKTrainer(
            steps=10**6, activation_dim=d, dict_size=f, k=k, layer=0, lm_name="none", lr=rate, warmup_steps=0, device="cpu"
        )
        ae = self.trainer.ae
        ae.encoder.weight.data, ae.decoder.weight.data = decoder.clone(), decoder.t().clone().contiguous()
        ae.b_dec.data = b_dec.clone()
        self.taken = 1  # step 0 would replace b_dec

    def step(self, x: Tensor) -> None:
        """Take one step."""
        self.trainer.update(self.taken, x)
        self.taken += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs as the SAE sees them."""
        return self.trainer.ae(x)


PEERS: dict[str, Callable[[Tensor, Tensor, int, float], Peer]] = {
    "SAELens": SaeLens,
    "sparsify": Sparsify,
    "dictionary_learning": DictionaryLearning,
}
MODULES = {"SAELens": "sae_lens", "sparsify": "sparsify", "dictionary_learning": "dictionary_learning"}


def available() -> tuple[dict[str, Any], dict[str, str]]:
    """The peers that can be imported here, and why the others cannot."""
    here, missing = {}, {}
    for name, make in PEERS.items():
        try:
            os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
            import_module(MODULES[name])
            here[name] = make
        except ImportError as error:
            missing[name] = f"{error} (make test-peers installs it in an environment of its own)"
    return here, missing
