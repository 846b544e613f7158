"""The smallest programs that once showed a defect, kept for ever."""

import pytest


def test_class_body_that_loops_with_a_base_class(run_snippet):
    # An owner of a null reference was made and dropped, from which the compiler of the extension concluded that it never was null.
    run_snippet(
        """
        import hotstamp
        class Base:
            pass
        before = hotstamp.stats()["functions_stamped"]
        class Derived(Base):
            for i in range(3):
                pass
        assert hotstamp.stats()["functions_stamped"] == before + 1
        assert Derived.i == 2 and Derived.__bases__ == (Base,)
        class Two(Derived, Base, metaclass=type):
            values = [0]
            for value in 1, 2:
                values.append(value)
        assert Two.values == [0, 1, 2]
        """
    )


def test_raise_that_passes_through_a_finally_keeps_its_line(run_snippet):
    # The instruction number that a handler pushes is a tagged integer, which RERAISE takes the frame's line from.
    run_snippet(
        """
        import hotstamp
        def f():
            try:
                1 / 0
            finally:
                x = 1
        def line(function):
            try:
                function()
            except ZeroDivisionError as error:
                frame = error.__traceback__.tb_next.tb_frame
                return frame.f_lineno - frame.f_code.co_firstlineno
        assert line(f) == 4 and hotstamp.is_compiled(f)
        """
    )


def test_keywords_whose_comparison_raises(run_snippet):
    # The exception went on into a second binding, as a SystemError; and each comparison was made twice where the call failed.
    run_snippet(
        """
        import hotstamp
        compared = []
        class Raises(str):
            def __eq__(self, other): raise OSError(other)
            __hash__ = str.__hash__
        def f(first=1): return first
        assert f(first=2) == 2 and hotstamp.is_compiled(f)
        try:
            f(**{Raises("x"): 1})
        except OSError as error:
            assert error.args == ("first",)
        else:
            raise AssertionError
        class Counted(str):
            def __eq__(self, other): compared.append(other); return False
            __hash__ = str.__hash__
        try:
            f(**{Counted("x"): 1})
        except TypeError as error:
            assert str(error) == "f() got an unexpected keyword argument 'x'", error
        assert compared.count("first") == 1, compared
        """
    )


def test_other_users_of_code_extra_slots(run_snippet):
    # Code objects that only hotstamp had touched called the free functions of all other users when they died, with nothing to free.
    run_snippet(
        """
        import ctypes, gc, hotstamp
        api = ctypes.pythonapi
        free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        freed = []
        callback = free(freed.append)
        request = api.PyUnstable_Eval_RequestCodeExtraIndex
        request.argtypes, request.restype = (free,), ctypes.c_ssize_t
        attach = api.PyUnstable_Code_SetExtra
        attach.argtypes, attach.restype = (ctypes.py_object, ctypes.c_ssize_t, ctypes.c_void_p), ctypes.c_int
        look = api.PyUnstable_Code_GetExtra
        look.argtypes, look.restype = (ctypes.py_object, ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_void_p)), ctypes.c_int
        index = request(callback)
        def stamped(source="def f(): return 1"):
            names = {}
            exec(source, names)
            assert names["f"]() == 1 and hotstamp.is_compiled(names["f"])
            return names["f"]
        for turn in range(5):
            stamped()
        gc.collect()
        assert freed == []
        function = stamped()
        assert attach(function.__code__, index, 0x1234) == 0
        found = ctypes.c_void_p()
        assert look(function.__code__, index, ctypes.byref(found)) == 0 and found.value == 0x1234
        assert function() == 1 and hotstamp.is_compiled(function)
        del function
        gc.collect()
        assert freed == [0x1234], freed
        """
    )


def test_optimized_loops_of_a_dead_function_are_forgotten(run_snippet):
    # What is allocated next often gets the addresses of what was freed last.
    out = run_snippet(
        """
        import gc
        def run(number):
            names = {}
            exec(f"def f(a): return {{{'x * ' + str(number) if number % 2 else 'x: x + ' + str(number)} for x in a}}", names)
            for _ in range(4):
                result = names["f"]([1, 2, 3, 4])
            return result
        for number in range(1, 13):
            print(run(number))
            gc.collect()
        """,
        tier="optimizer",
    )
    expected = [str({x * n for x in (1, 2, 3, 4)} if n % 2 else {x: x + n for x in (1, 2, 3, 4)}) for n in range(1, 13)]
    assert out.splitlines() == expected


def test_class_of_a_module_that_changes(run_snippet):
    # The interpreter's own cache, once it is filled, does not notice; so compiled code is compared with what an access without a cache gives.
    run_snippet(
        """
        import hotstamp, types
        class Other(types.ModuleType):
            @property
            def value(self): return "property"
        def load(m): return m.value
        m = types.ModuleType("m")
        m.value = 1
        for _ in range(20):
            assert load(m) == getattr(m, "value") == 1
        m.__class__ = Other
        for _ in range(20):
            assert load(m) == getattr(m, "value") == "property"
        assert hotstamp.is_compiled(load)
        """
    )


def test_builtins_that_confuse_results_and_exceptions(run_snippet):
    # Null without an exception crashed in the traceback.
    out = run_snippet(
        """
        import hotstamp
        try:
            from _testcapi import return_null_without_error, return_result_with_error
        except ImportError:
            print("skip")
        else:
            def null(): return_null_without_error()
            def both(): return_result_with_error()
            for call in [null, both] * 3:
                try:
                    call()
                except SystemError as error:
                    print(error)
            assert hotstamp.is_compiled(null) and hotstamp.is_compiled(both)
        """
    )
    if out == "skip\n":
        pytest.skip("this Python has no _testcapi")
    lines = [f"<built-in function return_{what}" for what in ("null_without_error> returned NULL without setting an exception", "result_with_error> returned a result with an exception set")]
    assert out.splitlines() == lines * 3
