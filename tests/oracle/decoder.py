"""A LLaMA-family decoder in float64: embedding, decoder blocks, final norm, head and perplexity.

Hidden states are [..., T, H]; leading dimensions are samples. Weights of a block come as a dictionary of float64
tensors by their names inside the block ("self_attn.q_proj.weight"), as the checkpoint stores them: [out, in].
"""

from __future__ import annotations

import math
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor

from checkpoint import Model, ModelConfig, RopeSettings

# The four inputs that feed the seven pruned matrices.
INPUT_OF_MODULE = {
    "self_attn.q_proj": "attention_input",
    "self_attn.k_proj": "attention_input",
    "self_attn.v_proj": "attention_input",
    "self_attn.o_proj": "attention_output",
    "mlp.gate_proj": "mlp_input",
    "mlp.up_proj": "mlp_input",
    "mlp.down_proj": "mlp_activation",
}

BlockTensors = Dict[str, Tensor]


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """weight * x / sqrt(mean(x^2) + epsilon) over the last dimension."""
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def llama3_frequencies(frequencies: Tensor, rope: RopeSettings) -> Tensor:
    """Long wavelengths are divided by `factor`, short ones kept, those between blended."""
    factor = rope.scaling["factor"]
    low = rope.scaling["low_freq_factor"]
    high = rope.scaling["high_freq_factor"]
    original = rope.scaling["original_max_position_embeddings"]
    wavelength = 2.0 * math.pi / frequencies
    share = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 - share) * frequencies / factor + share * frequencies


def yarn_frequencies(frequencies: Tensor, rope: RopeSettings, head_dim: int) -> Tensor:
    """Between the dimensions that turn `beta_fast` and `beta_slow` times, a ramp from kept to divided by `factor`."""
    factor = rope.scaling["factor"]
    original = rope.scaling.get("original_max_position_embeddings") or rope.max_positions

    def dimension_of(turns: float) -> float:
        return head_dim * math.log(original / (turns * 2.0 * math.pi)) / (2.0 * math.log(rope.theta))

    low = max(math.floor(dimension_of(rope.scaling.get("beta_fast") or 32.0)), 0)
    high = min(math.ceil(dimension_of(rope.scaling.get("beta_slow") or 1.0)), head_dim - 1)
    width = high - low if high != low else 0.001
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float64) - low) / width).clamp(0.0, 1.0)
    return frequencies / factor * ramp + frequencies * (1.0 - ramp)


def longrope(frequencies: Tensor, rope: RopeSettings, tokens: int) -> Tuple[Tensor, float]:
    """Each frequency divided by a factor of its own, for short or for long sequences; and the factor on both."""
    original = rope.scaling.get("original_max_position_embeddings") or rope.max_positions
    factors = rope.scaling["long_factor" if tokens > original else "short_factor"]
    growth = rope.max_positions / original
    scale = math.sqrt(1.0 + math.log(growth) / math.log(original)) if growth > 1.0 else 1.0
    scale = rope.scaling.get("attention_factor") or scale
    return frequencies / torch.tensor(factors, dtype=torch.float64), scale


def rope_frequencies(rope: RopeSettings, tokens: int) -> Tuple[Tensor, float]:
    """The width / 2 angular frequencies and the factor on cosine and sine."""
    head_dim = rope.width
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    frequencies = torch.pow(torch.tensor(rope.theta, dtype=torch.float64), -exponents)
    if rope.kind in ("default", "dynamic"):  # dynamic scaling acts only beyond max_position_embeddings
        return frequencies, 1.0
    if rope.kind == "linear":
        return frequencies / rope.scaling["factor"], 1.0
    if rope.kind == "llama3":
        return llama3_frequencies(frequencies, rope), 1.0
    if rope.kind == "yarn":
        scale = rope.scaling.get("attention_factor") or 0.1 * math.log(rope.scaling["factor"]) + 1.0
        return yarn_frequencies(frequencies, rope, head_dim), scale
    if rope.kind == "longrope":
        return longrope(frequencies, rope, tokens)
    raise ValueError(f"unsupported rope type {rope.kind}")


def apply_rope(x: Tensor, rope: Optional[RopeSettings]) -> Tensor:
    """Rotates [..., T, head_dim]: dimension i pairs with i + width / 2; those from `width` on stay."""
    if rope is None:
        return x
    tokens = x.shape[-2]
    frequencies, scale = rope_frequencies(rope, tokens)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * frequencies
    cosine, sine = scale * angles.cos(), scale * angles.sin()
    half = rope.width // 2
    first, second, rest = x[..., :half], x[..., half : rope.width], x[..., rope.width :]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), dim=-1)


