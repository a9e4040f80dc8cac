"""Tokenizers of model folders: tokenizer.json, or SentencePiece's tokenizer.model with the ids of transformers."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from formats.checkpoint_folder import locate_model_folder
from formats.json_file import InputRefused


class TextTokenizer(Protocol):
    """What makes token ids of texts; decided once: whether each text begins with the beginning-of-sequence token."""

    sha256: str  # of the tokenizer's file

    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special ones as they are written."""

    def adds_bos(self) -> bool:
        """Whether an encoded text begins with a token that is not part of the text."""


@dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer.json with a decision about the beginning-of-sequence token.

    `add_special_tokens` lets the post-processor of tokenizer.json act; `bos_id` is put in front where that alone would
    not do what the user asked for.
    """

    tokenizer: Tokenizer
    sha256: str
    add_special_tokens: bool
    bos_id: int | None

    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""
        ids = self.tokenizer.encode(text, add_special_tokens=self.add_special_tokens).ids
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special ones as they are written."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def adds_bos(self) -> bool:
        """Whether an encoded text begins with a token that is not part of the text."""
        plain = self.tokenizer.encode("a", add_special_tokens=False).ids
        return self.encode("a")[: len(plain)] != plain


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """A tokenizer.model as transformers' LlamaTokenizer uses it.

    Special and added tokens are cut out of the text first, the longest at each place; every piece between them is
    encoded by itself.
    """

    processor: Any  # sentencepiece.SentencePieceProcessor
    sha256: str
    begin: list[int]
    end: list[int]
    special: dict[str, int] = field(default_factory=dict)
    legacy: bool = True

    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""
        ids = list(self.begin)
        alternatives = "|".join(re.escape(token) for token in sorted(self.special, key=len, reverse=True))
        pieces = re.split(f"({alternatives})", text) if alternatives else [text]
        if len(pieces) > 1 and not self.legacy:
            raise InputRefused(
                f"a text holds the special token {pieces[1]!r}, and tokenizer_config.json says 'legacy': false: that "
                f"needs a tokenizer.json"
            )
        for number, piece in enumerate(pieces):
            if number % 2 == 1:
                ids.append(self.special[piece])
            elif piece:
                ids += self.processor.encode(piece if self.legacy else piece.replace("\u2581", " "))
        return ids + self.end

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special ones as they are written."""
        return self.processor.decode(ids)

    def adds_bos(self) -> bool:
        """Whether an encoded text begins with a token that is not part of the text."""
        return bool(self.begin)


def load_tokenizer(path: Path, add_bos: bool | None) -> TextTokenizer:
    """Load the tokenizer of a folder, or a tokenizer.json or tokenizer.model; `add_bos` None follows its own rule."""
    folder = locate_model_folder(path) if path.is_dir() else None
    file = path if folder is None else folder / "tokenizer.json"
    if folder is not None and not file.exists() and (folder / "tokenizer.model").exists():
        file = folder / "tokenizer.model"
    return load_sentencepiece(file, add_bos) if file.suffix == ".model" else load_json(file, add_bos)


