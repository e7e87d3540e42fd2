//! A small set of rows.

/// Row numbers, sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(Vec<usize>);

impl Set {
    pub(super) fn of(rows: impl IntoIterator<Item = usize>) -> Self {
        let mut rows: Vec<usize> = rows.into_iter().collect();
        rows.sort_unstable();
        rows.dedup();
        Self(rows)
    }

    pub(super) fn has(&self, row: usize) -> bool {
        self.0.binary_search(&row).is_ok()
    }

    pub(super) fn add(&mut self, row: usize) {
        if let Err(place) = self.0.binary_search(&row) {
            self.0.insert(place, row);
        }
    }

    pub(super) fn remove(&mut self, row: usize) {
        if let Ok(place) = self.0.binary_search(&row) {
            self.0.remove(place);
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }
}
