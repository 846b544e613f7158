"""Argument binding against the interpreter, on generated signatures and calls: locals, and the texts of errors."""

import gc
import sys

import differential
import hotstamp
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

NAMES = ["a", "b", "c", "d", "e", "g"]
COMMON = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module", autouse=True)
def enabled():
    differential.enable()


@st.composite
def signatures(draw):
    """The source of a function that shows its parameters, with up to six named ones of all kinds."""
    names = NAMES[: draw(st.integers(0, len(NAMES)))]
    positional = draw(st.integers(0, len(names)))
    positional_only = draw(st.integers(0, positional))
    first_default = draw(st.integers(0, positional))
    parts = []
    for index, name in enumerate(names[:positional]):
        parts.append(name if index < first_default else f"{name}=['default {name}']")
        if index + 1 == positional_only:
            parts.append("/")
    varargs = draw(st.booleans())
    keyword_only = names[positional:]
    if varargs:
        parts.append("*rest")
    elif keyword_only:
        parts.append("*")
    parts += [f"{name}=['keyword {name}']" if draw(st.booleans()) else name for name in keyword_only]
    varkeywords = draw(st.booleans())
    if varkeywords:
        parts.append("**others")
    shown = ", ".join([*names, *["rest"] * varargs, *["others"] * varkeywords])
    # Cells make the binding copy arguments away from their slots.
    closure = f"    hidden = lambda: ({shown},)\n" if names and draw(st.booleans()) else ""
    return f"def f({', '.join(parts)}):\n{closure}    extra = 1\n    return [{shown}], extra\n"


@st.composite
def arguments(draw):
    """Positional arguments, then keywords, as the source of a call's arguments. Values are fresh objects."""
    positional = [f"[{number}]" for number in range(draw(st.integers(0, 7)))]
    keywords = draw(st.lists(st.sampled_from([*NAMES, "rest", "others", "unknown", "naïve"]), unique=True, max_size=5))
    return positional, keywords


def bind(function, positional, names, way):
    """Calls in one of the ways in which arguments can come."""
    values = [[index] for index in range(len(positional))]
    keywords = {name: [name] for name in names}
    before = [sys.getrefcount(value) for value in [*values, *keywords.values()]]
    try:
        if way == "caller":
            result = function.__globals__["caller"](values, keywords)
        else:
            result = function(*values, **keywords)
    except TypeError as error:
        result = error
    described = differential.describe(result)
    result = None
    gc.collect()
    return described, [after - less for after, less in zip([sys.getrefcount(value) for value in [*values, *keywords.values()]], before)]


@settings(COMMON, max_examples=80)
@given(signatures(), st.lists(arguments(), min_size=1, max_size=6))
def test_generated_signatures(source, calls):
    twins = differential.Twins(source)
    for positional, names in calls:
        # A call whose callee is known by its place in the code, with the keywords' names as a constant.
        given = ", ".join([*(f"values[{index}]" for index in range(len(positional))), *(f"{name}=keywords[{name!r}]" for name in names)])
        caller = f"def caller(values, keywords):\n    return f({given})\n"
        outcomes = []
        for interpreted, namespace in (True, twins.interpreted), (False, twins.compiled):
            code = compile(caller, differential.FILE, "exec")
            if interpreted:
                differential.opt_out(code)
            exec(code, namespace)
            function = namespace["f"]
            outcomes.append([bind(function, positional, names, way) for way in ("caller", "unpacked", "caller")])
            assert hotstamp.is_compiled(namespace["caller"]) is not interpreted
        assert outcomes[0] == outcomes[1], (source, given)
    # Errors come from the interpreter's own binding: something has to bind for the function to be compiled at all.
    if any(outcome[0] == "tuple" for outcome, _ in outcomes[1]):
        assert hotstamp.is_compiled(twins.compiled["f"])


