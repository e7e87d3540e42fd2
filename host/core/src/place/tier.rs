//! What comes before any policy's score: serve what exists before making anything, make before destroying, destroy before cutting a GPU
//! another way. A place of a better tier wins whatever a policy says. Of one tier, what the pod's owner prefers comes before what the
//! policy prefers.

use serde::{Deserialize, Serialize};

use crate::{policy::SCORE_MAX, state::Gpu};

/// The rank of a place; lower is better.
pub type Tier = u8;

/// Nothing has to be made.
pub(super) const READY: Tier = 0;
/// A partition is made on free slots, or a share of free memory.
pub(super) const MADE: Tier = 1;
/// Warm partitions have to go.
pub(super) const DESTROYS: Tier = 2;
/// An idle GPU is cut another way.
pub(super) const RECUTS: Tier = 3;
/// An idle GPU is cut another way, at the cost of warm partitions.
pub(super) const RECUTS_WARM: Tier = 4;

/// Whether warm partitions go before free slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reuse {
    /// They do: a pod that finds one starts at once.
    #[default]
    First,
    /// They count as free slots: the policy alone decides, and packs as if every partition were made anew.
    Free,
}

impl Reuse {
    /// The tier that counts.
    #[must_use]
    pub fn rank(self, tier: Tier) -> Tier {
        match (self, tier) {
            (Self::Free, READY..=DESTROYS) => READY,
            _ => tier,
        }
    }
}

/// How much what a pod's owner prefers may weigh: sums beyond count as this.
const PREFERENCE_MAX: i64 = 1 << 29;
/// From one unit of preference to the next there is room for every score.
const SCORES: i64 = 2 * SCORE_MAX as i64 + 1;
/// From one tier to the next there is room for every preference: one of the node, and one of what runs around it.
const PREFERENCES: i64 = 4 * PREFERENCE_MAX + 1;

/// A policy's score with the tier and the preference for the node before it: any score of a better tier is larger, and of one tier any score
/// of a node that the pod's owner prefers.
#[must_use]
pub(super) fn key(tier: Tier, preference: i64, score: i32) -> i64 {
    prefer(i64::from(score) - i64::from(tier) * PREFERENCES * SCORES, preference)
}

/// The same key for a node that is preferred so much more.
#[must_use]
pub(super) fn prefer(key: i64, preference: i64) -> i64 {
    key + preference.clamp(-PREFERENCE_MAX, PREFERENCE_MAX) * SCORES
}

/// Of partitions asked for by their kind: how many are made, how many warm ones go, whether the GPU is cut another way.
#[must_use]
pub(super) fn of_partition(made: u32, destroyed: u32, recuts: bool) -> Tier {
    match (made, destroyed, recuts) {
        (_, 0, true) => RECUTS,
        (_, _, true) => RECUTS_WARM,
        (_, 1.., false) => DESTROYS,
        (0, ..) => READY,
        _ => MADE,
    }
}

/// Of a part of a GPU that may come from any kind. Cutting an idle GPU another way is making here: else a whole GPU would be taken for a
/// tenth of one, because it needs no cut.
#[must_use]
pub(super) fn of_any(made: u32, destroyed: u32) -> Tier {
    of_partition(made, destroyed, false)
}

/// Of a whole GPU or a time-sliced share.
#[must_use]
pub(super) fn of_share(gpu: &Gpu, recuts: bool) -> Tier {
    if recuts { of_partition(1, gpu.warm(), true) } else { READY }
}
