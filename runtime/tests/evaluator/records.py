"""What the programs note: values, failures with their tracebacks, deaths. Nothing in the notes depends on addresses or on time."""

import os
import re

FOLDER = os.path.dirname(__file__)
notes = []


def note(*things):
    notes.append(re.sub("0x[0-9a-f]+", "0x", repr(things)))


def place(traceback):
    """Function and instruction of each entry of a traceback, what its lines and carets are made of, and where the frame has come to since."""
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.startswith(FOLDER) and code.co_name != "attempt":
            position = list(code.co_positions())[traceback.tb_lasti // 2]
            places.append((code.co_name, traceback.tb_lineno, position, traceback.tb_frame.f_lasti))
        traceback = traceback.tb_next
    return places


def describe(error):
    if error is None:
        return None
    chain = describe(error.__cause__), describe(error.__context__), error.__suppress_context__
    parts = [describe(part) for part in getattr(error, "exceptions", ())]
    return type(error).__name__, str(error), place(error.__traceback__), chain, parts


def attempt(function, *args):
    """Notes what a call gives or raises."""
    try:
        result = function(*args)
    except Exception as error:
        note(describe(error))
    else:
        note("gives", result)


class Noisy:
    """Notes when it dies."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"

    def __del__(self):
        note(self.name, "dies")
