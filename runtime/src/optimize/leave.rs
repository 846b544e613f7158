//! Leaving optimized code: the live values become real frames, which go on in baseline code. An exit cannot fail.

use hotstamp_job::{Action, ExitPlan, FramePlan, Mode, Source};
use hotstamp_layout::ffi::{self, PyFunctionObject, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::artifact::Artifact;
use super::{policy, quiet};
use crate::code_data::CodeData;
use crate::{Frame, entry, frame_stack, resume, segments};

/// Reads the values that compiled code handed over.
struct Values {
    words: *const u64,
    /// Tuples made of them, by number.
    tuples: Vec<(u32, *mut PyObject)>,
    /// Compiled code goes on with the values: what moves elsewhere is copied into objects that are made.
    stays: bool,
}

impl Values {
    fn new(words: *const u64, stays: bool) -> Self {
        Values {
            words,
            tuples: Vec::new(),
            stays,
        }
    }

    fn word(&self, index: u16) -> u64 {
        // SAFETY: the code stored as many words as its plan names.
        unsafe { self.words.add(usize::from(index)).read() }
    }
}

/// A new int as bits. There is no way back from here without memory.
pub(super) unsafe extern "C" fn box_int(value: i64) -> usize {
    // SAFETY: GIL held.
    unsafe { boxed(ffi::PyLong_FromLongLong(value)) }
}

/// A new float as bits.
pub(super) unsafe extern "C" fn box_float(value: f64) -> usize {
    // SAFETY: GIL held.
    unsafe { boxed(ffi::PyFloat_FromDouble(value)) }
}

unsafe fn boxed(object: *mut PyObject) -> usize {
    if object.is_null() {
        // SAFETY: does not return.
        unsafe { ffi::Py_FatalError(c"hotstamp: out of memory for a number".as_ptr()) };
    }
    // SAFETY: a new reference.
    unsafe { StackRef::from_steal(object).bits }
}

/// The bits for a slot, and whether they are a new object made for it. `None` if the slot is as it should be.
unsafe fn materialize(source: &Source, values: &mut Values) -> Option<(usize, bool)> {
    // SAFETY: bits that were handed over are valid references; GIL held.
    unsafe {
        Some(match *source {
            Source::InPlace => return None,
            Source::Null => (StackRef::NULL.bits, false),
            Source::Constant(bits) => (bits as usize, false),
            Source::Bits(index, mode) => {
                let bits = values.word(index) as usize;
                match mode {
                    Mode::Move => (bits, false),
                    Mode::Borrow => (bits | 1, false),
                    Mode::Dup if bits == StackRef::NULL.bits => (bits, false),
                    Mode::Dup => (StackRef::from_new((bits & !1) as *mut PyObject).bits, true),
                }
            }
            Source::Int(index) => (box_int(values.word(index).cast_signed()), true),
            Source::Float(index) => (box_float(f64::from_bits(values.word(index))), true),
            Source::Bool(index) => (StackRef::bool(values.word(index) != 0).bits, false),
            Source::ConstantInt(value) => (box_int(value), true),
            Source::ConstantFloat(value) => (box_float(value), true),
            Source::MaybeInt(flag, index) if values.word(flag) != 0 => {
                (box_int(values.word(index).cast_signed()), true)
            }
            Source::MaybeFloat(flag, index) if values.word(flag) != 0 => {
                (box_float(f64::from_bits(values.word(index))), true)
            }
            Source::MaybeInt(..) | Source::MaybeFloat(..) => (StackRef::NULL.bits, false),
            Source::Range(next, left, step) => (
                range_iterator(
                    values.word(next).cast_signed(),
                    values.word(left).cast_signed(),
                    step,
                ),
                true,
            ),
            Source::Backwards(list, last) => {
                let last = values.word(last).cast_signed();
                (
                    list_backwards(values.word(list) as usize, last as usize),
                    true,
                )
            }
            Source::Tuple(number, ref items) => (tuple(number, items, values), true),
        })
    }
}

/// The tuple of a number: made at its first use, a reference to it later.
unsafe fn tuple(number: u32, items: &[Source], values: &mut Values) -> usize {
    // SAFETY: valid references; making a tuple runs no Python code.
    unsafe {
        let known = values.tuples.iter().find(|(known, _)| *known == number);
        if let Some((_, known)) = known {
            let known = *known;
            for source in items {
                if let Source::Bits(index, Mode::Move) = *source
                    && !values.stays
                {
                    let bits = values.word(index) as usize;
                    StackRef { bits }.close();
                }
            }
            return StackRef::from_new(known).bits;
        }
        let made = ffi::PyTuple_New(items.len() as isize);
        if made.is_null() {
            ffi::Py_FatalError(c"hotstamp: out of memory for a tuple".as_ptr());
        }
        for (place, source) in items.iter().enumerate() {
            let moves = matches!(source, Source::Bits(_, Mode::Move)) && values.stays;
            let bits = materialize(source, values).map_or(StackRef::none().bits, |(bits, _)| bits);
            let item = StackRef { bits };
            let object = if moves { item.as_new() } else { item.steal() };
            ffi::PyTuple_SetItem(made, place as isize, object);
        }
        values.tuples.push((number, made));
        boxed(made)
    }
}

/// A new list, as bits, of the items of a list (bits) from `last` on to the first. There is no way back from here without memory.
pub(super) unsafe extern "C" fn list_backwards(list: usize, last: usize) -> usize {
    // SAFETY: a valid reference to a list that has the item; making a list runs no Python code.
    unsafe {
        let list = (list & !1) as *mut PyObject;
        let made = ffi::PyList_New(last as isize + 1);
        if made.is_null() {
            ffi::Py_FatalError(c"hotstamp: out of memory for a list".as_ptr());
        }
        for place in 0..=last {
            let item = refs::list_item(list, last - place);
            ffi::PyList_SetItem(made, place as isize, refs::new_ref(item));
        }
        boxed(made)
    }
}

/// Reverses the first `count` items of a list (bits).
pub(super) unsafe extern "C" fn reverse_items(list: usize, count: usize) {
    // SAFETY: a valid reference to a list that has as many items.
    unsafe {
        let items = refs::list_items((list & !1) as *mut PyObject);
        std::slice::from_raw_parts_mut(items, count).reverse();
    }
}

/// A new tuple of objects whose references move. There is no way back from here without memory.
pub(super) unsafe extern "C" fn make_tuple(items: *const *mut PyObject, count: usize) -> usize {
    // SAFETY: as many objects as said.
    unsafe { boxed(ffi::_PyTuple_FromArraySteal(items, count as isize)) }
}

/// A range iterator that is about to give `next` and has `left` values.
unsafe fn range_iterator(next: i64, left: i64, step: i64) -> usize {
    // SAFETY: GIL held; each call's result is checked, none runs Python code. A set exception is kept aside.
    unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        let stop = next + left * step;
        let range = ffi::PyObject_CallFunction(
            (&raw mut ffi::PyRange_Type).cast(),
            c"LLL".as_ptr(),
            next,
            stop,
            step,
        );
        if range.is_null() {
            ffi::Py_FatalError(c"hotstamp: out of memory for a range".as_ptr());
        }
        let iterator = ffi::PyObject_GetIter(range);
        refs::decref(range);
        if !raised.is_null() {
            ffi::PyErr_SetRaisedException(raised);
        }
        boxed(iterator)
    }
}

