//! Components made to keep a compiler busy.

use std::fmt::Write as _;

/// A function of many blocks and locals, which is what makes a register allocator slow: `blocks` branches, each of which moves a value
/// between two of `locals` locals.
#[must_use]
pub fn function(blocks: usize, locals: usize) -> String {
    let mut text = format!("(func (param i32) (local {})", "i32 ".repeat(locals));
    for block in 0..blocks {
        let (from, to) = (1 + block * 7 % locals, 1 + (block * 13 + 5) % locals);
        // Writing to a string cannot fail.
        let _ = write!(text, "(block local.get 0 br_if 0 local.get {from} local.get {to} i32.add local.set {to})");
    }
    text + ")"
}

/// A component with the exports of world `partitioner`, as far as the static checks look, and `functions` beside them.
///
/// # Panics
/// When `functions` is no text of Wasm functions.
#[must_use]
pub fn component(functions: &str) -> Vec<u8> {
    let text = format!(
        r#"(component (core module {functions}) (instance $i)
        (export "partita:policy/lifecycle@0.1.0" (instance $i)) (export "partita:policy/partitioning@0.1.0" (instance $i)))"#
    );
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// One function over the caps of the static checks: refused before anything is compiled.
#[must_use]
pub fn large() -> Vec<u8> {
    component(&function(30_000, 1_000))
}

/// Functions that are each within the caps and together take a compiler ten seconds and little memory: fewer locals make a smaller graph.
#[must_use]
pub fn slow() -> Vec<u8> {
    component(&function(3_500, 300).repeat(24))
}

/// Functions that are each within the caps, take a compiler a gigabyte each, and together many seconds.
#[must_use]
pub fn many() -> Vec<u8> {
    component(&function(3_500, 4_000).repeat(24))
}
