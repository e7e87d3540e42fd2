//! Numbers for nodes and pods, as the core wants them: dense, the lowest free one first, reused only after the thing is gone.

use std::collections::BTreeSet;

/// Gives out numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    free: BTreeSet<u32>,
    next: u32,
}

impl Ids {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    pub(super) fn give_back(&mut self, id: u32) {
        self.free.insert(id);
    }

    /// How many are given out.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.next as usize - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_comes_first() {
        let mut ids = Ids::default();
        assert_eq!([ids.take(), ids.take(), ids.take()], [0, 1, 2]);
        ids.give_back(1);
        ids.give_back(0);
        assert_eq!([ids.take(), ids.take(), ids.take()], [0, 1, 3]);
    }
}
