//! A Python evaluator whose instructions are the memory helpers; jumps, moves between locals and stack, and what makes or suspends frames it does itself.
//! It takes no shortcut and uses no inline cache: what it gets wrong, a helper gets wrong.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hotstamp_layout::ffi::{
    self, PyCodeObject, PyFunctionObject, PyGenObject, PyObject, PyThreadState,
};
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs::{self, StackRef};
use hotstamp_runtime::bind::{self, BindError};
use hotstamp_runtime::helpers::exceptions::RERAISED;
use hotstamp_runtime::helpers::generators::RETURNED;
use hotstamp_runtime::helpers::iteration::EXHAUSTED;
use hotstamp_runtime::helpers::memory_helper;
use hotstamp_runtime::helpers::stack::Stack;
use hotstamp_runtime::site::Site;
use hotstamp_runtime::{Frame, frame_stack};

/// Calls this deep are left to the interpreter, which raises RecursionError properly.
const RECURSION_RESERVE: i32 = 5;

static EXECUTED: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
static BOUND: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static DEFAULT_VECTORCALL: OnceLock<ffi::vectorcallfunc> = OnceLock::new();

/// How often the evaluator executed an opcode.
pub fn executed(opcode: Opcode) -> u64 {
    EXECUTED[opcode as usize].load(Ordering::Relaxed)
}

/// Calls whose arguments were bound.
pub fn bound_calls() -> u64 {
    BOUND.load(Ordering::Relaxed)
}

/// Calls whose arguments did not fit.
pub fn refused_calls() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Makes this the interpreter's evaluator, and our binding the way into functions that are created from now on.
///
/// # Safety
/// The GIL is held.
pub unsafe fn install() {
    // SAFETY: passed on.
    unsafe {
        assert!(ffi::PyFunction_AddWatcher(Some(watch_functions)) >= 0);
        ffi::_PyInterpreterState_SetEvalFrameFunc(ffi::PyInterpreterState_Get(), Some(evaluate));
    }
}

unsafe extern "C" fn watch_functions(
    event: ffi::PyFunction_WatchEvent,
    function: *mut PyFunctionObject,
    _value: *mut PyObject,
) -> i32 {
    if event == ffi::PyFunction_EVENT_CREATE {
        // SAFETY: the function is new and has the default entry.
        unsafe {
            DEFAULT_VECTORCALL.get_or_init(|| (*function).vectorcall);
            (*function).vectorcall = Some(vectorcall);
        }
    }
    0
}

/// The entry of functions: binds the arguments into a frame on the data stack and evaluates it.
unsafe extern "C" fn vectorcall(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: by the vectorcall protocol the arguments are borrowed for the time of the call.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        let function: *mut PyFunctionObject = callable.cast();
        let code = refs::function_code(function);
        let default = DEFAULT_VECTORCALL
            .get()
            .copied()
            .flatten()
            .expect("set before this entry is");
        if (*code).co_flags as u32 & ffi::CO_OPTIMIZED == 0
            || (*tstate).py_recursion_remaining <= RECURSION_RESERVE
        {
            return default(callable, args, nargsf, kwnames);
        }
        let nargs = nargsf & !hotstamp_runtime::helpers::calls::ARGUMENTS_OFFSET;
        let frame = frame_stack::push_frame(
            tstate,
            StackRef::from_new(callable),
            code,
            refs::framesize(code),
        );
        assert!(!frame.is_null());
        let locals = refs::frame_locals(frame);
        let bound = bind::bind_arguments(function, code, locals, args, nargs, kwnames);
        let Err(error) = bound else {
            BOUND.fetch_add(1, Ordering::Relaxed);
            return evaluate(tstate, frame, 0);
        };
        REFUSED.fetch_add(1, Ordering::Relaxed);
        assert!((0..refs::nlocalsplus(code)).all(|index| (*locals.add(index)).is_null()));
        frame_stack::drop_unlinked_frame(tstate, frame);
        if error == BindError::UnusualKeyword {
            return default(callable, args, nargsf, kwnames);
        }
        match error {
            BindError::Mismatch => {
                assert!(ffi::PyErr_Occurred().is_null());
                let result = default(callable, args, nargsf, kwnames);
                assert!(result.is_null(), "CPython binds what we refused");
            }
            BindError::UnusualKeyword => {
                assert!(ffi::PyErr_Occurred().is_null());
                return default(callable, args, nargsf, kwnames);
            }
            BindError::Raised => assert!(!ffi::PyErr_Occurred().is_null()),
        }
        null_mut()
    }
}

