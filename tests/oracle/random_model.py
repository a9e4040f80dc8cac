#!/usr/bin/python3
"""Makes tiny random Hugging Face model folders of every supported family, and token files to go with them.

The same seed gives the same bytes. Weights have LLaMA's scale (standard deviation 0.02 to 0.09, norms near 1) with
heavy tails and a few outlier channels, so that scores, gradients and masks are not degenerate. All widths are
multiples of 8. Needs NumPy; h5py only for HDF5 token files.

    random_model.py --family qwen3 --dtype bf16 --blocks 3 --sharded --output DIR
    random_model.py --tokens calibration.npy --rows 16 --length 64 --vocab 256
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy

from safetensors_file import StoredTensor, write_safetensors

SAFETENSORS_DTYPE = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
TORCH_DTYPE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Small on purpose: with head_dim 16 and theta 5e5 all three bands (kept, blended, divided) then occur.
    "original_max_position_embeddings": 64,
}
YARN_SCALING = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@dataclass(frozen=True)
class Family:
    """What distinguishes one family's tensors and configuration."""

    model_type: str
    hidden: int = 64
    intermediate: int = 160
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    rope_theta: float = 10000.0
    rope_scaling: Optional[Dict[str, Any]] = None
    norm_epsilon: float = 1e-5
    biases: List[str] = field(default_factory=list)
    head_norms: bool = False
    tied: bool = False
    dead_channels: Tuple[int, ...] = ()
    norms_after: bool = False  # and those of queries and keys over all heads
    together: bool = False  # q, k, v in one tensor, gate and up in another
    inside: bool = False  # of a model that has more than the decoder
    extra_config: Dict[str, Any] = field(default_factory=dict)


ATTENTION_BIASES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
MLP_BIASES = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]

