//! The life of MIG partitions: from a wanted layout to steps ([`plan()`]), and from steps to partitions ([`execute`]).
//!
//! A partition's identity is what it is ([`Spec`] on a GPU). The numbers and UUIDs of its instances are what the driver calls it now:
//! numbers are given again, UUIDs are new each time.

pub(crate) mod execute;
mod plan;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{error::DeviceError, mps::MpsError};
pub use plan::{Existing, Plan, Question, Step, plan};

/// What a partition is: a profile and the first slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// The name of its profile in the GPU's grid.
    pub profile: String,
    /// Its first slot.
    pub start: u8,
}

impl fmt::Display for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at slot {}", self.profile, self.start)
    }
}

/// Why something of a wish is not so, or why something stays that the wish does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Somebody uses it.
    #[error("{what} is used by {users}; it stays until they have ended")]
    Used {
        /// What.
        what: String,
        /// By whom.
        users: String,
    },
    /// Nobody knows who uses it.
    #[error("who uses {what} is not known ({why}), so it stays")]
    Unknown {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// Others made it, and no layout since then says that it shall go.
    #[error("{0} was made by somebody else and is adopted; it stays until a later layout leaves it out")]
    Adopted(String),
    /// It is in the way.
    #[error("{spec} cannot be made: it overlaps {other}, which stays: {why}")]
    Overlaps {
        /// What was wanted.
        spec: Spec,
        /// What is there.
        other: String,
        /// Why that stays.
        why: String,
    },
    /// The GPU has no such profile or place.
    #[error("{spec} cannot be made: {why}")]
    Impossible {
        /// What was wanted.
        spec: Spec,
        /// Why it cannot be.
        why: String,
    },
    /// MIG is not as it would have to be, and may not be switched.
    #[error(
        "MIG is {is} and the operator does not let partita switch it; set the node's label partita.dev/partitioning to auto, or switch it by hand"
    )]
    MayNotSwitch {
        /// `on` or `off`.
        is: &'static str,
    },
    /// MIG cannot be switched while the GPU is used.
    #[error("MIG cannot be switched while {users} use the GPU; stop them, and monitors such as DCGM too")]
    SwitchUsed {
        /// Who.
        users: String,
    },
    /// MIG is switched at the next reset.
    #[error("MIG will be switched at the next reset of the GPU: run nvidia-smi --gpu-reset while nobody uses it, or restart the node")]
    NeedsReset,
    /// The GPU cannot be cut by MIG.
    #[error("the GPU cannot be cut by MIG: {0}")]
    NoMig(String),
    /// Others cut it further.
    #[error("{0} holds compute instances that somebody else made, so it is not as wanted; destroy them, or leave it out")]
    Divided(String),
    /// The driver said that it was made.
    #[error("{0} is not there, although the driver said that it was made; look at the kernel's log (dmesg)")]
    NotThere(Spec),
    /// The driver said that it was destroyed.
    #[error("{0} is still there, although the driver said that it was destroyed; reset the GPU when it is idle")]
    StillThere(String),
    /// The GPU cannot be shared by MPS as wanted.
    #[error(transparent)]
    Mps(#[from] MpsError),
    /// The GPU cannot be made ready for MPS, or taken from it, while it is used.
    #[error("the GPU is used by {users}; MPS is begun and ended when nobody uses it")]
    SharedUsed {
        /// Who.
        users: String,
    },
    /// The GPU is unhealthy.
    #[error("{0}")]
    Unhealthy(String),
    /// The driver refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It could not be noted, so it was not begun.
    #[error("{0}")]
    NotNoted(String),
}
