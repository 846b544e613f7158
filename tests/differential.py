"""Runs a piece of Python twice in this process, interpreted and compiled, and describes all that a program could see of both.

Everything is made twice from its source, functions and arguments, so that the two runs share no object. The interpreted twin is opted out before its first call. Whoever
compares also asks whether the compiled one really ran compiled: `Twins.check` does.
"""

import dis
import gc
import inspect
import os
import re
import sys
import traceback
import types

os.environ.setdefault("HOTSTAMP_TIER", "baseline")
os.environ.setdefault("HOTSTAMP_STAMP", "1")

import hotstamp  # noqa: E402

# Counters that grow when compiled code gives control back. The others say why something was not compiled, which `is_compiled` tells of.
LEAVING = ("tracing_enabled", "foreign_evaluator", "invalidated", "unsupported_opcode", "native_stack_low", "no_resume_point", "generator_interpreted")

FILE = "<differential>"

# Flags of code whose calls make a generator, a coroutine or an async generator.
RESUMED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def enable():
    """Enables hotstamp in this process, for good."""
    assert hotstamp.enable(), hotstamp.disabled_reason()
    # What there is so far need not be looked at by each of the many collections.
    gc.collect()
    gc.freeze()


def code_objects(code):
    """A code object and all that are nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from code_objects(constant)


def opt_out(code):
    """Keeps a code object and all that are nested in it interpreted."""
    for each in code_objects(code):
        closure = tuple(types.CellType() for _ in each.co_freevars)
        hotstamp.opt_out(types.FunctionType(each, {}, closure=closure))


def opcodes(code):
    """The base opcodes that a code object has, by name."""
    return {dis.opname[instruction.baseopcode] for instruction in dis.get_instructions(code, adaptive=False)}


def loops(code):
    return "JUMP_BACKWARD" in opcodes(code)


def describe(value, depth=6):
    """A value as something that can be compared across the two runs."""
    kind = type(value).__name__
    if depth == 0:
        return kind
    if isinstance(value, BaseException):
        return describe_exception(value)
    if type(value) in (list, tuple):
        return kind, [describe(item, depth - 1) for item in value]
    if type(value) is dict:
        return kind, [(describe(key, depth - 1), describe(item, depth - 1)) for key, item in value.items()]
    if type(value) in (set, frozenset):
        return kind, sorted(map(repr, value))
    if isinstance(value, types.FunctionType):
        closure = value.__closure__ and [describe(cell, depth - 1) for cell in value.__closure__]
        annotations = value.__annotate__ is not None
        return kind, value.__qualname__, describe(value.__defaults__), describe(value.__kwdefaults__), closure, annotations
    if isinstance(value, types.CellType):
        try:
            return kind, describe(value.cell_contents, depth - 1)
        except ValueError:
            return kind, "empty"
    if isinstance(value, types.FrameType):
        return kind, value.f_code.co_name, value.f_lineno, describe(dict(value.f_locals), depth - 1)
    try:
        return kind, re.sub(r"0x[0-9a-f]+", "0x", repr(value))
    except Exception as error:
        return kind, type(error).__name__


def describe_exception(error):
    """Type, arguments, chain, notes, and the traceback with the columns of each entry."""
    seen, chain = set(), []
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Ours, outside of what is compared, are left out.
        entries = [entry for entry in positions(error.__traceback__) if entry[0] == FILE]
        suppressed = error.__suppress_context__
        nested = [describe_exception(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else None
        arguments = None if nested else describe(error.args, 3)
        notes = getattr(error, "__notes__", None)
        cause = error.__cause__
        chain.append((type(error).__name__, str(error) if nested is None else error.message, arguments, nested, notes, entries, suppressed, cause is not None))
        error = cause if cause is not None else error.__context__
    return chain


def positions(tb):
    found = []
    for frame, line in traceback.walk_tb(tb):
        while tb.tb_frame is not frame or tb.tb_lineno != line:
            tb = tb.tb_next
        span = list(frame.f_code.co_positions())[tb.tb_lasti // 2]
        found.append((frame.f_code.co_filename, frame.f_code.co_name, line, span))
        tb = tb.tb_next
    return found


def namespace(source, interpreted):
    """What a source defines. Interpreted: none of it is ever compiled."""
    code = compile(source, FILE, "exec")
    if interpreted:
        opt_out(code)
    names = {"__name__": "differential", "log": []}
    exec(code, names)
    return names


def run_to_end(result, log):
    """Runs what a generator or coroutine function made to its end, sending values, and logs what it yields. Gives what it returned."""
    if isinstance(result, types.AsyncGeneratorType):
        result = collect(result)
    if not isinstance(result, (types.GeneratorType, types.CoroutineType)):
        return result
    sends, sent = isinstance(result, types.GeneratorType), None
    try:
        while True:
            log.append(("yielded", describe(result.send(sent))))
            sent = len(log) if sends else None
    except StopIteration as stop:
        return "ended", stop.value


async def collect(values):
    return [value async for value in values]


def observe(call, arguments, log):
    """Calls (and runs to its end what can be resumed), and describes result or exception, the arguments afterwards, what was logged, and whether references were left over or lost."""
    values = list(arguments)
    gc.collect()
    before = [sys.getrefcount(value) for value in values]
    log.clear()
    result = error = None
    try:
        result = run_to_end(call(*arguments), log)
    except BaseException as raised:
        error = raised
    seen = ("returned", describe(result)) if error is None else ("raised", describe(error))
    state = [describe(value) for value in values], describe(log)
    result = error = None
    # An exception in a local of a frame of its traceback is a cycle.
    gc.collect()
    log.clear()
    after = [sys.getrefcount(value) for value in values]
    return seen, state, [more - less for more, less in zip(after, before)]


class Twins:
    """A function `f`, made twice from its source: interpreted and compiled."""

    def __init__(self, source):
        # The many collections of `observe` look at what is made from here on, not at all that the tests before left.
        gc.collect()
        gc.freeze()
        self.source = source
        self.interpreted = namespace(source, True)
        self.compiled = namespace(source, False)

    @property
    def code(self):
        return self.compiled["f"].__code__

    def check(self, calls, rounds=3):
        """Compares calls, each given as the source of its arguments, so often that caches fill and miss."""
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            for number in range(rounds):
                order = calls if number % 2 == 0 else calls[::-1]
                for text in order:
                    self.check_call(text, number)
        finally:
            if was_enabled:
                gc.enable()

    def check_call(self, text, number=0):
        runs = {}
        for name, names in ("interpreted", self.interpreted), ("compiled", self.compiled):
            arguments = eval(compile(f"({text.strip()},)" if text.strip() else "()", "<arguments>", "eval"), names)
            exits, resumed = hotstamp.stats()["exits"], hotstamp.resumptions(names["f"])
            runs[name] = observe(names["f"], arguments, names["log"])
            left = {reason: count - exits[reason] for reason, count in hotstamp.stats()["exits"].items() if reason in LEAVING and count != exits[reason]}
            assert not left, f"f({text}) left compiled code: {left}"
            resumed = hotstamp.resumptions(names["f"]) - resumed
            assert bool(resumed) == (name == "compiled" and bool(names["f"].__code__.co_flags & RESUMED)), f"f({text}): {resumed} resumptions"
            del arguments
        assert hotstamp.is_compiled(self.compiled["f"]), f"f was not compiled: {hotstamp.stats()['exits']}"
        assert not hotstamp.is_compiled(self.interpreted["f"])
        assert runs["compiled"] == runs["interpreted"], f"f({text}), round {number}, in\n{self.source}"


def check_body(source, opcode=None):
    """Compares a module's body that loops, with the bodies of classes in it. `shown` in the module, if any, and all its names are what is compared."""
    outcomes = {}
    for name in "interpreted", "compiled":
        code = compile(source, FILE, "exec")
        bodies = [each for each in code_objects(code) if loops(each) and not each.co_flags & 2]
        assert bodies and bodies[0] is code, "a body is compiled if it loops"
        if opcode is not None:
            assert any(opcode in opcodes(each) for each in bodies), f"{opcode} is not in a body that loops"
        if name == "interpreted":
            opt_out(code)
        for number in range(2):
            names = {"__name__": "differential", "log": []}
            before = hotstamp.stats()
            error = None
            try:
                exec(code, names)
            except BaseException as raised:
                error = raised
            after = hotstamp.stats()
            names.pop("__builtins__")
            described = describe(names), error and describe(error)
            outcomes.setdefault(name, []).append(described)
            left = {reason for reason in LEAVING if after["exits"][reason] != before["exits"][reason]}
            assert not left, f"left compiled code: {left}"
            stamped = after["functions_stamped"] - before["functions_stamped"]
            if name == "interpreted":
                assert stamped == 0
            else:
                assert stamped >= (1 if error else len(bodies)), f"{stamped} of {len(bodies)} bodies were compiled"
    assert outcomes["compiled"] == outcomes["interpreted"], source
