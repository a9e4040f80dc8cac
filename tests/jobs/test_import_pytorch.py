"""import_pytorch.py on files that the tests write byte by byte, without PyTorch: a zip archive and a pickle.

tests/export/test_import_pytorch.py does the same with what torch.save writes.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
import_pytorch = importlib.import_module("import_pytorch")

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
    "rms_norm_eps": 1e-6,
}
BLOCK = {
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.k_proj.weight": (4, 8),
    "self_attn.v_proj.weight": (4, 8),
    "self_attn.o_proj.weight": (8, 8),
    "mlp.gate_proj.weight": (12, 8),
    "mlp.up_proj.weight": (12, 8),
    "mlp.down_proj.weight": (8, 12),
    "input_layernorm.weight": (8,),
    "post_attention_layernorm.weight": (8,),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (10, 8),
    **{f"model.layers.{block}.{name}": shape for block in range(2) for name, shape in BLOCK.items()},
    "model.norm.weight": (8,),
    "lm_head.weight": (10, 8),
}
Q_PROJ, NORM = "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"
INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"
STORAGES = {"F32": (b"FloatStorage", 4), "F16": (b"HalfStorage", 2), "BF16": (b"BFloat16Storage", 2),
            "F64": (b"DoubleStorage", 8)}  # fmt: skip


def integer(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def name_of(module: bytes, name: bytes) -> bytes:
    return pickle.GLOBAL + module + b"\n" + name + b"\n"


def sizes(values: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(integer(value) for value in values) + pickle.TUPLE


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


class Tensor:
    """A tensor as a pickle describes it; `data` are the bytes of its whole storage."""

    def __init__(self, dtype: str, shape: tuple[int, ...], data: bytes, **changed: Any) -> None:
        self.dtype, self.shape, self.data = dtype, shape, data
        self.stride, self.offset = changed.get("stride", row_major(shape)), changed.get("offset", 0)
        self.key, self.parameter = changed.get("key"), changed.get("parameter", False)

    def pickled(self, key: str) -> bytes:
        """The opcodes that torch.save writes for a tensor, without its memo."""
        storage, item = STORAGES[self.dtype]
        described = text("storage") + name_of(b"torch", storage) + text(key) + text("cpu")
        described += integer(len(self.data) // item)
        rebuilt = pickle.MARK + (pickle.MARK + described + pickle.TUPLE + pickle.BINPERSID)
        rebuilt += integer(self.offset) + sizes(self.shape) + sizes(self.stride) + pickle.NEWFALSE
        rebuilt += name_of(b"collections", b"OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.TUPLE
        tensor = name_of(b"torch._utils", b"_rebuild_tensor_v2") + rebuilt + pickle.REDUCE
        if not self.parameter:
            return tensor
        return name_of(b"torch._utils", b"_rebuild_parameter") + pickle.MARK + tensor + pickle.NEWFALSE + \
            pickle.EMPTY_DICT + pickle.TUPLE + pickle.REDUCE  # fmt: skip


def pickle_of(tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, bytes]]:
    """data.pkl of an OrderedDict of tensors with its _metadata, and the storages by key."""
    content = pickle.PROTO + b"\x02" + name_of(b"collections", b"OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    storages: dict[str, bytes] = {}
    content += pickle.MARK
    for number, (name, tensor) in enumerate(tensors.items()):
        key = tensor.key or str(number)
        storages[key] = tensor.data
        content += text(name) + tensor.pickled(key)
    content += pickle.SETITEMS + pickle.EMPTY_DICT + text("_metadata") + pickle.EMPTY_DICT + pickle.SETITEM
    return content + pickle.BUILD + pickle.STOP, storages


def write_archive(path: Path, content: bytes, storages: dict[str, bytes], **changed: Any) -> None:
    """The zip archive of torch.save."""
    with zipfile.ZipFile(path, "w", changed.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", changed.get("byteorder", b"little"))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")


def write_bin(path: Path, tensors: dict[str, Tensor], **changed: Any) -> None:
    write_archive(path, *pickle_of(tensors), **changed)


def random_tensors(dtype: str = "F16") -> dict[str, Tensor]:
    random = np.random.default_rng(5)
    item = STORAGES[dtype][1]
    return {name: Tensor(dtype, shape, random.bytes(int(np.prod(shape)) * item)) for name, shape in SHAPES.items()}


def write_model(folder: Path, tensors: dict[str, Tensor], shards: int = 1, **config: Any) -> None:
    """A model folder with pickled weights and a few other files."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "training_args.bin").write_bytes(b"pickled")
    if shards == 1:
        write_bin(folder / "pytorch_model.bin", tensors)
        return
    weight_map, names = {}, list(tensors)
    for shard in range(shards):
        file = f"pytorch_model-0000{shard + 1}-of-0000{shards}.bin"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        write_bin(folder / file, {name: tensors[name] for name in part})
        weight_map |= {name: file for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def run(tmp_path: Path) -> int:
    return import_pytorch.main([str(tmp_path / "model"), str(tmp_path / "out")])


def read_file(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> dtype, shape and data, through the reference reader."""
    return dict(safetensors.deserialize(path.read_bytes()))


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refused import, which must leave nothing behind."""
    assert run(tmp_path) == 2
    message = capsys.readouterr().err
    assert message.startswith("import_pytorch: ") and message.count("\n") == 1
    assert not list(tmp_path.glob("out*"))
    return message


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 2])
def test_values_stay_bit_for_bit(tmp_path, dtype, shards):
    tensors = random_tensors(dtype)
    tensors[INV_FREQ] = Tensor("F32", (4,), bytes(16))
    tensors[NORM].parameter = True
    write_model(tmp_path / "model", tensors, shards)
    assert run(tmp_path) == 0
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == (["model.safetensors"] if shards == 1 else
                     ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])  # fmt: skip
    written: dict[str, dict[str, Any]] = {}
    for file in files:
        written |= {name: tensor | {"file": file} for name, tensor in read_file(tmp_path / "out" / file).items()}
    assert written.keys() == SHAPES.keys()
    for name, tensor in written.items():
        assert (tensor["dtype"], tuple(tensor["shape"])) == (dtype, SHAPES[name])
        assert bytes(tensor["data"]) == tensors[name].data, name
    others = {path.name for path in (tmp_path / "out").iterdir()} - set(files)
    assert others == {"config.json", "tokenizer.model"} | ({"model.safetensors.index.json"} if shards > 1 else set())
    if shards > 1:
        index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
        assert index["weight_map"] == {name: tensor["file"] for name, tensor in written.items()}
        assert index["metadata"]["total_size"] == sum(len(tensors[name].data) for name in SHAPES)