/// The evaluator's entry, with `_PyEval_EvalFrameDefault`'s contract: consumes the frame.
unsafe extern "C" fn evaluate(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    throw: i32,
) -> *mut PyObject {
    // SAFETY: CPython or `vectorcall` hands over a frame that is initialised and not linked.
    unsafe {
        if (*tstate).py_recursion_remaining <= RECURSION_RESERVE {
            return ffi::_PyEval_EvalFrameDefault(tstate, frame, throw);
        }
        if ffi::Py_EnterRecursiveCall(c"".as_ptr()) != 0 {
            ffi::_PyEval_FrameClearAndPop(tstate, frame);
            return null_mut();
        }
        (*tstate).py_recursion_remaining -= 1;
        (*frame).previous = (*tstate).current_frame;
        (*tstate).current_frame = frame;
        let code = refs::frame_code(frame);
        let bytecode = ffi::PyCode_GetCode(code);
        assert!(!bytecode.is_null());
        let run = Run {
            tstate,
            frame,
            code,
            bytecode: refs::bytes_contents(bytecode),
            stack: Stack::of(frame),
        };
        let result = run.run(throw != 0);
        refs::decref(bytecode);
        ffi::Py_LeaveRecursiveCall();
        result.map_or(null_mut(), |value| value.steal())
    }
}

/// What an instruction does with control.
enum Outcome {
    Next,
    Jump(isize),
    Raise(isize),
    /// The frame is left, with a value, and is cleared if it has returned.
    Leave(StackRef),
    Return(StackRef),
}

/// One run of a linked frame.
struct Run<'a> {
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    code: *mut PyCodeObject,
    /// The instructions as the compiler made them.
    bytecode: &'a [u8],
    stack: Stack,
}

