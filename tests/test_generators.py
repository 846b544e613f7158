"""Generators, coroutines and async generators as programs see them: whoever resumes them, whatever happens meanwhile. Interpreted against compiled."""


def test_everybody_who_resumes(compare):
    compare(
        """
        import contextlib, itertools, asyncio, collections
        def numbers(n):
            for i in range(n):
                yield i
        def consumers():
            print(list(numbers(4)), sum(numbers(10)), tuple(zip(numbers(3), numbers(4))), max(numbers(5)), sorted(numbers(3), reverse=True))
            a, *b, c = numbers(5)
            print(a, b, c, *numbers(3), {*numbers(3)}, dict(zip("ab", numbers(2))), "-".join(str(x) for x in numbers(3)))
            print([x for x in numbers(3)], any(x > 2 for x in numbers(9)), 3 in numbers(9), list(itertools.chain(numbers(2), numbers(2))))
            print(collections.deque(numbers(9), maxlen=2), list(map(str, numbers(3))), list(enumerate(numbers(2))))
            g = numbers(3)
            print(next(g), g.__next__(), g.send(None), next(g, "default"))
            for wrong in (lambda: next(g)), (lambda: g.send(1)), g.__next__:
                try:
                    wrong()
                except StopIteration as stop:
                    print("stop", stop.value, stop.__context__)
            try:
                a, b = numbers(3)
            except ValueError as error:
                print(error)
        @contextlib.contextmanager
        def managed(log):
            log.append("enter")
            try:
                yield log
            except KeyError as error:
                log.append(repr(error))
            finally:
                log.append("exit")
        def with_it():
            log = []
            with managed(log) as inside:
                inside.append("in")
            with managed(log):
                raise KeyError("k")
            try:
                with managed(log):
                    raise ValueError("v")
            except ValueError as error:
                log.append(repr(error))
            print(log)
        async def step(n):
            await asyncio.sleep(0)
            return n
        async def ticks(n):
            try:
                for i in range(n):
                    await asyncio.sleep(0)
                    yield i
            finally:
                print("ticks end")
        @contextlib.asynccontextmanager
        async def amanaged():
            await asyncio.sleep(0)
            try:
                yield 5
            except KeyError:
                print("async caught")
        async def main():
            print(await asyncio.gather(*[step(i) for i in range(5)]))
            print([x async for x in ticks(3)], {await step(i) for i in range(3)})
            async with amanaged() as x:
                print(x)
                raise KeyError
            agen = ticks(5)
            print(await anext(agen), await agen.__anext__(), await agen.asend(None))
            await agen.aclose()
            print(await anext(agen, "done"))
            task = asyncio.create_task(asyncio.sleep(100))
            await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                print("cancelled", error.args)
            async with asyncio.timeout(5):
                print(await step("in time"))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(step(1))
                    group.create_task(broken())
            except* ZeroDivisionError as errors:
                print(errors.exceptions)
        async def broken():
            await asyncio.sleep(0)
            1 / 0
        for _ in range(3):
            consumers()
            with_it()
            asyncio.run(main())
        check(numbers, consumers, with_it, step, ticks, main, broken)
        resumed(numbers, 100); resumed(step, 10); resumed(ticks, 10); resumed(main, 10); resumed(managed.__wrapped__, 10); resumed(amanaged.__wrapped__, 5)
        """
    )


def test_states_and_questions(compare):
    compare(
        """
        import inspect
        def inner():
            yield "a"
            show("running inside")
            yield "b"
        def outer():
            x = 1
            yield from inner()
            show("in outer")
            x = 2
            yield x
        def show(when):
            frame = g.gi_frame
            print(when, g.gi_running, g.gi_suspended, g.gi_yieldfrom is not None and g.gi_yieldfrom.__name__, inspect.getgeneratorstate(g))
            if frame:
                print(frame.f_lineno, frame.f_lasti, frame.f_locals, frame.f_back and frame.f_back.f_code.co_name, frame.f_code.co_name)
        for _ in range(2):
            g = outer()
            show("created")
            while (value := next(g, None)) is not None:
                show(f"yielded {value}")
            show("ended")
            print(g.__name__, g.__qualname__, g.gi_code is outer.__code__, type(g), sys.getsizeof(g) > 100)
        async def waits():
            await other()
        async def other():
            await Once()
        class Once:
            def __await__(self):
                print(c.cr_running, c.cr_suspended, inspect.getcoroutinestate(c))
                yield 1
        for _ in range(2):
            c = waits()
            print(c.cr_frame.f_lineno, c.cr_await, inspect.getcoroutinestate(c))
            c.send(None)
            print(c.cr_frame.f_lineno, c.cr_await.__name__, c.cr_await.cr_await is not None, c.cr_running, c.cr_suspended)
            c.close()
            print(c.cr_frame, c.cr_await, inspect.getcoroutinestate(c))
        check(inner, outer, waits, other)
        resumed(inner, 4); resumed(outer, 4); resumed(waits, 2)
        """
    )


