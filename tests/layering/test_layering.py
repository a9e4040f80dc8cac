"""The layers of docs/architecture.md, checked: who may include whom, who may know which library, how headers look.

A new folder, or a new edge between folders, has to be entered in EDGES here and in CMakeLists.txt.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Iterable, List, Set, Tuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
MOST_LINES = 400

# Folder -> folders whose headers it may include, besides its own.
EDGES: Dict[str, Set[str]] = {
    "src/base": set(),
    "kernels": {"src/base"},
    "mpi": {"src/base", "kernels"},
    "io": {"src/base"},
    "src/model": {"src/base", "kernels"},
    "src/weights": {"src/base", "kernels", "src/model", "io"},
    "src/report": {"src/base"},
    "src/blocks": {"src/base", "kernels", "mpi", "io", "src/model", "src/weights"},
}
for upper, lower in (("src/samples", "src/blocks"), ("src/method", "src/samples"), ("src/optimize", "src/method")):
    EDGES[upper] = EDGES[lower] | {lower}
EDGES["src/prune"] = EDGES["src/optimize"] | {"src/optimize", "src/report"}
EDGES["src/evaluate"] = EDGES["src/method"] | {"src/method"}
EDGES["src/finetune"] = EDGES["src/samples"] | {"src/samples", "src/report"}
EDGES["src/plan"] = EDGES["src/prune"] | EDGES["src/finetune"] | {"src/prune", "src/evaluate", "src/finetune"}
EDGES["src/cli"] = EDGES["src/plan"] | {"src/plan"}
# Where only one header of a folder is open to another.
OPEN_HEADERS: Dict[Tuple[str, str], Set[str]] = {
    ("mpi", "kernels"): {"kernels/device.h", "kernels/cuda_module.h", "kernels/cuda/stream.h"}
}

# Library headers -> the only files that may include them.
LIBRARIES: List[Tuple[str, str]] = [
    (r"(cuda|cublas|cub/|cusparse|curand|cooperative_groups|thrust/|mma\.h)", r"kernels/cuda/|mpi/nccl"),
    (r"nccl", r"mpi/nccl"),
    (r"mpi\.h$", r"mpi/"),
    (r"hdf5", r"io/"),
    (r"boost/", r"src/cli/option_set\."),
    (r"(cblas|openblas)", r"kernels/cpu/"),
    (r"(xxhash|openssl/)", r"io/"),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def sources_of(root: Path) -> List[Path]:
    """Every C++ and CUDA file of the program, relative to `root`; tests are not part of it."""
    files: List[Path] = []
    for top in ("src", "kernels", "mpi", "io"):
        files += [path.relative_to(root) for path in (root / top).rglob("*") if path.suffix in SUFFIXES]
    return sorted(files)


def folder_of(path: Path) -> str:
    """The folder in EDGES: two parts below src/, else the first."""
    parts = path.parts
    return "/".join(parts[:2]) if parts[0] == "src" else parts[0]


def includes_of(path: Path) -> Iterable[Tuple[str, bool]]:
    """(header, quoted) of every #include."""
    for quoted, angled in INCLUDE.findall(path.read_text()):
        yield (quoted or angled, bool(quoted))


def edge_faults(root: Path) -> List[str]:
    """A sentence for every include that the tables do not allow."""
    faults: List[str] = []
    for source in sources_of(root):
        folder = folder_of(source)
        if folder not in EDGES:
            faults.append(f"{source}: folder {folder} is not in EDGES")
            continue
        for header, quoted in includes_of(root / source):
            if not quoted:
                continue
            if not (root / header).is_file():
                faults.append(f'{source}: "{header}" is no file of the repository, seen from its root')
                continue
            target = folder_of(Path(header))
            if target == folder:
                continue
            if target not in EDGES[folder]:
                faults.append(f"{source}: includes {header}, but {folder} may not know {target}")
            elif header not in OPEN_HEADERS.get((folder, target), {header}):
                faults.append(f"{source}: includes {header}, which is not open to {folder}")
    return faults


