//! The host's red team: every attack of the design, against the real runtime with the real compiler process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod attacks;
mod breaker;
mod cache;
mod columns;
mod compile;
mod equal;
mod load;
mod support;
mod wit;
