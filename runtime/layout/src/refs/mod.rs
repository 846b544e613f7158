//! The inline functions of CPython's headers, which bindgen cannot give: reference counts, tagged stack references, and
//! the accessors of objects, code and frames. They follow the headers of a release build with the GIL, 64 bits.
//!
//! Everything here works on raw pointers and trusts its caller: the GIL is held and the pointers are what their types say.

mod count;
mod frame;
mod object;
mod stackref;

pub use count::*;
pub use frame::*;
pub use object::*;
pub use stackref::StackRef;
