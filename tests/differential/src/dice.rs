//! Random choices that a number repeats.

use serde_json::Value;

/// A sequence of random choices; equal seeds give equal sequences.
#[derive(Debug)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// True in `some` of `all` cases.
    pub(crate) fn chance(&mut self, some: u32, all: u32) -> bool {
        self.0.u32(..all) < some
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn number(&mut self, low: u32, high: u32) -> u32 {
        self.0.u32(low..=high)
    }

    /// One of some; one that is listed twice is twice as likely.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.usize(..values.len())]
    }

    /// `low` to `high` of some, each at most once, in their order.
    pub(crate) fn several<'v>(&mut self, values: &[&'v str], low: u32, high: u32) -> Vec<&'v str> {
        let count = self.number(low, high) as usize;
        let mut rows: Vec<usize> = (0..values.len()).collect();
        self.0.shuffle(&mut rows);
        rows.truncate(count);
        rows.sort_unstable();
        rows.into_iter().map(|row| values[row]).collect()
    }

    /// So many times what `draw` gives.
    pub(crate) fn list(&mut self, low: u32, high: u32, mut draw: impl FnMut(&mut Self) -> Value) -> Vec<Value> {
        (0..self.number(low, high)).map(|_| draw(self)).collect()
    }
}

/// Enters `value` into a JSON object.
pub(crate) fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    object[key] = value.into();
}
