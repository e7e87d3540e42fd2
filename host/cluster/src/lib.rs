//! The Kubernetes side of partita, below the scheduler's loop.

pub mod crd;
pub mod models;
pub mod objects;
pub mod quantity;
pub mod translate;