/// Writes a frame's locals and operand stack. Objects made for it are noted in `made`.
unsafe fn fill(frame: *mut Frame, plan: &FramePlan, values: &mut Values, made: &mut Vec<usize>) {
    // SAFETY: the frame has room for its locals and its operand stack.
    unsafe {
        let slots = (&raw mut (*frame).localsplus).cast::<usize>();
        for (index, source) in plan.locals.iter().chain(&plan.stack).enumerate() {
            if let Some((bits, new)) = materialize(source, values) {
                slots.add(index).write(bits);
                if new {
                    made.push(bits);
                }
            }
        }
    }
}

/// Sets where a frame's operand stack ends.
unsafe fn set_depth(frame: *mut Frame, plan: &FramePlan) {
    // SAFETY: the frame has room for its locals and its operand stack.
    unsafe {
        let slots = (&raw mut (*frame).localsplus).cast::<usize>();
        (*frame).stackpointer = slots.add(plan.locals.len() + plan.stack.len()).cast();
    }
}

/// Sets where a frame is, for whoever looks.
unsafe fn set_instruction(frame: *mut Frame, data: *mut CodeData, offset: u32) {
    // SAFETY: the offset is within the code.
    unsafe { (*frame).instr_ptr = (*data).code_start.add(offset as usize) };
}