def test_send_throw_close(compare):
    compare(
        """
        def echo():
            got = "start"
            while True:
                try:
                    got = yield got
                except ValueError as error:
                    got = ("caught", error.args, sys.exception() is error)
                except GeneratorExit:
                    print("closing")
                    raise
        def nothing():
            yield 1
            yield 2
        def stubborn():
            try:
                yield 1
            except GeneratorExit:
                yield "no"
        def returns():
            try:
                yield 1
            except GeneratorExit:
                return "closed"
        def handling():
            try:
                raise KeyError("first")
            except KeyError:
                yield 1
        def delegating(sub):
            try:
                result = yield from sub
                yield ("result", result)
            except ValueError as error:
                yield ("outer", error.args, [f.name for f in traceback.extract_tb(error.__traceback__)])
            finally:
                print("outer finally")
        class Sub:
            def __init__(self): self.n = 0
            def __iter__(self): return self
            def __next__(self): self.n += 1; return self.n
            def throw(self, *args):
                print("sub throw", args, sys._getframe(1).f_code.co_name)
                raise args[0]
            def close(self): print("sub close")
        class Plain:
            def __iter__(self): return self
            def __next__(self): return 1
        class BadClose(Plain):
            def close(self): raise OSError("close")
        def attempt(what):
            try:
                print("->", what())
            except BaseException as error:
                context = error.__context__
                print("raised", type(error).__name__, error.args, context and (type(context).__name__, context.args), traceback.extract_tb(error.__traceback__)[1:])
        def run():
            g = echo()
            attempt(lambda: g.send(1))
            attempt(lambda: g.send(None))
            attempt(lambda: g.send("x"))
            attempt(lambda: g.throw(ValueError(1, 2)))
            attempt(lambda: g.throw(ValueError))
            attempt(lambda: g.throw(5))
            attempt(lambda: next(g))
            attempt(lambda: g.throw(KeyError("out")))
            attempt(lambda: g.throw(KeyError("again")))
            attempt(lambda: next(g))
            g = echo(); next(g); attempt(g.close); attempt(g.close); attempt(lambda: next(g))
            g = echo(); attempt(g.close); attempt(lambda: g.send(None))
            for make in nothing, stubborn, returns, handling:
                g = make(); attempt(lambda: g.throw(ValueError("unstarted"))); attempt(lambda: next(g))
                g = make(); next(g); attempt(lambda: g.throw(ValueError("in"))); attempt(lambda: next(g))
                g = make(); next(g); attempt(lambda: g.throw(StopIteration("stop"))); attempt(g.close)
                g = make(); next(g); attempt(g.close); attempt(g.close)
            for sub in echo, Sub, Plain, BadClose, nothing, stubborn, returns, lambda: [1, 2], lambda: delegating(echo()):
                g = delegating(sub()); next(g); attempt(lambda: g.throw(ValueError("v"))); attempt(lambda: next(g)); attempt(g.close)
                g = delegating(sub()); next(g); attempt(lambda: g.throw(KeyError)); attempt(g.close)
                g = delegating(sub()); next(g); attempt(lambda: g.throw(GeneratorExit)); attempt(g.close)
                g = delegating(sub()); next(g); attempt(g.close); attempt(lambda: next(g))
                g = delegating(sub()); next(g); attempt(lambda: g.send("value")); del g
            def reentrant():
                yield next(g)
            g = reentrant()
            attempt(lambda: next(g))
            def thrower():
                try:
                    yield g.throw(ValueError("self"))
                finally:
                    yield g.close()
            g = thrower()
            attempt(lambda: next(g)); attempt(lambda: next(g)); attempt(lambda: next(g))
            warnings.simplefilter("ignore")
            g = echo(); next(g)
            attempt(lambda: g.throw(ValueError, "two")); attempt(lambda: g.throw(ValueError, ValueError("three"), None))
        for _ in range(3):
            run()
        check(echo, delegating, handling, run)
        resumed(echo, 20); resumed(delegating, 20)
        """
    )


