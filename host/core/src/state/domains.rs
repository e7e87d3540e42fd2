//! Domains: the nodes that have one value of a label. Each label that somebody's constraints go by has a column, in which every node has the
//! number of its domain, so that counting by domain is array work.

use std::collections::BTreeMap;

use super::{Node, limits::Marks};
use crate::model::NodeId;

/// A label of nodes that says what is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TopologyId(u32);

impl TopologyId {
    pub(super) const FIRST: Self = Self(0);
}

/// A node without the label.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug, Default)]
struct Column {
    /// The number of the label's key.
    key: u32,
    /// The domain of each node.
    of_node: Vec<u32>,
    /// The domain by the number of the label's value.
    values: BTreeMap<u32, u32>,
    /// The value of each domain, and how many nodes it has.
    domains: Vec<(u32, u32)>,
    /// Domains without nodes, whose numbers others may have.
    free: Vec<u32>,
}

impl Column {
    fn set(&mut self, row: usize, value: Option<u32>) {
        if self.of_node.len() <= row {
            self.of_node.resize(row + 1, NONE);
        }
        let old = std::mem::replace(&mut self.of_node[row], NONE);
        if let Some(value) = value {
            let domain = self.domain_of(value);
            self.domains[domain as usize].1 += 1;
            self.of_node[row] = domain;
        }
        if old != NONE {
            let (value, nodes) = &mut self.domains[old as usize];
            *nodes -= 1;
            if *nodes == 0 {
                self.values.remove(value);
                self.free.push(old);
            }
        }
    }

    fn domain_of(&mut self, value: u32) -> u32 {
        if let Some(&domain) = self.values.get(&value) {
            return domain;
        }
        let domain = self.free.pop().unwrap_or_else(|| {
            self.domains.push((value, 0));
            self.domains.len() as u32 - 1
        });
        self.domains[domain as usize] = (value, 0);
        self.values.insert(value, domain);
        domain
    }
}

/// The domains of all nodes, by every label that somebody goes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    columns: Vec<Column>,
    /// Columns that nodes were entered into.
    filled: usize,
    ids: BTreeMap<u32, TopologyId>,
}

impl Domains {
    /// The column of a label by the number of its key. A new one is empty until [`Domains::fill`].
    pub(super) fn topology(&mut self, key: u32) -> TopologyId {
        let columns = &mut self.columns;
        *self.ids.entry(key).or_insert_with(|| {
            columns.push(Column { key, ..Column::default() });
            TopologyId(columns.len() as u32 - 1)
        })
    }

    /// Enters all nodes into new columns.
    pub(super) fn fill(&mut self, nodes: &[Option<Node>]) {
        for column in &mut self.columns[self.filled..] {
            for (row, node) in nodes.iter().enumerate() {
                column.set(row, node.as_ref().and_then(|node| node.marks.label(column.key)));
            }
        }
        self.filled = self.columns.len();
    }

    /// A node has these labels now, or is gone.
    pub(super) fn enter(&mut self, node: NodeId, marks: Option<&Marks>) {
        for column in &mut self.columns[..self.filled] {
            column.set(node.index(), marks.and_then(|marks| marks.label(column.key)));
        }
    }

    /// The domain of a node; none if it does not have the label.
    pub(crate) fn of(&self, topology: TopologyId, node: NodeId) -> Option<usize> {
        let domain = self.columns[topology.0 as usize].of_node.get(node.index())?;
        (*domain != NONE).then_some(*domain as usize)
    }

    /// One more than the largest number of a domain.
    pub(crate) fn width(&self, topology: TopologyId) -> usize {
        self.columns[topology.0 as usize].domains.len()
    }
}
