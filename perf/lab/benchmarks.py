"""The registry of benchmarks: pyperformance's scripts by name, the lab's micro-loops, and any script with a `bench()`."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab import paths
from lab.errors import LabError, UnknownBenchmark


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One thing that is timed."""

    #: What results call it.
    name: str
    script: Path
    #: `pyperf`: the script uses pyperf.Runner. `bench`: it defines `bench()`.
    kind: str
    #: The script's own command-line arguments.
    arguments: tuple[str, ...] = ()
    #: The name to select among those the script offers; None: its first.
    offered: str | None = None
    #: Its name for `pyperformance run -b`; None if pyperformance does not have it.
    suite_name: str | None = None


#: The default set, in the order of the peers table: name -> (folder, script arguments, pyperformance's name).
#: Scripts that offer several benchmarks without an argument to choose are narrowed by name in the worker.
PEERS_TABLE: dict[str, tuple[str, tuple[str, ...], str]] = {
    name: (f"bm_{folder}", tuple(arguments), folder)
    for name, folder, *arguments in (
        ("richards", "richards"),
        ("deltablue", "deltablue"),
        ("nbody", "nbody"),
        ("fannkuch", "fannkuch"),
        ("float", "float"),
        ("chaos", "chaos"),
        ("go", "go"),
        ("hexiom", "hexiom"),
        ("raytrace", "raytrace"),
        ("spectral_norm", "spectral_norm"),
        ("nqueens", "nqueens"),
        ("crypto_pyaes", "crypto_pyaes"),
        ("pyflate", "pyflate"),
        ("scimark_fft", "scimark", "fft"),
        ("scimark_lu", "scimark", "lu"),
        ("scimark_monte_carlo", "scimark", "monte_carlo"),
        ("scimark_sor", "scimark", "sor"),
        ("scimark_sparse_mat_mult", "scimark", "sparse_mat_mult"),
        ("mdp", "mdp"),
        ("generators", "generators"),
        ("coroutines", "coroutines"),
        ("comprehensions", "comprehensions"),
        ("unpack_sequence", "unpack_sequence"),
        ("telco", "telco"),
        ("logging_format", "logging", "format"),
        ("logging_silent", "logging", "silent"),
        ("logging_simple", "logging", "simple"),
        ("regex_compile", "regex_compile"),
        ("deepcopy", "deepcopy"),
        ("deepcopy_reduce", "deepcopy"),
        ("deepcopy_memo", "deepcopy"),
        ("meteor_contest", "meteor_contest"),
        ("quadtree_nbody", "barnes_hut"),
        ("bpe_tokeniser", "bpe_tokeniser"),
        ("richards_super", "richards_super"),
        ("pprint_safe_repr", "pprint"),
        ("pprint_pformat", "pprint"),
        ("json_dumps", "json_dumps"),
        ("typing_runtime_protocols", "typing_runtime_protocols"),
        ("tomli_loads", "tomli_loads"),
        ("sympy_expand", "sympy", "expand"),
        ("sympy_integrate", "sympy", "integrate"),
        ("sympy_sum", "sympy", "sum"),
        ("sympy_str", "sympy", "str"),
        ("pidigits", "pidigits"),
    )
}
PEERS_SET: tuple[str, ...] = tuple(PEERS_TABLE)

#: The lab's own loops, by the name results use.
MICRO_SET: dict[str, str] = {
    "micro_exceptions": "exceptions.py",
    "micro_integer_loop": "integer_loop.py",
    "micro_fib": "fib.py",
    "micro_generator": "generator.py",
}

#: Names that stand for several benchmarks.
GROUPS: dict[str, tuple[str, ...]] = {"peers": PEERS_SET, "micro": tuple(MICRO_SET)}


@cache
def pyperformance_scripts() -> dict[str, tuple[Path, tuple[str, ...]]]:
    """pyperformance's names -> (script, arguments), read from the metadata files beside the scripts."""
    root = paths.benchmark_scripts()
    if not root.is_dir():
        raise LabError("pyperformance's benchmark scripts are not installed", "run: perf/setup")
    found: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for metadata in sorted(root.glob("bm_*/*.toml")):
        script = metadata.parent / "run_benchmark.py"
        if not script.exists():
            continue
        tool = tomllib.loads(metadata.read_text()).get("tool", {}).get("pyperformance", {})
        name = tool.get("name") or metadata.parent.name.removeprefix("bm_")
        found[name] = (script, tuple(tool.get("extra_opts", ())))
    return found


def find(name: str) -> Benchmark:
    """The benchmark that `name` stands for.

    `name` is one of the default set, a micro-loop, a name of pyperformance's (`SCRIPT:OFFERED` picks one of several
    that a script offers), or the path of a script that defines `bench()`.
    """
    if name in PEERS_TABLE:
        folder, arguments, suite_name = PEERS_TABLE[name]
        script = paths.benchmark_scripts() / folder / "run_benchmark.py"
        if not script.exists():
            raise LabError(f"{name}: pyperformance's script is not installed ({folder})", "run: perf/setup")
        return Benchmark(name, script, "pyperf", arguments, name, suite_name)
    if name in MICRO_SET:
        return Benchmark(name, paths.MICRO / MICRO_SET[name], "bench")
    if name.endswith(".py") or "/" in name:
        script = Path(name).resolve()
        if not script.is_file():
            raise UnknownBenchmark(f"no such script: {name}")
        return Benchmark(script.stem, script, "bench")
    base, _, offered = name.partition(":")
    scripts = pyperformance_scripts()
    if base in scripts:
        script, arguments = scripts[base]
        return Benchmark(offered or base, script, "pyperf", arguments, offered or None, base)
    known = sorted({*PEERS_TABLE, *MICRO_SET, *GROUPS, *scripts})
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean: {', '.join(near)}?\n" if near else ""
    raise UnknownBenchmark(f"unknown benchmark: {name}", hint + "perf/warm.py --list names them all; a script is given by its path (x.py)")


def find_all(names: list[str]) -> list[Benchmark]:
    """Resolve names, groups included, before anything is measured; duplicates count once."""
    expanded = [single for name in names for single in GROUPS.get(name, (name,))]
    chosen = {benchmark.name: benchmark for benchmark in map(find, dict.fromkeys(expanded))}
    return list(chosen.values())


def names() -> list[str]:
    """Every name that `find` takes, but for paths."""
    return [*PEERS_TABLE, *MICRO_SET, *sorted(set(pyperformance_scripts()) - set(PEERS_TABLE))]
