//! The only handwritten `unsafe` of the crate: handing compiled machine code to wasmtime.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Proof that bytes are an artifact that this program's own compiler process wrote: made only by [`crate::compile`], which read them from
/// that process, and by [`crate::cache`], which checked their authentication code.
pub(crate) struct Artifact(Vec<u8>);

impl Artifact {
    /// Vouches for `bytes`.
    pub(crate) fn vouched(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The machine code.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Loads the artifact into `engine`.
    ///
    /// # Errors
    /// wasmtime's, when the artifact is for another version, configuration or processor.
    #[expect(unsafe_code, reason = "wasmtime cannot check machine code, so deserialising it is unsafe in its interface")]
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize` asks that the bytes be the unmodified output of `Engine::precompile_component`. An `Artifact` is made only
        // from the output of the compiler's process, over a pipe that nobody else holds, or from a cache entry whose HMAC-SHA256 under a
        // key that only this user can read covers every byte. wasmtime itself compares version, configuration and processor.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
