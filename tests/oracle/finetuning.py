"""Fine-tuning in float64 with PyTorch's own gradients and AdamW: what `espalier finetune` must do.

Trained tensors go by their names in the program's files: `model.layers.0.self_attn.q_proj.lora_A.weight`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import h5py
import numpy
import torch
from torch import Tensor

from checkpoint import Model, ModelConfig
from decoder import block_forward, embed, rms_norm

MATRICES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
FINAL_NORM = "model.norm.weight"


@dataclass(frozen=True)
class FinetuneOptions:
    """As on the command line."""

    train: str
    loss: str
    learning_rate: float
    steps: int
    rank: int = 8
    alpha: float = 16.0
    targets: Tuple[str, ...] = MATRICES
    train_norms: bool = False
    warm_up: float = 0.1
    gradient_norm: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    dropout: float = 0.0

    def rate_of(self, step: int) -> float:
        warm = math.ceil(self.warm_up * self.steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * (self.steps - step) / max(1, self.steps - warm)

    @property
    def loss_weights(self) -> Tuple[float, float]:
        return {"lm": (1.0, 0.0), "kl": (0.0, 1.0), "mix": (0.33, 0.67)}[self.loss]


def philox(counter: List[numpy.ndarray], seed: int) -> numpy.ndarray:
    """Philox4x32-10 (Salmon et al. 2011) of arrays of counters: words, four behind each other for each counter."""
    mask, key = numpy.uint64(0xFFFFFFFF), [seed & 0xFFFFFFFF, seed >> 32]
    half = numpy.uint64(32)
    counter = [word.astype(numpy.uint64) for word in numpy.broadcast_arrays(*counter)]
    for _ in range(10):
        first, second = numpy.uint64(0xD2511F53) * counter[0], numpy.uint64(0xCD9E8D57) * counter[2]
        counter = [(second >> half) ^ counter[1] ^ numpy.uint64(key[0]), second & mask,
                   (first >> half) ^ counter[3] ^ numpy.uint64(key[1]), first & mask]  # fmt: skip
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return numpy.stack(counter, -1)


def first_a(rows: int, columns: int, offset: int, block: int, seed: int) -> Tensor:
    """Uniform in +-1/sqrt(columns), counted by element, place of the tensor and block."""
    counters = [numpy.arange((rows * columns + 3) // 4), numpy.array(offset), numpy.array(block), numpy.array(0x10AA)]
    uniform = (philox(counters, seed).reshape(-1)[: rows * columns].astype(numpy.float64) + 0.5) / 2.0**32
    return torch.from_numpy((2 * uniform - 1) / math.sqrt(columns)).reshape(rows, columns)


def drawn_order(population: int, epoch: int, seed: int, place: int = 0xE90C4) -> List[int]:
    """The order in which an epoch takes its samples: a Fisher-Yates shuffle by counter."""
    words = philox([numpy.arange(population), numpy.array(place), numpy.array(epoch), numpy.array(0)], seed)
    order = list(range(population))
    for j in range(population):
        word = (int(words[j, 0]) << 32) | int(words[j, 1])
        other = j + (word * (population - j) >> 64)
        order[j], order[other] = order[other], order[j]
    return order


def kept_inputs(shape: Tuple[int, int, int], probability: float, seed: int, stream: int, step: int) -> Tensor:
    """What dropout multiplies inputs [samples, tokens, in] by, when each step takes all samples, in a new order."""
    samples, tokens, columns = shape
    number = (step * samples * tokens + numpy.arange(samples * tokens))[:, None]
    counters = [numpy.arange((columns + 3) // 4)[None, :], number & 0xFFFFFFFF, number >> 32, numpy.array(stream)]
    words = philox(counters, seed).reshape(samples * tokens, -1)[:, :columns].reshape(shape)
    kept = torch.zeros(shape, dtype=torch.float64)
    kept[drawn_order(samples, step, seed)] = torch.from_numpy((words >= int(probability * 2**32)).astype(numpy.float64))
    return kept / (1 - probability)


class Student:
    """The pruned model, with what is trained of it."""

    def __init__(self, config: ModelConfig, model: Model, options: FinetuneOptions):
        self.config, self.model, self.options = config, model, options
        self.blocks = [model.block(index) for index in range(config.block_count)]
        self.shape, self.step = (0, 0), 0  # of the tokens, for dropout
        self.trained: Dict[str, Tensor] = {}
        self.rates: Dict[str, float] = {}
        for index, block in enumerate(self.blocks):
            self.start_block(index, block)
        if options.train_norms:
            self.add(FINAL_NORM, model.value(FINAL_NORM))

    def add(self, name: str, value: Tensor) -> None:
        kept = value[value != 0]
        relative = float(kept.square().mean().sqrt()) if len(kept) else 0.0
        self.rates[name] = relative if self.options.train == "masked" else 1.0
        self.trained[name] = value.clone().requires_grad_(True)

    def start_block(self, index: int, block: Dict[str, Tensor]) -> None:
        prefix, offset = f"model.layers.{index}.", 0
        for module in self.options.targets:
            weight = block[f"{module}.weight"]
            if self.options.train == "masked":
                self.add(f"{prefix}{module}.weight", weight)
                continue
            rank = self.options.rank
            a = first_a(rank, weight.shape[1], offset, index, self.options.seed)
            self.add(f"{prefix}{module}.lora_A.weight", a)
            self.add(f"{prefix}{module}.lora_B.weight", torch.zeros(weight.shape[0], rank, dtype=torch.float64))
            offset += rank * (weight.shape[0] + weight.shape[1])
        for name in block if self.options.train_norms else []:
            if name.endswith("norm.weight"):
                self.add(prefix + name, block[name])

    def weights_of(self, index: int) -> Dict[str, Tensor]:
        """What the forward pass of a block reads."""
        prefix, weights = f"model.layers.{index}.", dict(self.blocks[index])
        scale = self.options.alpha / self.options.rank
        for name in weights:
            if prefix + name in self.trained:
                weights[name] = self.trained[prefix + name]
        for module in self.options.targets:
            name = f"{module}.weight"
            kept = (self.blocks[index][name] != 0).double()
            if self.options.train == "masked":
                weights[name] = weights[name] * kept
                continue
            update = scale * self.trained[f"{prefix}{module}.lora_B.weight"] @ self.trained[f"{prefix}{module}.lora_A.weight"]
            update = update * kept if self.options.train == "masked-lora" else update
            if self.options.dropout == 0:
                weights[name] = weights[name] + update
                continue
            stream = (0xD0 << 24) + index * len(MATRICES) + MATRICES.index(module)
            weights[f"{module}.update"] = update
            weights[f"{module}.kept"] = kept_inputs((*self.shape, update.shape[1]), self.options.dropout,
                                                    self.options.seed, stream, self.step)  # fmt: skip
        return weights

    def logits(self, tokens: Tensor) -> Tensor:
        x = embed(self.model, tokens)
        for index in range(self.config.block_count):
            x = block_forward(self.config.of_block(index), self.weights_of(index), x)
        head = "lm_head.weight" if "lm_head.weight" in self.model.tensors else "model.embed_tokens.weight"
        norm = self.trained.get(FINAL_NORM, self.model.value(FINAL_NORM))
        return rms_norm(x, norm, self.config.norm_epsilon) @ self.model.value(head).T


def losses(logits: Tensor, tokens: Tensor, teacher: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Means over all predictions of the next token: cross-entropy, and divergence from the teacher's distribution."""
    predicted = torch.log_softmax(logits[:, :-1], -1)
    cross_entropy = -predicted.gather(-1, tokens[:, 1:, None]).mean()
    if teacher is None:
        return cross_entropy, torch.zeros((), dtype=torch.float64)
    wanted = torch.log_softmax(teacher[:, :-1], -1)
    return cross_entropy, (wanted.exp() * (wanted - predicted)).sum(-1).mean()