FAMILIES: Dict[str, Family] = {
    "llama1": Family("llama", kv_heads=4, norm_epsilon=1e-6),
    "llama2": Family("llama", hidden=96, intermediate=192, heads=6, kv_heads=2),
    # Wide enough that several ranks get rows of their own, which are handed out in units of 64.
    "llama-wide": Family("llama", hidden=192, intermediate=384, heads=6, kv_heads=2),
    "llama3": Family("llama", rope_theta=500000.0, rope_scaling=LLAMA3_SCALING, tied=True),
    "llama-linear": Family("llama", rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "llama-yarn": Family("llama", rope_scaling=YARN_SCALING),
    "llama-bias": Family(
        "llama",
        biases=ATTENTION_BIASES + MLP_BIASES,
        extra_config={"attention_bias": True, "mlp_bias": True},
    ),
    "llama-dead": Family("llama", dead_channels=(4, 6, 21)),
    "mistral": Family("mistral", rope_theta=1e6, extra_config={"sliding_window": 128}),
    "qwen2": Family(
        "qwen2",
        hidden=96,
        intermediate=160,
        heads=6,
        kv_heads=2,
        rope_theta=1e6,
        norm_epsilon=1e-6,
        biases=ATTENTION_BIASES[:3],
        tied=True,
        extra_config={"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": Family(
        "qwen3",
        intermediate=192,
        head_dim=32,
        rope_theta=1e6,
        norm_epsilon=1e-6,
        head_norms=True,
        extra_config={"attention_bias": False, "use_sliding_window": False, "sliding_window": None},
    ),
    "phi3": Family("phi3", together=True, extra_config={"sliding_window": 128, "pad_token_id": 0}),
    "phi3-mini": Family(
        "phi3",
        hidden=128,
        head_dim=32,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0 + 0.1 * index for index in range(12)],
            "long_factor": [1.0 + index for index in range(12)],
        },
        together=True,
        tied=True,
        # Most samples of the tests are short, a few are long.
        extra_config={"partial_rotary_factor": 0.75, "original_max_position_embeddings": 32, "pad_token_id": 0},
    ),
    "olmo2": Family("olmo2", kv_heads=4, rope_theta=500000.0, norm_epsilon=1e-6, norms_after=True),
    "smollm3": Family(
        "smollm3", rope_theta=5e6, norm_epsilon=1e-6, tied=True,
        extra_config={"no_rope_layer_interval": 2, "pad_token_id": 0},
    ),
    "mistral3": Family("mistral3", rope_theta=1e9, head_dim=32, inside=True),
}


@dataclass(frozen=True)
class ModelRequest:
    """What to make. `config_style` is the spelling of transformers 4 or 5; `tied` None means as usual in the family."""

    family: str
    dtype: str = "f32"
    blocks: int = 2
    shards: int = 1
    config_style: int = 4
    tied: Optional[bool] = None
    vocab: int = 256
    seed: int = 0


def random_matrix(generator: numpy.random.Generator, rows: int, columns: int, scale: float) -> numpy.ndarray:
    """A [rows, columns] matrix: Student-t tails, uneven rows, and about one input column in sixteen twice as strong."""
    values = generator.standard_t(6, (rows, columns)) / numpy.sqrt(1.5)
    values *= scale * numpy.exp(0.2 * generator.standard_normal((rows, 1)))
    strong = generator.choice(columns, max(1, columns // 16), replace=False)
    values[:, strong] *= 2.0
    return values


def random_norm(generator: numpy.random.Generator, width: int) -> numpy.ndarray:
    """Norm weights near 1, with a few outlier channels between 2 and 4."""
    values = 1.0 + 0.15 * generator.standard_normal(width)
    outliers = generator.choice(width, max(1, width // 24), replace=False)
    values[outliers] = generator.uniform(2.0, 4.0, len(outliers))
    return values


def block_values(generator: numpy.random.Generator, family: Family) -> Dict[str, numpy.ndarray]:
    """All tensors of one decoder block by their names inside the block."""
    attention_width = family.heads * family.head_dim
    kv_width = family.kv_heads * family.head_dim
    shapes = {
        "self_attn.q_proj": (attention_width, family.hidden),
        "self_attn.k_proj": (kv_width, family.hidden),
        "self_attn.v_proj": (kv_width, family.hidden),
        "self_attn.o_proj": (family.hidden, attention_width),
        "mlp.gate_proj": (family.intermediate, family.hidden),
        "mlp.up_proj": (family.intermediate, family.hidden),
        "mlp.down_proj": (family.hidden, family.intermediate),
    }
    values: Dict[str, numpy.ndarray] = {}
    for module, (rows, columns) in shapes.items():
        values[f"{module}.weight"] = random_matrix(generator, rows, columns, generator.uniform(0.04, 0.09))
        if module in family.biases:
            values[f"{module}.bias"] = 0.1 * generator.standard_normal(rows)
    if family.norms_after:
        values["post_attention_layernorm.weight"] = random_norm(generator, family.hidden)
        values["post_feedforward_layernorm.weight"] = random_norm(generator, family.hidden)
        values["self_attn.q_norm.weight"] = random_norm(generator, attention_width)
        values["self_attn.k_norm.weight"] = random_norm(generator, kv_width)
        return values
    values["input_layernorm.weight"] = random_norm(generator, family.hidden)
    values["post_attention_layernorm.weight"] = random_norm(generator, family.hidden)
    # A zero norm weight makes an input of q, k, v (or gate, up) that is zero for every token.
    values["input_layernorm.weight"][list(family.dead_channels)] = 0.0
    values["post_attention_layernorm.weight"][list(family.dead_channels)] = 0.0
    if family.head_norms:
        values["self_attn.q_norm.weight"] = random_norm(generator, family.head_dim)
        values["self_attn.k_norm.weight"] = random_norm(generator, family.head_dim)
    return values


def model_values(request: ModelRequest, family: Family) -> Dict[str, numpy.ndarray]:
    """All tensors of the model by their checkpoint names, in the order of the layers."""
    generator = numpy.random.default_rng(request.seed)
    embedding = 0.05 * generator.standard_normal((request.vocab, family.hidden))
    embedding[:, generator.choice(family.hidden, 2, replace=False)] *= 6.0
    values = {"model.embed_tokens.weight": embedding}
    for block in range(request.blocks):
        for name, value in block_values(generator, family).items():
            values[f"model.layers.{block}.{name}"] = value
    values["model.norm.weight"] = random_norm(generator, family.hidden)
    if not family.tied:
        values["lm_head.weight"] = random_matrix(generator, request.vocab, family.hidden, 0.05)
    return values


def stored_values(family: Family, values: Dict[str, numpy.ndarray]) -> Dict[str, numpy.ndarray]:
    """The model's tensors as the family's checkpoints name and join them."""
    if family.together:
        joined: Dict[str, numpy.ndarray] = {}
        for name, value in values.items():
            name = re.sub(r"self_attn\.[qkv]_proj", "self_attn.qkv_proj", name)
            name = re.sub(r"mlp\.(gate|up)_proj", "mlp.gate_up_proj", name)
            joined[name] = numpy.concatenate([joined[name], value]) if name in joined else value
        values = joined
    if family.inside:
        values = {f"language_model.{name}": value for name, value in values.items()}
        values["vision_tower.patch_conv.weight"] = numpy.ones((4, 3, 2, 2))
        values["multi_modal_projector.linear_1.weight"] = numpy.ones((family.hidden, 4))
    return values


def make_config(request: ModelRequest, family: Family) -> Dict[str, Any]:
    """The content of config.json."""
    config: Dict[str, Any] = {
        "architectures": [f"{family.model_type.capitalize()}ForCausalLM"],
        "model_type": family.model_type,
        "hidden_size": family.hidden,
        "intermediate_size": family.intermediate,
        "num_hidden_layers": request.blocks,
        "num_attention_heads": family.heads,
        "num_key_value_heads": family.kv_heads,
        "vocab_size": request.vocab,
        "hidden_act": "silu",
        "rms_norm_eps": family.norm_epsilon,
        "max_position_embeddings": 256,
        "tie_word_embeddings": family.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family.head_dim * family.heads != family.hidden:
        config["head_dim"] = family.head_dim
    config.update(family.extra_config)
    if request.config_style == 4:
        config["rope_theta"] = family.rope_theta
        config["rope_scaling"] = family.rope_scaling
        config["torch_dtype"] = TORCH_DTYPE[request.dtype]
        config["transformers_version"] = "4.46.0"
    else:
        scaling = family.rope_scaling or {"rope_type": "default"}
        config["rope_parameters"] = {**scaling, "rope_theta": family.rope_theta}
        config["dtype"] = TORCH_DTYPE[request.dtype]
        config["transformers_version"] = "5.0.0"
    if not family.inside:
        return config
    outer = {name: config.pop(name) for name in ("architectures", "transformers_version")}
    return {**outer, "model_type": family.model_type, "text_config": {**config, "model_type": "mistral"}}


def write_tensors(folder: Path, tensors: Dict[str, StoredTensor], shards: int) -> None:
    """Writes one file, or `shards` files of consecutive tensors (blocks straddle them) with their index."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names = list(tensors)
    weight_map: Dict[str, str] = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        own = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        write_safetensors(folder / file_name, {name: tensors[name] for name in own})
        weight_map.update({name: file_name for name in own})
    total = sum(len(tensor.data) for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def make_model(folder: Path, request: ModelRequest) -> Path:
    """Writes the model folder that `request` describes and returns its path."""
    family = FAMILIES[request.family]
    if request.tied is not None:
        family = replace(family, tied=request.tied)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = SAFETENSORS_DTYPE[request.dtype]
    values = stored_values(family, model_values(request, family))
    write_tensors(folder, {name: StoredTensor.encode(value, dtype) for name, value in values.items()}, request.shards)
    (folder / "config.json").write_text(json.dumps(make_config(request, family), indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}) + "\n")
    return folder


def random_tokens(rows: int, length: int, vocab: int = 256, seed: int = 0) -> numpy.ndarray:
    """[rows, length] token ids: frequent and rare ids as in text, with short repeats for attention to find."""
    generator = numpy.random.default_rng(seed)
    tokens = numpy.minimum(generator.zipf(1.3, (rows, length)) - 1, vocab - 1)
    tokens = (tokens * 37 + 11) % vocab
    for row in tokens:
        for start in range(6, length - 6, 12):
            row[start : start + 3] = row[start - 6 : start - 3]
    return tokens


def write_tokens(path: Path, tokens: numpy.ndarray, dtype: str = "int32") -> Path:
    """Writes ids as .npy, or as HDF5 dataset `/input_ids` when the suffix is .h5 or .hdf5."""
    path = Path(path)
    stored = tokens.astype(dtype)
    if path.suffix == ".npy":
        numpy.save(path, stored)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("input_ids", data=stored)
    return path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=sorted(FAMILIES))
    parser.add_argument("--dtype", choices=sorted(SAFETENSORS_DTYPE), default="f32")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--sharded", action="store_true", help="write three shards and an index")
    parser.add_argument("--shards", type=int, help="write this many shards")
    parser.add_argument("--config-style", type=int, choices=(4, 5), default=4, help="spelling of transformers 4 or 5")
    parser.add_argument("--tied", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--vocab", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="the model folder to write")
    parser.add_argument("--tokens", type=Path, help="a token file (.npy or .h5) to write")
    parser.add_argument("--token-dtype", choices=("int32", "int64", "uint16", "uint32"), default="int32")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    arguments = parser.parse_args()
    if (arguments.family is None) != (arguments.output is None):
        parser.error("--family and --output belong together")
    if arguments.output is None and arguments.tokens is None:
        parser.error("nothing to do: give --family and --output, or --tokens")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.output is not None:
        request = ModelRequest(
            family=arguments.family,
            dtype=arguments.dtype,
            blocks=arguments.blocks,
            shards=arguments.shards or (3 if arguments.sharded else 1),
            config_style=arguments.config_style,
            tied=arguments.tied,
            vocab=arguments.vocab,
            seed=arguments.seed,
        )
        make_model(arguments.output, request)
    if arguments.tokens is not None:
        tokens = random_tokens(arguments.rows, arguments.length, arguments.vocab, arguments.seed + 1)
        write_tokens(arguments.tokens, tokens, arguments.token_dtype)


if __name__ == "__main__":
    main()
