"""What `python -m hotstamp` does: the part of `python`'s command line that says what to run.

The program finds everything as `python` would have set it up: `sys.argv`, `sys.path[0]`, the attributes of `__main__`, and no frame of ours on the stack.
"""

import os
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader

import hotstamp
from hotstamp import _hotstamp

USAGE = """usage: python -m hotstamp [-c CODE | -m MODULE | FILE | -] [ARGUMENT]...
Runs a program as python does, with hotstamp enabled.
  -c CODE     the program is CODE
  -m MODULE   the program is a module
  FILE        the program is a file, or a folder or zip file with a __main__.py
  -           the program comes from standard input"""


def main():
    """Runs what the command line names, then ends as `python` does."""
    arguments = sys.argv[1:]
    # Exit codes and interpreter options are python's business; only what to run is ours.
    kind, what, rest = _parse(arguments)
    try:
        hotstamp.enable()
    except RuntimeError as error:
        print(f"hotstamp: {error}. The program runs interpreted.", file=sys.stderr)
    status = kind(what, rest)
    if status and not sys.flags.inspect:
        _leave(status)


def _parse(arguments):
    """The way to run, what to run, and the program's own arguments."""
    if not arguments or arguments[0] == "-":
        return _run_standard_input, arguments[:1], arguments[1:]
    first = arguments[0]
    if not first.startswith("-"):
        return _run_file, first, arguments[1:]
    if first in ("-h", "--help"):
        print(USAGE)
        sys.exit(0)
    for option, kind in (("-c", _run_command), ("-m", _run_module)):
        if first == option and len(arguments) > 1:
            return kind, arguments[1], arguments[2:]
        if first == option:
            print(f"Argument expected for the {option} option\n{USAGE}", file=sys.stderr)
            sys.exit(2)
        if first.startswith(option):
            return kind, first[2:], arguments[1:]
    print(f"unknown option {first} (options of python itself go before -m hotstamp)\n{USAGE}", file=sys.stderr)
    sys.exit(2)


def _leave(status):
    """Ends the process with a status, but for an interrupt: python itself then ends by the signal."""
    if not _hotstamp.interrupted():
        sys.exit(status)


def _namespace(**attributes):
    """Empties `__main__` and fills it as python does."""
    namespace = sys.modules["__main__"].__dict__
    namespace.clear()
    namespace.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=BuiltinImporter,
        __spec__=None,
        __builtins__=sys.modules["builtins"],
    )
    namespace.update(attributes)
    return namespace


def _set_path(first):
    """Replaces the entry that `python -m` put in front of `sys.path`."""
    if not sys.flags.safe_path:
        sys.path[0] = first


def _run_command(code, rest):
    sys.argv[:] = ["-c", *rest]
    _set_path("")
    first = next((line for line in code.splitlines() if line.strip()), "")
    if first[:1].isspace():
        import textwrap

        code = textwrap.dedent(code)
    return _hotstamp.run_source(code + "\n", "<string>", _namespace(), True)


def _run_standard_input(given, rest):
    if sys.stdin is not None and sys.stdin.isatty():
        print("hotstamp: for an interactive session, set HOTSTAMP=1 and start python", file=sys.stderr)
        return 2
    sys.argv[:] = [*given, *rest] if given else [""]
    _set_path("")
    source = sys.stdin.buffer.read() if sys.stdin is not None else b""
    return _hotstamp.run_source(source, "<stdin>", _namespace(__file__="<stdin>", __cached__=None), False)


def _run_module(name, rest):
    sys.argv[:] = ["-m", *rest]
    return _run_by_name(name, True)


def _run_by_name(name, alter_argv):
    """Lets the standard library find and run a module, as python itself does."""
    import runpy

    _namespace()
    return _hotstamp.run_callable(runpy._run_module_as_main, name, alter_argv)


def _run_file(path, rest):
    sys.argv[:] = [path, *rest]
    full = _absolute(path)
    if _is_importable(full):
        # Where the program's modules are: in front, even with -P.
        sys.path[0 : 0 if sys.flags.safe_path else 1] = [full]
        return _run_by_name("__main__", False)
    try:
        with open(full, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {full!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        return 2
    _set_path(os.path.dirname(os.path.realpath(path)))
    if path.endswith(".pyc"):
        return _run_compiled(full, source)
    loader = SourceFileLoader("__main__", full)
    namespace = _namespace(__loader__=loader, __file__=full, __cached__=None)
    return _hotstamp.run_source(source, full, namespace, False)


def _run_compiled(full, data):
    import marshal
    from importlib.util import MAGIC_NUMBER

    if data[:4] != MAGIC_NUMBER:
        print("RuntimeError: Bad magic number in .pyc file", file=sys.stderr)
        return 1
    loader = SourcelessFileLoader("__main__", full)
    namespace = _namespace(__loader__=loader, __file__=full, __cached__=None)
    return _hotstamp.run_code(marshal.loads(data[16:]), namespace)


def _absolute(path):
    """The path as python makes it absolute: nothing else is normalised."""
    if os.path.isabs(path):
        return path
    return os.getcwd() if path == "." else os.getcwd() + "/" + path


def _is_importable(path):
    """Whether a path entry finder takes the path: a folder, a zip file."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False