def test_views_of_a_storage_are_written_out(tmp_path):
    tensors = random_tensors("F32")
    values = np.arange(400, dtype=np.float32)
    tensors[Q_PROJ] = Tensor("F32", (8, 8), values.tobytes(), stride=(1, 8), offset=3, key="shared")
    tensors["lm_head.weight"] = Tensor("F32", (10, 8), values.tobytes(), offset=320, key="shared")
    write_model(tmp_path / "model", tensors)
    assert run(tmp_path) == 0
    written = read_file(tmp_path / "out/model.safetensors")
    transposed = values[3:67].reshape(8, 8).T
    assert bytes(written[Q_PROJ]["data"]) == np.ascontiguousarray(transposed).tobytes()
    assert bytes(written["lm_head.weight"]["data"]) == values[320:].tobytes()


def test_a_tied_head_that_is_the_embedding_is_left_out(tmp_path):
    tensors = random_tensors()
    tensors["model.embed_tokens.weight"].key = "shared"
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_model(tmp_path / "model", tensors, tie_word_embeddings=True)
    assert run(tmp_path) == 0
    assert "lm_head.weight" not in read_file(tmp_path / "out/model.safetensors")


def test_mixed_types_are_aligned(tmp_path):
    tensors = random_tensors("BF16") | {NORM: Tensor("F32", (8,), bytes(range(32)))}
    write_model(tmp_path / "model", tensors)
    assert run(tmp_path) == 0
    content = (tmp_path / "out/model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header[NORM]["dtype"] == "F32" and header[NORM]["data_offsets"][0] == 0


def test_a_folder_of_the_hubs_cache_is_its_snapshot(tmp_path):
    cache = tmp_path / "model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("abc")
    (cache / "snapshots").mkdir()
    write_model(cache / "snapshots/abc", random_tensors())
    assert run(tmp_path) == 0
    assert (tmp_path / "out/model.safetensors").exists()


class Bomb:
    """Unpickled as anything else than data, it makes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("where", ["alone", "beside tensors"])
def test_code_is_refused_by_name_and_not_run(tmp_path, capsys, protocol, where):
    write_model(tmp_path / "model", random_tensors())
    value: Any = Bomb(tmp_path / "was here")
    content = pickle.dumps(value if where == "alone" else {"a": [value]}, protocol)
    write_archive(tmp_path / "model/pytorch_model.bin", content, {})
    message = refusal(tmp_path, capsys)
    assert f"{os.mkdir.__module__}.mkdir" in message and "was not called" in message
    assert not (tmp_path / "was here").exists()
    pickle.loads(content)  # the bomb is one
    assert (tmp_path / "was here").exists()


HOSTILE = {
    "getattr": name_of(b"builtins", b"getattr") + pickle.STOP,
    "eval": name_of(b"builtins", b"eval") + pickle.MARK + text("1") + pickle.TUPLE + pickle.REDUCE + pickle.STOP,
    "torch.load": name_of(b"torch", b"load") + pickle.STOP,
    "inst": pickle.MARK + text("id") + pickle.INST + b"os\nsystem\n" + pickle.STOP,
    "a large memo": pickle.EMPTY_DICT + pickle.LONG_BINPUT + b"\xff\xff\xff\xff" + pickle.STOP,
    "not a tensor": pickle.EMPTY_DICT + text("a") + integer(3) + pickle.SETITEM + pickle.STOP,
    "an extension": pickle.EXT1 + b"\x01" + pickle.STOP,
    "cut": pickle.EMPTY_DICT + pickle.BINUNICODE + struct.pack("<I", 1000) + b"x",
    "empty": b"",
}
REASONS = {"getattr": "'builtins.getattr'", "eval": "'builtins.eval'", "torch.load": "'torch.load'",
           "inst": "'os.system'", "a large memo": "lacks 21 tensor(s)", "not a tensor": "entry 'a' is not a tensor",
           "an extension": "cannot be read", "cut": "cannot be read", "empty": "cannot be read"}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, capsys, name):
    write_model(tmp_path / "model", random_tensors())
    write_archive(tmp_path / "model/pytorch_model.bin", pickle.PROTO + b"\x02" + HOSTILE[name], {})
    assert REASONS[name] in refusal(tmp_path, capsys)


def changed(**changes: Any) -> dict[str, Tensor]:
    """Random tensors of which q_proj has other properties."""
    values = {"dtype": "F16", "shape": (8, 8), "data": bytes(128), **changes}
    return random_tensors() | {Q_PROJ: Tensor(**values)}


@pytest.mark.parametrize(
    ("tensors", "config", "reason"),
    [
        (changed(shape=(4, 16)), {}, f"tensor {Q_PROJ} in "),
        (changed(shape=(4, 16)), {}, "has shape [4, 16]; config.json implies [8, 8]"),
        (changed(dtype="F64", data=bytes(512)), {}, "has dtype F64; F32, F16 or BF16 is needed"),
        (changed(data=bytes(126)), {}, "a tensor reaches beyond its storage"),
        (changed(offset=1), {}, "a tensor reaches beyond its storage"),
        (changed(stride=(0, 1), data=bytes(16)), {}, "a tensor reaches beyond its storage"),
        (changed(stride=(8,)), {}, "shape and stride have different lengths"),
        (changed(offset=-1), {}, "not described by storage, offset, shape and stride"),
        (random_tensors() | {"model.extra": Tensor("F16", (1,), bytes(2))}, {}, "model.extra"),
        (random_tensors(), {"num_hidden_layers": 1}, "does not belong to a model of type llama with 1 blocks"),
        (random_tensors(), {"num_hidden_layers": 3}, "implies, first model.layers.2"),
        (random_tensors(), {"model_type": "qwen2"}, "lacks 6 tensor(s) that config.json implies"),
        (random_tensors(), {"attention_bias": True, "mlp_bias": True}, "lacks 14 tensor(s)"),
        (random_tensors(), {"model_type": "gpt2"}, "'model_type' is 'gpt2'; llama, mistral, qwen2, qwen3 are"),
        (random_tensors(), {"hidden_size": "8"}, "'hidden_size' is '8'; a positive whole number is expected"),
    ],
)
def test_refuses_what_config_json_does_not_imply(tmp_path, capsys, tensors, config, reason):
    write_model(tmp_path / "model", tensors, **config)
    assert reason in refusal(tmp_path, capsys)


def overwrite(**content: bytes) -> Any:
    """Changes pytorch_model.bin's bytes."""
    return lambda folder: (folder / "pytorch_model.bin").write_bytes(content["content"])


def flip_a_bit(folder: Path) -> None:
    path = folder / "pytorch_model.bin"
    data = path.read_bytes()
    place = data.find(b"archive/data/3") + 30
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def cut(folder: Path) -> None:
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])


