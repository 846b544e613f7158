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
