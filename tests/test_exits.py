"""Each reason to give control back to the interpreter, or not to compile, made to happen: counted under its name, and with the interpreter's result."""


COUNT = """
import hotstamp
def count(reason):
    return hotstamp.stats()["exits"][reason]
"""


def test_invalidated_in_a_loop(run_snippet):
    out = run_snippet(
        COUNT
        + """
def f(n):
    total = 0
    for i in range(n):
        total += i
        if i == 500:
            hotstamp.opt_out(f)
    return total
def other(n):
    return f(n)
f(10), other(10)
assert hotstamp.is_compiled(f)
before = count("invalidated")
print(f(1000), count("invalidated") - before)
print(other(1000), f(1000), count("invalidated") - before)
"""
    )
    # The one frame that ran left; what is called afterwards starts interpreted.
    assert out == "499500 1\n499500 499500 1\n"


def test_invalidated_at_the_entry(run_snippet):
    out = run_snippet(
        COUNT
        + """
import types
def f(a, b=2):
    return [a, b]
twin = types.FunctionType(f.__code__, globals(), "twin", (3,))
print(f(1), twin(1), count("invalidated"))
# The other function of the same code is not handed back, but its code is not run any more.
hotstamp.opt_out(f)
print(f(1), twin(1), twin(1, 4), count("invalidated"))
try:
    twin()
except TypeError as error:
    print(error)
"""
    )
    assert out == "[1, 2] [1, 3] 0\n[1, 2] [1, 3] [1, 4] 2\nf() missing 1 required positional argument: 'a'\n"


def test_invalidated_in_front_of_a_handler(run_snippet):
    out = run_snippet(
        COUNT
        + """
def f(fail):
    try:
        if fail:
            hotstamp.opt_out(f)
            raise ValueError(fail)
    except ValueError as error:
        return error.args, error.__traceback__.tb_lineno - f.__code__.co_firstlineno
print(f(False), f(True), count("invalidated"))
"""
    )
    assert out == "None ((True,), 4) 1\n"


def test_too_many_globals(run_snippet):
    out = run_snippet(
        COUNT
        + """
import types
def f(x):
    return x + offset
made = [types.FunctionType(f.__code__, {"offset": number}) for number in range(12)]
print([[function(1) for function in made] for _ in range(3)])
print([hotstamp.is_compiled(function) for function in made].count(True), count("too_many_globals") > 0)
"""
    )
    assert out == f"{[list(range(1, 13))] * 3}\n8 True\n"


def test_native_stack_low(run_snippet):
    # Recursion through C ends where its stack does. Which of the calls on the way finds that first is chance, so there are several ways.
    out = run_snippet(
        COUNT
        + """
import sys, threading
sys.setrecursionlimit(10**6)
def mapped(n):
    return list(map(mapped, [n + 1]))
class C:
    def __getattr__(self, name): return self.other
    def __getitem__(self, key): return self[key]
    def __eq__(self, other): return self == other
def leaf():
    return 1
def run():
    before = count("native_stack_low")
    for recursion in (lambda: mapped(0)), (lambda: C().other), (lambda: C()[0]), (lambda: C() == 1):
        try:
            recursion()
        except RecursionError as error:
            print(str(error)[:14])
    print(count("native_stack_low") > before, leaf(), hotstamp.is_compiled(mapped), hotstamp.is_compiled(leaf))
run()
threading.stack_size(512 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
    )
    assert out == ("Stack overflow\n" * 4 + "True 1 True True\n") * 2


def test_native_stack_low_is_no_error_by_itself(compare):  # noqa: F811
    # Called from C near the end of the native stack: the interpreter has room for the little that is left to do.
    compare(
        """
        def leaf(x): return x + 1
        def down(n):
            try:
                return sorted([n], key=down_key)
            except RecursionError:
                return leaf(1)
        def down_key(n): return down(n + 1)
        leaf(1)
        print(down(0))
        check(leaf, down, down_key)
        """
    )
