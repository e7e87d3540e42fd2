//! What authors of partita policies write against.
//!
//! A policy is a pure function over columns of integers (`wit/policy.wit`, package `partita:policy`). This crate gives those columns as
//! borrowed slices with rows and iterators on top, one trait for each kind of strategy, and a macro that turns an implementation into a
//! WebAssembly component:
//!
//! ```
//! use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal};
//!
//! /// Prefers the node with the fewest pods.
//! struct Quiet;
//!
//! impl Policy for Quiet {
//!     type Settings = NoSettings;
//!     const NAME: &str = "quiet";
//!     const VERSION: &str = "1.0.0";
//!     const READS: &[&str] = &["nodes.gpu-pods"];
//!     fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl Partitioner for Quiet {
//!     fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
//!         question.score_nodes(scores, |node| -(node.gpu_pods() as i32));
//!         Ok(())
//!     }
//! }
//!
//! partita_sdk::export_partitioner!(Quiet);
//! ```
//!
//! The crate of a policy has `crate-type = ["cdylib", "rlib"]`. Built for `wasm32-unknown-unknown` the `cdylib` is a core module that
//! `wit-component` wraps into a component; built natively the macro expands to nothing, and the `rlib` serves unit tests and hosts that
//! run the same source without WebAssembly (see [`Native`]).
//!
//! A score may depend on the question and on the settings, on nothing else: no clock, no randomness but `view.seed`, no memory of earlier
//! calls (scratch memory that cannot change an answer is fine; what is derived from models, shapes, profiles and the mix may be kept under
//! `view.outlook`, which names them). [`Policy::READS`] must name every column that the answers depend on; the
//! host asks again only when one of those changed. The host proves that candidates are feasible, so a policy can rank but never overcommit.
//!
//! A policy speaks up through [`log`]; a panic is a trap for the host, and its message goes to the log first.

// Components receive blocks, native policies columns.
#[cfg(any(target_arch = "wasm32", test))]
mod block;
mod columns;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
mod log;
mod native;
mod partitioner;
mod policy;
mod quota;
mod rows;
mod score;

pub use columns::{Candidates, Demands, Gpus, Models, NONE, Nodes, Profiles, SCORE_MAX, Shapes, View};
pub use log::{Level, log};
pub use native::{Adapter, Info, Native};
pub use partitioner::{LayoutQuestion, Movable, MoveQuestion, Moves, Partitioner, Plan, Question};
pub use policy::{Issue, NoSettings, Policy, Refusal, configured};
pub use quota::{Quota, QuotaView, Quotas, Requests, Verdict, VictimQuestion, Victims};
pub use rows::{Candidate, Demand, Gpu, Kind, Node, NodeCandidates, Profile, Shape};
pub use score::compress;

/// Exports a [`Partitioner`] as a component of the world `partitioner`. Natively it expands to nothing.
#[macro_export]
macro_rules! export_partitioner {
    ($policy:ty) => {
        $crate::__export!($policy, partitioning);
    };
}

/// Exports a [`Quota`] policy as a component of the world `quota`. Natively it expands to nothing.
#[macro_export]
macro_rules! export_quota {
    ($policy:ty) => {
        $crate::__export!($policy, borrowing);
    };
}

/// The common part of the export macros: a cell for the configured policy, and the functions of the interfaces.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($policy:ty, $interface:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "exports of a Wasm module need unsafe attributes; the generated glue is the only user")]
        const _: () = {
            impl $crate::guest::Instance for $policy {
                fn with<R>(run: impl FnOnce(&::std::cell::RefCell<Option<Self>>) -> R) -> R {
                    ::std::thread_local!(static CELL: ::std::cell::RefCell<Option<$policy>> = const { ::std::cell::RefCell::new(None) });
                    CELL.with(run)
                }
            }
            type Exported = $crate::guest::Exported<$policy>;
    $crate::guest::lifecycle::export!(Exported with_types_in $crate::guest::lifecycle);
    $crate::guest::$interface::export!(Exported with_types_in $crate::guest::$interface);
        };
    };
}