def test_stop_iteration_becomes_runtime_error(compare):
    compare(
        """
        import asyncio
        def stops(): yield 1; raise StopIteration(2)
        def nexts(): yield next(iter(()))
        async def coroutine(): raise StopIteration(3)
        async def agen():
            yield 1
            raise StopAsyncIteration(4)
        async def agen2():
            yield 1
            raise StopIteration(5)
        async def main():
            for make in agen, agen2:
                try:
                    print([x async for x in make()])
                except RuntimeError as error:
                    print(error, repr(error.__cause__), traceback.extract_tb(error.__traceback__)[-1].lineno)
            try:
                await coroutine()
            except RuntimeError as error:
                print(error, repr(error.__cause__))
        for _ in range(2):
            for make in stops, nexts:
                try:
                    print(list(make()))
                except RuntimeError as error:
                    print(error, repr(error.__cause__), [e.lineno for e in traceback.extract_tb(error.__traceback__)])
            asyncio.run(main())
        check(stops, nexts, coroutine, agen, agen2)
        resumed(stops, 2); resumed(agen, 2)
        """
    )


def test_tracebacks_through_generators(compare):
    compare(
        """
        def leaf(n):
            yield n
            raise ValueError("leaf")
        def middle(n):
            yield 0
            yield from leaf(n)
        def top(n):
            for x in middle(n):
                yield x
        async def aleaf():
            raise KeyError("aleaf")
        async def amiddle():
            await aleaf()
        def drain(make):
            for x in make: pass
        def run():
            for action in (lambda: drain(top(1))), (lambda: list(top(2))), (lambda: amiddle().send(None)), (lambda: sum(x for x in middle(3))):
                try:
                    action()
                except (ValueError, KeyError):
                    traceback.print_exc(file=sys.stdout)
        for _ in range(2): run()
        check(leaf, middle, top, aleaf, amiddle)
        resumed(leaf, 4)
        """
    )


def test_locals_of_suspended_and_running_generators(compare):
    compare(
        """
        def g(a):
            b = [a]
            c = yield 1
            print(sys._getframe().f_locals, locals())
            del b
            d = yield c
            yield (a, d)
        for _ in range(3):
            gen = g("a")
            print(gen.gi_frame.f_locals)
            next(gen)
            frame = gen.gi_frame
            print(frame.f_locals)
            frame.f_locals["a"] = "changed"
            frame.f_locals["extra"] = 5
            print(gen.send("sent"), frame.f_locals, frame.f_lineno)
            print(gen.send("again"), next(gen, "end"))
            try:
                print(frame.f_locals, frame.f_back)
            except Exception as error:
                print(error)
            gen = g("x"); next(gen)
            try:
                gen.gi_frame.clear()
                print("cleared", gen.gi_frame, next(gen, "end"))
            except RuntimeError as error:
                print(error)
            gen = g("x"); print(gen.gi_frame.clear(), next(gen, "end"))
        check(g)
        resumed(g, 4)
        """
    )


def test_collection_of_suspended_and_running_generators(compare):
    compare(
        """
        # What there is so far need not be looked at by each of the many collections.
        gc.collect()
        gc.freeze()
        class Node: pass
        def collect(): gc.collect(); return 1
        def holds(node, log):
            try:
                kept = [node, Node()]
                yield [kept, Node(), (yield len(kept))]
                yield kept
            finally:
                log.append("closed")
        def cycle(log):
            node = Node()
            node.generator = holds(node, log)
            next(node.generator)
            return weakref.ref(node)
        # Collections while the operand stack of running generators is not empty, in every depth of a chain of them.
        def deep(n, node):
            local = [Node() for _ in range(3)]
            if n:
                for x in deep(n - 1, local[0]):
                    yield [local[1], Node(), collect(), x, Node(), collect()][3]
            else:
                yield (Node(), collect(), Node(), node, collect())[3]
            yield from (local[2] for _ in range(collect()))
        def stacks():
            found = [type(x).__name__ for x in deep(6, Node())]
            return len(found), set(found)
        # What lies only on the operand stack of a suspended generator, or in a local of a running one, is reachable from it.
        def only_there(seen):
            x = [Node(), [Node(), (yield seen)], Node()]
            seen.append(len(gc.get_referents(x)))
            y = x
            x = None
            gc.collect()
            yield type(y[1][0])
        class Dies:
            def __del__(self): gc.collect(); log.append(sorted(k for k in sys._getframe(1).f_locals))
        def destructors():
            a = Dies()
            b = [Node(), Node()]
            a = (yield b)
            b = [Dies(), b, Node()]
            b = None
            del a
            yield
        log = []
        for _ in range(3):
            gc.disable()
            r = cycle(log)
            gc.collect()
            print(r(), log)
            log.clear()
            print(stacks())
            seen = []
            g = only_there(seen)
            next(g); gc.collect(); print(g.send(5), seen, len([x for x in gc.get_referents(g)]))
            g.close()
            g = destructors(); next(g); g.send(Dies()); list(g)
            print(log)
            log.clear()
            gc.enable()
        gc.set_threshold(1, 1, 1)
        print(stacks(), [stacks() for _ in range(3)])
        check(holds, deep, stacks, only_there, destructors)
        resumed(deep, 50); resumed(holds, 2); resumed(only_there, 2)
        """
    )


