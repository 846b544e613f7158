"""The Python API, the environment variables, and `python -m hotstamp`."""

import py_compile
import signal
import subprocess
import zipfile

import pytest
from conftest import environment, python_command


def test_enable_and_disable(run_snippet):
    run_snippet(
        """
        import hotstamp

        def before(a, b=2):
            return a * b

        assert not hotstamp.is_enabled()
        assert hotstamp.disabled_reason() == "hotstamp.enable() was not called, and HOTSTAMP=1 is not set"
        assert before(3) == 6 and not hotstamp.is_compiled(before)

        assert hotstamp.enable() is True
        assert hotstamp.enable() is True, "a second call changes nothing"
        assert hotstamp.is_enabled() and hotstamp.disabled_reason() is None

        def after(a):
            return a + 1

        assert not hotstamp.is_compiled(after) and hotstamp.compiled_size(after) == 0
        assert before(3) == 6 and after(3) == 4
        assert hotstamp.is_compiled(before), "functions that exist already are taken over"
        assert hotstamp.is_compiled(after)
        assert hotstamp.compiled_size(after) > 0

        hotstamp.disable()
        hotstamp.disable()
        assert not hotstamp.is_enabled()
        def never(a):
            return a - 1
        assert (before(4), after(4), never(4)) == (8, 5, 3)
        assert not hotstamp.is_compiled(never)

        hotstamp.enable()
        assert (before(5), after(5), never(5)) == (10, 6, 4)
        assert hotstamp.is_compiled(never)
        """,
        tier=None,
    )


def test_questions_about_what_is_no_function(run_snippet):
    run_snippet(
        """
        import hotstamp

        class C:
            def method(self):
                return 1

        assert C().method() == 1
        assert hotstamp.is_compiled(C.method) and hotstamp.is_compiled(C().method)
        for question in hotstamp.is_compiled, hotstamp.compiled_size, hotstamp.optimized_size, hotstamp.resumptions, hotstamp.opt_out:
            for wrong in len, 3, C:
                try:
                    question(wrong)
                except TypeError as error:
                    assert "a Python function or method is wanted" in str(error)
                else:
                    raise AssertionError(question)
        """
    )


def test_opt_out(run_snippet):
    run_snippet(
        """
        import hotstamp

        @hotstamp.opt_out
        def plain(x):
            return x + 1

        def late(x):
            return x + 2

        assert plain(1) == 2 and not hotstamp.is_compiled(plain)
        assert late(1) == 3 and hotstamp.is_compiled(late)
        assert hotstamp.opt_out(late) is late
        entered = hotstamp.stats()["functions_stamped"]
        assert late(1) == 3
        assert hotstamp.stats()["functions_stamped"] == entered
        assert hotstamp.stats()["exits"]["opted_out"] == 2
        """
    )


