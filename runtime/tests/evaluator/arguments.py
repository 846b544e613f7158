"""Generated signatures and calls of them: parameters of all kinds, defaults that do not fit them, keywords that are equal but not identical, and worse."""

import random

NAMES = "abcdefgh"


class Text(str):
    pass


class Unequal(str):
    __hash__ = str.__hash__

    def __eq__(self, other):
        raise ZeroDivisionError(other)


def signature(rng):
    """The source of a function that returns what its parameters are, with a cell among them now and then."""
    count = rng.randint(0, 5)
    star = rng.choice(["", "*", "*args"])
    keyword_only = rng.randint(0, count) if star else 0
    positional, keywords = NAMES[: count - keyword_only], NAMES[count - keyword_only : count]
    if star == "*" and not keywords:
        star = ""
    defaults = rng.randint(0, len(positional))
    slash = rng.randint(0, len(positional)) if rng.random() < 0.4 else 0
    parts = []
    for i, name in enumerate(positional):
        parts.append(f"{name}=('default', {i})" if i >= len(positional) - defaults else name)
        if i + 1 == slash:
            parts.append("/")
    parts += [star] if star else []
    parts += [f"{name}='keyword default'" if rng.random() < 0.5 else name for name in keywords]
    results = [*positional, *keywords] + (["args"] if star == "*args" else [])
    if rng.random() < 0.4:
        parts.append("**kw")
        results.append("kw")
    result = f"({''.join(name + ', ' for name in results)})"
    if rng.random() < 0.3:
        result = f"(lambda: {result})()"
    return f"def f({', '.join(parts)}):\n    local = 1\n    return {result}"


def keyword(rng, name):
    """A keyword: mostly the interned name, sometimes an equal string, an instance of a subclass, or one whose comparison raises."""
    kind = rng.random()
    if kind < 0.8:
        return name
    if kind < 0.9:
        return "".join([name, "x"])[:-1]
    return Text(name) if kind < 0.98 else Unequal(name)


def arguments(rng, function):
    """Arguments that mostly nearly fit."""
    code = function.__code__
    total = code.co_argcount + code.co_kwonlyargcount
    given = rng.randint(0, max(code.co_argcount, 1)) if rng.random() < 0.8 else rng.randint(0, 7)
    wanted = list(code.co_varnames[min(given, code.co_argcount) : total])
    if rng.random() < 0.4:
        wanted = rng.sample(NAMES, rng.randint(0, 3))
    rng.shuffle(wanted)
    keywords = {keyword(rng, name): name * 2 for name in wanted}
    if rng.random() < 0.02:
        keywords[5] = 1
    return tuple(range(given)), keywords


def make(count=400):
    """Functions, the same in each run, each with a few calls."""
    rng = random.Random(314)
    cases = []
    for _ in range(count):
        source, namespace = signature(rng), {}
        exec(source, namespace)
        function = namespace["f"]
        change = rng.randint(0, 19)
        if change == 0:
            function.__defaults__ = tuple(range(rng.randint(0, 9)))
        elif change == 1:
            function.__defaults__ = None
        elif change == 2:
            function.__kwdefaults__ = {"c": 9, "d": 8}
        elif change == 3:
            function.__kwdefaults__ = None
        cases.append((source, function, [arguments(rng, function) for _ in range(8)]))
    return cases


def run(cases):
    records = []
    for source, function, calls in cases:
        for args, kwargs in calls:
            try:
                outcome = function(*args, **kwargs)
            except Exception as error:
                outcome = type(error), str(error)
            records.append(repr((source, args, kwargs, outcome)))
    return records
