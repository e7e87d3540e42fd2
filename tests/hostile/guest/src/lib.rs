//! The policy that attacks its host: what it does is the word `do` of its settings, `{"do": "loop"}`.
//!
//! It stands on `wit-bindgen` alone, not on the SDK, since an attacker is not bound to it. What it says of itself is a block of bytes that
//! `partita_hostile::Describe` overwrites in the finished component, because `describe` is asked before there are settings. Natively the
//! crate is empty.

#[cfg(target_arch = "wasm32")]
mod attack;
#[cfg(target_arch = "wasm32")]
mod exports;
