//! Counters of one revision.

use partita_core::policy::Cause;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// What happened to the questions of one revision so far.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Questions.
    pub calls: u64,
    /// Questions that it answered usably.
    pub answered: u64,
    /// Questions without a usable answer, by cause; [`Cause::Quarantined`] counts decisions, whose questions were then not put.
    pub faults: Faults,
    /// Answers that the core refused as a whole; they are among `answered` and among `faults`.
    pub refused: u64,
    /// Fuel of all calls together; 0 for a native policy.
    pub fuel: u64,
    /// Fuel of the most expensive call.
    pub fuel_max: u64,
    /// Calls that were repeated on a fresh instance to see whether the policy is pure.
    pub repeated: u64,
    /// Instances started.
    pub instances: u64,
    /// Most bytes of linear memory that an instance had.
    pub memory_max: usize,
    /// Log lines written.
    pub log_lines: u64,
    /// Log lines dropped because there were too many.
    pub log_dropped: u64,
    /// Decisions that it is still turned away from after consecutive failures.
    pub resting: u64,
    /// Why it is switched off for good, if it is.
    pub quarantined: Option<String>,
}

/// A counter for each [`Cause`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults([u64; Cause::ALL.len()]);

impl Faults {
    /// One more of `cause`.
    pub(crate) fn add(&mut self, cause: Cause) {
        self.0[index(cause)] += 1;
    }

    /// How many of `cause`.
    #[must_use]
    pub fn get(&self, cause: Cause) -> u64 {
        self.0[index(cause)]
    }

    /// Every cause and its count, in the order of [`Cause::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().map(|cause| (cause, self.get(cause)))
    }
}

/// Place of `cause` in [`Cause::ALL`].
fn index(cause: Cause) -> usize {
    Cause::ALL.iter().position(|other| *other == cause).unwrap_or_default()
}

impl Serialize for Faults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Cause::ALL.len()))?;
        for (cause, count) in self.iter() {
            map.serialize_entry(cause.name(), &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_apart_and_written_by_name() {
        let mut faults = Faults::default();
        for (count, cause) in Cause::ALL.into_iter().enumerate() {
            for _ in 0..count {
                faults.add(cause);
            }
        }
        let json = serde_json::to_value(faults).unwrap();
        assert_eq!(json["declined"], 0);
        assert_eq!(json["fuel"], 2);
        assert_eq!(json["quarantined"], 8);
    }
}
