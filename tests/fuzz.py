#!/usr/bin/env python3
"""Runs random Python programs interpreted and compiled, and reports where they differ.

    tests/fuzz.py [--seconds N] [--seed S] [--tier baseline] [--tier optimizer] [--minimize] [--keep FOLDER]

Program number K of seed S is always the same. Programs run in batches, a process for each batch and tier; a batch that
differs is taken apart until one program shows the difference, which is printed (with --minimize, after deleting what it
does not need). `--show K` prints a program, `--replay FILE` compares one. Exit status 1 says that something differed.

What is compared: what the program logs, exceptions with the lines and columns of their tracebacks, reference counts of
the objects that it is given, and how the process ends.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# hotstamp is enabled once all that the programs need is imported: what start-up does would take longer to optimize than they do.
TIERS = {
    "interpreter": {"HOTSTAMP": "0"},
    "baseline": {"HOTSTAMP_TIER": "baseline"},
    "optimizer": {"HOTSTAMP_TIER": "optimizer", "HOTSTAMP_VERIFY": "1", "HOTSTAMP_LOG": "warn"},
}

# Programs in one process: enough to make its start cheap.
BATCH = 40

# What every program stands on. Nothing here depends on addresses or hashes.
PRELUDE = '''
import sys, gc
from array import array
LOG = []
G = 3
H = 2.5
class Boom(Exception): pass
class Base:
    def __init__(self, x, y): self.x = x; self.y = y
    def m(self, a): return self.x + a
    def get(self): return self.y
    def put(self, v): self.x = v; return self
class P(Base):
    kind = 1
    def m(self, a): return self.x - a
    @property
    def prop(self): return self.x
class Q(Base):
    kind = 2.5
class S:
    __slots__ = ("x", "y")
    kind = "s"
    def __init__(self, x, y): self.x = x; self.y = y
    def m(self, a): return a
    def get(self): return self.x
    def put(self, v): self.y = v; return self
    @property
    def prop(self): return self.y
class Dying:
    def __init__(self, name): self.name = name
    def __del__(self):
        global G
        LOG.append(("del", self.name, G))
        G = G + 1 if type(G) is int and G < 50 else 4
class Odd:
    """Its operators run Python code that changes the world."""
    def __init__(self, n): self.n = n
    def __add__(self, other): touch("add"); return self.n + 1
    def __radd__(self, other): touch("radd"); return other
    def __eq__(self, other): touch("eq"); return self.n % 2 == 0
    __hash__ = None
    def __lt__(self, other): touch("lt"); return self.n > 0
    def __bool__(self): touch("bool"); return self.n > 0
    def __getitem__(self, i): touch("item"); return i
    def __getattr__(self, name):
        if name.startswith("_"): raise AttributeError(name)
        touch("getattr " + name); return self.n
    def __len__(self): return self.n if self.n > 0 else 0
    def __repr__(self): return "Odd"
class Vec:
    """Operators that are inlined."""
    def __init__(self, x, y): self.x = x; self.y = y
    def __add__(self, o): return Vec(self.x + o.x, self.y + o.y)
    def __sub__(self, o): return Vec(self.x - o.x, self.y - o.y)
    def __mul__(self, k): return Vec(self.x * k, self.y * k)
    def __getitem__(self, at):
        if isinstance(at, tuple): return self.x + at[0] - at[1]
        return self.y if at else self.x
    def __setitem__(self, at, v):
        if isinstance(at, tuple):
            i, j = at
            self.x = v if i == j else 1.5
        else: self.y = v
VA, VB = Vec(1, 2.5), Vec(0.5, 3)
AD, AI = array("d", [1.5, 2.0, -3.5, 0.0]), array("i", [3, 1, 4, 1])
def touch(what):
    global H
    LOG.append(what)
    H = H + 1 if H < 100 else 0.5
def show(v, depth=3):
    if isinstance(v, (list, tuple)) and depth: return [type(v).__name__, [show(w, depth - 1) for w in v]]
    if isinstance(v, dict) and depth: return ["dict", [[show(k, 0), show(w, depth - 1)] for k, w in v.items()]]
    if isinstance(v, (Base, S)) and depth:
        return [type(v).__name__, show(getattr(v, "x", "unset"), depth - 1), show(getattr(v, "y", "unset"), depth - 1)]
    if isinstance(v, (int, float, str, bool, type(None))): return repr(v) if not isinstance(v, int) or v.bit_length() < 9000 else "huge"
    return type(v).__name__
def peek():
    f = sys._getframe(1)
    LOG.append(["peek", f.f_lineno, [[k, show(v)] for k, v in f.f_locals.items()]])
    return len(f.f_locals)
def poke(name, value):
    f = sys._getframe(1)
    f.f_locals[name] = value
    return 1
KEPT = []
def keep():
    if len(KEPT) < 5: KEPT.append(sys._getframe(1))
    return 0
def boom(v): raise Boom(v)
def ident(v): return v
def pair(a, b=7): return a, b
def add(a, b): return a + b
def sel(a, b, c=1): return a if c else b
def gen(n):
    for i in range(n): yield i * 3
'''

# How each program ends: the calls are made, and everything is logged.
DRIVER = '''
def call(f, *args):
    try:
        LOG.append(["returned", show(f(*args))])
    except Exception as e:
        places = []
        tb = e.__traceback__.tb_next
        while tb is not None:
            places.append([tb.tb_frame.f_code.co_name, tb.tb_lineno, tb.tb_lasti])
            tb = tb.tb_next
        LOG.append([type(e).__name__, str(e)[:200], places, type(e.__context__).__name__])
        e = tb = None
SENT = [Base(1, 2), P(1.5, 2), S(3, 4), [1, 2, 3], (1, 2.5, "x"), 12345678901234567890, 1e300]
def counts(): return [sys.getrefcount(v) for v in SENT]
START = counts()
'''

INTS = [0, 1, -1, 2, 3, 5, 7, -7, 10, 100, 255, 256, 257, -5, -6] + [sign * (1 << n) + d for n in (30, 31, 32, 60, 62, 63) for sign in (1, -1) for d in (-1, 0, 1)]
FLOATS = ["0.0", "-0.0", "1.0", "0.5", "-2.5", "1e308", "1e-308", "float('nan')", "float('inf')", "-float('inf')", "3.0", "9007199254740993.0", "2.0"]


class Generator:
    """One random program."""

    def __init__(self, seed, newest=True):
        self.r = random.Random(seed)
        # Arrays, operators of classes, calls of several functions: left out, programs are what they were before the generator had them.
        self.newest = newest
        self.lines = []
        self.counter = 0

    def pick(self, *choices):
        return self.r.choice(choices)

    def chance(self, p):
        return self.r.random() < p

    def line(self, depth, text):
        self.lines.append("    " * depth + text)

    def fresh(self, stem):
        self.counter += 1
        return f"{stem}{self.counter}"

    # ---- expressions ----

    def integer(self):
        if self.chance(0.6):
            return str(self.r.randint(-4, 12))
        return str(self.r.choice(INTS))

    def number(self):
        return self.integer() if self.chance(0.65) else self.r.choice(FLOATS)

    def atom(self):
        k = self.r.random()
        if k < 0.7:
            return self.r.choice(self.vars)
        if k < 0.9:
            return self.number()
        return self.pick("G", "H", "True", "False", "o.x", "o.y", "s[0]", "s[-1]", "t[1]", "len(s)", "o.kind")

    def expression(self, depth=2):
        if depth == 0:
            return self.atom()
        k = self.r.random()
        a = self.expression(depth - 1)
        b = self.expression(depth - 1)
        if k < 0.36:
            return f"({a} {self.pick('+', '-', '+', '-', '+')} {b})"
        if k < 0.44:
            return f"(({a} * {b}) % {self.pick('1000003', '(2**61-1)', '7', '2.5', str(2**31))})"
        if k < 0.49:
            return f"({a} {self.pick('//', '%', '/')} {self.pick(b, '3', '-3', '7', '2.0', '-1', str(1 << 31))})"
        if k < 0.53:
            return f"({a} {self.pick('&', '|', '^')} {self.pick(b, '255', '-1', str((1 << 62) - 1))})"
        if k < 0.56:
            return f"(({a} {self.pick('<<', '>>')} {self.pick('1', '2', '31', '62', '63', '64', self.r.choice(self.vars) + ' % 70')}) % (2**66))"
        if k < 0.58:
            return f"({a} ** {self.pick('2', '0.5', '3', '-1')} % {self.pick('1009', '2.0**70')})"
        if k < 0.63:
            return f"({a} {self.pick('<', '<=', '==', '!=', '>', '>=')} {b})"
        if k < 0.66:
            return f"({a} if {self.condition()} else {b})"
        if k < 0.68:
            return f"(-{a})"
        if k < 0.69:
            return f"(not {a})"
        if k < 0.70:
            return f"({a} {self.pick('and', 'or')} {b})"
        if k < 0.71:
            return f"({self.r.choice(self.vars)} {self.pick('is', 'is not')} {self.pick('None', 'True', '0', 's')})"
        if k < 0.76:
            return f"{self.pick('s', 's', 't')}[{self.pick(self.r.choice(self.vars) + ' % 3', '0', '1', '-1', '-2', '2', self.r.choice(self.vars), '5', '-9')}]"
        if k < 0.80:
            return f"{self.pick('add', 'sel', 'ident', 'fa', 'fb', 'add', 'fa')}({a}{', ' + b})".replace("ident(" + a + ", " + b, "ident(" + a)
        if k < 0.84:
            return f"o.{self.pick('m', 'm', 'get', 'put')}({a})".replace("get(" + a, "get(")
        if k < 0.87:
            return f"o.{self.pick('x', 'y', 'x', 'prop', 'kind')}"
        if k < 0.89:
            return f"abs({a})" if self.chance(0.7) else f"int({a})"
        if k < 0.91:
            return f"{self.pick('sum', 'len', 'max')}([{a} for q in range({self.r.randint(1, 4)})])"
        if k < 0.92:
            return f"pair({a}){self.pick('[0]', '[1]', '')}"
        if k < 0.93:
            return "d.get('a', 1)"
        if self.newest and 0.935 <= k < 0.94:
            return f"{self.pick('(VA + VB).x', '(VA - VB).y', f'(VB * {a}).x', f'(VA + VB * {a})[1]', f'VA[{a}, {b}]', f'VB[{a}]', f'add(VA, VB).x', f'({a}, {b})[0]', f'({a}, {b}, 3)[-1]')}"
        if k < 0.94:
            return f"len(({a}, {b}))"
        if k < 0.95:
            return f"(0.0 + {a})"
        return a

    def condition(self):
        k = self.r.random()
        if k < 0.7:
            return f"{self.expression(1)} {self.pick('<', '<=', '==', '!=', '>', '>=')} {self.expression(1)}"
        if k < 0.8:
            return f"{self.r.choice(self.vars)} % {self.r.randint(2, 5)} == {self.r.randint(0, 2)}"
        if k < 0.9:
            return self.r.choice(self.vars)
        if k < 0.95:
            return f"not {self.r.choice(self.vars)}"
        return f"{self.r.choice(self.vars)} is {self.pick('None', 'not None')}"

    # ---- statements ----

    def block(self, depth, level, loops, size=None):
        before = len(self.lines)
        for _ in range(size or self.r.randint(1, 3)):
            self.statement(depth, level, loops)
        if len(self.lines) == before:
            self.line(depth, "pass")

    def target(self):
        return self.r.choice(self.mutable)

    def statement(self, depth, level, loops):
        k = self.r.random()
        if k < 0.26:
            self.line(depth, f"{self.target()} = {self.expression(2)}")
        elif k < 0.40:
            self.line(depth, f"{self.target()} {self.pick('+=', '-=', '+=')} {self.expression(1)}")
        elif k < 0.50:
            self.line(depth, f"if {self.condition()}:")
            self.block(depth + 1, level, loops, 1 if level < 2 else None)
            if self.chance(0.4):
                self.line(depth, "else:")
                self.block(depth + 1, level, loops, 1)
        elif k < 0.64 and level > 0:
            self.loop(depth, level, loops)
        elif k < 0.67 and loops:
            self.line(depth, f"if {self.condition()}:")
            self.line(depth + 1, self.pick("break", "continue", "continue"))
        elif k < 0.72:
            self.line(depth, f"o.{self.pick('x', 'y', 'x', 'x', 'z')} {self.pick('=', '=', '+=')} {self.expression(1)}")
        elif k < 0.76:
            index = self.pick(self.r.choice(self.vars) + " % 3", "0", "-1", "1", self.r.choice(self.vars))
            self.line(depth, f"s[{index}] {self.pick('=', '=', '+=')} {self.expression(1)}")
        elif k < 0.80:
            self.attempt(depth, level, loops)
        elif k < 0.82:
            a, b = self.target(), self.target()
            self.line(depth, self.pick(f"{a}, {b} = {self.expression(1)}, {self.expression(1)}", f"{a}, {b} = pair({self.expression(1)}, {b})", f"{a}, {b}, _ = {self.pick('s', 't')}", f"{a}, {b} = {self.pick('s[:2]', 't')}"))
        elif k < 0.83:
            name = self.target()
            self.line(depth, f"del {name}")
            if self.chance(0.8):
                self.line(depth, f"{name} = {self.expression(1)}")
        elif k < 0.84:
            self.line(depth, f"LOG.append(show({self.expression(1)}))")
        elif k < 0.85:
            self.line(depth, f"setg({self.pick('1', '2.5', 'G', '2**40')})")
        elif k < 0.865:
            self.line(depth, self.pick("peek()", "peek()", f"{self.target()} = peek()"))
        elif k < 0.875:
            self.line(depth, f"poke({self.target()!r}, {self.pick('7', '2.5', '2**70', 'None', '[1, 2, 3]')})")
        elif k < 0.885:
            self.line(depth, "keep()")
        elif k < 0.90:
            self.line(depth, f"if {self.r.choice(self.vars)} == {self.r.randint(0, 12)}: {self.mutation()}")
        elif k < 0.91:
            self.line(depth, f"if {self.condition()}: raise {self.pick('Boom', 'ValueError', 'KeyError')}({self.atom()})")
        elif k < 0.92:
            self.line(depth, f"if {self.condition()}: return {self.expression(1)}")
        elif k < 0.93:
            self.line(depth, f"{self.target()} = Odd({self.r.randint(-1, 2)})")
        elif k < 0.945:
            self.line(depth, f"{self.target()} = Dying({self.r.randint(0, 99)})")
        elif k < 0.955:
            self.line(depth, f"{self.target()} = {self.pick('None', 's', 't', 'o', '(1, 2)', '[1, 2.5, 3]', repr('ab'), 'True', 'SENT[0]', 'SENT[5]')}")
        elif k < 0.965:
            self.line(depth, f"d[{self.pick(repr('a'), repr('b'), '1', self.r.choice(self.vars))}] = {self.expression(1)}")
        elif k < 0.97:
            self.line(depth, f"o = {self.pick('SENT[0]', 'SENT[1]', 'SENT[2]', 'P(1, 2)', 'Q(2.5, 3)', 'S(1, 2)', 'Base(1, 1.5)')}")
        elif k < 0.98:
            self.line(depth, f"s = [{self.number()}, {self.number()}, {self.number()}]")
        elif self.newest and 0.98 <= k < 0.983:
            index = self.pick(self.r.choice(self.vars) + " % 4", "0", "-1", "1", self.r.choice(self.vars))
            self.line(depth, f"{self.pick('AD', 'AI', 'AD')}[{index}] {self.pick('=', '=', '+=')} {self.pick(self.expression(1), '1', '2.5', 'AI[' + index + ']')}")
        elif self.newest and 0.983 <= k < 0.986:
            self.line(depth, self.pick(f"VA[{self.atom()}, {self.atom()}] = {self.expression(1)}", f"VB[{self.atom()}] = {self.atom()}", "VA = Vec(VB.x, 2)" if depth == 0 else "VB.x = VA.y"))
        elif self.newest and 0.986 <= k < 0.989:
            q = self.fresh("q")
            self.line(depth, f"for {q} in range({self.pick('len(s)', '3', '5', 'n')}): s[:{q} + 1] = {self.pick('s', 's', 's', 't')}[{q}::-1]")
        elif self.newest and 0.989 <= k < 0.992:
            self.line(depth, f"{self.target()} = {self.pick('AD', 'AI')}[{self.pick(self.r.choice(self.vars) + ' % 4', '2', '-4', self.r.choice(self.vars))}]")
        elif k < 0.985:
            self.line(depth, "LOG.append(len(locals()))")
        else:
            self.line(depth, f"{self.target()} = {self.number()}")

    def mutation(self):
        return self.pick(
            "P.m = lambda self, a: a", "Base.kind = 9", "Base.m = lambda self, a: self.x", "Base.get = lambda self: 5", "Q.extra = 1", "o.__class__ = P", "o.__class__ = Q",
            "fa.__code__ = fc.__code__", "fb.__defaults__ = (5,)", "setfa()", "del Base.get", "P.x = property(lambda self: 42)", "o.__dict__['x'] = 8", "o.__dict__", "gc.collect()",
            "S.get = lambda self: 1.5", "o.x = None", "del o.x", "s.append(1)", "s.pop()", "s.clear()", "setg('text')", "setg(None)", "o.m = lambda a: 77", "P.kind = property(lambda self: 6)",
        )

    def loop(self, depth, level, loops):
        k = self.r.random()
        i = self.fresh("i")
        trips = self.r.randint(1, 12) if level > 1 or loops else self.r.randint(5, 40)
        if self.newest and k < 0.08:
            # Receivers of several classes.
            e = self.fresh("e")
            classes = [self.pick("SENT[0]", "SENT[1]", "SENT[2]", "P(1, 2)", "Base(2.5, 1.5)", "Q(2**31, 7)", "S(5, 6)", "o") for _ in range(self.r.randint(2, 5))]
            receivers = f"[{', '.join(classes)}] * {self.r.randint(1, 4)}"
            pairs = self.pick(f"enumerate({receivers})", f"enumerate({receivers}, n)", f"list(enumerate({receivers}))")
            self.line(depth, f"for {i}, {e} in {pairs}:")
            self.line(depth + 1, f"{self.target()} = {e}.{self.pick(f'm({self.expression(1)})', f'm({i})', 'get()', 'kind', 'x')}")
            if self.chance(0.4):
                self.line(depth + 1, f"{e}.{self.pick('put(', 'm(')}{self.atom()})")
            self.inside(depth, level, loops, [i])
            return
        if k < 0.35:
            how = self.pick(f"range({trips})", f"range({trips})", f"range({self.r.randint(-3, 3)}, {trips})", f"range({trips}, {self.r.randint(-2, 3)}, {self.pick(-1, -2, -3)})", f"range({self.r.randint(0, 3)}, {trips}, {self.pick(2, 3)})", "range(n)", "range(len(s))", "range(2**31 - 4, 2**31 + 4)", "range(2**63 - 4, 2**63 + 4)", "range(-2**62 - 3, -2**62 + 3)", "range(0)", "range(5, 1)", f"range(0, {trips}, n)")
        elif k < 0.55:
            how = self.pick("s", "s[:]", "t", "[1, 2, 3.5, 4]", "(1, 2, 3, 2**40, 2**62)", "[1, 1.5, 2, 2.5, None]", "list(range(20))", "[0.5] * 12", "(1, -1) * 8", "'abcd'", "d", "{1: 2, 3: 4}", "reversed(s)")
        elif k < 0.63:
            j = self.fresh("j")
            self.line(depth, f"for {i}, {j} in {self.pick('enumerate(s)', 'zip(s, t)', 'zip(range(9), t * 3)', 'enumerate((5, 6.5, 7))', '[(1, 2), (3, 4.5), (5, 6)]', 'd.items()', '[(1, 2), [3, 4], (5, 6, 7)]')}:")
            self.inside(depth, level, loops, [i, j])
            return
        elif k < 0.70:
            how = self.pick("gen(9)", "gen(n)", f"(q + 1 for q in range({trips}))")
        else:
            self.line(depth, f"{i} = {self.pick('0', '0', '0.0', str(2**31 - 5), str(2**62 - 5), '-3')}")
            fuel = self.fresh("w")
            self.line(depth, f"{fuel} = 0")
            self.line(depth, f"while {self.pick(f'{i} < {self.expression(1)}', self.condition(), f'{fuel} < {trips}', 'True')}:")
            self.line(depth + 1, f"{fuel} += 1")
            self.line(depth + 1, f"if {fuel} > {trips}: break")
            self.line(depth + 1, f"{i} += {self.pick('1', '1', '2', '0.5', '1')}")
            self.inside(depth, level, loops, [i], False)
            return
        self.line(depth, f"for {i} in {how}:")
        self.inside(depth, level, loops, [i])

    def inside(self, depth, level, loops, names, writable=True):
        outer, mutable = self.vars, self.mutable
        self.vars = self.vars + names + names
        if writable:
            self.mutable = self.mutable + names
        self.block(depth + 1, level - 1, loops + 1, self.r.randint(2, 4))
        self.mutable = mutable
        self.vars = outer + names if self.chance(0.3) else outer
        if self.chance(0.12):
            self.line(depth, "else:")
            self.block(depth + 1, 0, loops, 1)
        if self.chance(0.5):
            self.vars = outer

    def attempt(self, depth, level, loops):
        self.line(depth, "try:")
        self.block(depth + 1, level, loops)
        if self.chance(0.4):
            self.line(depth + 1, self.pick(f"if {self.condition()}: raise Boom({self.atom()})", f"boom({self.atom()})", "s[99]", "o.missing", "1 // 0", f"{self.target()}.nothing"))
        kind = self.r.random()
        if kind < 0.8:
            self.line(depth, self.pick("except Exception as e:", "except Boom:", "except (Boom, TypeError, IndexError, ZeroDivisionError):", "except Exception:", "except Exception as e:"))
            self.block(depth + 1, 0, loops, 1)
        if kind >= 0.8 or self.chance(0.25):
            self.line(depth, "finally:")
            self.block(depth + 1, 0, 0, 1)

    # ---- programs ----

    def function(self, name):
        self.vars = ["a", "b", "n", "x", "y", "z"]
        self.mutable = ["x", "y", "z", "a"]
        self.line(0, f"def {name}(a, b, n, s, t, o, d):")
        self.line(1, f"x = {self.pick('0', 'a', 'b', '0.0', '1', self.number())}")
        self.line(1, f"y = {self.pick('0', 'a', 'b', '1.5', self.number())}")
        if self.chance(0.8):
            self.line(1, f"z = {self.pick('a', 'b', 'n', self.number())}")
        if self.chance(0.12):
            self.line(1, self.pick("cell = lambda: x", "def inner(v): return v + 1"))
        for _ in range(self.r.randint(0, 2)):
            self.statement(1, 1, 0)
        for _ in range(self.r.randint(1, 2)):
            self.loop(1, 2, 0)
        for _ in range(self.r.randint(0, 1)):
            self.statement(1, 1, 0)
        self.line(1, f"return {self.pick('x', 'y', '(x, y)', 'x + y', '(x, y, a)', '[x, s, o]', self.expression(1))}")

    def helpers(self):
        self.vars, self.mutable = ["p", "q"], ["p", "q"]
        for name in "fa", "fb", "fc":
            self.line(0, f"def {name}(p, q=2):")
            if self.chance(0.5):
                self.line(1, f"{self.pick('p', 'q', 'r')} = {self.expression(1).replace('s[', 'SENT[3][').replace('t[', 'SENT[4][').replace('o.', 'SENT[0].').replace('(s)', '(SENT)').replace(' s)', ' SENT)').replace('d.get', 'dict().get')}")
            if self.chance(0.3):
                self.line(1, f"if p {self.pick('<', '==', '>')} q: return {self.pick('p', 'q', 'p - q', '1', '2.5', 'None')}")
            if self.chance(0.25):
                self.line(1, f"for k in range({self.r.randint(1, 5)}): p = p {self.pick('+', '-')} {self.pick('k', 'q', '1')}")
            self.line(1, f"return {self.pick('p + q', 'p - q', 'p', 'q', '(p * q) % 1009', 'p', 'q + 1', 'add(p, q)', 'p * 1.5 % 1e6')}")
        self.line(0, "def setg(v):")
        self.line(1, "global G")
        self.line(1, "G = v")
        self.line(0, "def setfa():")
        self.line(1, "global fa")
        self.line(1, f"fa = {self.pick('fb', 'fc', 'add', 'lambda p, q=1: q')}")

    def program(self):
        self.helpers()
        names = [self.fresh("f") for _ in range(self.r.randint(1, 2))]
        for name in names:
            self.function(name)
        self.lines.append(DRIVER.strip())
        calls = []
        for name in names:
            for _ in range(self.r.randint(2, 4)):
                a = self.pick(self.integer(), self.number(), self.number(), str(self.r.randint(0, 9)))
                b = self.pick(self.integer(), self.number(), "SENT[5]", str(self.r.randint(0, 9)))
                s = self.pick("[1, 2, 3]", "[1.5, 2.5, 0.0]", "SENT[3]", "[1, 2.5, None, 4]", "[0, 0, 0]", f"[{self.number()}, {self.number()}, 3]", "[]")
                t = self.pick("(1, 2, 3)", "(1.5, 2.5)", "SENT[4]", "(3, 4.5, 'x')", "(1,)")
                o = self.pick("SENT[0]", "SENT[1]", "SENT[2]", "P(1, 2)", "Base(2.5, 1.5)", "Q(2**31, 7)", "S(5, 6)", "Odd(1)", "P(3, 4)", "Base(1, 2)")
                calls.append((self.r.randint(1, 6), f"call({name}, {a}, {b}, {self.r.randint(-1, 12)}, {s}, {t}, {o}, {{'a': 1}})"))
        for times, text in calls:
            self.lines.append(f"for _ in range({times}): {text}")
        self.lines.append("for f in KEPT: LOG.append(['kept', f.f_lineno, [[k, show(v)] for k, v in f.f_locals.items()]])")
        self.lines.append("KEPT.clear(); f = None")
        self.lines.append("gc.collect()")
        self.lines.append("LOG.append([a - b for a, b in zip(counts(), START)])")
        return "\n".join(self.lines) + "\n"


def program(seed, number, newest=True):
    return Generator(f"{seed}:{number}", newest).program()


# ---- in the process that runs programs ----


def serve(path):
    """Runs the programs of a file, each after saying so; one line of JSON an outcome."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    programs = json.loads(pathlib.Path(path).read_text())
    compiled = os.environ.get("HOTSTAMP") != "0"
    if compiled:
        import hotstamp

        # What the prelude imports, and the message of its first exception.
        exec(compile(PRELUDE, "<prelude>", "exec"), {"__name__": "program"})
        hotstamp.enable()
        assert hotstamp.is_enabled()
    for number, source in programs:
        print(json.dumps(["start", number]), file=out, flush=True)
        names = {"__name__": "program"}
        try:
            exec(compile(PRELUDE, "<prelude>", "exec"), names)
            exec(compile(source, "<program>", "exec"), names)
            end = "ended"
        except BaseException as error:
            end = f"{type(error).__name__}: {error}"
        log = names.get("LOG", [])
        print(json.dumps(["end", number, end, log[-3000:]], default=lambda value: type(value).__name__), file=out, flush=True)
        names.clear()
    stats = None
    if compiled:
        stats = hotstamp.stats()
    print(json.dumps(["stats", stats]), file=out, flush=True)


