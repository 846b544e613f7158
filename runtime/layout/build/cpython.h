/* The translation unit whose declarations become `ffi`: the public headers plus the internal ones whose structures
 * compiled code reads or writes. Add a header here when something new is needed; declare nothing by hand. */
#include <Python.h>
#include <structmember.h>

#include <opcode.h>
#include <internal/pycore_abstract.h>
#include <internal/pycore_backoff.h>
#include <internal/pycore_call.h>
#include <internal/pycore_cell.h>
#include <internal/pycore_ceval.h>
#include <internal/pycore_ceval_state.h>
#include <internal/pycore_code.h>
#include <internal/pycore_critical_section.h>
#include <internal/pycore_descrobject.h>
#include <internal/pycore_dict.h>
#include <internal/pycore_dict_state.h>
#include <internal/pycore_floatobject.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_freelist.h>
#include <internal/pycore_function.h>
#include <internal/pycore_gc.h>
#include <internal/pycore_genobject.h>
#include <internal/pycore_global_objects.h>
#include <internal/pycore_global_strings.h>
#include <internal/pycore_instruments.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_interpframe.h>
#include <internal/pycore_interpolation.h>
#include <internal/pycore_intrinsics.h>
#include <internal/pycore_jit.h>
#include <internal/pycore_list.h>
#include <internal/pycore_long.h>
#include <internal/pycore_magic_number.h>
#include <internal/pycore_modsupport.h>
#include <internal/pycore_moduleobject.h>
#include <internal/pycore_object.h>
#include <internal/pycore_opcode_utils.h>
#include <internal/pycore_opcode_metadata.h>
#include <internal/pycore_optimizer.h>
#include <internal/pycore_pyerrors.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_range.h>
#include <internal/pycore_runtime.h>
#include <internal/pycore_setobject.h>
#include <internal/pycore_sliceobject.h>
#include <internal/pycore_stackref.h>
#include <internal/pycore_sysmodule.h>
#include <internal/pycore_template.h>
#include <internal/pycore_traceback.h>
#include <internal/pycore_tstate.h>
#include <internal/pycore_tuple.h>
#include <internal/pycore_typedefs.h>
#include <internal/pycore_typeobject.h>
#include <internal/pycore_unicodeobject.h>
#include <internal/pycore_unionobject.h>
#include <internal/pycore_weakref.h>

/* Macros with casts or sizeof in them, which bindgen cannot evaluate by itself: each becomes a constant of the macro's
 * own name (build/bindings.rs takes the prefix off again). */
#define HOTSTAMP_CACHE_SIZE(name) static const unsigned int HOTSTAMP_CONSTANT_INLINE_CACHE_ENTRIES_##name = INLINE_CACHE_ENTRIES_##name;
static const unsigned int HOTSTAMP_CONSTANT_PY_VERSION_HEX = PY_VERSION_HEX;
static const int HOTSTAMP_CONSTANT_FRAME_SPECIALS_SIZE = FRAME_SPECIALS_SIZE;
static const Py_ssize_t HOTSTAMP_CONSTANT_MANAGED_DICT_OFFSET = MANAGED_DICT_OFFSET;
static const Py_ssize_t HOTSTAMP_CONSTANT_MANAGED_WEAKREF_OFFSET = MANAGED_WEAKREF_OFFSET;
static const Py_ssize_t HOTSTAMP_CONSTANT_PY_SSIZE_T_MAX = PY_SSIZE_T_MAX;
static const unsigned long HOTSTAMP_CONSTANT_PY_VECTORCALL_ARGUMENTS_OFFSET = PY_VECTORCALL_ARGUMENTS_OFFSET;
static const unsigned int HOTSTAMP_CONSTANT_PyLong_BASE = PyLong_BASE;
static const unsigned int HOTSTAMP_CONSTANT_PyLong_MASK = PyLong_MASK;
static const unsigned long HOTSTAMP_CONSTANT__PyLong_FALSE_TAG = _PyLong_FALSE_TAG;
static const unsigned long HOTSTAMP_CONSTANT__PyLong_TRUE_TAG = _PyLong_TRUE_TAG;
static const unsigned long HOTSTAMP_CONSTANT__PyHASH_MODULUS = PyHASH_MODULUS;
static const unsigned long HOTSTAMP_CONSTANT__PyTuple_HASH_XXPRIME_1 = _PyTuple_HASH_XXPRIME_1;
static const unsigned long HOTSTAMP_CONSTANT__PyTuple_HASH_XXPRIME_2 = _PyTuple_HASH_XXPRIME_2;
static const unsigned long HOTSTAMP_CONSTANT__PyTuple_HASH_XXPRIME_5 = _PyTuple_HASH_XXPRIME_5;
static const unsigned long HOTSTAMP_CONSTANT__Py_STATIC_IMMORTAL_INITIAL_REFCNT = _Py_STATIC_IMMORTAL_INITIAL_REFCNT;
static const unsigned long HOTSTAMP_CONSTANT__PyGC_PREV_MASK = _PyGC_PREV_MASK;
static const unsigned long HOTSTAMP_CONSTANT__PyGC_PREV_MASK_COLLECTING = _PyGC_PREV_MASK_COLLECTING;
static const unsigned long HOTSTAMP_CONSTANT__PyGC_PREV_MASK_FINALIZED = _PyGC_PREV_MASK_FINALIZED;
static const long HOTSTAMP_CONSTANT__PyOS_STACK_MARGIN_BYTES = _PyOS_STACK_MARGIN_BYTES;
static const long HOTSTAMP_CONSTANT__PyOS_MIN_STACK_SIZE = _PyOS_MIN_STACK_SIZE;
static const int HOTSTAMP_CONSTANT_PY_INVALID_STACK_EFFECT = PY_INVALID_STACK_EFFECT;
static const unsigned int HOTSTAMP_CONSTANT_PYC_MAGIC_NUMBER_TOKEN = PYC_MAGIC_NUMBER_TOKEN;
HOTSTAMP_CACHE_SIZE(BINARY_OP)
HOTSTAMP_CACHE_SIZE(CALL)
HOTSTAMP_CACHE_SIZE(CALL_KW)
HOTSTAMP_CACHE_SIZE(COMPARE_OP)
HOTSTAMP_CACHE_SIZE(CONTAINS_OP)
HOTSTAMP_CACHE_SIZE(FOR_ITER)
HOTSTAMP_CACHE_SIZE(LOAD_ATTR)
HOTSTAMP_CACHE_SIZE(LOAD_GLOBAL)
HOTSTAMP_CACHE_SIZE(LOAD_SUPER_ATTR)
HOTSTAMP_CACHE_SIZE(SEND)
HOTSTAMP_CACHE_SIZE(STORE_ATTR)
HOTSTAMP_CACHE_SIZE(STORE_SUBSCR)
HOTSTAMP_CACHE_SIZE(TO_BOOL)
HOTSTAMP_CACHE_SIZE(UNPACK_SEQUENCE)

/* What the Rust side rests on beyond what bindgen checks. */
_Static_assert(sizeof(_PyStackRef) == sizeof(uintptr_t), "a stack reference is one word");
_Static_assert(_Alignof(_PyStackRef) == _Alignof(uintptr_t), "a stack reference is one word");
#ifdef Py_GIL_DISABLED
#  error "hotstamp supports the default build of CPython, with the GIL"
#endif
#ifdef Py_DEBUG
#  error "hotstamp supports release builds of CPython"
#endif
