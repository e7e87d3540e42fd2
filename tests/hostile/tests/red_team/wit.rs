//! Components made from the text of a WIT package: the right types, and functions that trap.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// The package as it is.
pub(crate) const PACKAGE: &str = include_str!("../../../../wit/policy.wit");

/// A component of `world` in the package `text`.
pub(crate) fn component(text: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", text).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// A component of world `partitioner` in the package with `from` replaced by `to`.
pub(crate) fn changed(from: &str, to: &str) -> Vec<u8> {
    assert!(PACKAGE.contains(from), "the package has no {from:?}");
    component(&PACKAGE.replace(from, to), "partitioner")
}
