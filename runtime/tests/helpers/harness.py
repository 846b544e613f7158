"""Runs one instruction twice, by the interpreter and by a helper, and compares everything that a program can notice.

The builtins `call`, `call_register`, `stack`, `left` and `helper_of` come from helpers.rs.
"""

import dis
import functools
import gc
import re
import sys

# Nothing of an earlier case may die during another.
gc.disable()

checked = {}
failures = []
log = []


def event(text, *objects):
    """Logs what happens, with the reference counts of the objects that take part."""
    counts = [sys.getrefcount(thing) for thing in objects if isinstance(thing, Noisy)]
    log.append((text, counts))
    # Every entry that the frame of a helper shows must be alive: naming its type would otherwise crash or show nonsense.
    for entry in stack():
        type(entry).__name__


class Noisy:
    """Logs each use of it and its death. The mode says what its methods do: "ok", "raises" or "declines" (NotImplemented)."""

    alive = 0

    def __init__(self, name, mode="ok"):
        self.name = name
        self.mode = mode
        Noisy.alive += 1

    def __del__(self):
        Noisy.alive -= 1
        event(f"{self.name} dies")
        if any(entry is self for entry in stack()):
            log.append((f"{self.name} dies on the stack", []))

    def __repr__(self):
        return f"<{self.name}>"

    def react(self, method, *args, result=None):
        event(f"{self.name}.{method}{args!r}", self, *args)
        if self.mode == "raises":
            raise ValueError(f"{self.name}.{method}")
        if self.mode == "declines":
            return NotImplemented
        return f"{self.name}.{method}" if result is None else result

    def __hash__(self):
        return self.react("__hash__", result=7)

    def __bool__(self):
        return self.react("__bool__", result=True)

    def __len__(self):
        return self.react("__len__", result=2)

    def __iter__(self):
        return iter(self.react("__iter__", result=[self.name + "0", self.name + "1"]))

    def __contains__(self, item):
        return self.react("__contains__", item, result=True)

    def keys(self):
        return self.react("keys", result=["k0", "k1"])

    def __index__(self):
        return self.react("__index__", result=1)

    def __str__(self):
        return self.react("__str__")

    def __format__(self, spec):
        return self.react("__format__", spec)

    def __setitem__(self, key, value):
        self.react("__setitem__", key, value)

    def __delitem__(self, key):
        self.react("__delitem__", key)


def _give_methods():
    binary = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and or xor".split()
    names = [f"__{prefix}{name}__" for name in binary for prefix in ("", "r", "i")]
    names += [f"__{name}__" for name in "lt le eq ne gt ge getitem".split()]
    for name in names:
        setattr(Noisy, name, lambda self, other, name=name: self.react(name, other))
    for name in ("__neg__", "__pos__", "__invert__"):
        setattr(Noisy, name, lambda self, name=name: self.react(name))


_give_methods()


def describe(value):
    if isinstance(value, BaseException):
        return (type(value).__name__, str(value), describe(value.__cause__), type(value.__context__).__name__)
    shown = f"<{value.name}>" if isinstance(value, Noisy) else repr(value)
    return (type(value).__name__, re.sub("0x[0-9a-f]+", "0x", shown))


def outcome(run):
    """What `run` gave, and what happened until then: not what happens when its result dies."""
    log.clear()
    try:
        result = run()
    except BaseException as error:
        described = ("raised", describe(error))
        del error
    else:
        described = ("returned", describe(result))
    return described, list(log)


compiled = functools.cache(compile)


@functools.cache
def find_oparg(source, opname):
    """The argument of the first such instruction in the code of `source`, comprehensions and functions included."""
    codes = [compile(source, "<source>", "exec")]
    for code in codes:
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        for instruction in dis.get_instructions(code):
            if instruction.opname == opname:
                return instruction.arg or 0
    raise LookupError(f"no {opname} in {source!r}")


def top(status, entries):
    return entries[-1]


def case(opname, source, operands, env=None, setup="", oparg=None, result=top, events=True, leaves=0):
    """Compares the interpreter's `source`, which leaves its result in `r`, with the helper of `opname`.

    `operands` is the text of a list: the helper's operand stack, bottom first. `setup` is executed before both. `result` makes of the helper's status and
    stack what `r` should be. `leaves` counts the operands that belong on the stack after a failure. Without `events`, only the outcomes are compared.
    """
    opcode = dis.opmap[opname]
    if oparg is None:
        oparg = find_oparg(source, opname)
    # Compiled anew: code that ran before may be specialised.
    code = compile(source, "<source>", "exec")
    given_code = compiled(operands, "<operands>", "eval")

    def environment():
        names = dict(env or {})
        names["__builtins__"] = __builtins__
        names["Noisy"] = Noisy
        exec(compiled(setup, "<setup>", "exec"), names)
        return names

    names = environment()

    def interpret():
        exec(code, names)
        return names.get("r")

    expected = outcome(interpret)
    names.clear()
    memory, register = helper_of(opcode)
    count = len(eval(given_code, environment()))
    for entry, helper in ((call, memory), (call_register, register)):
        if helper is None:
            continue
        for borrowed in (0, (1 << count) - 1):
            names = environment()
            given = eval(given_code, names)

            def help_():
                return result(*entry(opcode, oparg, given, borrowed))

            seen = outcome(help_)
            names.clear()
            agree = seen == expected if events and not borrowed else seen[0] == expected[0]
            if left() not in (leaves, -1):
                agree = False
                seen += (f"{left()} entries left",)
            if not agree:
                title = f"{helper} (borrowed={borrowed:b}) {setup!r} {source!r} {operands} {env}"
                failures.append(f"{title}\n  expected {expected}\n  seen     {seen}")
            checked[opname] = checked.get(opname, 0) + 1
