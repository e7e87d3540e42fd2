//! The device layer on fake GPUs: the fake library is opened by the system's loader and called by the real nvml-wrapper.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod crash;
mod discovery;
mod exhaustive;
mod life;
mod mps;
mod random;
mod restoring;
mod sharing;
mod simulated;
mod support;
mod trouble;