@settings(COMMON, max_examples=60)
@given(signatures(), arguments(), st.sampled_from(["fewer", "more", "none", "deleted keyword"]))
def test_changed_defaults(source, call, change):
    positional, names = call
    twins = differential.Twins(source)
    outcomes = []
    for namespace in twins.interpreted, twins.compiled:
        function = namespace["f"]
        seen = [bind(function, positional, names, "unpacked")]
        if change == "fewer":
            function.__defaults__ = (function.__defaults__ or ())[1:] or None
        elif change == "more":
            function.__defaults__ = tuple([number] for number in range(function.__code__.co_argcount + 2))
            function.__kwdefaults__ = {name: [name] for name in function.__code__.co_varnames}
        elif change == "none":
            function.__defaults__ = function.__kwdefaults__ = None
        elif function.__kwdefaults__:
            function.__kwdefaults__.popitem()
        seen.append(bind(function, positional, names, "unpacked"))
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


@settings(COMMON, max_examples=60)
@given(signatures(), arguments())
def test_methods_and_bound_functions(source, call):
    positional, names = call
    assume("self" not in names)
    body = "".join(f"    {line}\n" for line in source.replace("def f(", "def f(self, " if "def f()" not in source else "def f(self").splitlines())
    # A bare star or slash may not follow the inserted parameter's default; `self` has none, so that any signature stays valid.
    source = f"class C:\n{body}    @classmethod\n{body}".replace("@classmethod\n    def f(", "@classmethod\n    def g(")
    outcomes = []
    twins_of = differential.namespace(source, True), differential.namespace(source, False)
    for namespace in twins_of:
        instance = namespace["C"]()
        seen = []
        for function in instance.f, namespace["C"].g, type(instance).f:
            values = [[index] for index in range(len(positional))]
            try:
                seen.append(differential.describe(function(*values, **{name: [name] for name in names})))
            except TypeError as error:
                seen.append(str(error))
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1], source


SUBCLASSES = """
class Name(str):
    def __eq__(self, other):
        log.append(("eq", str(other)))
        if self.startswith("raise"): raise OSError("eq")
        return str(self)[-1] == other
    __hash__ = str.__hash__
def f(a, b=2, *, k=3, **others):
    return a, b, k, {str(name): value for name, value in others.items()}
"""


@pytest.mark.parametrize("names", [["xa"], ["xb", "a"], ["xk", "a"], ["raise"], ["a", "zz"], ["xa", "ya"]])
def test_names_that_are_no_exact_strings(names):
    seen = []
    twins = differential.Twins(SUBCLASSES)
    for namespace in twins.interpreted, twins.compiled:
        keywords = {namespace["Name"](name): index for index, name in enumerate(names)}
        namespace["log"].clear()
        try:
            outcome = namespace["f"](**keywords)
        except (TypeError, OSError) as error:
            outcome = type(error), str(error)
        seen.append((outcome, list(namespace["log"])))
    assert seen[0] == seen[1]


def test_keywords_that_are_no_strings():
    source = "def f(a=1, **others): return a, others\ndef g(keywords): return f(**keywords)\n"
    twins = differential.Twins(source)
    seen = []
    for namespace in twins.interpreted, twins.compiled:
        for function in namespace["f"], lambda **keywords: namespace["g"](keywords):
            try:
                seen.append(namespace["g"]({1: 2}))
            except TypeError as error:
                seen.append(str(error))
    assert seen[:2] == seen[2:]
    assert hotstamp.is_compiled(twins.compiled["g"])


@pytest.mark.parametrize("count", [255, 256, 300, 1000])
def test_many_parameters(count):
    names = [f"p{number}" for number in range(count)]
    source = f"def f({', '.join(names)}):\n    return {names[0]}, {names[-1]}, {' + '.join(names)}\n"
    source += f"def g(v):\n    return f({', '.join('v' for _ in names)}), f({', '.join(f'{name}=v' for name in reversed(names))})\n"
    twins = differential.Twins(source)
    seen = []
    for namespace in twins.interpreted, twins.compiled:
        seen.append([namespace["g"](7), namespace["f"](*range(count)), namespace["f"](**dict.fromkeys(names, 1))])
        with pytest.raises(TypeError) as caught:
            namespace["f"](*range(count + 1))
        seen[-1].append(str(caught.value))
    assert seen[0] == seen[1]
    assert hotstamp.is_compiled(twins.compiled["f"]) and hotstamp.is_compiled(twins.compiled["g"])
