//! Which nodes changed, in order, so that a reader who was here before learns only of the changes since.

use crate::model::NodeId;

/// Entries kept beyond which the older half is forgotten: at 8 bytes an entry half a MiB, and some seconds of changes at full speed. A
/// reader that fell further behind looks at every node, which at this size costs about as much as reading the entries.
const KEPT_MAX: usize = 65_536;

/// A log of node changes with a bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    entries: Vec<NodeId>,
    /// Position of the first entry kept.
    base: u64,
}

impl Journal {
    /// The position after the last change; a reader keeps it and comes back with it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The changes since `position`, oldest first and possibly with repeats; none if they are forgotten and every node must be looked at.
    #[must_use]
    pub fn since(&self, position: u64) -> Option<&[NodeId]> {
        let skip = position.checked_sub(self.base)?;
        self.entries.get(usize::try_from(skip).ok()?..)
    }

    pub(crate) fn changed(&mut self, node: NodeId) {
        if self.entries.len() == KEPT_MAX {
            self.entries.drain(..KEPT_MAX / 2);
            self.base += (KEPT_MAX / 2) as u64;
        }
        self.entries.push(node);
    }

    /// Makes every reader look at all `nodes` again.
    pub(crate) fn reset(&mut self, nodes: usize) {
        self.base += (self.entries.len() + nodes) as u64 + 1;
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_learns_what_changed_or_that_it_must_look_at_everything() {
        let mut journal = Journal::default();
        let start = journal.position();
        journal.changed(NodeId(3));
        journal.changed(NodeId(5));
        assert_eq!(journal.since(start), Some(&[NodeId(3), NodeId(5)][..]));
        let here = journal.position();
        assert_eq!(journal.since(here), Some(&[][..]));
        for _ in 0..=KEPT_MAX {
            journal.changed(NodeId(1));
        }
        assert_eq!(journal.since(start), None);
        let late = journal.position();
        journal.reset(8);
        assert_eq!(journal.since(late), None);
        assert_eq!(journal.since(journal.position()), Some(&[][..]));
    }
}