/// Pushes and links the frame of an inlined call.
unsafe fn push_inlined(
    tstate: *mut PyThreadState,
    caller: *mut Frame,
    plan: &FramePlan,
    data: *mut CodeData,
    values: &mut Values,
    made: &mut Vec<usize>,
) -> *mut Frame {
    // SAFETY: the artifact keeps the function alive; the caller is the running frame.
    unsafe {
        let words = frame_stack::push_words(tstate, (*data).frame_words as usize);
        if words.is_null() {
            ffi::Py_FatalError(c"hotstamp: out of memory for a frame".as_ptr());
        }
        let frame = words.cast::<Frame>();
        let function = plan.function as *mut PyFunctionObject;
        frame_stack::initialize_frame(
            frame,
            StackRef::from_new(function.cast()),
            std::ptr::null_mut(),
            (*data).code,
            (*data).nlocalsplus as usize,
            caller,
        );
        fill(frame, plan, values, made);
        set_depth(frame, plan);
        (*tstate).current_frame = frame;
        (*tstate).py_recursion_remaining -= 1;
        frame
    }
}

/// The frames of a plan whose inlined ones are linked, outermost first; none if they are still to be pushed.
unsafe fn linked_frames(tstate: *mut PyThreadState, plan: &ExitPlan) -> Vec<*mut Frame> {
    if !plan.frames.last().is_some_and(|inner| inner.linked) {
        return Vec::new();
    }
    // SAFETY: the innermost frame is the running one, and the plan's frames are its callers.
    unsafe {
        let mut frame = (*tstate).current_frame;
        let mut frames = Vec::with_capacity(plan.frames.len());
        for depth in (0..plan.frames.len()).rev() {
            frames.push(frame);
            if depth > 0 {
                own_code(frame);
                frame = (*frame).previous;
            }
        }
        frames.reverse();
        frames
    }
}

/// A frame that compiled code wrote borrows its function and code: from here on it lives as long as any.
unsafe fn own_code(frame: *mut Frame) {
    // SAFETY: fields of a live frame; the artifact keeps both objects alive until here.
    unsafe {
        for field in [&raw mut (*frame).f_funcobj, &raw mut (*frame).f_executable] {
            let borrowed = field.cast::<StackRef>().read();
            field
                .cast::<StackRef>()
                .write(StackRef::from_new(borrowed.as_ptr_borrow()));
        }
    }
}

