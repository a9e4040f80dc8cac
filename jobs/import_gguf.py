#!/usr/bin/env python3
"""Turn a GGUF file of a LLaMA-family model into a Hugging Face checkpoint folder.

    import_gguf.py MODEL.gguf OUTPUT_DIR [--dtype bf16|f16|f32]

Espalier reads Hugging Face folders; small models are often only at hand as GGUF. This script dequantises every tensor,
gives it its Hugging Face name, undoes the row permutation of the query and key projections, and writes

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json

One tensor is in memory at a time. Everything is written to OUTPUT_DIR.partial, which is renamed at the very end, so a
folder under its final name is complete. Exit status 2 and one sentence on stderr when the file cannot be imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from formats.checkpoint_folder import HeaderEntry, folder_in_progress, safetensors_header
from formats.json_file import InputRefused, write_json

try:
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, ReaderTensor
    from gguf.quants import dequantize
    from safetensors import SafetensorError, safe_open
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
except ModuleNotFoundError as missing:
    sys.exit(f"import_gguf.py: the Python package {missing.name} is missing; run "
             "jobs/virtual_environment.sh build/venv jobs/requirements.txt and then this with build/venv/bin/python")

CONTROL_TOKEN, USER_DEFINED_TOKEN = 3, 4  # tokenizer.ggml.token_type
REQUIRED = object()


class StoredDtype(NamedTuple):
    """How a dtype is called in safetensors and in config.json, and how many bytes one value takes."""

    safetensors: str
    transformers: str
    bytes: int


DTYPES = {
    "bf16": StoredDtype("BF16", "bfloat16", 2),
    "f16": StoredDtype("F16", "float16", 2),
    "f32": StoredDtype("F32", "float32", 4),
}


class Metadata:
    """The key-value section of a GGUF file, with refusals instead of KeyErrors."""

    def __init__(self, reader: GGUFReader):
        self._fields = reader.fields

    def get(self, key: str, kind: type, default: Any = REQUIRED) -> Any:
        """Value of `key` as `kind` (int, float, bool, str or list), or `default` where the file lacks it."""
        field = self._fields.get(key)
        if field is None:
            if default is REQUIRED:
                raise InputRefused(f"the file has no metadata key {key}")
            return default
        try:
            value = field.contents()
        except UnicodeDecodeError as error:
            raise InputRefused(f"metadata key {key} is not valid UTF-8") from error
        if kind is float and field.types[-1] == GGUFValueType.FLOAT32:
            return float(str(np.float32(value)))  # the shortest decimal: 1e-05, not 9.999999747378752e-06
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputRefused(f"metadata key {key} is not of type {kind.__name__}")
        return value


@dataclass(frozen=True)
class ModelShape:
    """The sizes that fix the name and shape of every tensor."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool


class TensorPlan(NamedTuple):
    """One tensor to write: its two names, its shape, and the head count where its rows are permuted (else 0)."""

    gguf_name: str
    name: str
    shape: tuple[int, ...]
    permuted_heads: int = 0


