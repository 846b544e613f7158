"""`HOTSTAMP_JITLIST`: what the list names is compiled, in both tiers, and nothing else."""

import pytest

# Prints which of its functions are stamped and optimized, by qualified name, and what they computed.
PROGRAM = """
import sys, hotstamp
import neighbour

def hot(n):
    total = 0
    for i in range(n):
        total += step(i)
    return total

def step(i):
    return i * 2 + 1

class Point:
    def __init__(self, x): self.x = x
    def twice(self): return other(self.x) * 2

def other(x):
    return (lambda y: y + 1)(x)

def numbers(n):
    yield from range(n)

results = [hot(50), sum(Point(i).twice() for i in range(50)), sum(numbers(9)), [neighbour.step(i) for i in range(50)][-1]]
functions = [hot, step, Point.__init__, Point.twice, other, numbers, neighbour.step]
print(results)
print(*sorted(f"{f.__module__}:{f.__qualname__}" for f in functions if hotstamp.is_compiled(f)))
print(*sorted(f"{f.__module__}:{f.__qualname__}" for f in functions if hotstamp.optimizations(f)))
stats = hotstamp.stats()
print(stats["functions_stamped"], stats["exits"]["not_listed"])
"""
NEIGHBOUR = "def step(i):\n    return -i\n"


@pytest.fixture
def run_listed(run_python, tmp_path):
    """run_listed(list, tier): the program's lines, run with that list from the start."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)

    def run(text, tier):
        (tmp_path / "list").write_text(text)
        done = run_python(tmp_path / "program.py", tier=tier, env={"HOTSTAMP_JITLIST": str(tmp_path / "list")})
        assert (done.returncode, done.stderr) == (0, "")
        results, stamped, optimized, counts = done.stdout.splitlines()
        assert results == "[2500, 2550, 36, -49]"
        return stamped.split(), optimized.split(), *map(int, counts.split())

    return run


LISTED = ["__main__:Point.twice", "__main__:hot", "__main__:numbers"]
TEXT = "# a list\n\n__main__:hot\n  __main__:Point.twice  # a method\n__main__:numbers\nelsewhere:step\n__main__:not_there\n"


def test_only_listed_functions_are_stamped(run_listed):
    stamped, optimized, count, refused = run_listed(TEXT, "baseline")
    assert (stamped, optimized, count) == (LISTED, [], 3)
    assert refused > 5, "start-up and the unlisted functions"


def test_only_listed_functions_are_optimized(run_listed):
    stamped, optimized, count, _ = run_listed(TEXT, "optimizer")
    # Generators stay in baseline code; `step` is not inlined into `hot`, since it was never stamped.
    assert (stamped, optimized, count) == (LISTED, LISTED[:2], 3)


def test_modules_tell_functions_of_one_name_apart(run_listed):
    assert run_listed("neighbour:step\n", "baseline")[:1] == (["neighbour:step"],)
    assert run_listed("neighbour:step\n__main__:step\n", "optimizer")[:2] == (["__main__:step", "neighbour:step"],) * 2


def test_bodies_have_names_too(run_python, tmp_path):
    (tmp_path / "list").write_text("neighbour:<module>\n")
    # Bodies that do not loop are never stamped.
    (tmp_path / "neighbour.py").write_text("for i in range(3): pass\n")
    (tmp_path / "other.py").write_text("for i in range(3): pass\n")
    code = "import neighbour, other, hotstamp; print(hotstamp.stats()['functions_stamped'])"
    assert run_python("-c", code, tier="baseline", cwd=tmp_path, env={"HOTSTAMP_JITLIST": "list"}).stdout == "1\n"


def test_an_empty_list_compiles_nothing(run_listed):
    assert run_listed("# nothing\n", "auto")[:3] == ([], [], 0)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "cannot be read: No such file or directory (os error 2)"),
        (b"\xff:f\n", "cannot be read: stream did not contain valid UTF-8"),
        (b"__main__:f\n\nf # not a module\n", "line 3 is not module:qualname: f"),
        (b"__main__:f g\n", "line 1 is not module:qualname: __main__:f g"),
    ],
)
def test_an_unusable_list_is_named_and_the_program_runs_interpreted(run_python, tmp_path, content, complaint):
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    code = "import hotstamp; print(hotstamp.is_enabled(), hotstamp.enable(), hotstamp.tier()); print(hotstamp.disabled_reason())"
    done = run_python("-c", code, tier="auto", env={"HOTSTAMP_JITLIST": str(path)})
    reason = f"HOTSTAMP_JITLIST={path} {complaint}"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"False False interpreter\n{reason}\n", f"hotstamp: {reason}. The program runs interpreted.\n")


def test_an_empty_variable_is_none(run_snippet):
    run_snippet("import hotstamp\ndef f(): return 1\nf()\nassert hotstamp.is_compiled(f)", env={"HOTSTAMP_JITLIST": ""})
