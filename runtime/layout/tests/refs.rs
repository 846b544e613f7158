//! The accessors of `refs` against real objects in an embedded interpreter.

use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use hotstamp_layout::ffi::{self, PyObject, PyTypeObject};
use hotstamp_layout::refs::{self, StackRef};

/// What the expressions below refer to.
const OBJECTS: &CStr = c"
import sys

class C:
    def __init__(self, a, b):
        self.a = a
        self.b = b

def generate(x):
    yield sys._getframe()

t = (object(), object())
c = C(*t)
g = generate(7)
";

/// The value of a Python expression: a new reference that the test leaks.
fn eval(expression: &str) -> *mut PyObject {
    let source = CString::new(expression).unwrap();
    // SAFETY: the interpreter runs and this thread holds the GIL.
    unsafe {
        let globals = ffi::PyModule_GetDict(ffi::PyImport_AddModule(c"__main__".as_ptr()));
        let code = ffi::Py_CompileString(
            source.as_ptr(),
            c"<test>".as_ptr(),
            ffi::Py_eval_input as i32,
        );
        let value = if code.is_null() {
            null_mut()
        } else {
            ffi::PyEval_EvalCode(code, globals, globals)
        };
        if value.is_null() {
            ffi::PyErr_Print();
            panic!("{expression}");
        }
        value
    }
}

fn integers() {
    for value in [
        0,
        1,
        -1,
        5,
        -5,
        255,
        256,
        257,
        -6,
        (1 << 30) - 1,
        -(1 << 30) + 1,
    ] {
        let object = eval(&format!("int('{value}')"));
        // SAFETY: a live integer.
        unsafe {
            assert!(
                refs::is_exact_long(object)
                    && refs::is_long(object)
                    && refs::long_is_compact(object.cast()),
                "{value}"
            );
            assert_eq!(refs::long_compact_value(object.cast()), value);
            assert_eq!(
                refs::long_is_non_negative_compact(object.cast()),
                value >= 0
            );
            if (-5..=256).contains(&value) {
                let small = refs::small_ints()
                    .wrapping_add((value + ffi::_PY_NSMALLNEGINTS as isize) as usize);
                assert_eq!(
                    small.cast::<PyObject>(),
                    object,
                    "small integers are in the table"
                );
            }
        }
    }
    for large in ["1 << 30", "-(1 << 30)", "1 << 200"] {
        let object = eval(large);
        // SAFETY: a live integer.
        assert!(!unsafe { refs::long_is_compact(object.cast()) }, "{large}");
    }
    // SAFETY: a live bool.
    unsafe {
        assert!(
            !refs::is_exact_long(eval("True"))
                && refs::is_long(eval("True"))
                && refs::is_bool(eval("True"))
        )
    };
}

fn counts_and_stack_references() {
    let object = eval("object()");
    // SAFETY: a live object of which this function owns the only reference.
    unsafe {
        assert_eq!(
            (refs::refcount(object), refs::is_uniquely_referenced(object)),
            (1, true)
        );
        let owned = StackRef::from_new(object);
        assert!(owned.owns_count() && refs::refcount(object) == 2);
        let borrowed = StackRef::from_borrow(object);
        assert!(
            !borrowed.owns_count()
                && borrowed.is(owned)
                && borrowed != owned
                && borrowed == owned.borrow()
        );
        assert!(!borrowed.is_heap_safe() && owned.is_heap_safe());
        let kept = borrowed.make_heap_safe();
        assert_eq!((kept, refs::refcount(object)), (owned, 3));
        borrowed.close();
        assert_eq!(
            refs::refcount(object),
            3,
            "a borrowed reference gives nothing back"
        );
        kept.close();
        owned.dup().close();
        assert_eq!(
            (borrowed.steal(), refs::refcount(object)),
            (object, 3),
            "stealing from a borrowed one makes a new one"
        );
        refs::decref(object);
        let mut slot = owned;
        StackRef::clear(&raw mut slot);
        assert_eq!((slot, refs::refcount(object)), (StackRef::NULL, 1));
        assert_eq!(StackRef::from_steal(object).steal(), object);
        assert_eq!(owned.type_of(), &raw mut ffi::PyBaseObject_Type);
    }
    let none = &raw mut ffi::_Py_NoneStruct;
    // SAFETY: None is immortal: no count changes, and nothing owns one.
    unsafe {
        let count = refs::refcount(none);
        assert!(
            refs::is_immortal(none) && refs::is_static_immortal(none) && !refs::is_immortal(object)
        );
        refs::incref(none);
        refs::decref(none);
        for reference in [
            StackRef::from_new(none),
            StackRef::from_steal(none),
            StackRef::from_immortal(none),
        ] {
            assert!(
                reference == StackRef::none()
                    && reference.is_none()
                    && !reference.owns_count()
                    && reference.is_heap_safe()
            );
            reference.dup().close();
        }
        assert_eq!(refs::refcount(none), count);
    }
    assert!(
        StackRef::NULL.is_null()
            && StackRef::NULL.as_ptr_borrow().is_null()
            && !StackRef::NULL.is_tagged_int()
    );
    assert!(
        StackRef::bool(true).is_true()
            && StackRef::bool(false).is_false()
            && !StackRef::bool(true).is_false()
    );
    for value in [0, 1, -1, 1 << 60, -(1 << 60)] {
        let tagged = StackRef::tag_int(value);
        assert!(tagged.is_tagged_int() && tagged.is_null_or_int() && !tagged.owns_count());
        assert_eq!(tagged.untag_int(), value);
    }
}

