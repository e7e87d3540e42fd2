//! What a node has of other resources than cpu, memory and GPUs, and which of its ports are taken.

use crate::state::limits::{Limits, Port};

/// Other resources and ports of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stock {
    /// By the number of the resource's name, sorted. What the node does not list it has nothing of.
    shelves: Vec<Shelf>,
    /// Ports in use, sorted.
    ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shelf {
    resource: u32,
    all: u64,
    used: u64,
}

impl Stock {
    /// What the node has in all. What is used of it stays used.
    pub(in crate::state) fn refill(&mut self, amounts: &[(u32, u64)]) {
        for shelf in &mut self.shelves {
            shelf.all = 0;
        }
        for &(resource, all) in amounts {
            match self.shelves.binary_search_by_key(&resource, |shelf| shelf.resource) {
                Ok(row) => self.shelves[row].all = all,
                Err(row) => self.shelves.insert(row, Shelf { resource, all, used: 0 }),
            }
        }
        self.shelves.retain(|shelf| shelf.all > 0 || shelf.used > 0);
    }

    /// The same node with nothing in use.
    pub(crate) fn idle(&self) -> Self {
        Self { shelves: self.shelves.iter().map(|shelf| Shelf { used: 0, ..*shelf }).collect(), ports: Vec::new() }
    }

    fn row(&self, resource: u32) -> Option<usize> {
        self.shelves.binary_search_by_key(&resource, |shelf| shelf.resource).ok()
    }

    /// What is left of a resource.
    pub(crate) fn free(&self, resource: u32) -> u64 {
        self.row(resource).map_or(0, |row| self.shelves[row].all.saturating_sub(self.shelves[row].used))
    }

    /// Whether there is enough of every resource, and every port is free.
    pub(crate) fn holds(&self, limits: &Limits) -> bool {
        limits.extra.iter().all(|&(resource, amount)| self.free(resource) >= amount) && !self.conflicts(limits)
    }

    /// Whether one of the ports is taken.
    pub(crate) fn conflicts(&self, limits: &Limits) -> bool {
        limits.ports.iter().any(|port| self.ports.iter().any(|other| port.conflicts(*other)))
    }

    /// How often the amounts and ports can be taken, up to [`u32::MAX`] times.
    pub(in crate::state) fn copies(&self, limits: &Limits) -> u32 {
        let by = |&(resource, amount): &(u32, u64)| self.free(resource) / amount.max(1);
        let amounts = limits.extra.iter().map(by).min().unwrap_or(u64::MAX);
        let ports = if limits.ports.is_empty() { u32::MAX } else { u32::from(!self.conflicts(limits)) };
        u32::try_from(amounts).unwrap_or(u32::MAX).min(ports)
    }

    /// Takes the amounts and ports; none, and nothing taken, if they are not there.
    pub(in crate::state) fn take(&mut self, limits: &Limits) -> Option<()> {
        if !self.holds(limits) {
            return None;
        }
        for &(resource, amount) in &limits.extra {
            if let Some(row) = self.row(resource) {
                self.shelves[row].used += amount;
            }
        }
        self.add_ports(limits);
        Some(())
    }

    /// Books amounts and ports that are in use whether they are there or not.
    pub(in crate::state) fn book(&mut self, limits: &Limits) {
        for &(resource, amount) in &limits.extra {
            match self.shelves.binary_search_by_key(&resource, |shelf| shelf.resource) {
                Ok(row) => self.shelves[row].used = self.shelves[row].used.saturating_add(amount),
                Err(row) => self.shelves.insert(row, Shelf { resource, all: 0, used: amount }),
            }
        }
        self.add_ports(limits);
    }

    fn add_ports(&mut self, limits: &Limits) {
        for port in &limits.ports {
            let row = self.ports.partition_point(|other| other < port);
            self.ports.insert(row, *port);
        }
    }

    pub(in crate::state) fn give_back(&mut self, limits: &Limits) {
        for &(resource, amount) in &limits.extra {
            if let Some(row) = self.row(resource) {
                self.shelves[row].used = self.shelves[row].used.saturating_sub(amount);
            }
        }
        for port in &limits.ports {
            if let Ok(row) = self.ports.binary_search(port) {
                self.ports.remove(row);
            }
        }
    }
}
