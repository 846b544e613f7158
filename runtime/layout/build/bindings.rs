//! One run of bindgen over the headers of one release.
use bindgen::callbacks::{ItemInfo, ParseCallbacks};

use crate::headers::Headers;

/// Marks the constants that `cpython.h` makes of macros bindgen cannot evaluate.
const CONSTANT_PREFIX: &str = "HOTSTAMP_CONSTANT_";

/// Declared by the headers, but not exported by the interpreter (`tests/exports.rs` watches over this list).
const NOT_EXPORTED: &[&str] = &[
    "PyStackRef_NULL",
    "_PyAsyncGenAThrow_Type",
    "_PyAsyncGenWrappedValue_Type",
    "_PyBufferWrapper_Type",
    "_PyBuildSlice_ConsumeRefs",
    "_PyContextTokenMissing_Type",
    "_PyCoroWrapper_Type",
    "_PyFloat_FromDouble_ConsumeInputs",
    "_PyInstrumentation_DISABLE",
    "_PyInstrumentation_MISSING",
    "_PyInterpolation_Type",
    "_PyMethodWrapper_Type",
    "_PyOpcode_Caches",
    "_PyOpcode_Deopt",
    "_PyOpcode_OpName",
    "_PyOpcode_PseudoTargets",
    "_PyOpcode_macro_expansion",
    "_PyOpcode_opcode_metadata",
    "_PyTemplateIter_Type",
    "_PyTemplate_Type",
    "_PyUOpExecutor_Type",
    "_PyUnicodeASCIIIter_Type",
    "_Py_HasFileSystemDefaultEncodeErrors",
    "_Py_perfmap_callbacks",
    "_Py_perfmap_jit_callbacks",
];

#[derive(Debug)]
struct Names;

impl ParseCallbacks for Names {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix(CONSTANT_PREFIX).map(str::to_owned)
    }
}

/// The Rust text of what the release's headers declare and its interpreter exports.
pub fn generate(headers: &Headers, target: &str) -> Result<String, String> {
    let mut builder = bindgen::Builder::default()
        .header("build/cpython.h")
        .clang_args(headers.clang_args(target))
        // What CPython does not export is hidden then, and bindgen leaves hidden functions out.
        .clang_arg("-fvisibility=hidden")
        .parse_callbacks(Box::new(Names))
        .allowlist_file(r".*/python3\.14/.*")
        .allowlist_var(format!("{CONSTANT_PREFIX}.*"))
        .blocklist_file(r".*/mimalloc/.*")
        // Rust code gets the newtype with the reference-counting rules instead of a bare union.
        .blocklist_type("_PyStackRef")
        .raw_line("pub use crate::refs::StackRef as _PyStackRef;")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .generate_comments(false)
        .merge_extern_blocks(true)
        .wrap_unsafe_ops(true)
        .use_core()
        .formatter(bindgen::Formatter::None);
    for name in NOT_EXPORTED {
        builder = builder.blocklist_item(name);
    }
    let bindings = builder
        .generate()
        .map_err(|e| format!("bindgen on {}: {e}", headers.root.display()))?;
    Ok(bindings.to_string())
}