/// What compiled code calls in its cold blocks. Returns what the body returns.
///
/// # Safety
/// Called by the artifact's code, with the outer frame running and the values that the plan names.
pub(super) unsafe extern "C" fn leave(
    artifact: *mut Artifact,
    plan: usize,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    values: *const u64,
) -> usize {
    // SAFETY: the artifact lives as long as its code; the plans are its own.
    unsafe {
        let plan_index = plan;
        let plan = &(&(*artifact).metadata.plans)[plan_index];
        policy::note_exit(artifact, plan_index);
        if tracing::enabled!(tracing::Level::TRACE) {
            let inner = plan.frames.last();
            let code = inner
                .map(|frame| {
                    crate::naming::qualified_name((*(&(*artifact).codes)[frame.code as usize]).code)
                })
                .unwrap_or_default();
            tracing::trace!(entry = (*artifact).entry, offset = inner.map_or(0, |frame| frame.offset), reason = ?plan.reason, action = ?plan.action, "Left {code}");
        }
        let data_of = |frame: &FramePlan| (&(*artifact).codes)[frame.code as usize];
        let mut values = Values::new(values, false);
        let mut made = Vec::new();
        let mut frames: Vec<(*mut Frame, *mut CodeData, u32, Option<usize>, bool)> =
            Vec::with_capacity(plan.frames.len());
        let linked = linked_frames(tstate, plan);
        for (depth, frame_plan) in plan.frames.iter().enumerate() {
            let data = data_of(frame_plan);
            let there = match depth {
                0 => Some(frame),
                _ => linked.get(depth).copied(),
            };
            let this = if let Some(this) = there {
                fill(this, frame_plan, &mut values, &mut made);
                // An operation that raised left of its inputs what it left.
                if plan.action != Action::Raise || depth + 1 < plan.frames.len() {
                    set_depth(this, frame_plan);
                }
                this
            } else {
                push_inlined(
                    tstate,
                    frames[depth - 1].0,
                    frame_plan,
                    data,
                    &mut values,
                    &mut made,
                )
            };
            set_instruction(this, data, frame_plan.offset);
            let instance = frame_plan
                .instance
                .as_ref()
                .and_then(|source| materialize(source, &mut values))
                .map(|(bits, _)| bits);
            let drops_result = frame_plan.drops_result;
            frames.push((this, data, frame_plan.offset, instance, drops_result));
        }
        let Some((inner, data, offset, ..)) = frames.pop() else {
            unreachable!("every plan has a frame");
        };
        // A loop's code runs on the native frame of a baseline body, which goes on there with the outermost frame.
        let on_body = (*artifact).entry != 0;
        let outermost = frames.is_empty();
        let mut bits = match (plan.action, on_body && outermost) {
            (Action::Raise, false) => resume::raise_in_frame(tstate, inner, data, offset),
            (Action::Raise, true) => return resume::hand_back_raised(tstate, inner, data, offset),
            (_, false) => resume::resume_frame(tstate, inner, data, offset),
            (_, true) => return resume::hand_back(tstate, inner, data, offset),
        };
        while let Some((outer, data, call, instance, drops_result)) = frames.pop() {
            if let Some(instance) = instance {
                bits = finish_instance(bits, StackRef { bits: instance });
            }
            if on_body && frames.is_empty() {
                return resume::hand_back_returned(tstate, outer, data, call, bits, drops_result);
            }
            bits = resume::return_into(tstate, outer, data, call, bits, drops_result);
        }
        bits
    }
}

/// What a call of a class gives once `__init__` returned `bits` (0 with an exception set): the instance, or 0.
unsafe fn finish_instance(bits: usize, instance: StackRef) -> usize {
    // SAFETY: both own what they say.
    unsafe {
        let result = StackRef { bits };
        if bits != 0 && result.is_none() {
            return instance.bits;
        }
        if bits != 0 {
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"__init__() should return None, not '%.200s'".as_ptr(),
                (*result.type_of()).tp_name,
            );
            result.close();
        }
        instance.close();
        0
    }
}

/// A new instance of a class that `object.__new__` makes. There is no way back from here without memory.
pub(super) unsafe extern "C" fn new_instance(class: *mut ffi::PyTypeObject) -> *mut PyObject {
    // SAFETY: a live class, GIL held.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class, 0);
        if object.is_null() {
            ffi::Py_FatalError(c"hotstamp: out of memory for an instance".as_ptr());
        }
        object
    }
}

