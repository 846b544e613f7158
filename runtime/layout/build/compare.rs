//! Tells whether what was generated for another patch release is the same.
use std::collections::BTreeMap;

use syn::{ForeignItem, Item};

/// Constants that name the release; they differ by their nature.
const RELEASE: &[&str] = &["PY_MICRO_VERSION", "PY_VERSION", "PY_VERSION_HEX"];

/// Everything in `base` that `other` lacks or has differently. What `other` has beside it does no harm.
pub fn differences(base: &str, other: &str) -> Result<Vec<String>, String> {
    let (base, other) = (items(base)?, items(other)?);
    let differs = |(name, text): (&String, &String)| match other.get(name) {
        _ if RELEASE.contains(&name.as_str()) => None,
        Some(same) if same == text => None,
        Some(_) => Some(format!("{name} differs")),
        None => Some(format!("{name} is missing")),
    };
    Ok(base.iter().filter_map(differs).collect())
}

/// The value of `PY_VERSION_HEX` in generated bindings.
pub fn version_hex(text: &str) -> Result<u32, String> {
    let missing = || "the bindings have no PY_VERSION_HEX".to_owned();
    let constant = &text[text.find("const PY_VERSION_HEX").ok_or_else(missing)?..];
    let value = constant[constant.find('=').ok_or_else(missing)? + 1..]
        .split(';')
        .next()
        .ok_or_else(missing)?;
    value.trim().parse().map_err(|_| missing())
}

/// Each item's text, by name.
fn items(text: &str) -> Result<BTreeMap<String, String>, String> {
    let file = syn::parse_file(text).map_err(|e| format!("the bindings do not parse: {e}"))?;
    let mut items = BTreeMap::new();
    let mut add = |name: String, tokens: &dyn quote::ToTokens| {
        let entry: &mut String = items.entry(name).or_default();
        entry.push_str(&tokens.to_token_stream().to_string());
    };
    for item in &file.items {
        match item {
            Item::Const(i) if i.ident == "_" => {
                // bindgen's assertions on sizes and offsets; each begins with a text that names the structure.
                let tokens = quote::ToTokens::to_token_stream(&i.expr).to_string();
                let about = tokens.split('"').nth(1).unwrap_or_default().to_owned();
                add(about, i);
            }
            Item::Const(i) => add(i.ident.to_string(), i),
            Item::Struct(i) => add(i.ident.to_string(), i),
            Item::Union(i) => add(i.ident.to_string(), i),
            Item::Enum(i) => add(i.ident.to_string(), i),
            Item::Type(i) => add(i.ident.to_string(), i),
            Item::ForeignMod(block) => {
                for item in &block.items {
                    match item {
                        ForeignItem::Fn(i) => add(i.sig.ident.to_string(), i),
                        ForeignItem::Static(i) => add(i.ident.to_string(), i),
                        other => {
                            return Err(format!(
                                "unexpected in the bindings: {}",
                                quote::ToTokens::to_token_stream(other)
                            ));
                        }
                    }
                }
            }
            // The accessors of bit fields, and bindgen's own helpers.
            Item::Impl(i) => add(
                format!("impl {}", quote::ToTokens::to_token_stream(&i.self_ty)),
                i,
            ),
            Item::Use(_) => {}
            other => {
                return Err(format!(
                    "unexpected in the bindings: {}",
                    quote::ToTokens::to_token_stream(other)
                ));
            }
        }
    }
    Ok(items)
}