def test_references(compare):
    compare(
        """
        class Counted:
            alive = 0
            def __init__(self): Counted.alive += 1
            def __del__(self): Counted.alive -= 1
        def g(x, n):
            y = x
            for _ in range(n):
                yield x
                z = yield (x, y)
            return x
        def fails(x):
            yield x
            raise ValueError(x)
        def through(make):
            result = yield from make
            return result
        def use(n):
            x = Counted()
            before = sys.getrefcount(x)
            gens = [g(x, n), through(g(x, n)), through(through(fails(x))), (y for y in [x])]
            print(sys.getrefcount(x) - before)
            for gen in gens:
                try:
                    for value in gen:
                        value = None
                except ValueError: pass
                print(sys.getrefcount(x) - before, sys.getrefcount(gen))
            half = [g(x, n), through(g(x, n))]
            for gen in half: next(gen)
            print(sys.getrefcount(x) - before)
            gen = None
            del half, gens
            print(sys.getrefcount(x) - before)
            y = g(x, n); list(y); del y
            for arguments in ((x,), (x, 1, 2)):
                try: g(*arguments)
                except TypeError as error: print(error)
            print(sys.getrefcount(x) - before)
        for _ in range(3):
            use(3)
            gc.collect()
            print(Counted.alive)
        check(g, through, fails, use)
        resumed(g, 20)
        """
    )


def test_recursion(compare):
    compare(
        """
        def deep(n):
            if n: yield from deep(n - 1)
            yield n
        def loops(n):
            if n:
                for x in loops(n - 1): yield x
            yield n
        async def coroutine(n):
            return 1 + await coroutine(n - 1) if n else 0
        def endless():
            yield from endless()
        def endless_for():
            for x in endless_for(): yield x
        async def forever():
            await forever()
        def endless_list():
            yield list(endless_list())
        def run():
            print(sum(deep(300)), sum(loops(300)))
            try: coroutine(300).send(None)
            except StopIteration as stop: print(stop.value)
            for make in endless, endless_for, endless_list:
                try: next(make())
                except RecursionError as error: print(make.__name__, str(error)[:32])
            try: forever().send(None)
            except RecursionError as error: print(str(error)[:32])
        for _ in range(3): run()
        sys.setrecursionlimit(20000)
        print(sum(deep(5000)), sum(loops(2000)))
        check(deep, loops, coroutine, endless, forever)
        resumed(deep, 300); resumed(coroutine, 300)
        """
    )


def test_observers_between_and_during_resumptions(compare):
    compare(
        """
        def inner(n):
            for i in range(n):
                x = i + 1
                yield x
            return "inner"
        def outer(n, when):
            y = 0
            if when == "start": begin()
            r = yield from inner(n)
            if when == "middle": begin()
            z = r
            for v in inner(2):
                y += v
                if when == "loop": begin()
                yield y
            if when == "end": begin()
            return z
        async def leaf(when):
            if when == "leaf": begin()
            return 1
        async def coroutine(when):
            total = await leaf(when)
            total += await leaf(None)
            return total
        events = []
        def tracer(frame, event, arg):
            if frame.f_code.co_filename != "<string>" or frame.f_code.co_name in ("begin", "end", "run", "<module>"): return None
            events.append((frame.f_code.co_name, event, frame.f_lineno, arg if isinstance(arg, (int, str)) else None))
            return tracer
        def begin(): sys.settrace(tracer)
        def end(): sys.settrace(None)
        def run(when):
            events.clear()
            g = outer(3, when)
            seen = []
            for i, v in enumerate(g):
                seen.append(v)
                if when == "outside" and i == 1: begin()
                if when == "switching":
                    (end if i % 2 else begin)()
            end()
            print(when, seen, len(events))
            for event in events: print(event)
        for when in None, "start", "outside", "middle", "loop", "end", "switching", None:
            run(when)
        for when in None, "leaf", None:
            events.clear()
            try: coroutine(when).send(None)
            except StopIteration as stop: end(); print(stop.value)
            end()
            for event in events: print(event)
        check(inner, outer, leaf, coroutine)
        """
    )