fn containers_and_instances() {
    // SAFETY: live objects of the types that the accessors want; what is read back is compared by address.
    unsafe {
        let (tuple, list) = (eval("t"), eval("list(t)"));
        for index in 0..2 {
            assert_eq!(refs::tuple_item(tuple, index), eval(&format!("t[{index}]")));
            assert_eq!(refs::list_item(list, index), refs::tuple_item(tuple, index));
        }
        assert_eq!((refs::size_of_var(tuple), refs::size_of_var(list)), (2, 2));
        assert_eq!(refs::bytes_contents(eval("b'ab\\0c'")), b"ab\0c");

        let (class, instance) = (eval("C"), eval("c"));
        let ty = class.cast::<PyTypeObject>();
        assert!(
            refs::is_type(instance, ty)
                && refs::is_type_object(class)
                && refs::gc_is_tracked(instance)
        );
        for flag in [
            ffi::Py_TPFLAGS_INLINE_VALUES,
            ffi::Py_TPFLAGS_MANAGED_DICT,
            ffi::Py_TPFLAGS_HEAPTYPE,
        ] {
            assert!(refs::type_has_feature(ty, u64::from(flag)), "{flag:#x}");
        }
        let values = refs::inline_values(instance);
        assert_eq!(((*values).valid, (*values).size), (1, 2));
        for place in 0..2 {
            let index = usize::from(*refs::insertion_order(values).add(place));
            assert_eq!(
                *refs::dict_value_slot(values, index),
                refs::tuple_item(tuple, place)
            );
        }
        let keys = (*ty.cast::<ffi::PyHeapTypeObject>()).ht_cached_keys;
        let first = refs::dict_keys_entries(keys).cast::<ffi::PyDictUnicodeEntry>();
        assert_eq!((*first).me_key, eval("sys.intern('a')"));
        assert_eq!(
            *refs::managed_dict_slot(instance),
            eval("c.__dict__").cast()
        );
    }
}

fn frames_and_threads() {
    let frame = eval("next(g)").cast::<ffi::PyFrameObject>();
    // SAFETY: a suspended generator's frame, kept alive by the name `g`.
    unsafe {
        let inner = (*frame).f_frame;
        let generator = eval("g").cast::<ffi::PyGenObject>();
        assert_eq!(inner, &raw mut (*generator).gi_iframe);
        assert_eq!((*generator).gi_frame_state, ffi::FRAME_SUSPENDED as i8);
        assert_eq!(refs::frame_code(inner), eval("g.gi_code").cast());
        assert!(!refs::frame_is_incomplete(inner));
        assert_eq!(
            2 * refs::frame_lasti(inner),
            ffi::PyLong_AsLong(eval("g.gi_frame.f_lasti")) as isize
        );
        assert_eq!((*refs::frame_locals(inner)).as_ptr_borrow(), eval("7"));
        assert_eq!(
            refs::frame_stack_base(inner).offset_from(refs::frame_locals(inner)),
            1
        );
        assert_eq!(
            refs::function_code(refs::frame_function(inner)),
            refs::frame_code(inner)
        );
        let code = refs::frame_code(inner);
        assert_eq!(
            refs::framesize(code),
            refs::FRAME_SPECIALS_SIZE + refs::nlocalsplus(code) + (*code).co_stacksize as usize
        );
        assert_eq!(
            2 * refs::code_len(code) as isize,
            ffi::PyObject_Length(eval("g.gi_code.co_code"))
        );

        let tstate = ffi::PyThreadState_Get();
        assert!(refs::has_stack_space(tstate, 1) && !refs::has_stack_space(tstate, 1 << 30));
        let implementation = refs::thread_impl(tstate);
        let here = &raw const tstate as usize;
        assert!(
            (*implementation).c_stack_hard_limit < here && here < (*implementation).c_stack_top
        );
        let version = refs::eval_breaker(tstate) & !(ffi::_PY_EVAL_EVENTS_MASK as usize);
        assert_eq!(
            version,
            refs::code_instrumentation_version(code),
            "the generator's code is up to date"
        );
    }
}

#[test]
fn agree_with_the_interpreter() {
    // SAFETY: the only test of this program, so the only interpreter.
    unsafe {
        ffi::Py_InitializeEx(0);
        assert_eq!(
            ffi::PyRun_SimpleStringFlags(OBJECTS.as_ptr(), null_mut()),
            0
        );
    }
    integers();
    counts_and_stack_references();
    containers_and_instances();
    frames_and_threads();
}