def library_faults(root: Path) -> List[str]:
    """A sentence for every library header in a file that may not know the library."""
    faults: List[str] = []
    for source in sources_of(root):
        for header, _ in includes_of(root / source):
            if (root / header).is_file():
                continue
            for library, allowed in LIBRARIES:
                if re.match(library, header) and not re.match(allowed, source.as_posix()):
                    faults.append(f"{source}: includes {header}, which belongs to {allowed} only")
    return faults


def shape_faults(root: Path) -> List[str]:
    """Files that are too long, and headers without `#pragma once` and a docstring at their top."""
    faults: List[str] = []
    for source in sources_of(root):
        lines = (root / source).read_text().splitlines()
        if len(lines) > MOST_LINES:
            faults.append(f"{source}: {len(lines)} lines, more than {MOST_LINES}")
        if source.suffix in (".h", ".cuh"):
            head = [line.strip() for line in lines if line.strip()][:2]
            if head[:1] != ["#pragma once"]:
                faults.append(f"{source}: does not begin with #pragma once")
            if not (len(head) == 2 and re.match(r"/// \S", head[1])):
                faults.append(f"{source}: no /// docstring after #pragma once")
    return faults


ALGORITHMS = re.compile(
    r"\bstd::(ranges::)?(sort|stable_sort|partial_sort|nth_element|max|min|clamp|minmax|(max|min|minmax)_element|copy(_n|_if)?"
    r"|fill(_n)?|find(_if)?|(any|all|none)_of|count(_if)?|equal|mismatch|search|transform|reverse|rotate|shuffle"
    r"|lower_bound|upper_bound|binary_search|remove(_if)?|unique|generate|replace|is_sorted|partition|for_each|adjacent_find)\("
)


def algorithm_faults(root: Path, files: Iterable[Path]) -> List[str]:
    """Files that call what <algorithm> declares without including it: which other header brings it changes with GCC."""
    return [
        f"{file}: calls {found.group(0)} without #include <algorithm>"
        for file in files
        if (found := ALGORITHMS.search((root / file).read_text())) and ("algorithm", False) not in includes_of(root / file)
    ]


def linked_folders(text: str) -> Dict[str, Set[str]]:
    """Folder -> folders whose targets it is linked to in CMakeLists.txt, all the way down."""
    folder_of_target = {"espalier_kernels": "kernels", "espalier_cli": "src/cli"}
    links: Dict[str, Set[str]] = {}
    for name, folder, dependencies in re.findall(r"^espalier_library\((\w+) ([^\s)]+)([^)]*)\)", text, re.MULTILINE):
        folder_of_target[f"espalier_{name}"] = folder
        links.setdefault(f"espalier_{name}", set()).update(dependencies.split())
    for target, dependencies in re.findall(r"^\s*target_link_libraries\((espalier\w*)([^)]*)\)", text, re.MULTILINE):
        links.setdefault(target, set()).update(dependencies.split())

    def reach(target: str) -> Set[str]:
        found: Set[str] = set()
        for dependency in links.get(target, set()) & set(folder_of_target):
            found |= {folder_of_target[dependency]} | reach(dependency)
        return found

    return {folder: reach(target) for target, folder in folder_of_target.items()}


def test_includes_follow_the_table() -> None:
    assert len(sources_of(REPOSITORY)) > 50
    assert edge_faults(REPOSITORY) == []


def test_libraries_stay_in_their_folders() -> None:
    assert library_faults(REPOSITORY) == []


def test_files_are_short_and_headers_documented() -> None:
    assert shape_faults(REPOSITORY) == []


def test_algorithms_are_included() -> None:
    tests = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("*") if path.suffix in SUFFIXES]
    assert algorithm_faults(REPOSITORY, [*sources_of(REPOSITORY), *tests]) == []


def test_targets_link_what_the_table_allows() -> None:
    linked = linked_folders((REPOSITORY / "CMakeLists.txt").read_text())
    for folder, allowed in EDGES.items():
        assert linked.get(folder) == allowed, f"{folder} in CMakeLists.txt"


def headers_of_module() -> Set[str]:
    """Those whose text is the identity by which program and CUDA module know each other."""
    found = re.search(r"set\(module_headers ([^)]*)\)", (REPOSITORY / "CMakeLists.txt").read_text())
    assert found, "CMakeLists.txt has no module_headers"
    return set(found.group(1).split())