def archive_without_pickle(folder: Path) -> None:
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("readme", "x")


def storage_missing(folder: Path) -> None:
    content, storages = pickle_of(random_tensors())
    del storages["3"]
    write_archive(folder / "pytorch_model.bin", content, storages)


def written_with(**options: Any) -> Any:
    return lambda folder: write_bin(folder / "pytorch_model.bin", random_tensors(), **options)


BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
DAMAGED = {
    "before 1.6": (overwrite(content=BEFORE_1_6), "PyTorch before 1.6"),
    "a pointer": (overwrite(content=b"version https://git-lfs.github.com/spec/v1\n"), "git-lfs pointer"),
    "text": (overwrite(content=b"hello"), "not a file of torch.save"),
    "empty": (overwrite(content=b""), "not a file of torch.save"),
    "cut": (cut, "is damaged"),
    "a bit": (flip_a_bit, "is damaged: archive/data/3 cannot be read"),
    "no pickle": (archive_without_pickle, "holds no data.pkl"),
    "storage missing": (storage_missing, "archive/data/3 cannot be read"),
    "compressed": (written_with(compression=zipfile.ZIP_DEFLATED), "compressed"),
    "big-endian": (written_with(byteorder=b"big"), "big-endian"),
    "no weights": (lambda folder: (folder / "pytorch_model.bin").unlink(), "holds neither pytorch_model.bin nor"),
    "safetensors": (lambda folder: (folder / "model.safetensors").touch(), "holds safetensors already"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot read"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_refuses_damaged_folders(tmp_path, capsys, name):
    damage, reason = DAMAGED[name]
    write_model(tmp_path / "model", random_tensors())
    damage(tmp_path / "model")
    assert reason in refusal(tmp_path, capsys)


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({NORM: "../pytorch_model-00001-of-00002.bin"}, "is not a plain file name"),
        ({NORM: "pytorch_model-00003-of-00002.bin"}, "cannot read"),
        ({NORM: "pytorch_model-00001-of-00002.bin"}, f"tensor {NORM} is not in pytorch_model-00001-of-00002.bin"),
        ({NORM: 3}, "is not a plain file name"),
    ],
)
def test_refuses_indexes_that_do_not_fit(tmp_path, capsys, weight_map, reason):
    write_model(tmp_path / "model", random_tensors(), 2)
    path = tmp_path / "model/pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= weight_map
    path.write_text(json.dumps(index))
    assert reason in refusal(tmp_path, capsys)


def test_what_the_index_does_not_map_is_left_out(tmp_path):
    tensors = random_tensors()
    write_model(tmp_path / "model", tensors, 2)
    stale = {NORM: Tensor("F16", (8,), bytes(16))}
    first = tmp_path / "model/pytorch_model-00001-of-00002.bin"
    names = list(tensors)[: len(tensors) // 2]
    write_bin(first, {name: tensors[name] for name in names} | stale)
    assert run(tmp_path) == 0
    assert NORM not in read_file(tmp_path / "out/model-00001-of-00002.safetensors")
    assert bytes(read_file(tmp_path / "out/model-00002-of-00002.safetensors")[NORM]["data"]) == tensors[NORM].data


def test_an_output_that_exists_is_kept(tmp_path, capsys):
    write_model(tmp_path / "model", random_tensors())
    (tmp_path / "out").mkdir()
    assert run(tmp_path) == 2
    assert "exists already" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())


def test_runs_as_a_script(tmp_path):
    write_model(tmp_path / "model", random_tensors())
    script = [sys.executable, JOBS / "import_pytorch.py", tmp_path / "model", tmp_path / "out"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'out'}: 21 tensors in 1 file(s)\n" and done.stderr == ""
