#!/usr/bin/env python3
"""Which method leaves the best model: methods × patterns × calibrations × seeds, on text of three domains.

    bench.py --model DIR --output DIR [--methods wanda,sparsegpt,reconstruct] [--patterns 2:4]
             [--calibrations manuals,self,self:256x128] [--seeds 3] [--samples 64] [--sequence-length 64]
             [--part validation|test]

Texts come from Debian packages (domains.py). `manuals` calibrates with text of that domain, `self` with tokens drawn
from the model, as many, and `self:256x128` with so many; a seed draws other samples and other optimiser steps. Choices
are made with `--part validation`, and `test` is for reports only: a run is measured on the part that is asked. Each run
is done once: DIR/results.jsonl keeps what it gave, and the same command goes on. DIR/table-PART.md holds means ±
standard deviations, DIR/closure-*.svg show closure against seconds. Closure is ln(wanda / x) / ln(wanda / dense) of
perplexities, with Wanda's run of the same calibration: inside, on the domain that was calibrated with; outside, the
mean of the others.

Rows "llm-compressor wanda" and "llm-compressor sparsegpt" are another program's, on the same tokens and measured by the
same evaluator, and need --peer-python (llm_compressor.py). A program or preset that has changed wants another --output.

--document FILE puts the table into FILE, between the lines <!-- bench --> and <!-- end of bench -->.
Exit status 2 and one sentence on stderr when something does not fit.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extract_prose import PackageUnknown, ProseRefused  # noqa: E402
from formats.json_file import InputRefused  # noqa: E402
from formats.numbers import positive  # noqa: E402
from quality.closure import Record, dots_of, plot, table  # noqa: E402
from quality.domains import DOMAINS, write_domains  # noqa: E402
from reporting.metrics import load_run  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# Options of each row; what is searched is searched by the program on its own held-out samples.
METHODS: dict[str, list[str]] = {
    "magnitude": ["--method", "magnitude"],
    "wanda": ["--method", "wanda"],
    "sparsegpt": ["--method", "sparsegpt"],
    "rgs": ["--method", "rgs"],
    "ro": ["--method", "ro", "--ro-learning-rate", "auto"],
    "wanda++": ["--method", "wanda++", "--ro-learning-rate", "auto"],
    "best": ["--preset", "best"],
    "reconstruct": ["--method", "reconstruct"],
    "reconstruct, block": ["--method", "reconstruct", "--target", "block"],
    "reconstruct, 20 epochs": ["--method", "reconstruct", "--epochs", "20"],
    "wanda+reconstruct": ["--method", "wanda+reconstruct"],
    "rgs+sparsegpt+reconstruct": ["--method", "rgs+sparsegpt+reconstruct"],
}
# Rows of another program, by its methods; with text only.
PEERS = {"llm-compressor wanda": "wanda", "llm-compressor sparsegpt": "sparsegpt"}
CALIBRATIONS = ("manuals", "self")
DRAWN = re.compile(r"self:(\d+)x(\d+)")


class Bench:
    """Runs what is asked, and keeps what it gave."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.output: Path = options.output
        self.output.mkdir(parents=True, exist_ok=True)
        self.texts = write_domains(self.output / "texts")
        self.file = self.output / "results.jsonl"
        self.records: list[Record] = []
        if self.file.exists():
            self.records = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]

    def call(self, *words: object) -> str:
        """The standard output of a program."""
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputRefused(f"{' '.join(str(word) for word in words[:4])} …: {reason}")
        return done.stdout

    def tokens(self, kind: str, text: Path, seed: int = 0) -> Path:
        """Token files, made once."""
        options = self.options
        length = options.sequence_length if kind == "calibration" else options.evaluation_length
        file = self.output / "tokens" / f"{text.stem}-{kind}-{options.samples}-{length}-{seed}.h5"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            more = ["--samples", options.samples, "--seed", seed] if kind == "calibration" else [
                "--max-tokens", options.evaluation_tokens]  # fmt: skip
            self.call(sys.executable, ROOT / "jobs" / "prepare_tokens.py", kind, "--tokenizer", options.model, "--text",
                      text, "--sequence-length", length, *more, "--output", file)  # fmt: skip
        return file

    def evaluations(self) -> dict[str, Path]:
        """Token files to measure on, by domain."""
        part = self.options.part
        return {domain: self.tokens("evaluation", self.texts[domain][part]) for domain in DOMAINS}

    def perplexities(self, model: Path) -> dict[str, float]:
        """On every text."""
        found = {}
        for name, tokens in self.evaluations().items():
            result = self.call(self.options.espalier, "evaluate", "--model", model, "--tokens", tokens, "--json")
            found[name] = json.loads(result.splitlines()[-1])["perplexity"]
        return found

    def dense(self) -> dict[str, float]:
        """Perplexities of the dense model, measured once."""
        file = self.output / f"dense-{self.options.part}.json"
        if not file.exists():
            file.write_text(json.dumps(self.perplexities(self.options.model)), encoding="utf-8")
        return json.loads(file.read_text(encoding="utf-8"))

    def shape(self, calibration: str) -> tuple[int, int]:
        """Samples and their tokens."""
        named = DRAWN.fullmatch(calibration)
        return (int(named[1]), int(named[2])) if named else (self.options.samples, self.options.sequence_length)

    def run(self, method: str, pattern: str, calibration: str, seed: int) -> Optional[Record]:
        """One run, unless it is there already."""
        options = self.options
        samples, length = self.shape(calibration)
        key = {"method": method, "pattern": pattern, "calibration": calibration, "seed": seed,
               "samples": samples, "sequence_length": length, "part": options.part}  # fmt: skip
        if any(all(record.get(name) == value for name, value in key.items()) for record in self.records):
            return None
        is_drawn = calibration.startswith("self")
        tokens: object = f"self:{samples}x{length}"
        if not is_drawn:
            tokens = self.tokens("calibration", self.texts[calibration]["calibration"], seed)
        if method in PEERS and is_drawn:
            return None
        run = self.output / "run"
        shutil.rmtree(run, ignore_errors=True)
        start = time.monotonic()
        if method in PEERS:
            said = self.call(options.peer_python, ROOT / "jobs" / "quality" / "llm_compressor.py", "--model",
                             options.model, "--tokens", tokens, "--method", PEERS[method], "--pattern", pattern,
                             "--output", run)  # fmt: skip
            peak = json.loads(said.splitlines()[-1])["peak_resident_bytes"]
        else:
            form = ["--pattern", pattern] if pattern != "50%" else ["--pattern", "unstructured", "--sparsity", "0.5"]
            self.call(options.espalier, "prune", "--model", options.model, "--calibration", tokens, "--output", run,
                      "--seed", seed, *form, *METHODS[method])  # fmt: skip
            peak = load_run(run).metrics["peak_resident_bytes"]
        seconds = time.monotonic() - start
        record = {**key, "seconds": seconds, "peak_bytes": peak, "perplexity": self.perplexities(run)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records.append(record)
        return record

    def chosen_records(self) -> list[Record]:
        """Those of this command, in its order."""
        options = self.options
        order = [(pattern, calibration, method) for pattern in options.patterns for calibration in options.calibrations
                 for method in options.methods]  # fmt: skip
        mine = [record for record in self.records
                if (record["samples"], record["sequence_length"]) == self.shape(record["calibration"])
                and record.get("part") == options.part
                and (record["pattern"], record["calibration"], record["method"]) in order
                and record["seed"] < options.seeds]  # fmt: skip
        return sorted(mine, key=lambda record: order.index((record["pattern"], record["calibration"], record["method"])))


def listed(known: Sequence[str], also: Optional["re.Pattern[str]"] = None) -> Any:
    """A parser of words with commas between them, each of which is known, or has that form."""

    def parse(text: str) -> list[str]:
        words = text.split(";" if ";" in text else ",")
        unknown = [word for word in words if word not in known and not (also and also.fullmatch(word))]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return words

    return parse


def write_plots(folder: Path, part: str, records: Sequence[Record], dense: dict[str, float], texts: list[str]) -> None:
    """Closure against seconds, on the manuals and on the other domains: a file for each pattern and calibration."""
    for where, chosen in (("inside", texts[:1]), ("outside", texts[1:])):
        for name, dots in dots_of(records, dense, chosen).items():
            file = f"closure-{where}-{part}-{name}.svg".replace(", calibrated with ", "-").replace(":", "")
            (folder / file).write_text(plot(f"{where}: {name}", dots), encoding="utf-8")


def put_into(document: Path, text: str) -> None:
    """Replace what a document has between the two marks."""
    begin, end = "<!-- bench -->\n", "<!-- end of bench -->"
    before, mark, rest = document.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    if not mark or end not in rest:
        raise InputRefused(f"{document} has no lines '{begin.strip()}' and '{end}'")
    document.write_text(before + begin + text + end + after, encoding="utf-8")


def parse_arguments(arguments: Optional[list[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of texts, tokens and results")
    usual = ["wanda", "sparsegpt", "ro", "wanda++", "reconstruct", "best"]
    parser.add_argument("--methods", type=listed([*METHODS, *PEERS]), default=usual,
                        help="rows; separated by ';' where a name has a comma")  # fmt: skip
    parser.add_argument("--patterns", type=listed(["2:4", "4:8", "50%"]), default=["2:4"])
    parser.add_argument("--calibrations", type=listed(CALIBRATIONS, DRAWN), default=list(CALIBRATIONS))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--samples", type=positive, default=64)
    parser.add_argument("--sequence-length", type=positive, default=64)
    parser.add_argument("--evaluation-length", type=positive, default=128)
    parser.add_argument("--evaluation-tokens", type=positive, default=4096)
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--document", type=Path, help="Markdown to put the table into")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable),
                        help="a Python with llm-compressor and h5py, for rows llm-compressor …")  # fmt: skip
    parser.add_argument("--espalier", type=Path, default=ROOT / "build" / "release" / "espalier")
    return parser.parse_args(arguments)


def main(arguments: Optional[list[str]] = None) -> int:
    """Run, write the table, map refusals to exit status 2."""
    options = parse_arguments(arguments)
    try:
        bench = Bench(options)
        dense = bench.dense()
        for seed in range(options.seeds):  # so that an interrupted study has whole seeds
            for pattern in options.patterns:
                for calibration in options.calibrations:
                    for method in options.methods:
                        record = bench.run(method, pattern, calibration, seed)
                        if record is not None:
                            print(f"{pattern}, {calibration}, {method}, seed {seed}: {record['seconds']:.0f} s", flush=True)
        text = table(bench.chosen_records(), dense, list(DOMAINS))
        (options.output / f"table-{options.part}.md").write_text(text, encoding="utf-8")
        write_plots(options.output, options.part, bench.chosen_records(), dense, list(DOMAINS))
        if options.document:
            put_into(options.document, text)
        print(text, end="")
    except (InputRefused, ProseRefused, PackageUnknown, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