def open_gguf(path: Path) -> GGUFReader:
    """Open a GGUF file, or refuse whatever else `path` may be."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputRefused(f"cannot read {path}: {error.strerror}") from error
    if magic != b"GGUF":
        raise InputRefused(f"{path} is not a GGUF file (it begins with {magic!r})")
    try:
        return GGUFReader(path)
    except Exception as error:  # the reader checks nothing itself: truncated files raise whatever numpy raises
        reason = " ".join(str(error).split())
        raise InputRefused(f"{path} is damaged, or of an unknown GGUF version or tensor type ({reason})") from error


def read_shape(metadata: Metadata, tensors: dict[str, ReaderTensor]) -> ModelShape:
    """Sizes from the metadata; which optional tensors there are decides ties and biases."""
    architecture = metadata.get("general.architecture", str)
    if architecture != "llama":
        raise InputRefused(f"architecture {architecture!r} is not supported: only 'llama' can be imported")
    scaling = metadata.get("llama.rope.scaling.type", str, "none")
    if scaling != "none":
        raise InputRefused(f"RoPE scaling of type {scaling!r} is not supported")
    if "token_embd.weight" not in tensors:
        raise InputRefused("the file has no tensor token_embd.weight")
    hidden = metadata.get("llama.embedding_length", int)
    layers = metadata.get("llama.block_count", int)
    if not 0 < layers <= len(tensors):
        raise InputRefused(f"{layers} blocks cannot be made of {len(tensors)} tensors")
    heads = metadata.get("llama.attention.head_count", int)
    head_dim = metadata.get("llama.attention.key_length", int, hidden // max(heads, 1))
    rotary = metadata.get("llama.rope.dimension_count", int, head_dim)
    if heads < 1 or head_dim < 2 or head_dim % 2 or rotary != head_dim:
        raise InputRefused(f"{heads} heads of dimension {head_dim} with {rotary} rotary dimensions are not supported")
    return ModelShape(
        hidden=hidden,
        intermediate=metadata.get("llama.feed_forward_length", int),
        layers=layers,
        heads=heads,
        key_value_heads=metadata.get("llama.attention.head_count_kv", int, heads),
        head_dim=head_dim,
        vocabulary=int(tensors["token_embd.weight"].shape[-1]),
        tied_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        mlp_bias="blk.0.ffn_gate.bias" in tensors,
    )


def plan_block(shape: ModelShape, block: int) -> Iterator[TensorPlan]:
    """The tensors of one decoder block."""
    query, key_value = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    hidden, intermediate = shape.hidden, shape.intermediate
    linears = (
        ("attn_q", "self_attn.q_proj", query, hidden, shape.heads, shape.attention_bias),
        ("attn_k", "self_attn.k_proj", key_value, hidden, shape.key_value_heads, shape.attention_bias),
        ("attn_v", "self_attn.v_proj", key_value, hidden, 0, shape.attention_bias),
        ("attn_output", "self_attn.o_proj", hidden, query, 0, shape.attention_bias),
        ("ffn_gate", "mlp.gate_proj", intermediate, hidden, 0, shape.mlp_bias),
        ("ffn_up", "mlp.up_proj", intermediate, hidden, 0, shape.mlp_bias),
        ("ffn_down", "mlp.down_proj", hidden, intermediate, 0, shape.mlp_bias),
    )
    source, target = f"blk.{block}", f"model.layers.{block}"
    for gguf_name, name, rows, columns, permuted_heads, bias in linears:
        yield TensorPlan(f"{source}.{gguf_name}.weight", f"{target}.{name}.weight", (rows, columns), permuted_heads)
        if bias:
            yield TensorPlan(f"{source}.{gguf_name}.bias", f"{target}.{name}.bias", (rows,), permuted_heads)
    yield TensorPlan(f"{source}.attn_norm.weight", f"{target}.input_layernorm.weight", (hidden,))
    yield TensorPlan(f"{source}.ffn_norm.weight", f"{target}.post_attention_layernorm.weight", (hidden,))


def plan_tensors(shape: ModelShape, tensors: dict[str, ReaderTensor]) -> list[TensorPlan]:
    """Every tensor of the model, sorted by Hugging Face name; refuses missing, unknown and misshapen ones."""
    plans = [
        TensorPlan("token_embd.weight", "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)),
        TensorPlan("output_norm.weight", "model.norm.weight", (shape.hidden,)),
    ]
    if not shape.tied_embeddings:
        plans.append(TensorPlan("output.weight", "lm_head.weight", (shape.vocabulary, shape.hidden)))
    for block in range(shape.layers):
        plans += plan_block(shape, block)
    planned = {plan.gguf_name for plan in plans}
    for problem, names in (("lacks", planned - tensors.keys()), ("has unknown", tensors.keys() - planned)):
        if names:
            raise InputRefused(f"the file {problem} {len(names)} tensor(s), first {min(names)}")
    for plan in plans:
        found = tuple(int(size) for size in reversed(tensors[plan.gguf_name].shape))
        if found != plan.shape:
            raise InputRefused(f"tensor {plan.gguf_name} has shape {found} but the metadata says {plan.shape}")
    return sorted(plans, key=lambda plan: plan.name)


def unpermute_rows(values: np.ndarray, heads: int) -> np.ndarray:
    """Undo GGUF's row order of the query and key projections.

    GGUF keeps the two halves of a rotary pair in neighbouring rows (h*hd + 2i + j), Hugging Face half a head apart
    (h*hd + j*hd/2 + i). A wrong order loads without complaint and shows only in the perplexity.
    """
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(values.shape)


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16 (ties to even) of finite float32 values, as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def encode(values: np.ndarray, dtype: str, name: str) -> bytes:
    """Little-endian bytes of `values` in `dtype`; refuses a tensor that is not finite in it."""
    finite = np.isfinite(values).all()
    if dtype == "bf16":
        stored = round_to_bf16(values)
        finite = finite and ((stored & 0x7F80) != 0x7F80).all()
    else:
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16 if dtype == "f16" else np.float32)
        finite = finite and np.isfinite(stored).all()
    if not finite:
        raise InputRefused(f"tensor {name} holds values that are not finite in {dtype}")
    return stored.astype(stored.dtype.newbyteorder("<")).tobytes()


def load_tensor(tensor: ReaderTensor, plan: TensorPlan) -> np.ndarray:
    """Dequantise one tensor to float32 in Hugging Face shape and row order."""
    try:
        values = dequantize(tensor.data, tensor.tensor_type).reshape(plan.shape)
    except NotImplementedError as error:
        kind = tensor.tensor_type
        raise InputRefused(f"tensor {plan.gguf_name} has the unsupported type {kind.name} ({int(kind)})") from error
    return unpermute_rows(values, plan.permuted_heads) if plan.permuted_heads else values


def write_weights(path: Path, plans: list[TensorPlan], tensors: dict[str, ReaderTensor], dtype: str) -> None:
    """Write model.safetensors tensor by tensor and let the reference reader check the result."""
    with path.open("wb") as file:
        stored = DTYPES[dtype]
        file.write(
            safetensors_header(
                HeaderEntry(plan.name, stored.safetensors, plan.shape, int(np.prod(plan.shape)) * stored.bytes)
                for plan in plans
            )
        )
        for plan in plans:
            file.write(encode(load_tensor(tensors[plan.gguf_name], plan), dtype, plan.gguf_name))
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise InputRefused(f"the written {path.name} does not read back: {error}") from error


def pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """The splitter of GGUF's pre type; `smollm` cuts out every single digit before the byte-level split."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if kind == "gpt-2":
        return byte_level
    raise InputRefused(f"tokenizer pre type {kind!r} is not supported: only 'smollm' and 'gpt-2' can be imported")


