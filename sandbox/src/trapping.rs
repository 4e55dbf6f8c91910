//! A copy of the built filter with a function that traps.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempPath;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// A copy of the WebAssembly module at `path` in which the function exported as `export` traps as soon as it is called.
/// Everything else is unchanged. Dropping the value removes the file.
///
/// With `proxy_on_request_trailers` as the export, a request over HTTP/2 that ends in trailers traps the VM, and every
/// other request is served.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// use sandbox::{envoy::Config, trapping};
///
/// let config = Config::shipped()?;
/// let module = trapping::module(&config.module_file()?, "proxy_on_request_trailers")?;
/// let config = config.module(&module)?;
/// # Ok(())
/// # }
/// ```
pub fn module(path: &Path, export: &str) -> Result<TempPath> {
    let built = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let patched = with_trap(built, export).with_context(|| format!("in {}", path.display()))?;
    let file = tempfile::Builder::new().prefix("trapping-").suffix(".wasm").tempfile()?.into_temp_path();
    std::fs::write(&file, patched)?;
    Ok(file)
}

/// Overwrites the function's body with one of the same length, so that nothing else in the module moves.
fn with_trap(mut module: Vec<u8>, export: &str) -> Result<Vec<u8>> {
    const NO_LOCALS: u8 = 0x00;
    const UNREACHABLE: u8 = 0x00;
    const NOP: u8 = 0x01;
    const END: u8 = 0x0b;

    let body = body(&module, export)?;
    match &mut module[body] {
        [locals, first, rest @ .., end] => {
            (*locals, *first, *end) = (NO_LOCALS, UNREACHABLE, END);
            rest.fill(NOP);
            Ok(module)
        }
        _ => bail!("`{export}` does nothing; there is no room for a trap"),
    }
}

/// The range of an exported function's body: its locals, its instructions and their end.
fn body(module: &[u8], export: &str) -> Result<Range<usize>> {
    let mut imported = 0;
    let mut exported = None;
    let mut bodies = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(exports) => {
                for found in exports {
                    let found = found?;
                    if found.kind == ExternalKind::Func && found.name == export {
                        exported = Some(usize::try_from(found.index)?);
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                bodies.push(range.start.try_into()?..range.end.try_into()?);
            }
            _ => {}
        }
    }
    let index = exported.with_context(|| format!("no function is exported as `{export}`"))?;
    ensure!(index >= imported, "`{export}` is an import");
    bodies.get(index - imported).cloned().with_context(|| format!("`{export}` has no body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (import "e" "i" (func)) (func (export "one") (result i32) i32.const 1) (func (export "f")))`
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x08\x02\x60\0\x01\x7f\x60\0\0\
        \x02\x07\x01\x01e\x01i\0\x01\
        \x03\x03\x02\0\x01\
        \x07\x0b\x02\x03one\0\x01\x01f\0\x02\
        \x0a\x09\x02\x04\0\x41\x01\x0b\x02\0\x0b";

    #[test]
    fn only_the_named_function_traps() {
        let body = body(MODULE, "one").unwrap();
        assert_eq!(MODULE[body.clone()], *b"\0\x41\x01\x0b");
        let mut expected = MODULE.to_vec();
        expected[body].copy_from_slice(b"\0\0\x01\x0b");
        assert_eq!(with_trap(MODULE.to_vec(), "one").unwrap(), expected);
    }

    #[test]
    fn the_error_names_a_function_that_cannot_trap() {
        let error = |export| with_trap(MODULE.to_vec(), export).unwrap_err().to_string();
        assert_eq!(error("f"), "`f` does nothing; there is no room for a trap");
        assert_eq!(error("g"), "no function is exported as `g`");
    }
}
