//! The nouns: GPU models and their grids, what nodes have, what pods ask.

pub mod catalog;
pub mod constraints;
pub mod demand;
pub mod grid;
pub mod ids;
pub mod node;
pub mod product;
pub mod profile_name;

pub use constraints::Constraints;
pub use demand::{Demand, DemandError, GpuAsk, Isolation, PodSpec, Terms};
pub use grid::{Engines, Grid, GridError, Placement, Profile, SlotMask};
pub use ids::{DemandId, ModelId, NodeId, PodId, ProfileId};
pub use node::{Cut, Found, GpuModel, GpuSpec, NodeError, NodeSpec, Partitioning};
pub use profile_name::{NameError, ProfileName, Variant};

/// A whole GPU in the unit of shares.
pub const MILLI: u32 = 1000;
