//! What a GPU shall be.

use partita_core::model::Cut;

use crate::mig::Spec;

/// How a GPU shall be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// UUID of the GPU.
    pub gpu: String,
    /// Term and generation of the layout that says so.
    pub generation: (i64, i64),
    /// How it shall be cut. MPS and shares need MIG off.
    pub cut: Cut,
    /// With [`Cut::Mig`] its partitions: all that shall be, none besides. Any spelling of a profile's name will do.
    pub partitions: Vec<Spec>,
    /// With [`Cut::Mps`] the memory of each of its shares, MiB.
    pub shares: Vec<u32>,
    /// With [`Cut::Shares`] whether several may use it in turn: one of its shares is less than all of it.
    pub time_sliced: bool,
    /// Whether the operator lets MIG be switched on and off.
    pub may_switch: bool,
}