def load_json(file: Path, add_bos: bool | None) -> JsonTokenizer:
    """Load a tokenizer.json; without `add_bos` its own post-processor acts."""
    try:
        content = file.read_bytes()
        tokenizer = Tokenizer.from_str(content.decode())
    except OSError as error:
        raise InputRefused(f"cannot read the tokenizer {file}: {error.strerror}") from error
    except Exception as error:  # tokenizers raises the bare Exception
        raise InputRefused(f"{file} is not a tokenizer.json ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    bos_id = bos_token_id(file.with_name("tokenizer_config.json"), tokenizer) if add_bos else None
    return JsonTokenizer(tokenizer, hashlib.sha256(content).hexdigest(), add_bos is None, bos_id)


def token_text(token: Any) -> str | None:
    """The text of a token in tokenizer_config.json, which is a string or an object with its content."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def bos_token_id(config: Path, tokenizer: Tokenizer) -> int:
    """Id of the bos_token that tokenizer_config.json names."""
    try:
        token = token_text(json.loads(config.read_text(encoding="utf-8")).get("bos_token"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"--add-bos needs a readable {config} that names the bos_token ({error})") from error
    index = tokenizer.token_to_id(token) if token is not None else None
    if index is None:
        raise InputRefused(f"--add-bos: {config} names no bos_token that the tokenizer knows")
    return index


def first_token_of_texts(path: Path) -> str:
    """The token that stands before a text without a context: bos or, where tokenizer_config.json has none, eos."""
    folder = locate_model_folder(path) if path.is_dir() else path.parent
    config = optional_object(folder / "tokenizer_config.json")
    named = [token_text(config.get(f"{name}_token")) for name in ("bos", "eos")]
    if not (folder / "tokenizer.json").exists():
        named = [token or LLAMA_TOKENS[name] for token, name in zip(named, ("bos", "eos"))]
    token = next((token for token in named if token), None)
    if token is None:
        raise InputRefused(
            f"a text without a context needs a token to begin with, but {folder / 'tokenizer_config.json'} names "
            f"neither bos_token nor eos_token"
        )
    return token


def optional_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that may be absent."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"cannot read {path} ({error})") from error
    if not isinstance(value, dict):
        raise InputRefused(f"{path} is not a JSON object")
    return value


def load_sentencepiece(file: Path, add_bos: bool | None) -> SentencePieceTokenizer:
    """Load a tokenizer.model; without `add_bos`, tokenizer_config.json decides, and where it is silent bos is added."""
    try:
        import sentencepiece  # pylint: disable=import-outside-toplevel
    except ModuleNotFoundError as error:
        raise InputRefused(
            f"{file} needs the Python package sentencepiece: jobs/virtual_environment.sh build/venv "
            f"jobs/requirements.txt installs it"
        ) from error
    try:
        content = file.read_bytes()
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except OSError as error:
        raise InputRefused(f"cannot read the tokenizer {file}: {error.strerror}") from error
    except Exception as error:  # what its C++ library throws
        raise InputRefused(f"{file} is not a SentencePiece model ({error})") from error
    config = optional_object(file.with_name("tokenizer_config.json"))
    special = special_tokens(file, config, processor)
    named = {name: token_text(config.get(f"{name}_token")) or token for name, token in LLAMA_TOKENS.items()}

    def ids_of(name: str, wanted: bool) -> list[int]:
        if wanted and named[name] not in special:
            raise InputRefused(f"{file} does not know the {name} token {named[name]!r}")
        return [special[named[name]]] if wanted else []

    begin = ids_of("bos", config.get("add_bos_token", True) is not False if add_bos is None else add_bos)
    end = ids_of("eos", add_bos is None and config.get("add_eos_token") is True)
    sha256 = hashlib.sha256(content).hexdigest()
    return SentencePieceTokenizer(processor, sha256, begin, end, special, config.get("legacy") is not False)


LLAMA_TOKENS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}  # what LlamaTokenizer takes where nothing else is said


def special_tokens(file: Path, config: dict[str, Any], processor: Any) -> dict[str, int]:
    """Text -> id of the tokens that are cut out of a text before it is encoded."""
    named = [token_text(config.get(f"{name}_token")) or token for name, token in LLAMA_TOKENS.items()]
    named += [token for token in (token_text(config.get("pad_token")),) if token]
    ids = {token: processor.piece_to_id(token) for token in named}
    special = {token: index for token, index in ids.items() if processor.id_to_piece(index) == token}
    added = dict(optional_object(file.with_name("added_tokens.json")))
    for index, token in (config.get("added_tokens_decoder") or {}).items():
        added[token_text(token)] = int(index)
        if isinstance(token, dict) and (token.get("lstrip") or token.get("rstrip") or token.get("single_word")):
            raise InputRefused(
                f"{file.with_name('tokenizer_config.json')}: the added token {token_text(token)!r} takes white space "
                f"with it, which needs a tokenizer.json"
            )
    return special | {token: index for token, index in added.items() if isinstance(token, str) and type(index) is int}