@dataclass
class Training:
    """What came out: each step's losses and the norm of its gradient, and the trained tensors."""

    steps: List[Tuple[float, float, float]]
    gradients: Dict[str, Tensor]  # of the last step, not clipped
    moments: Dict[str, Tensor]  # the first ones
    trained: Dict[str, Tensor]


def train(student: Student, tokens: Tensor, teacher: Optional[Tensor], first_steps: Optional[int] = None) -> Training:
    """Every step takes all samples; `first_steps`: only so many of the steps."""
    options = student.options
    groups = [{"params": [value], "name": name} for name, value in student.trained.items()]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=options.weight_decay)
    steps, gradients = [], {}
    for step in range(options.steps if first_steps is None else first_steps):
        optimizer.zero_grad()
        student.shape, student.step = tuple(tokens.shape), step
        cross_entropy, divergence = losses(student.logits(tokens), tokens, teacher)
        of_language, of_teacher = options.loss_weights
        (of_language * cross_entropy + of_teacher * divergence).backward()
        norm = math.sqrt(sum(float(value.grad.square().sum()) for value in student.trained.values()))
        gradients = {name: value.grad.clone() for name, value in student.trained.items()}
        if options.gradient_norm and norm > options.gradient_norm:
            for value in student.trained.values():
                value.grad *= options.gradient_norm / norm
        for group in optimizer.param_groups:
            group["lr"] = options.rate_of(step) * student.rates[group["name"]]
        optimizer.step()
        steps.append((float(cross_entropy), float(divergence), norm))
    moments = {name: optimizer.state[value]["exp_avg"].clone() for name, value in student.trained.items()}
    return Training(steps, gradients, moments, {name: value.detach() for name, value in student.trained.items()})


def read_trained(run: Path) -> Dict[str, Tensor]:
    """The trained tensors of a finished run, by their names."""
    trained: Dict[str, Tensor] = {}

    def visit(location: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            trained[location.replace("/", ".")] = torch.from_numpy(item[()].astype(numpy.float64))

    for path in sorted((Path(run) / "blocks").glob("*.h5")):
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    return trained