def test_monitoring_between_and_during_resumptions(compare):
    compare(
        """
        E = sys.monitoring.events
        TOOL = 2
        seen = []
        NAMES = ("inner", "outer", "thrown")
        def note(name):
            def callback(code, offset, *rest):
                if code.co_name in NAMES:
                    seen.append((name, code.co_name, offset, [x for x in rest if isinstance(x, (int, str))]))
            return callback
        KINDS = "PY_START PY_RESUME PY_RETURN PY_YIELD PY_UNWIND PY_THROW RAISE LINE".split()
        def begin():
            sys.monitoring.use_tool_id(TOOL, "test")
            for kind in KINDS: sys.monitoring.register_callback(TOOL, getattr(E, kind), note(kind))
            sys.monitoring.set_events(TOOL, sum(getattr(E, kind) for kind in KINDS))
        def end():
            if sys.monitoring.get_tool(TOOL): sys.monitoring.set_events(TOOL, 0); sys.monitoring.free_tool_id(TOOL)
        def inner(n, when):
            for i in range(n):
                if when == i: begin()
                yield i
        def outer(n, when):
            r = yield from inner(n, when)
            for v in inner(n, None):
                yield v
        def thrown(when):
            try:
                yield 1
            except ValueError:
                if when == "handler": begin()
                yield 2
            yield 3
        def run(when):
            seen.clear()
            g = outer(3, when)
            for i, v in enumerate(g):
                if when == "between" and i == 2: begin()
                if when == "between" and i == 4: end()
            end()
            g = thrown(when)
            next(g)
            if when == "throw": begin()
            g.throw(ValueError())
            next(g)
            g.close()
            end()
            print(when, len(seen))
            for each in seen: print(each)
        for when in None, 1, "between", "throw", "handler", None: run(when)
        check(inner, outer, thrown)
        resumed(inner, 4); resumed(thrown, 2)
        """
    )


def test_handing_back_and_forth(compare):
    compare(
        """
        # Frames suspended by the interpreter and resumed compiled, and the other way round, at every yield.
        import itertools
        def body(n):
            a = []
            for i in range(n):
                got = yield [i, [i, (yield i)], a]
                a.append(got)
            try:
                yield "try"
                raise ValueError
            except ValueError:
                yield "except"
            finally:
                yield "finally"
            return a
        def delegate(n):
            return (yield from body(n))
        def drive(make, pattern):
            g = make()
            seen, sent = [], None
            for observed in itertools.cycle(pattern):
                if observed: sys.settrace(lambda *args: None)
                try:
                    value = g.send(sent)
                except StopIteration as stop:
                    return seen, stop.value
                finally:
                    sys.settrace(None)
                seen.append(repr(value))
                sent = len(seen)
        for round in range(2):
            for pattern in [0], [1], [0, 1], [1, 0], [0, 0, 1], [1, 1, 0]:
                print(drive(lambda: body(3), pattern))
                print(drive(lambda: delegate(2), pattern))
        check(body, delegate)
        resumed(body, 10)
        """
    )


def test_enabled_and_disabled_while_suspended(run_snippet):
    run_snippet(
        """
        import hotstamp
        def g(n):
            for i in range(n):
                yield i
        def total(it):
            return sum(it)
        early = g(10)
        assert next(early) == 0
        hotstamp.enable()
        assert next(early) == 1 and not hotstamp.is_compiled(g)
        late = g(10)
        assert next(late) == 0 and hotstamp.is_compiled(g) and hotstamp.resumptions(g) == 1
        assert next(early) == 2 and hotstamp.resumptions(g) == 2, "a frame that the interpreter made goes on compiled"
        hotstamp.disable()
        assert next(late) == 1 and hotstamp.resumptions(g) == 2
        hotstamp.enable()
        assert next(late) == 2 and hotstamp.resumptions(g) == 3
        assert total(early) == sum(range(3, 10)) and total(late) == sum(range(3, 10))
        assert hotstamp.resumptions(g) == 3 + 16
        assert hotstamp.stats()["exits"]["generator_interpreted"] == 0
        """,
        tier=None,
    )


