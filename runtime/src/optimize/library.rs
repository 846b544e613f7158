//! The functions that LLVM calls of its own accord: an instruction of the IR that the processor does not have, or a loop that it took for one of these.

use std::ffi::c_void;

/// Declares functions by name alone, and a table from names to addresses. Their types do not matter: only compiled code calls them.
macro_rules! functions {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(fn $name();)*
        }
        const TABLE: &[(&str, unsafe extern "C" fn())] = &[$((stringify!($name), $name)),*];
    };
}

functions! {
    memcpy memmove memset memcmp bcmp strlen
    fmod pow fma sqrt fabs floor ceil trunc rint nearbyint round roundeven copysign fmin fmax ldexp frexp modf
    exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh
    __multi3 __divti3 __modti3 __udivti3 __umodti3
}

/// The address of a function that LLVM may call, or `None`.
pub fn address_of(name: &str) -> Option<usize> {
    TABLE
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, function)| *function as *const c_void as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_the_table_is_what_its_name_says() {
        let address = address_of("fmod").unwrap() as *const ();
        // SAFETY: the C library's fmod has this type.
        let fmod: extern "C" fn(f64, f64) -> f64 = unsafe { std::mem::transmute(address) };
        assert_eq!(fmod(7.5, 2.0), 1.5);
        assert_eq!(address_of("printf"), None);
    }
}