def test_switched_off_wins_over_everything(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import hotstamp\n"
        "def f(): return 1\n"
        "assert hotstamp.enable() is False\n"
        "assert not hotstamp.is_enabled() and f() == 1 and not hotstamp.is_compiled(f)\n"
        "print(hotstamp.disabled_reason())\n"
    )
    for arguments in [program], ["-m", "hotstamp", program]:
        done = run_python(*arguments, tier="baseline", env={"HOTSTAMP": "0"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "HOTSTAMP=0 is set, which wins over everything\n", "")


@pytest.mark.parametrize("tier", ["interpreter", "baseline", "optimizer", "auto"])
def test_known_tiers(run_snippet, tier):
    run_snippet(
        f"""
        import hotstamp
        def f(): return 1
        assert f() == 1
        assert hotstamp.tier() == {tier!r}
        assert hotstamp.is_compiled(f) is hotstamp.is_enabled() is {tier != "interpreter"}
        """,
        tier=tier,
    )


def test_unknown_tier_is_named_and_the_program_runs(run_python):
    done = run_python("-c", "import hotstamp; print(hotstamp.is_enabled())", tier="turbo")
    assert done.returncode == 0 and done.stdout == "False\n"
    assert done.stderr == (
        "hotstamp: HOTSTAMP_TIER=turbo is not a tier: it may be interpreter, baseline, optimizer or auto. The program runs interpreted.\n"
    )


def test_start_up_enables_subprocesses_too(run_snippet):
    run_snippet(
        f"""
        import subprocess, hotstamp
        assert hotstamp.is_enabled()
        code = "import sys; assert 'hotstamp' in sys.modules; import hotstamp; assert hotstamp.is_enabled()"
        command = {list(python_command())!r}
        subprocess.run([*command, "-c", code], check=True)
        subprocess.run([*command, "-I", "-c", code], check=True)
        none = subprocess.run([*command, "-S", "-c", "import sys; print('hotstamp' in sys.modules)"], check=True, capture_output=True)
        assert none.stdout == b"False\\n", "without site there are no .pth files"
        """
    )


def test_start_up_costs_nothing_when_unset(run_python):
    code = "import sys; print([name for name in sys.modules if 'hotstamp' in name])"
    for env in {}, {"HOTSTAMP": "0"}, {"HOTSTAMP": ""}:
        assert run_python("-c", code, env=env).stdout == "[]\n"


def test_statistics(run_snippet, run_python):
    run_snippet(
        """
        import hotstamp
        before = hotstamp.stats()
        def f(): return 1
        f()
        after = hotstamp.stats()
        for name in "functions_stamped", "instructions", "code_bytes", "metadata_bytes", "compile_ns":
            assert after[name] > before[name], name
        memory = after["code_memory"]
        assert after["code_bytes"] <= memory["used"] <= memory["cap"] == 128 << 20
        assert memory["protection"] in ("dual_mapped", "private")
        assert set(after["exits"]) >= {"tracing_enabled", "code_cap_reached", "opted_out"}
        """
    )
    done = run_python("-c", "def f(): return 1\nf()", tier="baseline", env={"HOTSTAMP_STATS": "1"})
    lines = dict(line.removeprefix("hotstamp: ").split() for line in done.stderr.splitlines())
    assert int(lines["functions_stamped"]) >= 1 and int(lines["code_bytes"]) > 0 and int(lines["compile_ns"]) > 0


def test_log_has_a_line_for_each_stamped_function(run_python):
    code = "def visible_in_the_log(): return 1\nvisible_in_the_log()"
    done = run_python("-c", code, tier="baseline", env={"HOTSTAMP_LOG": "debug"})
    assert sum("visible_in_the_log" in line for line in done.stderr.splitlines()) == 1
    assert run_python("-c", code, tier="baseline").stderr == ""
    done = run_python("-c", code, tier="baseline", env={"HOTSTAMP_LOG": "debug=debug=debug"})
    assert done.returncode == 0 and "HOTSTAMP_LOG=debug=debug=debug" in done.stderr


def test_changed_code_and_defaults_take_effect(run_snippet):
    run_snippet(
        """
        import hotstamp
        def f(a=1, *, b=2):
            return a, b
        def g(a=1, *, b=2):
            return b, a
        assert f() == (1, 2) and hotstamp.is_compiled(f)
        f.__defaults__ = (3,)
        f.__kwdefaults__ = {"b": 4}
        assert f() == (3, 4)
        f.__code__ = g.__code__
        assert not hotstamp.is_compiled(f)
        assert f() == (4, 3) and hotstamp.is_compiled(f)
        hotstamp.disable()
        assert f() == (4, 3)
        for _ in range(50):
            assert f() == (4, 3), "nothing stale was inlined"
        """
    )


def test_bodies_that_loop_are_compiled(run_snippet, tmp_path):
    (tmp_path / "looping.py").write_text("total = 0\nfor i in range(10):\n    total += i\n")
    (tmp_path / "straight.py").write_text("total = 45\n")
    run_snippet(
        f"""
        import sys, hotstamp
        sys.path.insert(0, {str(tmp_path)!r})

        def stamped(action):
            action()  # what it imports and calls is stamped now
            before = hotstamp.stats()["functions_stamped"]
            action()
            return hotstamp.stats()["functions_stamped"] - before

        def load(name):
            sys.modules.pop(name, None)
            assert __import__(name).total == 45

        assert stamped(lambda: load("straight")) == 0
        assert stamped(lambda: load("looping")) == 1

        namespace = {{}}
        code = compile("for i in range(3): last = i", "<text>", "exec")
        assert exec(code, namespace) is None and namespace["last"] == 2 and "__builtins__" in namespace
        local = {{}}
        exec(code, namespace, local)
        assert local == {{"i": 2, "last": 2}}

        before = hotstamp.stats()["functions_stamped"]
        class Looping:
            names = []
            for name in "abc":
                names.append(name)
            del name
        assert hotstamp.stats()["functions_stamped"] == before + 1
        assert Looping.names == ["a", "b", "c"] and not hasattr(Looping, "name")
        """
    )


# What `__build_class__` does, with bodies that loop and so take our way.
CLASS_BODIES = """
events = []

class Meta(type):
    @classmethod
    def __prepare__(meta, name, bases, **keywords):
        events.append(("prepare", name, bases, keywords))
        return {"prepared": True}
    def __new__(meta, name, bases, namespace, **keywords):
        events.append(("new", name, bases, sorted(namespace), keywords))
        return super().__new__(meta, name, bases, namespace)
    def __init__(cls, name, bases, namespace, **keywords):
        super().__init__(name, bases, namespace)

class Base(metaclass=Meta, extra=1):
    for index in range(3):
        pass
    def me(self):
        return __class__

class Derived(Base, extra=2):
    for index in range(4):
        value = index
    def parent(self):
        return super().me()

class Entries:
    def __init__(self, *bases):
        self.bases = bases
    def __mro_entries__(self, given):
        events.append(("entries", len(given)))
        return self.bases

class Several(Entries(Base), int, Entries(), metaclass=Meta):
    while True:
        break
    else:
        never = 1

class NotATuple:
    def __mro_entries__(self, given):
        return [int]

def attempt(name, bases, **keywords):
    def body():
        pass
    source = "def make(bases, keywords):\\n class X(*bases, **keywords):\\n  for i in range(2): pass\\n  def f(self): return __class__\\n return X"
    namespace = {}
    exec(source, namespace)
    try:
        made = namespace["make"](bases, keywords)
    except Exception as error:
        print(name, type(error).__name__, str(error).replace(hex(id(error)), ""))
    else:
        print(name, made, type(made), getattr(made, "__mro__", None))

class Other(type):
    pass

class OtherBase(metaclass=Other):
    pass

attempt("plain", ())
attempt("conflict", (Base, OtherBase))
attempt("derived metaclass", (OtherBase, int))
attempt("no tuple", (NotATuple(),))
attempt("function", (), metaclass=lambda name, bases, namespace, **k: (name, bases, sorted(namespace), k), more=1)
attempt("keywords", (), unknown=1)
class BadPrepare(type):
    @classmethod
    def __prepare__(meta, name, bases):
        return 3
attempt("prepare", (), metaclass=BadPrepare)
class DropsCell(type):
    def __new__(meta, name, bases, namespace):
        namespace.pop("__classcell__", None)
        return super().__new__(meta, name, bases, namespace)
attempt("cell", (), metaclass=DropsCell)
class WrongCell(type):
    def __new__(meta, name, bases, namespace):
        super().__new__(meta, name, bases, dict(namespace))
        namespace = dict(namespace)
        cell = namespace.pop("__classcell__")
        made = super().__new__(meta, name, bases, namespace)
        return made
attempt("other cell", (), metaclass=WrongCell)

print(events)
print(Derived().parent(), Derived.prepared, Derived.value, Several.__orig_bases__[1:2], Several.__mro__)
print(Derived.__qualname__, Derived.__module__, Derived.__dict__.keys() - Base.__dict__.keys())
"""


def test_classes_with_loops_are_made_as_by_the_interpreter(run_python):
    expected = run_python("-c", CLASS_BODIES)
    compiled = run_python("-c", CLASS_BODIES + "\nimport hotstamp\nassert hotstamp.stats()['functions_stamped'] > 10", tier="baseline")
    assert expected.returncode == 0, expected.stderr
    assert (compiled.returncode, compiled.stdout, compiled.stderr) == (0, expected.stdout, "")


def test_swapped_builtins_keep_their_identity(run_snippet):
    code = """
        import builtins, pickle, sys, inspect
        for module, names in (
            (builtins, ("exec", "__build_class__")),
            (sys, ("settrace", "setprofile")),
            (sys.monitoring, ("register_callback", "set_events", "free_tool_id")),
        ):
            for name in names:
                function = getattr(module, name)
                print(function.__name__, function.__module__, function.__doc__, function.__text_signature__, type(function), function.__self__)
        print(pickle.loads(pickle.dumps(exec)) is exec, inspect.signature(exec))
        for wrong in [(), (1,), ("1", 2), ("1", {}, 3), (compile("for i in (): pass", "", "exec"), [])]:
            try:
                exec(*wrong)
            except Exception as error:
                print(type(error), error)
        """
    assert run_snippet(code) == run_snippet(code, tier=None)


# ------------------------------------------------------------------------------------------------- python -m hotstamp

SHOW = """
import sys
def show():
    import __main__
    hidden = {"show", "sys", "__builtins__", "__loader__", "__spec__"}
    print({name: value for name, value in vars(__main__).items() if name not in hidden})
    print(type(__main__.__loader__) if not isinstance(__main__.__loader__, type) else __main__.__loader__)
    print(__main__.__builtins__, __main__.__spec__ and (__main__.__spec__.name, __main__.__spec__.origin))
    print(vars(__main__) is globals(), __name__)
    print(sys.argv, sys.path[0])
show()
frame, depth = sys._getframe(), []
while frame:
    depth.append(frame.f_code.co_qualname)
    frame = frame.f_back
print(depth)
total = 0
for i in range(10):
    total += i
print(total)
"""

PROGRAMS = {
    "plain": SHOW,
    "raises": SHOW + "def f():\n    return 1 / 0\n\nf()\n",
    "raises in a loop": "for i in range(3):\n    if i == 2:\n        [][i]\n",
    "exits": SHOW + "sys.exit(3)\n",
    "exits with text": SHOW + "raise SystemExit('the end')\n",
    "exits with none": "raise SystemExit\n",
    "exits at exit": "import atexit, sys\natexit.register(print, 'bye')\nsys.exit(4)\n",
    "syntax error": "x = 1\ndef f(:\n    pass\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__, a[2].tb_frame.f_code.co_name, a[2].tb_frame.f_back)\n1 / 0\n",
    "chained": "try:\n    {}['x']\nexcept KeyError:\n    raise ValueError('second')\n",
    "threads": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='T')\nt.start()\nt.join()\nprint(threading.main_thread().name)\n",
    "pickle": "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C)\n",
    "coding": "# coding: latin-1\nprint(ascii('\\xe4'))\n",
    "future": "from __future__ import annotations\nprint(__annotations__ if '__annotations__' in globals() else None)\nx: undefined = 1\n",
    "warning": "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('seen', stacklevel=3)\n",
}


