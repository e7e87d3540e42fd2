//! The Kubernetes side of partita: what happens in a cluster becomes the core's events, and what the core decides becomes calls.
//!
//! ```text
//! API server ─► watch ─► objects (lean) ─► scheduler (translate → core → effects) ─► hands ─► API server
//!                                              ▲                                       │
//!                                              └──────────────── done ─────────────────┘
//! ```
//!
//! - [`objects`]: Kubernetes objects with only what scheduling needs; [`crd`]: partita's own.
//! - [`translate`]: from objects to the words of the core, pure.
//! - [`scheduler`]: the brain: what was seen goes in, effects come out; no I/O, no clock.
//! - [`hands`]: effects carried out, behind a fence.
//! - [`watch`], [`lease`]: who sees, who leads.
//! - [`run`]: the loop that joins them.

pub mod crd;
mod events;
mod fault;
mod fence;
pub mod grant;
pub mod hands;
pub mod lease;
mod limit;
mod line;
pub use partita_core::model::product as models;
pub mod objects;
pub mod quantity;
mod resource;
pub mod run;
pub mod scheduler;
pub mod translate;
pub mod watch;