def added_tokens(metadata: Metadata) -> dict[int, AddedToken]:
    """Tokens that are matched in the text before any splitting, by id: control (special) and user-defined ones."""
    tokens = metadata.get("tokenizer.ggml.tokens", list)
    types = metadata.get("tokenizer.ggml.token_type", list)
    return {
        index: AddedToken(token, special=kind == CONTROL_TOKEN, normalized=False)
        for index, (token, kind) in enumerate(zip(tokens, types))
        if kind in (CONTROL_TOKEN, USER_DEFINED_TOKEN)
    }


def special_token_ids(metadata: Metadata) -> dict[str, int]:
    """Ids of the bos, eos, unk and pad token, as far as the file names them."""
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id", int, None) for key, name in names.items()}
    return {name: index for name, index in ids.items() if index is not None}


def build_tokenizer(metadata: Metadata, vocabulary: int) -> Tokenizer:
    """The byte-level BPE tokenizer that the GGUF file describes."""
    kind = metadata.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise InputRefused(f"tokenizer model {kind!r} is not supported: only 'gpt2' (byte-level BPE) can be imported")
    tokens = metadata.get("tokenizer.ggml.tokens", list)
    ids = {token: index for index, token in enumerate(tokens)}
    special = special_token_ids(metadata)
    if len(ids) != len(tokens) or len(tokens) > vocabulary or any(index >= len(tokens) for index in special.values()):
        raise InputRefused(f"the tokenizer's {len(tokens)} tokens do not fit the {vocabulary} rows of the embedding")
    merges = [tuple(merge.split(" ")) for merge in metadata.get("tokenizer.ggml.merges", list)]
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= ids.keys():
            raise InputRefused(f"the tokenizer's merge {' '.join(merge)!r} does not fit its vocabulary")
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer(metadata.get("tokenizer.ggml.pre", str))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(added_tokens(metadata).values()))
    if metadata.get("tokenizer.ggml.add_bos_token", bool, False) and "bos" in special:
        bos = tokens[special["bos"]]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, special["bos"])])
    return tokenizer


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    """tokenizer_config.json; PreTrainedTokenizerFast takes tokenizer.json as it is, a model class would rebuild it."""
    tokens = metadata.get("tokenizer.ggml.tokens", list)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata.get("llama.context_length", int),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token", bool, False),
        "added_tokens_decoder": {
            str(index): {
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            }
            for index, token in added_tokens(metadata).items()
        },
    }
    config |= {f"{name}_token": tokens[index] for name, index in special_token_ids(metadata).items()}
    template = metadata.get("tokenizer.chat_template", str, None)
    return config if template is None else config | {"chat_template": template}