def both(run_python, *arguments, **options):
    """The same program under `python` and under `python -m hotstamp`."""
    prefixes = [], ["-m", "hotstamp"]
    return [run_python(*prefix, *arguments, env={"HOTSTAMP_TIER": "baseline"}, **options) for prefix in prefixes]


def assert_same(plain, ours):
    assert ours.stdout == plain.stdout
    assert ours.stderr == plain.stderr
    assert ours.returncode == plain.returncode


# All of them natively; under emulation, where each costs seconds, the programs once and every way once.
WAYS = [
    pytest.param(way, program, marks=[] if way == "file" or program == "raises" else pytest.mark.native_only)
    for way in ("file", "relative", "module", "command", "stdin", "folder")
    for program in PROGRAMS
    if (way, program) != ("stdin", "coding")  # python itself stops reading a pipe at an encoding declaration
]


@pytest.mark.parametrize(("way", "program"), WAYS)
def test_runs_programs_as_python_does(run_python, tmp_path, program, way):
    text = PROGRAMS[program]
    (tmp_path / "program.py").write_text(text, encoding="latin-1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(text, encoding="latin-1")
    options = {"cwd": tmp_path}
    arguments = {
        "file": [tmp_path / "program.py"],
        "relative": ["./folder/../program.py"],
        "module": ["-m", "program"],
        "command": ["-c", text],
        "stdin": ["-"],
        "folder": ["folder"],
    }[way]
    if way == "stdin":
        options["input"] = text
    plain, ours = both(run_python, *arguments, "one", "-x", "--", "-m", **options)
    assert_same(plain, ours)


@pytest.mark.parametrize("text", [b"x = 1\n'\xff'\n", b"x = '\0'\n", b"# coding: nonsense\n", b"\xef\xbb\xbfprint('mark')\n", b"if 1:\n\tx\n        y\n", b"x = 1\r\nx + \r\n"])
def test_text_that_is_no_python(run_python, tmp_path, text):
    (tmp_path / "program.py").write_bytes(text)
    assert_same(*both(run_python, "program.py", cwd=tmp_path))


def test_runs_zip_files_and_packages(run_python, tmp_path):
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
        archive.writestr("package/__init__.py", "")
        archive.writestr("package/__main__.py", SHOW)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(SHOW)
    for arguments in ["program.zip", "a"], ["-m", "package", "a"], ["-mpackage", "a"]:
        assert_same(*both(run_python, *arguments, cwd=tmp_path))


def test_runs_compiled_files(run_python, tmp_path):
    (tmp_path / "program.py").write_text(SHOW)
    py_compile.compile(tmp_path / "program.py", cfile=tmp_path / "program.pyc")
    assert_same(*both(run_python, "program.pyc", "a", cwd=tmp_path))


def test_safe_path(run_python, tmp_path):
    (tmp_path / "program.py").write_text(SHOW)
    plain = run_python("-P", "program.py", cwd=tmp_path)
    ours = run_python("-P", "-m", "hotstamp", "program.py", cwd=tmp_path)
    assert_same(plain, ours)


def test_names_what_it_cannot_run(run_python, tmp_path):
    for arguments in ["missing.py"], ["-m", "missing_module"], ["."]:
        plain, ours = both(run_python, *arguments, cwd=tmp_path)
        assert_same(plain, ours)
        assert ours.returncode != 0
    for arguments in ["-c"], ["-m"], ["--unknown"]:
        done = run_python("-m", "hotstamp", *arguments)
        assert done.returncode == 2 and "usage: python -m hotstamp" in done.stderr and not done.stdout
    done = run_python("-m", "hotstamp", "--help")
    assert done.returncode == 0 and "usage: python -m hotstamp" in done.stdout


def test_indented_command(run_python):
    assert_same(*both(run_python, "-c", "\n    x = 1\n    if x:\n        print(x)\n    1 / 0\n"))


def test_functions_and_the_module_body_are_compiled(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("def f(x):\n    return x\nimport hotstamp\nbefore = hotstamp.stats()['functions_stamped']\nfor i in range(3):\n    f(i)\nassert hotstamp.is_compiled(f)\n")
    log = {"HOTSTAMP_LOG": "debug"}
    done = run_python("-m", "hotstamp", program, env=log)
    assert done.returncode == 0, done.stderr
    assert any("program.py" in line and "<module>" in line for line in done.stderr.splitlines()), done.stderr


@pytest.mark.native_only
def test_interrupt_ends_a_compiled_loop(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("def spin():\n    while True:\n        pass\nprint('ready', flush=True)\nspin()\n")
    for prefix in [], ["-m", "hotstamp"]:
        process = subprocess.Popen(
            [*python_command(), *prefix, program],
            env=environment("baseline" if prefix else None),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore SIGINT, and so would their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == -signal.SIGINT
        assert errors.splitlines()[-1] == "KeyboardInterrupt" and "hotstamp" not in errors


def test_multiprocessing_finds_the_program(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "def square(x):\n"
        "    return x * x\n"
        "if __name__ == '__main__':\n"
        "    for method in 'spawn', 'fork':\n"
        "        with multiprocessing.get_context(method).Pool(2) as pool:\n"
        "            print(pool.map(square, range(5)))\n"
    )
    assert_same(*both(run_python, program))


def test_inspect_flag_keeps_the_namespace(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("value = 42\n1 / 0\n")
    plain = run_python("-i", "-q", program, input="print('still', value)\n")
    ours = run_python("-i", "-q", "-m", "hotstamp", program, input="print('still', value)\n", env={"HOTSTAMP_TIER": "baseline"})
    assert "still 42" in plain.stdout
    assert ours.stdout == plain.stdout
    assert "ZeroDivisionError" in ours.stderr and "SystemExit" not in ours.stderr

