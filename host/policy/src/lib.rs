//! Runs partita policies: WebAssembly components under fuel, time, memory and reply limits, with native policies as the last link.
//!
//! A policy is written by somebody who may be careless or hostile, and it runs inside the scheduler. So every way out of the sandbox that a
//! component has is closed or counted:
//!
//! ```text
//! bytes ─► check (wasmparser: size, world, imports, functions) ─► compile (another process, limited) ─► cache (authenticated)
//!       ─► trial instance ─► describe ─► validate-settings, configure ─► WasmPolicy
//! question ─► project (only what the policy reads) ─► warm instance: fuel, epoch, memory, reply ─► check ─► scores
//!                                                    └─ a sample again on a fresh instance: is it pure?
//! ```
//!
//! - [`Host::load`] takes a component through the stages and says which of them refused it and why; [`Host::inspect`] reports on all of them.
//! - [`WasmPolicy`] and [`NativePolicy`] are what the core asks ([`partita_core::policy::Partitioner`]). A fault has a [cause] that is counted,
//!   and a detail that names the trap, the functions and the policy's last words. The core then asks the next policy of its chain, whose last
//!   link is native.
//! - A policy that fails at everything is not asked for a while, counted in decisions; one that answers the same question in two ways is
//!   switched off until it is loaded again.
//! - [`compile_main`] is the body of the hidden subcommand that a program needs to be its own compiler.
//! - [`limits`] holds every bound, each with the reason for its size.
//!
//! What a policy may not do is not left to it: the interface has one import, `log`, and no clock, no randomness and no file; answers are
//! checked whole; the settings of a revision, its limits and its module are fixed when it is loaded.
//!
//! [cause]: partita_core::policy::Cause

mod artifact;
mod bench;
mod bindings;
mod block;
mod breaker;
mod cache;
mod check;
mod compile;
mod describe;
mod engine;
mod host;
mod inspect;
mod instance;
pub mod limits;
mod log;
mod native;
mod revision;
mod stats;
mod text;
mod wasm;

pub use bench::{Bench, BenchRow};
pub use cache::CacheError;
pub use check::{Shape, StaticError};
pub use compile::{CompileError, Compiler, compile_main};
pub use describe::Info;
pub use host::{Host, HostConfig, HostError, LoadError, Loaded, ModuleInfo, Reason, SettingsIssue, Stage};
pub use inspect::{Outcome, Report, StageReport};
pub use limits::{CompileLimits, Limits};
pub use native::{NativePolicy, native};
pub use stats::{Faults, Stats};
pub use text::chain;
pub use wasm::WasmPolicy;

/// The bundled policies: their names, what they do, their components and native twins.
pub use partita_policies as bundled;

// A policy is loaded in one thread and asked in another, and any thread loads.
const _: () = {
    const fn send<T: Send>() {}
    const fn sync<T: Sync>() {}
    send::<WasmPolicy>();
    send::<NativePolicy>();
    send::<Host>();
    sync::<Host>();
};