def test_threads(compare):
    compare(
        """
        def numbers(n):
            for i in range(n):
                yield i, threading.current_thread().name
        def take(g, n, out):
            for _ in range(n): out.append(next(g))
        def run():
            g = numbers(10)
            out = []
            take(g, 2, out)
            for name in "ab":
                thread = threading.Thread(target=take, args=(g, 3, out), name=name)
                thread.start(); thread.join()
            take(g, 2, out)
            print(out)
        for _ in range(3): run()
        # Many threads, each with generators of its own, switched in the middle of resumptions.
        sys.setswitchinterval(1e-5)
        def chain(n):
            yield from (x for x in range(n))
            for x in chain(n - 1) if n else (): yield x
        def work(): results.append(sum(sum(chain(20)) for _ in range(50)))
        results = []
        threads = [threading.Thread(target=work) for _ in range(6)]
        for t in threads: t.start()
        for t in threads: t.join()
        print(results)
        # One generator wanted by two threads at once.
        def slow():
            while True:
                sum(range(1000))
                yield
        shared = slow()
        def pull():
            for _ in range(300):
                try: next(shared)
                except ValueError as error: errors.add(str(error))
        errors = set()
        threads = [threading.Thread(target=pull) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        print(errors <= {"generator already executing"})
        check(numbers, chain, slow)
        resumed(numbers, 8); resumed(chain, 1000)
        """
    )


def test_death_while_suspended(compare):
    compare(
        """
        import asyncio
        def plain(): yield 1
        def finally_(log):
            try: yield 1
            finally: log.append(("finally", repr(sys.exception())))
        def yields_again():
            try: yield 1
            except GeneratorExit: yield 2
        def raises():
            try: yield 1
            finally: raise OSError("in finally")
        def delegating(log):
            try: yield from finally_(log)
            finally: log.append("outer")
        def with_(log):
            class M:
                def __enter__(self): return self
                def __exit__(self, *args): log.append(args[0])
            with M(): yield 1
        def resurrects(keep):
            try: yield 1
            finally: keep.append(sys._getframe().f_locals)
        sys.unraisablehook = lambda info: print("unraisable", type(info.exc_value).__name__, info.exc_value, str(info.err_msg).split("<")[0])
        async def agen(log):
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                log.append("agen closed")
        async def main(log):
            async for x in agen(log): break
            gc.collect()
            await asyncio.sleep(0.01)
            await asyncio.sleep(0)
        async def never(): pass
        def run():
            log = []
            for make in plain, lambda: finally_(log), yields_again, raises, lambda: delegating(log), lambda: with_(log), lambda: resurrects(log):
                g = make(); next(g); del g
                g = make(); del g
                # Inside of a handler: the exception that is handled stays the thread's.
                try:
                    raise KeyError("outside")
                except KeyError:
                    g = make(); next(g); del g
                    print(repr(sys.exception()))
                cell = [make()]; next(cell[0]); cell.append(cell); del cell; gc.collect()
            print(log)
        warnings.simplefilter("always")
        for _ in range(3):
            run()
            log = []
            asyncio.run(main(log)); print(log)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                never(); gc.collect()
                print([str(w.message) for w in caught])
        check(plain, finally_, yields_again, raises, delegating, agen, main)
        resumed(finally_, 5)
        """
    )


def test_exceptions_that_are_handled_stay_with_their_generator(compare):
    compare(
        """
        def handler():
            try: raise KeyError("own")
            except KeyError:
                yield repr(sys.exception())
                yield repr(sys.exception())
            yield repr(sys.exception())
            try: raise ValueError("second")
            except ValueError as error: yield repr(error.__context__)
        def outer():
            g = handler()
            try: raise OSError("outer")
            except OSError:
                yield next(g), repr(sys.exception())
                for x in g: yield x, repr(sys.exception())
        def raises():
            yield 1
            raise ValueError("raised")
        def run():
            for x in outer(): print(x, repr(sys.exception()))
            try: raise TypeError("caller")
            except TypeError:
                for x in outer(): print(x, repr(sys.exception()))
                try: list(raises())
                except ValueError as error: print(repr(error.__context__))
        for _ in range(3): run()
        check(handler, outer, raises)
        resumed(handler, 6)
        """
    )


def test_changed_functions_and_shared_code(compare):
    compare(
        """
        import types
        def g(n):
            for i in range(n): yield i + offset
        offset = 1
        first = g(5); print(next(first))
        other = types.FunctionType(g.__code__, {"offset": 100, "range": range, "__builtins__": __builtins__})
        second = other(5); print(next(second), next(first))
        def replacement(n): yield "replaced"
        saved = g.__code__
        g.__code__ = replacement.__code__
        third = g(5)
        print(next(first), next(second), list(third), list(first), list(second))
        g.__code__ = saved
        def both(*gens):
            for gen in gens:
                for x in gen: print(x)
        for _ in range(3): both(g(2), other(2), (x for x in "ab"), g(1), [5], other(1))
        g.__defaults__ = (2,)
        both(g(), g())
        check(g, both)
        resumed(g, 10); resumed(other, 4)
        """
    )


