//! The kubelet's interfaces, generated from `proto/`. They are public for the fake kubelet of the tests; nothing else should need them.
//!
//! The code is kept rather than made by each build: its generator is a minute of compiling. `tests/generated.rs` holds the two equal, and
//! writes it anew with `UPDATE=1`.

/// Device plugins.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated; proto/deviceplugin.proto says what things mean")]
#[path = "generated/v1beta1.rs"]
pub mod v1beta1;

/// Pod resources.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated; proto/podresources.proto says what things mean")]
#[path = "generated/v1.rs"]
pub mod v1;