/// Frees an object while the frames are as a plan says, then forgets them again. Whether somebody may have seen it: Python code may have run then.
///
/// # Safety
/// As `leave`; the object's reference count is zero.
pub(super) unsafe extern "C" fn dealloc_at(
    artifact: *mut Artifact,
    plan: usize,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    values: *const u64,
    object: *mut PyObject,
) -> usize {
    // SAFETY: as `leave`. Slots that own what compiled code owns too are not released here.
    unsafe {
        if quiet::is_quiet(object) {
            ffi::_Py_Dealloc(object);
            return 0;
        }
        let plan = &(&(*artifact).metadata.plans)[plan];
        let mut values = Values::new(values, true);
        let mut made = Vec::new();
        let mut inner = Vec::new();
        let mut current = frame;
        for (depth, frame_plan) in plan.frames.iter().enumerate() {
            let data = (&(*artifact).codes)[frame_plan.code as usize];
            if depth == 0 {
                fill(frame, frame_plan, &mut values, &mut made);
                set_depth(frame, frame_plan);
            } else {
                current = push_inlined(tstate, current, frame_plan, data, &mut values, &mut made);
                inner.push(current);
            }
            set_instruction(current, data, frame_plan.offset);
        }
        ffi::_Py_Dealloc(object);
        while let Some(this) = inner.pop() {
            (*tstate).current_frame = (*this).previous;
            (*tstate).py_recursion_remaining += 1;
            if (*this).frame_obj.is_null() {
                let function = (&raw const (*this).f_funcobj).read();
                let executable = (&raw const (*this).f_executable).read();
                frame_stack::pop_frame(tstate, this);
                function.close();
                executable.close();
            } else {
                // The frame object takes the frame over, with references of its own.
                let slots = (&raw mut (*this).localsplus).cast::<StackRef>();
                let end = (*this).stackpointer.cast::<StackRef>();
                let mut slot = slots;
                while slot < end {
                    let bits = slot.read();
                    if !bits.is_null() {
                        slot.write(StackRef::from_new(bits.as_ptr_borrow()));
                    }
                    slot = slot.add(1);
                }
                ffi::_PyEval_FrameClearAndPop(tstate, this);
            }
        }
        for bits in made {
            StackRef { bits }.close();
        }
        1
    }
}

/// The value of an exact float, or of an exact int of one digit.
unsafe fn small_number(object: *mut PyObject) -> Option<f64> {
    // SAFETY: an exact number.
    unsafe {
        if refs::is_exact_float(object) {
            return Some((*object.cast::<ffi::PyFloatObject>()).ob_fval);
        }
        let int = object.cast();
        refs::long_is_compact(int).then(|| refs::long_compact_value(int) as f64)
    }
}

/// Arithmetic of exact ints and floats; `operation` is BINARY_OP's argument. 0, without an exception, where it raises.
pub(super) unsafe extern "C" fn number_op(left: usize, right: usize, operation: usize) -> usize {
    // SAFETY: valid references to exact numbers; in-place operations of numbers make new ones.
    unsafe {
        let (a, b) = ((left & !1) as *mut PyObject, (right & !1) as *mut PyObject);
        if (refs::is_exact_float(a) || refs::is_exact_float(b))
            && let (Some(x), Some(y)) = (small_number(a), small_number(b))
        {
            let result = match operation as u32 {
                ffi::NB_ADD | ffi::NB_INPLACE_ADD => Some(x + y),
                ffi::NB_SUBTRACT | ffi::NB_INPLACE_SUBTRACT => Some(x - y),
                ffi::NB_MULTIPLY | ffi::NB_INPLACE_MULTIPLY => Some(x * y),
                _ => None,
            };
            if let Some(result) = result {
                return box_float(result);
            }
        }
        // The header declares the table without its length.
        let function = (&raw const ffi::_PyEval_BinaryOps)
            .cast::<ffi::binaryfunc>()
            .add(operation)
            .read();
        let Some(function) = function else { return 0 };
        let result = function((left & !1) as *mut PyObject, (right & !1) as *mut PyObject);
        if result.is_null() {
            ffi::PyErr_Clear();
            return 0;
        }
        StackRef::from_steal(result).bits
    }
}

/// Runs the baseline body instead of optimized code, which returns to `caller`: on a further stack, if it was called by compiled code and there is little left.
pub(super) unsafe extern "C" fn run_baseline(
    frame: *mut Frame,
    data: *mut CodeData,
    tstate: *mut PyThreadState,
    caller: *const u8,
) -> usize {
    // SAFETY: the frame is as calls make it.
    unsafe {
        let body = || resume::enter_body(frame, tstate, data, (*data).baseline);
        if entry::called_by_compiled_code(caller) {
            segments::with_room(tstate, body)
        } else {
            body()
        }
    }
}

/// Room for a frame in a new chunk of the data stack.
pub(super) unsafe extern "C" fn push_chunk(
    tstate: *mut PyThreadState,
    words: usize,
) -> *mut *mut PyObject {
    // SAFETY: GIL held, the current thread's state.
    unsafe {
        let base = frame_stack::push_words(tstate, words);
        if base.is_null() {
            ffi::Py_FatalError(c"hotstamp: out of memory for a frame".as_ptr());
        }
        base
    }
}