def test_pending_signals_reach_generators(compare):
    compare(
        """
        import signal, os
        hits = []
        signal.signal(signal.SIGALRM, lambda *args: hits.append(1))
        def endless():
            while True: yield 1
        def consume():
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            n = 0
            for x in endless():
                n += x
                if len(hits) >= 3: break
            signal.setitimer(signal.ITIMER_REAL, 0)
            return n > 0
        print(consume())
        def interrupted():
            signal.signal(signal.SIGALRM, boom)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            try:
                for x in endless(): pass
            except OSError as error:
                return error.args
        def boom(*args): raise OSError("signal")
        print(interrupted())
        check(endless, consume, interrupted)
        resumed(endless, 100)
        """
    )


def test_other_interpreters_are_left_alone(run_snippet):
    run_snippet(
        """
        import hotstamp, _interpreters as interpreters
        def g(n):
            for i in range(n): yield i
        assert sum(g(10)) == 45 and hotstamp.resumptions(g) == 11
        other = interpreters.create()
        code = "def g(n):\\n    for i in range(n):\\n        yield i\\nasync def c(): return 5\\nassert sum(g(10)) == 45 and list(g(3)) == [0, 1, 2]\\nx = g(3); next(x); x.close()\\ntry: c().send(None)\\nexcept StopIteration as e: assert e.value == 5"
        result = interpreters.exec(other, code)
        assert result is None, result
        interpreters.destroy(other)
        assert sum(g(10)) == 45 and hotstamp.resumptions(g) == 22
        """
    )


def test_sites_outlive_the_code_they_remember(compare):
    compare(
        """
        def drain(g):
            return [x for x in g]
        def loop(g):
            total = 0
            for x in g: total += x
            return total
        def delegate(g):
            return (yield from g)
        async def await_(c):
            return await c
        def run(coroutine):
            try: coroutine.send(None)
            except StopIteration as stop: return stop.value
        def make(n):
            names = {}
            exec(f"def g(n):\\n    for i in range(n):\\n        yield i * {n}\\n    return {n}\\nasync def c(): return {n}", names)
            return names
        for n in range(60):
            names = make(n)
            g = names["g"]
            results = loop(g(5)), drain(delegate(g(4))), run(await_(names["c"]())), sum(x for x in delegate(g(3)))
            if n % 10 == 0: print(results)
            names.clear(); del g, names
            if n % 7 == 0: gc.collect(); junk = [bytearray(600) for _ in range(200)]
        check(loop, delegate, await_)
        resumed(delegate, 100)
        """
    )


def test_functions_made_of_module_code(compare):
    compare(
        """
        import ast, asyncio, inspect, types
        names = {}
        plain = types.FunctionType(compile("x = 1\\nfor i in range(3): x += i\\nprint(x, sorted(locals())[-2:])", "plain", "exec"), names)
        code = compile("y = await asyncio.sleep(0, 5)\\nprint(y, x)", "awaits", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        names["asyncio"] = asyncio
        awaits = types.FunctionType(code, names)
        async def main(): await coroutine
        def call(f): return f()
        for _ in range(3):
            call(plain)
            coroutine = call(awaits)
            print(inspect.iscoroutine(coroutine))
            asyncio.run(main())
        coroutine = eval(code, names); asyncio.run(main())
        check(plain, awaits, main)
        resumed(awaits, 3)
        """
    )