def test_the_module_s_identity_has_every_header_between_it_and_the_program() -> None:
    """A header that is left out may change what crosses the border under one identity."""
    open_headers, seen = list(headers_of_module()), set()
    while open_headers:
        header = open_headers.pop()
        seen.add(header)
        for name, own in includes_of(REPOSITORY / header):
            if own and name not in seen and not name.startswith("src/base/"):
                open_headers.append(name)
    assert seen == headers_of_module()


def test_table_has_no_cycle() -> None:
    for folder, known in EDGES.items():
        for other in known:
            assert folder not in EDGES[other], f"{folder} and {other} know each other"
            assert EDGES[other] <= known, f"{folder} knows {other} but not all that {other} knows"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for top in ("src", "kernels", "mpi", "io"):
        shutil.copytree(REPOSITORY / top, root / top)
    assert not edge_faults(root) + library_faults(root)
    return root


PLANTS = [
    ("io/file.h", '#include "src/model/model_config.h"', "io may not know src/model"),
    ("src/base/clock.h", '#include "io/file.h"', "src/base may not know io"),
    ("src/model/decoder_block.cpp", '  #  include "io/file.h"', "src/model may not know io"),
    ("mpi/topology.cpp", '#include "kernels/cpu/parallel.h"', "not open to mpi"),
    ("src/report/progress.cpp", '#include "progress.h"', "no file of the repository"),
    ("src/prune/pipeline.cpp", "#include <mpi.h>", "mpi.h, which belongs to"),
    ("src/evaluate/perplexity.h", "#include <hdf5.h>", "hdf5.h, which belongs to"),
    ("src/cli/main.cpp", "#include <boost/program_options.hpp>", "boost/program_options.hpp, which belongs to"),
    ("mpi/session.cpp", "#include <cuda_runtime.h>", "cuda_runtime.h, which belongs to"),
    ("src/new/thing.h", "#pragma once", "src/new is not in EDGES"),
]


@pytest.mark.parametrize("file, line, fault", PLANTS)
def test_planted_edges_are_found(copy: Path, file: str, line: str, fault: str) -> None:
    path = copy / file
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{line}\n{before or ''}")
    try:
        found = edge_faults(copy) + library_faults(copy)
        assert len(found) == 1 and file in found[0] and fault in found[0], found
    finally:
        path.unlink()
        if before is not None:
            path.write_text(before)


def test_planted_shapes_are_found(copy: Path) -> None:
    header, source = copy / "io/planted.h", copy / "io/planted.cpp"
    source.write_text("#include <numeric>\nint least() { return std::min(1, 2); }\n")
    assert algorithm_faults(copy, [source]) == [f"{source}: calls std::min( without #include <algorithm>"]
    header.write_text("#include <string>\n")
    source.write_text("// line\n" * (MOST_LINES + 1))
    faults = set(shape_faults(copy)) - set(shape_faults(REPOSITORY))
    header.unlink()
    source.unlink()
    assert len(faults) == 3, faults


def flags_of(*command: str) -> List[str]:
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def is_first_of_its_source(header: Path) -> bool:
    """Whether its .cpp begins with it: then clang-tidy, which reads every file on its own, compiles it alone."""
    source = REPOSITORY / header.with_suffix(".cpp")
    return source.exists() and list(includes_of(source))[:1] == [(header.as_posix(), True)]


def test_every_header_compiles_alone() -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    flags = ["-std=c++20", "-march=x86-64-v3", "-fopenmp", "-I.", *flags_of("pkg-config", "--cflags", "hdf5"),
             *flags_of("pkg-config", "--cflags", "openblas"), *flags_of("mpicxx", "--showme:compile")]  # fmt: skip
    headers = [path for path in sources_of(REPOSITORY) if path.suffix == ".h" and "kernels/cuda" not in str(path)
               and not is_first_of_its_source(path)]  # fmt: skip

    def compile_alone(header: Path) -> str:
        # -w: "#pragma once in main file" cannot be silenced alone.
        command = [compiler, "-fsyntax-only", "-w", *flags, "-x", "c++", str(header)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"{header}:\n{done.stderr[:1000]}"

    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(compile_alone, headers) if fault]
    assert not faults, "\n".join(faults)
