//! The one configuration of wasmtime, used by the host and by the compiler's process alike, and the clock that stops runaway calls.

use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine, Strategy};

use crate::limits::{BACKTRACE, STACK_BYTES};

/// How often the epoch advances: fine enough for a deadline of a second, and only 100 wake-ups a second.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The configuration. Whatever a scheduling policy does not need is off, since every proposal is attack surface. Multi-memory stays on:
/// without it wasmtime 48 panics while it compiles the adapters of a component with several memories. The bits of a NaN are made the same on
/// every processor, so that a run replays anywhere.
fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .concurrency_support(false)
        .consume_fuel(true)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .shared_memory(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE))
        .wasm_component_model(true)
        .wasm_exceptions(false)
        .wasm_function_references(false)
        .wasm_gc(false)
        .wasm_memory64(false)
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(false)
        .wasm_threads(false);
    config
}

/// An engine of [`config`].
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// Advances the epoch of `engine` every [`TICK`] until the engine is gone. A thread of the operating system, because a timer of an async
/// runtime stops when that runtime is what hangs.
///
/// # Errors
/// The operating system's, when it gives no thread.
pub(crate) fn tick(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("partita-epoch".into()).spawn(move || {
        loop {
            thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    })?;
    Ok(())
}

/// The epoch deadline of a call that may take `wall_ms`: ticks from now, rounded up, and one more for the tick that is under way.
pub(crate) fn ticks(wall_ms: u64) -> u64 {
    wall_ms.div_ceil(TICK.as_millis() as u64) + 1
}
