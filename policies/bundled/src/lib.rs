//! The bundled policies, each native and as a WebAssembly component built from the same source.
//!
//! The components are what the scheduler runs, like any policy that an operator uploads; the native twins need no engine, end every
//! fallback chain, and are what benchmarks compare the components with. `build.rs` builds the components; see there for the toolchain.

use partita_sdk::{Adapter, Native};

/// The policy for namespaces that select none.
pub const DEFAULT: &str = "fragmentation";

/// A bundled policy.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// Lower-case name, words joined by `-`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The component: a binary for the world `partitioner` of `partita:policy`.
    pub component: &'static [u8],
    /// Makes the native twin, not yet configured.
    pub native: fn() -> Box<dyn Native + Send>,
}

macro_rules! bundled {
    ($($name:literal, $policy:ty, $summary:literal;)+) => {
        &[$(Bundled {
            name: $name,
            summary: $summary,
            component: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
            native: Adapter::<$policy>::boxed,
        }),+]
    };
}

static BUNDLED: &[Bundled] = bundled! {
    "fragmentation", partita_policy_fragmentation::Fragmentation, "the place that costs the least of what the expected mix could use";
    "first-fit", partita_policy_first_fit::FirstFit, "the first node that has room, and on it the tightest GPU";
    "spread", partita_policy_spread::Spread, "the emptiest node first, for headroom and fewer neighbours";
    "best-fit", partita_policy_best_fit::BestFit, "the node that is fullest once the pod is placed (baseline)";
    "dot-product", partita_policy_dot_product::DotProduct, "the node whose free cpu and GPUs align least with the pod's (baseline)";
    "packing", partita_policy_packing::Packing, "GPUs in use first, then used nodes, then the smallest empty node (baseline)";
    "clustering", partita_policy_clustering::Clustering, "nodes that host the same kind of GPU request (baseline)";
    "random", partita_policy_random::Random, "any node and any place on it, drawn by the seed of the decision (baseline)";
};

/// Every bundled policy, in the order in which tables list them.
#[must_use]
pub fn all() -> &'static [Bundled] {
    BUNDLED
}

/// The bundled policy of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Bundled> {
    BUNDLED.iter().find(|policy| policy.name == name)
}
