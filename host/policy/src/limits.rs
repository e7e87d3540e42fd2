//! Every bound of the runtime, with the reason for its size.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of a component. The largest honest guest of the standard class (`QuickJS` with a policy) has 1.7 MB.
pub const MODULE_BYTES: usize = 2 << 20;
/// Bytes of one function body. Cranelift's time grows faster than the length of a function: 350 kB take 12 s and 805 MiB, 64 KiB stay
/// under a second. The largest function of a Rust guest has 6 kB, of `QuickJS` 54 kB.
pub const BODY_BYTES: usize = 64 << 10;
/// Locals of one function, parameters apart: with the cap on bodies it bounds the register allocator's work.
pub const LOCALS: u64 = 5_000;
/// Functions of all core modules together; `QuickJS` has about 3,000.
pub const FUNCTIONS: u32 = 10_000;
/// Types, imports, exports, globals, aliases, data and element segments of all modules together. Real guests have a few hundred.
pub const ITEMS: u32 = 10_000;
/// Memories and tables of one core module. Guests have one of each, adapters two.
pub const MEMORIES: u32 = 4;
/// Core modules, nested components and their instances. A componentised guest has fewer than ten of each.
pub const MODULES: u32 = 64;
/// Bytes of a settings document, of a settings schema and of every other text that a policy hands over when it is loaded.
pub const TEXT_BYTES: usize = 64 << 10;
/// Entries of `reads`: more than the columns of all records.
pub const READS: usize = 128;
/// Issues kept of those that a policy finds in its settings; one is enough to refuse them.
pub const ISSUES: usize = 32;
/// Characters of a fault's detail: a trap, a few frames and a panic message.
pub const DETAIL_CHARS: usize = 600;
/// Functions named in a fault's detail: the one that failed and who called it.
pub const FRAMES: usize = 4;
/// Frames of a trap that are looked at: a panic of Rust alone takes about ten before the function that panicked.
pub(crate) const BACKTRACE: usize = 32;

/// Entries of the cache on disk; the oldest go. A cluster uses a handful of policies, and their authors try a few dozen versions.
pub const CACHE_ENTRIES: usize = 256;

/// Core instances, tables and memories that one instance of a component may have.
pub(crate) const STORE_ITEMS: usize = MODULES as usize;
/// Elements of all tables together, 8 bytes each; function tables of real guests have a few thousand.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Live handles of component resources. The interface has no resources, so this only serves what adapters do inside.
pub(crate) const HANDLES: usize = 64;
/// Bytes of Wasm stack: 16 times what the bundled policies use, and far below the 8 MiB (2 MiB in a thread) of the host's own stack.
pub(crate) const STACK_BYTES: usize = 512 << 10;

/// Log lines that one call may write; a policy that says more in one decision is not read by anyone.
pub const LOG_LINES: u32 = 32;
/// Bytes of a log line.
pub const LOG_LINE_BYTES: usize = 256;
/// Log lines that a policy may be ahead of one a call: enough to see a start-up or a burst of failures, too few to bury the host's log.
pub const LOG_BURST: u32 = 256;
/// Fuel that a log line costs, besides one unit a byte: what the host does for it, at the price of Wasm instructions (1,000 are 45 ns).
pub(crate) const LOG_FUEL: u64 = 2_000;

/// Decisions failed in a row after which a policy is not asked for a while. One or two happen to a policy that meets an odd question; five in
/// a row say that it fails at everything.
pub const BREAKER_FAILURES: u32 = 5;
/// Decisions that a policy is left out of when the breaker opens for the first time; doubled at every failed probe.
pub const BREAKER_REST: u64 = 64;
/// The longest rest: a policy that is mended by what changes in the cluster is back within minutes at ten decisions a second.
pub const BREAKER_REST_MAX: u64 = 8_192;

/// The first questions are all repeated on a fresh instance, but for the very first, which a fresh instance answers anyway: a policy that
/// keeps state by mistake shows it at the second.
pub const REPEAT_ALWAYS: u64 = 4;
/// Up to this question, those whose number is a power of two are repeated: dense at first, when a mistake shows soonest, at a cost that does
/// not grow with the run. A fresh instance costs about 35 µs, ten times a small question.
pub const REPEAT_EARLY: u64 = 2_048;
/// After [`REPEAT_EARLY`] every so manieth: 0.05 % of the questions, about 0.02 µs each.
pub const REPEAT_LATER: u64 = 2_048;

/// Budgets of one revision. A selection may lower those of its class and never raise them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Fuel of one `score` or `expect`, about one unit a Wasm instruction. 20 million are about 1 ms, or 80,000 candidates of the
    /// most expensive bundled policy.
    pub score_fuel: u64,
    /// Fuel of instantiation, of `describe`, `validate-settings`, `configure` and `choose-moves`, each. 200 million are about 10 ms.
    pub setup_fuel: u64,
    /// Bytes of all linear memories of an instance together. 8,000 GPUs take 0.3 MB.
    pub memory_bytes: usize,
    /// Bytes of an answer beyond one score a candidate, and of one log message.
    pub reply_bytes: usize,
    /// Milliseconds of wall clock of one call. Fuel is the limit that decides, since it is the same on every machine; the clock only
    /// catches what fuel does not see, so it is 1,000 times what a call should take, and a busy machine never trips it.
    pub wall_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { score_fuel: 20_000_000, setup_fuel: 200_000_000, memory_bytes: 16 << 20, reply_bytes: 256 << 10, wall_ms: 1_000 }
    }
}

impl Limits {
    /// The first limit that is above that of `ceiling`: its name, the value asked for, and the highest allowed.
    #[must_use]
    pub fn above(&self, ceiling: &Self) -> Option<(&'static str, u64, u64)> {
        [
            ("score-fuel", self.score_fuel, ceiling.score_fuel),
            ("setup-fuel", self.setup_fuel, ceiling.setup_fuel),
            ("memory-bytes", self.memory_bytes as u64, ceiling.memory_bytes as u64),
            ("reply-bytes", self.reply_bytes as u64, ceiling.reply_bytes as u64),
            ("wall-ms", self.wall_ms, ceiling.wall_ms),
        ]
        .into_iter()
        .find(|(_, asked, highest)| asked > highest)
    }
}

/// Limits of the compiler's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Seconds of cpu. A bundled policy takes 0.1 s, `QuickJS` 0.9 s on a fast core; a compiler built without optimisation ten times that.
    pub cpu_seconds: u64,
    /// Bytes of address space. Bundled policies take less than 32 MiB; one function of thousands of blocks and locals, within the static
    /// caps, takes more than this.
    pub memory_bytes: u64,
    /// Wall clock, for a machine that is busy with other work.
    pub wall: Duration,
    /// Bytes of machine code. Compiled code is three times the size of its Wasm.
    pub artifact_bytes: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { cpu_seconds: 20, memory_bytes: 1 << 30, wall: Duration::from_mins(1), artifact_bytes: 16 * MODULE_BYTES }
    }
}
