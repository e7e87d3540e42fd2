//! A tournament over rows: who has the largest score, the lowest row winning ties. Each leaf is a row, each inner node the better of its
//! two children, so that one changed score costs log₂(rows) comparisons.

/// A score that loses against every real one: no place on this node.
const ABSENT: i64 = i64::MIN;

/// Scores of rows, with their maximum at hand.
#[derive(Clone, Debug, Default)]
pub(super) struct Tournament {
    /// Leaves start at `width`; the root is entry 1; entry 0 is unused.
    scores: Vec<i64>,
    width: usize,
}

impl Tournament {
    /// Makes room for `rows` rows; new rows are absent.
    pub(super) fn grow(&mut self, rows: usize) {
        let width = rows.next_power_of_two();
        if width <= self.width {
            return;
        }
        let mut scores = vec![ABSENT; 2 * width];
        scores[width..width + self.width].copy_from_slice(&self.scores[self.width..]);
        for entry in (1..width).rev() {
            scores[entry] = scores[2 * entry].max(scores[2 * entry + 1]);
        }
        (self.scores, self.width) = (scores, width);
    }

    /// Sets the score of a row, or takes the row out.
    pub(super) fn set(&mut self, row: usize, score: Option<i64>) {
        let mut entry = self.width + row;
        self.scores[entry] = score.unwrap_or(ABSENT);
        while entry > 1 {
            entry /= 2;
            let better = self.scores[2 * entry].max(self.scores[2 * entry + 1]);
            if self.scores[entry] == better {
                return;
            }
            self.scores[entry] = better;
        }
    }

    /// The rows with a score, in their order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, i64)> {
        let leaves = self.scores.iter().skip(self.width).copied().enumerate();
        leaves.filter(|&(_, score)| score != ABSENT)
    }

    /// The lowest row with the largest score.
    #[must_use]
    pub(super) fn best(&self) -> Option<(usize, i64)> {
        let best = *self.scores.get(1)?;
        if best == ABSENT {
            return None;
        }
        let mut entry = 1;
        while entry < self.width {
            entry = if self.scores[2 * entry] == best { 2 * entry } else { 2 * entry + 1 };
        }
        Some((entry - self.width, best))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_linear_search(sets in prop::collection::vec((0usize..40, prop::option::of(-5i64..5)), 0..200)) {
            let mut tournament = Tournament::default();
            let mut rows: Vec<Option<i64>> = Vec::new();
            for (row, score) in sets {
                if rows.len() <= row {
                    rows.resize(row + 1, None);
                    tournament.grow(rows.len());
                }
                rows[row] = score;
                tournament.set(row, score);
                let best = rows.iter().flatten().max();
                let expected = best.map(|best| (rows.iter().position(|score| score.as_ref() == Some(best)).unwrap(), *best));
                prop_assert_eq!(tournament.best(), expected);
            }
        }
    }
}
