//! One GPU: a share count or a MIG layout.

use crate::model::{Cut, Grid, MILLI, ModelId, Placement, PodId, SlotMask};

/// A partition that exists on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Where it lies.
    pub placement: Placement,
    /// Who uses it; none for a warm partition.
    pub user: Option<PodId>,
}

/// What is taken of one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Shares: the milli-GPU left.
    Shares {
        /// Free, 0 to 1000.
        free: u32,
    },
    /// MIG: the partitions that exist, in order of their first slot.
    Mig {
        /// Partitions, in use and warm.
        partitions: Vec<Partition>,
        /// Slots of partitions in use.
        used: SlotMask,
        /// Slots of warm partitions.
        warm: SlotMask,
    },
}

/// One GPU of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its model.
    pub model: ModelId,
    /// What is taken of it.
    pub layout: Layout,
}

impl Gpu {
    /// An idle GPU.
    #[must_use]
    pub fn idle(model: ModelId, cut: Cut) -> Self {
        let layout = match cut {
            Cut::Shares => Layout::Shares { free: MILLI },
            Cut::Mig => Layout::Mig { partitions: Vec::new(), used: SlotMask::EMPTY, warm: SlotMask::EMPTY },
        };
        Self { model, layout }
    }

    /// Free share in milli-GPU. On a MIG GPU that is the share of slots without a user; `slots` is the size of its grid.
    #[must_use]
    pub fn free_milli(&self, slots: u32) -> u32 {
        match &self.layout {
            Layout::Shares { free } => *free,
            Layout::Mig { used, .. } => MILLI - (used.len() * MILLI).div_ceil(slots.max(1)).min(MILLI),
        }
    }

    /// Free share for a pod that asks for shares: nothing on a MIG GPU.
    #[must_use]
    pub fn share_free(&self) -> u32 {
        match self.layout {
            Layout::Shares { free } => free,
            Layout::Mig { .. } => 0,
        }
    }

    /// Whether a partition could be made at `placement` without touching one in use. Warm partitions in the way do not count.
    #[must_use]
    pub fn admits(&self, grid: &Grid, placement: Placement) -> bool {
        let Layout::Mig { partitions, used, .. } = &self.layout else { return false };
        if grid.slots_of(placement).overlaps(*used) {
            return false;
        }
        let users: Vec<Placement> = partitions.iter().filter(|one| one.user.is_some()).map(|one| one.placement).collect();
        grid.admits(&users, placement)
    }

    /// Gives the partition at `placement` to `pod`, made anew or warm, and returns the warm partitions that had to go: those that
    /// overlap it, and those that would break the grid's limits beside it.
    pub(crate) fn occupy(&mut self, grid: &Grid, placement: Placement, pod: PodId) -> Vec<Placement> {
        let mut destroyed = Vec::new();
        if let Layout::Mig { partitions, .. } = &mut self.layout {
            let mut kept = vec![Partition { placement, user: Some(pod) }];
            // Users first, then warm ones as long as they fit beside everything kept so far.
            kept.extend(partitions.iter().filter(|one| one.user.is_some()));
            for warm in partitions.iter().filter(|one| one.user.is_none() && one.placement != placement) {
                let beside: Vec<Placement> = kept.iter().map(|one| one.placement).collect();
                if grid.admits(&beside, warm.placement) {
                    kept.push(*warm);
                } else {
                    destroyed.push(warm.placement);
                }
            }
            *partitions = kept;
        }
        self.recount(grid);
        destroyed
    }

    /// Takes the partition at `placement` from its user; it stays warm. False if nobody used it.
    pub(crate) fn release(&mut self, grid: &Grid, placement: Placement, pod: PodId) -> bool {
        let Layout::Mig { partitions, .. } = &mut self.layout else { return false };
        let Some(one) = partitions.iter_mut().find(|one| one.placement == placement && one.user == Some(pod)) else { return false };
        one.user = None;
        self.recount(grid);
        true
    }

    fn recount(&mut self, grid: &Grid) {
        if let Layout::Mig { partitions, used, warm } = &mut self.layout {
            partitions.sort_unstable_by_key(|one| one.placement.start);
            (*used, *warm) = (SlotMask::EMPTY, SlotMask::EMPTY);
            for one in partitions {
                let mask = grid.slots_of(one.placement);
                match one.user {
                    Some(_) => *used = used.union(mask),
                    None => *warm = warm.union(mask),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog;

    #[test]
    fn a_warm_partition_is_reused_or_gives_way_but_a_used_one_never_does() {
        let grid = catalog::builtin("A100-80GB").unwrap().grid.unwrap();
        let row = |name: &str| grid.profiles.iter().position(|profile| profile.name == name).unwrap() as u8;
        let small = Placement { profile: row("1g.10gb"), start: 0 };
        let other = Placement { profile: row("1g.10gb"), start: 5 };
        let half = Placement { profile: row("3g.40gb"), start: 0 };
        let mut gpu = Gpu::idle(ModelId(0), Cut::Mig);

        assert!(gpu.occupy(&grid, small, PodId(1)).is_empty());
        assert!(gpu.occupy(&grid, other, PodId(2)).is_empty());
        assert!(!gpu.admits(&grid, half), "slot 0 is in use");
        assert!(!gpu.release(&grid, small, PodId(2)), "not its user");
        assert!(gpu.release(&grid, small, PodId(1)));
        assert!(gpu.admits(&grid, half) && gpu.admits(&grid, small));
        assert_eq!(gpu.free_milli(8), 875);

        let mut reused = gpu.clone();
        assert!(reused.occupy(&grid, small, PodId(3)).is_empty());
        assert_eq!(gpu.occupy(&grid, half, PodId(3)), [small]);
        assert!(!gpu.admits(&grid, small) && !gpu.admits(&grid, other));
    }
}
