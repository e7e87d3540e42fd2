//! What a pod asks for beside GPUs: cpu, memory, other resources, ports.

use crate::state::{Entry, Room};

/// What a demand asks for beside GPUs, in rows: cpu, memory, and then each other resource.
pub(super) struct Needs<'e>(pub(super) &'e Entry);

impl Needs<'_> {
    fn extra(&self) -> &[(u32, u64)] {
        self.0.limits.as_ref().map_or(&[], |limits| &limits.extra)
    }

    /// How much a room lacks in each row.
    pub(super) fn lacking(&self, room: &Room) -> Vec<u64> {
        let demand = &self.0.demand;
        let plain = [demand.cpu_milli.saturating_sub(room.cpu_free), demand.memory_mib.saturating_sub(room.memory_free)];
        let extra = self.extra().iter().map(|&(resource, amount)| amount.saturating_sub(room.stock.free(resource)));
        plain.map(u64::from).into_iter().chain(extra).collect()
    }

    /// How much another demand asks for in one row.
    pub(super) fn of(&self, other: &Entry, row: usize) -> u64 {
        match row {
            0 => other.demand.cpu_milli.into(),
            1 => other.demand.memory_mib.into(),
            _ => other.limits.as_ref().map_or(0, |limits| limits.amount(self.extra()[row - 2].0)),
        }
    }

    /// Whether another demand asks for a port that this one asks for, too.
    pub(super) fn conflicts(&self, other: &Entry) -> bool {
        let both = self.0.limits.as_ref().zip(other.limits.as_ref());
        both.is_some_and(|(own, other)| own.ports.iter().any(|port| other.ports.iter().any(|taken| port.conflicts(*taken))))
    }
}