def linear(weights: BlockTensors, module: str, x: Tensor) -> Tensor:
    """x W^T plus the bias where the checkpoint has one, plus an update of W for inputs of which some are dropped."""
    y = x @ weights[f"{module}.weight"].T
    if f"{module}.update" in weights:
        y = y + (x * weights[f"{module}.kept"]) @ weights[f"{module}.update"].T
    bias = weights.get(f"{module}.bias")
    return y if bias is None else y + bias


def attention(config: ModelConfig, weights: BlockTensors, x: Tensor) -> Tensor:
    """Grouped-query causal attention of normed hidden states, before the output projection: [..., T, heads * hd]."""
    tokens = x.shape[-2]
    if config.sliding_window is not None and tokens > config.sliding_window:
        raise ValueError("sequence longer than the sliding window")

    def heads_of(module: str, count: int, norm: Optional[Tensor]) -> Tensor:
        y = linear(weights, module, x)
        if norm is not None and len(norm) == y.shape[-1]:
            y = rms_norm(y, norm, config.norm_epsilon)  # of all heads together
        y = y.unflatten(-1, (count, config.head_dim)).transpose(-3, -2)
        return y if norm is None or len(norm) != config.head_dim else rms_norm(y, norm, config.norm_epsilon)

    q = heads_of("self_attn.q_proj", config.head_count, weights.get("self_attn.q_norm.weight"))
    k = heads_of("self_attn.k_proj", config.kv_head_count, weights.get("self_attn.k_norm.weight"))
    v = heads_of("self_attn.v_proj", config.kv_head_count, None)
    q, k = apply_rope(q, config.rope), apply_rope(k, config.rope)
    repeats = config.head_count // config.kv_head_count
    k, v = k.repeat_interleave(repeats, dim=-3), v.repeat_interleave(repeats, dim=-3)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-2, -1) / math.sqrt(config.head_dim)).masked_fill(future, -math.inf)
    return (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)


def block_forward(
    config: ModelConfig, weights: BlockTensors, x: Tensor, inputs: Optional[Dict[str, Tensor]] = None
) -> Tensor:
    """f(X) of one decoder block. `inputs` receives what feeds the pruned matrices, by the names of INPUT_OF_MODULE."""

    def norm(value: Tensor, name: str, here: bool) -> Tensor:
        return rms_norm(value, weights[f"{name}.weight"], config.norm_epsilon) if here else value

    before, after = not config.norms_after, config.norms_after
    normed = norm(x, "input_layernorm", before)
    attended = attention(config, weights, normed)
    x = x + norm(linear(weights, "self_attn.o_proj", attended), "post_attention_layernorm", after)
    mlp_input = norm(x, "post_attention_layernorm", before)
    gate = torch.nn.functional.silu(linear(weights, "mlp.gate_proj", mlp_input))
    activation = gate * linear(weights, "mlp.up_proj", mlp_input)
    if inputs is not None:
        inputs["attention_input"] = normed
        inputs["attention_output"] = attended
        inputs["mlp_input"] = mlp_input
        inputs["mlp_activation"] = activation
    return x + norm(linear(weights, "mlp.down_proj", activation), "post_feedforward_layernorm", after)


def embed(model: Model, tokens: Tensor) -> Tensor:
    """Token ids [..., T] to hidden states [..., T, H]."""
    return model.value("model.embed_tokens.weight")[tokens]


def logits(config: ModelConfig, model: Model, x: Tensor) -> Tensor:
    """Final norm and head; without `lm_head.weight` the embedding is the head."""
    head = "lm_head.weight" if "lm_head.weight" in model.tensors else "model.embed_tokens.weight"
    return rms_norm(x, model.value("model.norm.weight"), config.norm_epsilon) @ model.value(head).T


def perplexity(config: ModelConfig, model: Model, tokens: Tensor, length: int) -> Tuple[float, int]:
    """exp of the mean over windows of the mean cross-entropy of the length - 1 predictions, and the window count.

    All tokens are joined and cut into floor(total / length) windows that do not overlap; the tail is dropped.
    """
    flat = tokens.flatten()
    windows = flat[: len(flat) // length * length].reshape(-1, length)
    blocks = [model.block(index) for index in range(config.block_count)]
    losses = []
    for window in windows:
        x = embed(model, window)
        for index, weights in enumerate(blocks):
            x = block_forward(config.of_block(index), weights, x)
        losses.append(torch.nn.functional.cross_entropy(logits(config, model, x)[:-1], window[1:]))
    return float(torch.stack(losses).mean().exp()), len(windows)