def test_values_that_only_pass_through(compare):
    """Generators between the one that yields and the one that asks do nothing: they are not entered, and must look as if they were."""
    compare(
        """
        import traceback, inspect, gc
        def leaf(n):
            got = []
            for i in range(n):
                sent = yield i
                got.append(getattr(sent, "__name__", sent))
                if callable(sent):
                    sent()
            return got
        def through(inside, *levels):
            if not levels:
                return (yield from inside)
            result = yield from through(inside, *levels[1:])
            return (levels[0], result)
        def nested(depth, n):
            return through(leaf(n), *range(depth))
        def drive(generator, *values):
            out = []
            try:
                out.append(generator.send(None))
                for value in values:
                    out.append(generator.send(value))
            except StopIteration as stop:
                out.append(("returned", stop.value))
            except BaseException as error:
                out.append([(frame.name, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)][1:] + [repr(error), repr(error.__context__)])
            return out
        def show():
            frames, frame = [], sys._getframe(1)
            while frame and frame.f_code is not drive.__code__:
                frames.append((frame.f_code.co_name, frame.f_lineno, frame.f_locals.get("levels")))
                frame = frame.f_back
            print(frames, sys.exception())
            gc.collect()
        def fail():
            raise KeyError("in the leaf")
        def handling(depth):
            try:
                raise ValueError("handled")
            except ValueError:
                yield from nested(depth, 3)
                print(repr(sys.exception()))
        def exceptions(depth):
            print(drive(handling(depth), show, fail), sys.exception())
            print(drive(handling(depth), 1, 2, 3, 4), sys.exception())
        def touched(depth):
            inside = leaf(9)
            outer = through(inside, *range(depth))
            print(next(outer), next(inside), next(outer), inside.gi_running, outer.gi_running, outer.gi_yieldfrom is inside)
            middle = outer
            while middle.gi_yieldfrom is not None and middle.gi_yieldfrom is not inside:
                middle = middle.gi_yieldfrom
            print(next(middle), next(outer), inspect.getgeneratorstate(middle), middle.gi_frame.f_lineno)
            try:
                print(outer.throw(IndexError("thrown")))
            except IndexError as error:
                print([frame.name for frame in traceback.extract_tb(error.__traceback__)])
            print(inspect.getgeneratorstate(inside), inspect.getgeneratorstate(middle), drive(outer))
            inside = leaf(9)
            outer = through(inside, *range(depth))
            next(outer)
            inside.close()
            print(drive(outer))
        def again(depth):
            outer = nested(depth, 3)
            def reenter():
                next(outer)
            print(drive(outer, reenter))
            outer = nested(depth, 3)
            def close():
                outer.close()
            print(drive(outer, close))
        class Steps:
            def __init__(self): self.left = 3
            def __iter__(self): return self
            def __next__(self):
                self.left -= 1
                if self.left < 0: raise StopIteration("steps end")
                return self.left
        def other_receivers(depth):
            print(drive(through([5, 6], *range(depth)), None, None), drive(through(Steps(), *range(depth)), None, None, None))
            print(list(through(through(Steps()), *range(depth))), list(through((x for x in "abc"), *range(depth))))
        async def wait(n):
            return await Awaited(n)
        class Awaited:
            def __init__(self, n): self.n = n
            def __await__(self):
                return (yield from nested(2, self.n))
        async def waits(depth, n):
            return await (waits(depth - 1, n) if depth else wait(n))
        def observed(depth):
            events = []
            def tracer(frame, event, argument):
                events.append((frame.f_code.co_name, event, frame.f_lineno))
                return tracer
            def start():
                sys.settrace(tracer)
            print(drive(nested(depth, 4), None, start, None, None, None))
            sys.settrace(None)
            print([event for event in events if event[0] in ("leaf", "through")])
        def recursion():
            sys.setrecursionlimit(400)
            try:
                for depth in 150, 300, 395, 500:
                    generator = nested(depth, 3)
                    try:
                        print(depth, [next(generator) for _ in range(3)])
                    except RecursionError as error:
                        print(depth, error)
            finally:
                sys.setrecursionlimit(1000)
        for _ in range(3):
            for depth in 0, 1, 2, 3, 7, 63, 64, 65, 70, 140:
                generator = nested(depth, 5)
                print(drive(generator, "a", "b", "c", "d", "e"))
                print(len(list(nested(depth, 50))))
                exceptions(depth)
                touched(depth)
                again(depth)
                other_receivers(depth)
                observed(depth)
            for depth in 1, 2, 5, 70:
                print(drive(waits(depth, 3), 1, 2, 3, 4), drive(waits(depth, 3), 1, fail))
            recursion()
        check(leaf, through, handling, wait, waits)
        resumed(leaf, 100); resumed(through, 1000); resumed(waits, 100)
        """
    )


def test_a_function_between_is_handed_back_while_values_pass(compare):
    compare(
        """
        def leaf():
            for i in range(6):
                yield i
                if i == 2:
                    change()
        def middle(inside):
            return (yield from inside)
        def outer(inside):
            return (yield from middle(inside))
        def hand_back():
            if compiled_run:
                import hotstamp
                hotstamp.opt_out(middle)
        for change in (lambda: None), (lambda: None), hand_back:
            print(list(outer(leaf())), list(outer(middle(leaf()))))
        resumed(leaf, 20); resumed(outer, 20)
        """
    )
