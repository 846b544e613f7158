"""Where hotstamp cannot work it says what it found and what it wants, and changes nothing."""

import importlib.util
import pathlib
import sys

import pytest

# Printed after a refused import: nothing of hotstamp is left, and nothing it would have replaced was.
REFUSED = """
import sys
try:
    import hotstamp
except ImportError as error:
    print(error)
else:
    raise AssertionError("not refused")
assert not [name for name in sys.modules if name.startswith("hotstamp")], sys.modules.keys()
def f(): return 1
assert f() == 1
"""


@pytest.mark.parametrize(
    ("disguise", "message"),
    [
        ("sys.implementation.name = 'pypy'", "hotstamp works in CPython 3.14 only; this is pypy, which runs Python 3.14.{micro}"),
        ("sys.version_info = (3, 13, 7, 'final', 0)", "hotstamp works in CPython 3.14 only; this is CPython 3.13.7"),
        ("sys.version_info = (3, 15, 0, 'final', 0)", "hotstamp works in CPython 3.14 only; this is CPython 3.15.0"),
        (
            "sys.abiflags = 't'",
            "hotstamp needs the default build of CPython, with the GIL; this is a free-threaded build of CPython 3.14.{micro}",
        ),
        ("sys.platform = 'darwin'", "hotstamp works on Linux only; this is darwin"),
    ],
)
def test_another_python(run_snippet, disguise, message):
    import sys

    out = run_snippet(f"import sys; {disguise}\n{REFUSED}", tier=None)
    assert out == message.format(micro=sys.version_info[2]) + "\n"


# Overwrites the constant that names the release, in this process only.
OTHER_RELEASE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
version = ctypes.c_ulong.in_dll(ctypes.pythonapi, "Py_Version")
page = ctypes.addressof(version) & -65536
assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(65536 * 2), 3) == 0 or libc.mprotect(
    ctypes.c_void_p(ctypes.addressof(version) & -4096), ctypes.c_size_t(4096), 3) == 0
version.value = 0x030E63F0
"""


def test_a_release_whose_layout_is_not_carried(run_snippet, run_python):
    out = run_snippet(OTHER_RELEASE + REFUSED, tier=None)
    assert out.startswith("this is CPython 3.14.99, but this build of hotstamp knows the structures of CPython 3.14."), out


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_subinterpreter(run_snippet, kind):
    out = run_snippet(
        f"""
        import _interpreters
        REFUSED = {REFUSED!r}
        interpreter = _interpreters.create({kind!r})
        error = _interpreters.exec(interpreter, REFUSED)
        assert error is None, error
        """,
        tier=None,
    )
    assert out == "hotstamp works in the main interpreter only; this is a subinterpreter\n"


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_subinterpreter_of_an_enabled_program_is_left_alone(run_snippet, run_python, kind):
    code = f"""
import _interpreters, sys, hotstamp
assert hotstamp.is_enabled()
interpreter = _interpreters.create({kind!r})
text = '''
import sys
def f(n):
    return sum(i for i in range(n))
total = 0
for i in range(100):
    total += f(i)
class C:
    for i in range(3):
        pass
sys.settrace(lambda *a: None)
sys.settrace(None)
print(total, "hotstamp" in sys.modules)
'''
for i in range(3):
    error = _interpreters.exec(interpreter, text)
    assert error is None, error
_interpreters.destroy(interpreter)
def after(): return 1
assert after() == 1 and hotstamp.is_compiled(after)
"""
    done = run_python("-c", code, tier="baseline")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "161700 False\n" * 3


def test_refusal_at_start_up_leaves_the_program_alone(run_python):
    # The line of the start-up file, as the site module runs it, in an interpreter that calls itself another one.
    folder = pathlib.Path(importlib.util.find_spec("hotstamp").origin).parent.parent
    line = (folder / "hotstamp.pth").read_text()
    code = f"import sys; sys.path.append({str(folder)!r}); sys.implementation.name = 'pypy'; exec({line!r}); print('runs')"
    done = run_python("-S", "-c", code, env={"HOTSTAMP": "1"})
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert done.stderr.startswith("hotstamp: hotstamp works in CPython 3.14 only; this is pypy")
    assert done.stderr.endswith(". The program runs interpreted.\n")


def test_no_place_for_a_function_watcher(run_snippet):
    out = run_snippet(
        """
        import ctypes, hotstamp
        watcher = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *a: 0)
        taken = 0
        try:
            while True:
                ctypes.pythonapi.PyFunction_AddWatcher(watcher)
                taken += 1
        except RuntimeError:
            assert taken == 8
        try:
            hotstamp.enable()
        except RuntimeError as error:
            print(error)
        assert not hotstamp.is_enabled()
        def f(): return 1
        assert f() == 1 and not hotstamp.is_compiled(f)
        for number in range(taken):
            ctypes.pythonapi.PyFunction_ClearWatcher(number)
        """,
        tier=None,
    )
    assert out == "CPython has no place left for a function watcher: other tools of this process use all of them\n"