impl Run<'_> {
    /// # Safety
    /// The frame is linked and valid; it is popped when it has ended. The same holds for all other methods.
    unsafe fn run(&self, throw: bool) -> Option<StackRef> {
        // SAFETY: `instr_ptr` points into the code.
        unsafe {
            let start = refs::code_start(self.code);
            let mut next = (*self.frame).instr_ptr.offset_from(start) as usize;
            let mut thrown = throw;
            loop {
                let instruction = if thrown { next - 1 } else { next };
                let outcome = if thrown {
                    Outcome::Raise(-1)
                } else {
                    let (at, after, opcode, oparg) = self.decode(next);
                    next = after;
                    (*self.frame).instr_ptr = start.add(at);
                    EXECUTED[opcode as usize].fetch_add(1, Ordering::Relaxed);
                    self.execute(opcode, oparg)
                };
                thrown = false;
                match outcome {
                    Outcome::Next => {}
                    Outcome::Jump(distance) => next = next.strict_add_signed(distance),
                    Outcome::Leave(value) => return Some(value),
                    Outcome::Return(value) => {
                        self.pop_frame();
                        return Some(value);
                    }
                    Outcome::Raise(status) => {
                        match self.find_handler(instruction, status != RERAISED) {
                            Some(handler) => next = handler,
                            None => {
                                self.pop_frame();
                                return None;
                            }
                        }
                    }
                }
            }
        }
    }

    /// The instruction at `offset`, with its prefixes: its offset, the one after it, opcode and argument.
    fn decode(&self, mut offset: usize) -> (usize, usize, Opcode, u32) {
        let mut oparg = 0;
        loop {
            let opcode = Opcode::from_u8(self.bytecode[offset * 2]).expect("an opcode");
            oparg = oparg << 8 | u32::from(self.bytecode[offset * 2 + 1]);
            if opcode != Opcode::EXTENDED_ARG {
                return (offset, offset + 1 + opcode.caches(), opcode, oparg);
            }
            offset += 1;
        }
    }

    unsafe fn execute(&self, opcode: Opcode, oparg: u32) -> Outcome {
        let stack = self.stack;
        let distance = oparg as isize;
        // SAFETY: bytecode of CPython's compiler keeps to the depth of the stack and the number of locals.
        unsafe {
            let local = |index: u32| refs::frame_locals(self.frame).add(index as usize);
            let (first, second) = (local(oparg >> 4), local(oparg & 15));
            let store = |slot: *mut StackRef| slot.replace(stack.pop()).xclose();
            match opcode {
                Opcode::NOP | Opcode::NOT_TAKEN => {}
                // `yield from` and `await` poll when the innermost generator resumes.
                Opcode::RESUME if oparg & 3 >= 2 => {}
                Opcode::RESUME => return self.poll(0),
                Opcode::LOAD_FAST => stack.push((*local(oparg)).dup()),
                Opcode::LOAD_FAST_BORROW => stack.push((*local(oparg)).borrow()),
                Opcode::LOAD_FAST_AND_CLEAR => stack.push(local(oparg).replace(StackRef::NULL)),
                Opcode::LOAD_FAST_LOAD_FAST => {
                    stack.push((*first).dup());
                    stack.push((*second).dup());
                }
                Opcode::LOAD_FAST_BORROW_LOAD_FAST_BORROW => {
                    stack.push((*first).borrow());
                    stack.push((*second).borrow());
                }
                Opcode::STORE_FAST => store(local(oparg)),
                Opcode::STORE_FAST_LOAD_FAST => {
                    let old = first.replace(stack.pop());
                    stack.push((*second).dup());
                    old.xclose();
                }
                Opcode::STORE_FAST_STORE_FAST => {
                    store(first);
                    store(second);
                }
                Opcode::LOAD_CONST => stack.push(StackRef::from_new(refs::tuple_item(
                    (*self.code).co_consts,
                    oparg as usize,
                ))),
                Opcode::LOAD_SMALL_INT => {
                    let number = refs::small_ints().add((oparg + ffi::_PY_NSMALLNEGINTS) as usize);
                    stack.push(StackRef::from_immortal(number.cast_mut().cast()));
                }
                Opcode::POP_TOP | Opcode::END_FOR => stack.pop_close(),
                Opcode::PUSH_NULL => stack.push(StackRef::NULL),
                Opcode::COPY => stack.push(stack.peek(oparg as usize).dup()),
                Opcode::SWAP => {
                    let top = stack.peek(1);
                    stack.put(1, stack.peek(oparg as usize));
                    stack.put(oparg as usize, top);
                }
                Opcode::JUMP_FORWARD => return Outcome::Jump(distance),
                Opcode::JUMP_BACKWARD => return self.poll(-distance),
                Opcode::JUMP_BACKWARD_NO_INTERRUPT => return Outcome::Jump(-distance),
                Opcode::POP_JUMP_IF_TRUE => return jump_if(stack.pop().is_true(), distance),
                Opcode::POP_JUMP_IF_FALSE => return jump_if(stack.pop().is_false(), distance),
                Opcode::POP_JUMP_IF_NONE | Opcode::POP_JUMP_IF_NOT_NONE => {
                    let is_none = stack.peek(1).is_none();
                    stack.pop_close();
                    return jump_if(is_none == (opcode == Opcode::POP_JUMP_IF_NONE), distance);
                }
                Opcode::RETURN_VALUE => {
                    let value = stack.pop().make_heap_safe();
                    assert_eq!(stack.top(), refs::frame_stack_base(self.frame));
                    return Outcome::Return(value);
                }
                Opcode::RETURN_GENERATOR => return self.make_generator(),
                Opcode::YIELD_VALUE => return self.yield_value(oparg),
                _ => return self.call_helper(opcode, oparg),
            }
        }
        Outcome::Next
    }

    unsafe fn call_helper(&self, opcode: Opcode, oparg: u32) -> Outcome {
        let (helper, name) = memory_helper(opcode as u8)
            .unwrap_or_else(|| panic!("{} has no helper", opcode.name()));
        // Two sites' memory: a header and its feedback, all zero.
        let mut memory = [const { MaybeUninit::<Site>::zeroed() }; 2];
        let site: *mut Site = memory.as_mut_ptr().cast();
        // SAFETY: the operands are on the frame's stack.
        unsafe {
            (*site).instr = (*self.frame).instr_ptr;
            (*site).oparg = oparg;
            let status = helper(site, self.frame, self.tstate);
            let raised = !ffi::PyErr_Occurred().is_null();
            assert_eq!(raised, status < 0, "{name} returned {status}");
            match opcode {
                _ if raised => Outcome::Raise(status),
                // The loop's END_FOR is for instrumented code.
                Opcode::FOR_ITER => jump_if(status == EXHAUSTED, oparg as isize + 1),
                Opcode::SEND => jump_if(status == RETURNED, oparg as isize),
                Opcode::CALL | Opcode::CALL_FUNCTION_EX => self.poll(0),
                _ => {
                    assert_eq!(status, 0, "{name}");
                    Outcome::Next
                }
            }
        }
    }

    /// Looks whether something is pending, then jumps.
    unsafe fn poll(&self, distance: isize) -> Outcome {
        // SAFETY: the stack is valid.
        unsafe {
            let pending = refs::eval_breaker(self.tstate) & ffi::_PY_EVAL_EVENTS_MASK as usize != 0;
            if pending && ffi::_Py_HandlePending(self.tstate) != 0 {
                Outcome::Raise(-1)
            } else {
                Outcome::Jump(distance)
            }
        }
    }

    /// `error` and `exception_unwind` of the interpreter: the handler's offset, with the stack as it wants it.
    unsafe fn find_handler(&self, instruction: usize, new_entry: bool) -> Option<usize> {
        let stack = self.stack;
        // SAFETY: an exception is set; the exception table gives depths within the stack.
        unsafe {
            if new_entry && !refs::frame_is_incomplete(self.frame) {
                let object = frame_stack::frame_object(self.frame);
                assert!(!object.is_null());
                ffi::PyTraceBack_Here(object);
            }
            let handler = search_table(
                refs::bytes_contents((*self.code).co_exceptiontable),
                instruction,
            );
            let depth = handler.map_or(0, |(_, depth, _)| depth);
            let top = refs::frame_stack_base(self.frame).add(depth);
            assert!(stack.top() >= top, "an operand below the handler's is gone");
            while stack.top() > top {
                stack.pop_close();
            }
            let (target, _, push_lasti) = handler?;
            if push_lasti {
                stack.push(StackRef::tag_int(refs::frame_lasti(self.frame)));
            }
            stack.push(StackRef::from_steal(ffi::PyErr_GetRaisedException()));
            Some(target)
        }
    }

    unsafe fn pop_frame(&self) {
        // SAFETY: the frame has ended and is the innermost one.
        unsafe {
            (*self.tstate).py_recursion_remaining += 1;
            (*self.tstate).current_frame = (*self.frame).previous;
            ffi::_PyEval_FrameClearAndPop(self.tstate, self.frame);
        }
    }

    /// `RETURN_GENERATOR`: the frame moves into a new generator.
    unsafe fn make_generator(&self) -> Outcome {
        let frame = self.frame;
        // SAFETY: the generator has room for a frame of its code; the old frame is given up with its references moved.
        unsafe {
            let object = ffi::_Py_MakeCoro(refs::frame_function(frame));
            if object.is_null() {
                return Outcome::Raise(-1);
            }
            let generator: *mut PyGenObject = object.cast();
            let copy = &raw mut (*generator).gi_iframe;
            let slots = self.stack.top().offset_from(refs::frame_locals(frame)) as usize;
            std::ptr::copy_nonoverlapping(
                frame.cast::<usize>(),
                copy.cast::<usize>(),
                refs::FRAME_SPECIALS_SIZE,
            );
            (*copy).previous = null_mut();
            (*copy).f_executable = (*frame).f_executable.make_heap_safe();
            (*copy).f_funcobj = (*frame).f_funcobj.make_heap_safe();
            (*copy).instr_ptr = (*frame).instr_ptr.add(1);
            (*copy).stackpointer = refs::frame_locals(copy).add(slots);
            (*copy).owner = ffi::FRAME_OWNED_BY_GENERATOR as _;
            for index in 0..slots {
                let slot = refs::frame_locals(frame).add(index);
                refs::frame_locals(copy)
                    .add(index)
                    .write((*slot).make_heap_safe());
            }
            (*generator).gi_frame_state = ffi::FRAME_CREATED as _;
            (*self.tstate).py_recursion_remaining += 1;
            (*self.tstate).current_frame = (*frame).previous;
            frame_stack::pop_frame(self.tstate, frame);
            Outcome::Leave(StackRef::from_steal_mortal(object))
        }
    }

    /// `YIELD_VALUE`: the generator's frame is suspended.
    unsafe fn yield_value(&self, oparg: u32) -> Outcome {
        // SAFETY: the frame lies in its generator.
        unsafe {
            let value = self.stack.pop().make_heap_safe();
            (*self.frame).instr_ptr = (*self.frame).instr_ptr.add(1);
            let generator: *mut PyGenObject = self
                .frame
                .byte_sub(std::mem::offset_of!(PyGenObject, gi_iframe))
                .cast();
            (*generator).gi_frame_state = (ffi::FRAME_SUSPENDED + oparg as i32) as _;
            (*self.tstate).exc_info = (*generator).gi_exc_state.previous_item;
            (*generator).gi_exc_state.previous_item = null_mut();
            (*self.tstate).py_recursion_remaining += 1;
            (*self.tstate).current_frame = (*self.frame).previous;
            (*self.frame).previous = null_mut();
            Outcome::Leave(value)
        }
    }
}

fn jump_if(condition: bool, distance: isize) -> Outcome {
    if condition {
        Outcome::Jump(distance)
    } else {
        Outcome::Next
    }
}

/// The handler of an instruction in an exception table: its offset, the stack's depth there, and whether it wants the instruction's offset.
fn search_table(mut table: &[u8], instruction: usize) -> Option<(usize, usize, bool)> {
    while !table.is_empty() {
        let [start, size, target, depth] = [(); 4].map(|()| varint(&mut table));
        if (start..start + size).contains(&instruction) {
            return Some((target, depth >> 1, depth & 1 != 0));
        }
    }
    None
}

fn varint(table: &mut &[u8]) -> usize {
    let mut value = 0;
    loop {
        let (&byte, rest) = table.split_first().expect("a whole table");
        *table = rest;
        value = value << 6 | usize::from(byte & 63);
        if byte & 64 == 0 {
            return value;
        }
    }
}