def generation_config(metadata: Metadata) -> dict[str, int]:
    """The token ids that a sampling loop needs."""
    return {f"{name}_token_id": index for name, index in special_token_ids(metadata).items() if name != "unk"}


def model_config(metadata: Metadata, shape: ModelShape, dtype: str) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": metadata.get("llama.attention.layer_norm_rms_epsilon", float),
        "rope_theta": metadata.get("llama.rope.freq_base", float, 10000.0),
        "rope_scaling": None,
        "max_position_embeddings": metadata.get("llama.context_length", int),
        "tie_word_embeddings": shape.tied_embeddings,
        "attention_bias": shape.attention_bias,
        "mlp_bias": shape.mlp_bias,
        "torch_dtype": DTYPES[dtype].transformers,
    } | generation_config(metadata)


def import_gguf(source: Path, output: Path, dtype: str) -> ModelShape:
    """Write the checkpoint folder `output` from the GGUF file `source`."""
    reader = open_gguf(source)
    metadata = Metadata(reader)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shape = read_shape(metadata, tensors)
    plans = plan_tensors(shape, tensors)
    tokenizer = build_tokenizer(metadata, shape.vocabulary)
    with folder_in_progress(output) as folder:
        write_json(folder / "config.json", model_config(metadata, shape, dtype))
        write_json(folder / "generation_config.json", generation_config(metadata))
        write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
        tokenizer.save(str(folder / "tokenizer.json"))
        write_weights(folder / "model.safetensors", plans, tensors, dtype)
    return shape


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, import, and map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path, help="GGUF file of a LLaMA-family model")
    parser.add_argument("output", type=Path, help="Hugging Face folder to write; must not exist")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="dtype of the written weights (default bf16)")
    options = parser.parse_args(arguments)
    try:
        shape = import_gguf(options.model, options.output, options.dtype)
    except (InputRefused, OSError) as error:
        print(f"import_gguf: {error}", file=sys.stderr)
        return 2
    sizes = f"{shape.layers} blocks, hidden size {shape.hidden}, vocabulary {shape.vocabulary}"
    print(f"{options.output}: {sizes}, {options.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