# ---- in the process that compares ----


class Runner:
    def __init__(self, timeout, extra=()):
        self.timeout = timeout
        self.totals = {}
        self.extra = dict(extra)

    def run(self, programs, tier, environment=None):
        """Outcomes by number, and how the process ended."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HOTSTAMP", "PYTHONJIT")) or name in ("HOTSTAMP_NO_BUILD", "HOTSTAMP_PYTHON", "HOTSTAMP_PASSES", "HOTSTAMP_LOG", "HOTSTAMP_DUMP", "HOTSTAMP_DUMP_FOLDER")}
        env.update(TIERS[tier], PYTHONHASHSEED="0", HOTSTAMP_NO_BUILD="1", **{"HOTSTAMP_STAMP": "1", **(environment or {})})
        if tier != "optimizer":
            env.pop("HOTSTAMP_AUTO", None)
        with tempfile.TemporaryDirectory(prefix="hotstamp-fuzz-") as folder:
            file = pathlib.Path(folder, "programs")
            file.write_text(json.dumps(programs))
            python = os.environ.get("HOTSTAMP_FUZZ_PYTHON") or str(ROOT / "ci" / "python")
            command = [python, str(pathlib.Path(__file__).resolve()), "--serve", str(file)]
            try:
                done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=self.timeout, cwd=folder)
                status, output, errors = done.returncode, done.stdout, done.stderr
            except subprocess.TimeoutExpired as expired:
                status, output, errors = "timeout", (expired.stdout or b"").decode(errors="replace"), (expired.stderr or b"").decode(errors="replace")
        outcomes, running = {}, None
        for text in output.splitlines():
            try:
                event = json.loads(text)
            except ValueError:
                continue
            if event[0] == "start":
                running = event[1]
            elif event[0] == "end":
                outcomes[event[1]] = event[2:]
                running = None
            elif event[0] == "stats" and event[1]:
                self.count(tier, event[1])
        if status != 0:
            outcomes["status"] = [status, errors[-1500:]]
            if running is not None:
                outcomes[running] = ["process ended", status]
        return outcomes, errors

    def count(self, tier, stats):
        totals = self.totals.setdefault(tier, {})
        for name in "functions_stamped", "functions_optimized":
            totals[name] = totals.get(name, 0) + stats.get(name, 0)
        for name, number in stats.get("optimizer", {}).get("exits", {}).items():
            totals["exit " + name] = totals.get("exit " + name, 0) + number
        for name in "refused", "failed":
            totals[name] = totals.get(name, 0) + stats.get("optimizer", {}).get(name, 0)

    def differing(self, programs, tier, environment=None):
        """Numbers of programs that differ between the interpreter and a tier."""
        expected, _ = self.run(programs, "interpreter")
        got, errors = self.run(programs, tier, environment)
        if "status" in expected:
            # The generator made something that does not end, or ends the process: no comparison beyond.
            programs = [each for each in programs if each[0] in expected and expected[each[0]][0] != "process ended"]
        found = [number for number, _ in programs if number in expected and expected[number] != got.get(number)]
        if not found and "status" in got and "status" not in expected:
            found = ["status"]
        defects = "not optimized:" in errors and "WARN" in errors
        return found, expected, got, errors if defects else None


def first_difference(expected, got):
    if not got or got[0] != expected[0]:
        return f"ended: {expected[0]!r} -> {got[:2] if got else None!r}"
    for index, (a, b) in enumerate(zip(expected[1], got[1])):
        if a != b:
            return f"entry {index} of the log:\n    {str(a)[:600]}\n -> {str(b)[:600]}"
    return f"length of the log: {len(expected[1])} -> {len(got[1])}"


def minimize(runner, source, tier, environment, seconds=90):
    """Deletes lines with what is indented under them, as long as the difference stays."""
    end = time.monotonic() + seconds

    def differs(lines):
        try:
            compile("\n".join(lines), "<program>", "exec")
        except SyntaxError:
            return False
        found, expected, _, _ = runner.differing([[0, "\n".join(lines) + "\n"]], tier, environment)
        return found == [0] or found == ["status"]

    def extent(lines, index):
        indent = len(lines[index]) - len(lines[index].lstrip())
        last = index + 1
        while last < len(lines) and (len(lines[last]) - len(lines[last].lstrip()) > indent or not lines[last].strip()):
            last += 1
        return last, indent

    lines = source.rstrip("\n").split("\n")
    changed = True
    while changed and time.monotonic() < end:
        changed = False
        # The outermost statements first: they take most along.
        for depth in 0, 1, 2, 3, 4, 5:
            index = len(lines) - 1
            while index >= 0 and time.monotonic() < end:
                last, indent = extent(lines, index)
                if indent == 4 * depth:
                    candidates = [lines[:index] + lines[last:]]
                    if last > index + 1:
                        candidates.append(lines[:index] + [each[4:] for each in lines[index + 1 : last]] + lines[last:])
                    else:
                        candidates.append(lines[:index] + [" " * indent + "pass"] + lines[last:])
                    for candidate in candidates:
                        if candidate != lines and differs(candidate):
                            lines, changed = candidate, True
                            break
                index -= 1
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="number of the first program")
    parser.add_argument("--programs", type=int, default=10**9, metavar="N", help="at most so many programs")
    parser.add_argument("--tier", action="append", choices=["baseline", "optimizer"], help="default: both")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--auto", help="HOTSTAMP_AUTO; default: a few values in turn")
    parser.add_argument("--stop-after", type=int, default=20, metavar="N", help="differences")
    parser.add_argument("--minimize", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="writes differing programs there")
    parser.add_argument("--show", type=int, metavar="K")
    parser.add_argument("--replay", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--without-newest", dest="newest", action="store_false", help="programs as they were before arrays, operators of classes and calls of several functions")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    if options.show is not None:
        print(PRELUDE + program(options.seed, options.show, options.newest), end="")
        return 0
    runner = Runner(timeout=90)
    tiers = options.tier or ["baseline", "optimizer"]
    started, number, differences = time.monotonic(), options.first, 0
    if options.replay:
        source = options.replay.read_text()
        for tier in tiers:
            found, expected, got, errors = runner.differing([[0, source]], tier, {"HOTSTAMP_AUTO": options.auto or "2"})
            print(tier, first_difference(expected[0], got.get(0)) if found == [0] else found or "same", got.get("status", ""), errors or "")
            differences += bool(found)
        return 1 if differences else 0
    while time.monotonic() - started < options.seconds and number < options.first + options.programs and differences < options.stop_after:
        count = min(options.batch, options.first + options.programs - number)
        programs = [[each, program(options.seed, each, options.newest)] for each in range(number, number + count)]
        turn = number // options.batch
        # Stamped at the first call, or in the middle of the first loop.
        environment = {"HOTSTAMP_AUTO": options.auto or ("2", "5", "20")[turn % 3], "HOTSTAMP_STAMP": ("1", "2")[turn % 2]}
        expected, _ = runner.run(programs, "interpreter")
        for tier in tiers:
            found, _, got, errors = runner.differing(programs, tier, environment)
            if errors:
                print(f"{tier}: defects: " + "\n".join(line for line in errors.splitlines() if "not optimized" in line)[:2000])
                differences += 1
            rest = programs
            while found and differences < options.stop_after:
                first = found[0]
                differences += 1
                at = next((index for index, each in enumerate(rest) if each[0] == first), len(rest) - 1)
                status = got.get("status")
                print(f"\n==== seed {options.seed} program {first} differs: {tier}, {environment}")
                if first != "status":
                    alone, one_expected, one_got, _ = runner.differing([rest[at]], tier, environment)
                    print("alone: " + (first_difference(one_expected[first], one_got.get(first)) if alone else "the same (only after the programs before it)"))
                    if not alone:
                        print("in its batch: " + first_difference(expected[first], got.get(first)))
                    source = rest[at][1]
                    if options.minimize and alone:
                        source = minimize(runner, source, tier, environment)
                    print(source if options.minimize else "")
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{tier}-{options.seed}-{first}.py").write_text(source)
                if status:
                    print(f"status {status[0]}: {status[1]}")
                sys.stdout.flush()
                if status and first != "status":
                    # What came after a crash did not run.
                    rest = rest[at + 1 :]
                    if not rest:
                        break
                    found, expected, got, _ = runner.differing(rest, tier, environment)
                else:
                    found = found[1:]
        number += count
    print(f"{number - options.first} programs in {time.monotonic() - started:.0f} s, {differences} differences; {json.dumps(runner.totals)}")
    if not runner.totals:
        print("nothing ran")
        return 2
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
