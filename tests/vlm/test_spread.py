"""A model over several devices: every part has one, nothing is mixed, and the numbers are those of one device."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch

from linrep.errors import ModelError
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.harvester import Harvester
from linrep.vlm.batch import collate
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.decode import embed, greedy, logits, run, stack
from linrep.vlm.hooks import edit, forward, record
from linrep.vlm.load import VLM, load
from linrep.vlm.spread import placement
from linrep.vlm.unembed import read_unembedding

TWO = torch.device("cuda", 0), torch.device("cuda", 1)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("depth", [None, 3, 1, 0])
def test_every_parameter_has_one_device_and_the_stream_goes_forth_only(config, n, depth):
    vlm = load(config, depth)
    devices = [torch.device("cuda", i) for i in range(n)]
    found = placement(vlm.model, devices)
    where = {}
    for name, _ in vlm.model.named_parameters():
        holders = [place for place in found if name == place or name.startswith(f"{place}.")]
        assert len(holders) == 1, name
        where[name] = found[holders[0]].index
    prefix = next(f"{name}.".removeprefix(".") for name, module in vlm.model.named_modules() if module is vlm.text)
    blocks = [{at for name, at in where.items() if name.startswith(f"{prefix}layers.{i}.")} for i in range(len(vlm.text.layers))]
    order = [at for own in blocks for at in own]
    assert order == sorted(order)
    assert {at for name, at in where.items() if "vision_tower" in name or "embed_tokens" in name} == {0}
    assert {at for name, at in where.items() if name.endswith("language_model.norm.weight")} == {n - 1}


def test_shares_are_even(folder):
    """Of many blocks each of two devices gets half of the bytes, give or take a block."""
    vlm = load(ModelConfig(path=str(folder)), None)
    stack_of = vlm.text
    stack_of.layers.extend(copy.deepcopy(stack_of.layers[0]) for _ in range(40))
    found = placement(vlm.model, TWO)
    sizes = [0, 0]
    for name, parameter in vlm.model.named_parameters():
        (place,) = (p for p in found if name == p or name.startswith(f"{p}."))
        sizes[found[place].index] += parameter.numel()
    block = sum(p.numel() for p in stack_of.layers[0].parameters())
    assert abs(sizes[0] - sizes[1]) <= block


def test_a_tied_head_stays_with_the_embeddings(config):
    vlm = load(config, None)
    vlm.model.get_output_embeddings().weight = vlm.text.embed_tokens.weight
    found = placement(vlm.model, TWO)
    assert found["lm_head"].index == 0


def prepared_of(preparer, mixed):
    return [preparer(one) for one in mixed]


def dispatched(vlm: VLM) -> VLM:
    """The same with the hooks of a model over two devices, which on a CPU are one."""
    from accelerate import dispatch_model

    devices = vlm.device, vlm.device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters that belong to no module of their own have places, too
        dispatch_model(vlm.model, placement(vlm.model, devices), main_device=vlm.device, force_hooks=True)
    assert hasattr(vlm.text.layers[0], "_hf_hook")
    return replace(vlm, devices=devices)


def test_streams_edits_and_answers_are_those_of_one_device(config, preparer, mixed):
    """Through the hooks that move what goes from a device to the next; the devices of a CPU are one."""
    prepared = prepared_of(preparer, mixed)
    alone, spread = load(config, None), dispatched(load(config, None))
    results = []
    for vlm in (alone, spread):
        batch = collate(prepared, vlm)
        with edit(vlm, {1: lambda h: 2 * h}, batch.image_mask), record(vlm, range(4)) as found:
            forward(vlm, batch)
        context, hidden = run(vlm, *stack(embed(vlm, prepared)))
        last = torch.stack([hidden[i, len(one) - 1] for i, one in enumerate(prepared)])
        results.append((found, greedy(vlm, context, logits(vlm, last), 4)))
    (mine, said), (theirs, heard) = results
    assert all(torch.equal(mine[k], theirs[k]) for k in range(4))
    assert said == heard


def test_a_harvest_on_a_spread_model_gives_the_same_rows(config, preparer, mixed):
    prepared = prepared_of(preparer, mixed)
    settings = HarvestConfig(layers=(0, 2, 3), tokens_per_sample=None)
    tables = []
    for vlm in (load(config, 3), dispatched(load(config, 3))):
        harvester = Harvester(vlm, settings, (0, 2, 3), 4096)
        tables.append([rows.tables for rows in harvester(prepared)])
    for mine, theirs in zip(*tables, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[key].equals(theirs[key]) for key in mine)


@pytest.mark.parametrize("gpus", [1.5, 2.25])
def test_a_share_of_several_gpus_is_refused(gpus):
    with pytest.raises(ValueError, match="a share of one GPU or a whole number of them"):
        Pool(gpus=gpus)
    assert Pool(gpus=0.25).gpus == 0.25
    assert Pool(gpus=2).gpus == 2


@pytest.mark.parametrize("rounding", ["8bit", "4bit"])
def test_rounded_weights_are_another_model_and_its_card_says_so(config, preparer, mixed, rounding):
    rounded = config.model_copy(update={"quantization": rounding})
    card = describe(rounded)
    assert card.quantization == rounding
    assert card.digest != describe(config).digest
    bitsandbytes = pytest.importorskip("bitsandbytes")
    vlm = load(rounded, None)
    kinds = {type(module).__name__ for module in vlm.text.layers.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}
    with record(vlm, [3]) as found:
        forward(vlm, collate(prepared_of(preparer, mixed)[:1], vlm))
    assert found[3].isfinite().all()
    weight = load(config, None).text.layers[0].mlp.up_proj.weight
    mine = vlm.text.layers[0].mlp.up_proj(torch.eye(32)).T
    if rounding == "4bit":
        wanted = bitsandbytes.functional.dequantize_4bit(*bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4"))
    else:
        scale = weight.abs().amax(1, keepdim=True) / 127
        wanted = (weight / scale).round() * scale
    assert (mine - wanted).norm() < 0.01 * wanted.norm()
    assert (mine - weight).norm() > 0.001 * weight.norm()
    assert len(read_unembedding(rounded).words)


@pytest.mark.parametrize(
    ("missing", "load_it"),
    [
        ("accelerate", lambda config: load(config, None, [torch.device("cpu"), torch.device("cpu", 0)])),
        ("bitsandbytes", lambda config: load(config.model_copy(update={"quantization": "8bit"}), None)),
    ],
)
def test_a_package_that_is_missing_is_named_with_how_it_is_installed(config, monkeypatch, missing, load_it):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == missing else find(name, *more))
    with pytest.raises(ModelError, match=rf"needs {missing}: install the extra 'large' of this package"):
        load_it(config)
