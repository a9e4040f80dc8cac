"""The same work in PyTorch, to compare with: Wanda++ on decoder blocks of a Hugging Face LLaMA folder, same samples, same schedule.

Same as `espalier prune --method wanda++`: one dense forward and backward over all samples for the regional gradient, K rounds
of mask and RMSprop steps on M drawn samples, one forward after the first mask, norms, last mask, one forward to the next block.
float32, autograd, torch's own RMSprop. Prints seconds a block and the peak resident set.
"""

import argparse
import json
import resource
import struct
import time
from pathlib import Path

import h5py
import numpy
import torch

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Checkpoint:
    """Single tensors of a one-file bfloat16 or float32 checkpoint, read when asked for, as float32."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model.safetensors"
        with self.path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            self.header = json.loads(file.read(length))
        self.start = 8 + length

    def tensor(self, name: str) -> torch.Tensor:
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        with self.path.open("rb") as file:
            file.seek(self.start + begin)
            raw = file.read(end - begin)
        if entry["dtype"] == "BF16":
            values = (numpy.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = numpy.frombuffer(raw, "<f4").copy()
        return torch.from_numpy(values.reshape(entry["shape"]))


class Block(torch.nn.Module):
    """One LLaMA decoder block in float32; keeps the inputs of its linear layers when `observe` is set."""

    def __init__(self, weights: dict[str, torch.Tensor], config: dict, tokens: int) -> None:
        super().__init__()
        self.linear = torch.nn.ParameterDict({name: torch.nn.Parameter(weights[name]) for name in MATRICES})
        self.input_norm, self.mlp_norm = weights["input_layernorm"], weights["post_attention_layernorm"]
        self.epsilon = config["rms_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.head_size = config["hidden_size"] // self.heads
        frequencies = config["rope_theta"] ** (-torch.arange(0, self.head_size, 2) / self.head_size)
        angles = torch.outer(torch.arange(tokens), frequencies)
        self.cosine, self.sine = torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()
        self.causal = torch.full((tokens, tokens), float("-inf")).triu(1)
        self.norms: dict[str, torch.Tensor] | None = None

    def apply(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if self.norms is not None:
            self.norms[name] = self.norms.get(name, 0) + x.detach().square().sum(0)
        return x @ self.linear[name].T

    def normalise(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * weight

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cosine + torch.cat([-second, first], -1) * self.sine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.shape[0]
        normed = self.normalise(x, self.input_norm)
        q, k, v = (self.apply(n, normed).view(tokens, -1, self.head_size).transpose(0, 1) for n in MATRICES[:3])
        repeat = self.heads // self.kv_heads
        q, k = self.rotate(q), self.rotate(k).repeat_interleave(repeat, 0)
        p = torch.softmax(q @ k.transpose(1, 2) / self.head_size**0.5 + self.causal, -1)
        attention = (p @ v.repeat_interleave(repeat, 0)).transpose(0, 1).reshape(tokens, -1)
        h = x + self.apply("o_proj", attention)
        normed = self.normalise(h, self.mlp_norm)
        return h + self.apply("down_proj", torch.nn.functional.silu(self.apply("gate_proj", normed)) * self.apply("up_proj", normed))


def gather_norms(block: Block, samples: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    block.norms = {}
    with torch.no_grad():
        for x in samples:
            block(x)
    norms, block.norms = {name: value.sqrt() for name, value in block.norms.items()}, None
    return norms


def mask_weights(block: Block, norms: dict[str, torch.Tensor], gradient: dict[str, torch.Tensor]) -> None:
    """2:4 by |W| (100 G + c)."""
    with torch.no_grad():
        for name, weight in block.linear.items():
            score = (weight.abs() * (100 * gradient[name] + norms[name])).view(weight.shape[0], -1, 4)
            worst = score.topk(2, dim=-1, largest=False).indices
            weight.masked_fill_(torch.zeros_like(score, dtype=torch.bool).scatter_(-1, worst, True).view_as(weight), 0)


def prune(block: Block, x: list[torch.Tensor], drawn: int, rounds: int, rate: float) -> list[torch.Tensor]:
    """Wanda++ on one block; returns the inputs of the next."""
    gradient = {name: torch.zeros_like(weight) for name, weight in block.linear.items()}
    dense = []
    for sample in x:
        y = block(sample)
        dense.append(y.detach())
        block.zero_grad(set_to_none=True)
        y.norm().backward()
        for name, weight in block.linear.items():
            gradient[name] += weight.grad.square()
    gradient = {name: (value / len(x)).sqrt() for name, value in gradient.items()}
    optimizer = torch.optim.RMSprop(block.linear.parameters(), lr=rate, alpha=0.99, eps=1e-8)
    generator = torch.Generator().manual_seed(0)
    for round_number in range(rounds):
        draws = torch.randperm(len(x), generator=generator)[:drawn].tolist()
        mask_weights(block, gather_norms(block, [x[n] for n in draws]), gradient)
        if round_number == 0:
            with torch.no_grad():
                sum(float((block(a) - b).square().sum()) for a, b in zip(x, dense))
        for n in draws:
            optimizer.zero_grad(set_to_none=True)
            (block(x[n]) - dense[n]).square().sum().backward()
            optimizer.step()
    mask_weights(block, gather_norms(block, x), gradient)
    with torch.no_grad():
        return [block(sample) for sample in x]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--ro-samples", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = Checkpoint(options.model)
    config = json.loads((options.model / "config.json").read_text())
    ids = h5py.File(options.calibration)["input_ids"][:]
    embedding = model.tensor("model.embed_tokens.weight")
    x = [embedding[torch.as_tensor(row, dtype=torch.long)] for row in ids]
    del embedding
    seconds = []
    for index in range(options.blocks):
        prefix = f"model.layers.{index}."
        parts = {"self_attn": MATRICES[:4], "mlp": MATRICES[4:]}
        names = {name: f"{prefix}{part}.{name}.weight" for part, group in parts.items() for name in group}
        names |= {name: f"{prefix}{name}.weight" for name in ("input_layernorm", "post_attention_layernorm")}
        block = Block({name: model.tensor(full) for name, full in names.items()}, config, ids.shape[1])
        start = time.monotonic()
        x = prune(block, x, options.ro_samples, 5, 3e-4)
        seconds.append(time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"PyTorch {torch.__version__}, {options.threads} thread(s): {sum(seconds) / len(seconds):.2f} s a block, "
          f"peak {peak / 2**20:.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps({"seconds_per_block": sum(seconds) / len(seconds), "peak_resident_bytes": peak}))


if __name__ == "__main__":
    main()
