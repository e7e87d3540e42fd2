//! What a run is measured by.

use std::collections::BTreeMap;

use serde::Serialize;

/// The most points of a series: more than a chart has pixels to show.
pub const POINTS_MAX: usize = 600;

/// How long pods waited, seconds. A pod that still waits at the end counts with what it waited so far, so that starving one pays nobody;
/// one that no node could take even when idle is left out, since no policy can help it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    /// Pods counted.
    pub pods: usize,
    /// Mean.
    pub mean_s: f64,
    /// Median.
    pub p50_s: f64,
    /// 99th percentile.
    pub p99_s: f64,
    /// Longest.
    pub max_s: f64,
}

impl Waits {
    /// Of waits in milliseconds.
    #[must_use]
    pub fn of(mut waits_ms: Vec<u64>) -> Self {
        waits_ms.sort_unstable();
        let sum: u128 = waits_ms.iter().map(|&wait| u128::from(wait)).sum();
        Self {
            pods: waits_ms.len(),
            mean_s: if waits_ms.is_empty() { 0.0 } else { sum as f64 / waits_ms.len() as f64 / 1e3 },
            p50_s: percentile(&waits_ms, 50) as f64 / 1e3,
            p99_s: percentile(&waits_ms, 99) as f64 / 1e3,
            max_s: percentile(&waits_ms, 100) as f64 / 1e3,
        }
    }
}

/// The nearest-rank percentile of sorted numbers; 0 of none.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The state of the cluster over virtual time, as means over at most [`POINTS_MAX`] equal intervals.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Series {
    /// End of each interval, seconds.
    pub time_s: Vec<f64>,
    /// Allocated GPU, percent.
    pub allocated: Vec<f64>,
    /// Free GPU that the expected mix cannot use, percent of what is free.
    pub fragmentation: Vec<f64>,
    /// Pods that wait.
    pub waiting: Vec<f64>,
}

/// The state of the cluster from a moment on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub(crate) at_ms: u64,
    pub(crate) allocated: f64,
    pub(crate) fragmentation: f64,
    pub(crate) waiting: usize,
}

impl State {
    fn columns(self) -> [f64; 3] {
        [self.allocated, self.fragmentation, self.waiting as f64]
    }
}

/// Means of allocated %, fragmentation % and waiting pods between two moments; of no time, the last state.
pub(crate) fn means(states: &[State], from_ms: u64, to_ms: u64) -> [f64; 3] {
    let first = states.partition_point(|state| state.at_ms <= from_ms).saturating_sub(1);
    let mut sums = [0.0; 3];
    let mut last = [0.0; 3];
    for (row, state) in states.iter().enumerate().skip(first) {
        if state.at_ms > to_ms {
            break;
        }
        let start = state.at_ms.max(from_ms);
        let end = states.get(row + 1).map_or(to_ms, |next| next.at_ms.min(to_ms));
        last = state.columns();
        for (sum, value) in sums.iter_mut().zip(last) {
            *sum += value * end.saturating_sub(start) as f64;
        }
    }
    if to_ms > from_ms { sums.map(|sum| sum / (to_ms - from_ms) as f64) } else { last }
}

/// The series from the first state to `end_ms`.
pub(crate) fn series(states: &[State], end_ms: u64) -> Series {
    let Some(start_ms) = states.first().map(|state| state.at_ms) else { return Series::default() };
    let span = end_ms.saturating_sub(start_ms);
    let points = (POINTS_MAX as u64).min(span).max(1);
    let edge = |point: u64| start_ms + (u128::from(span) * u128::from(point) / u128::from(points)) as u64;
    let mut series = Series::default();
    let mut rest = states;
    for point in 0..points {
        let (from, to) = (edge(point), edge(point + 1));
        // Drop what ended before, so that all intervals together read each state once or twice.
        rest = &rest[rest.partition_point(|state| state.at_ms <= from).saturating_sub(1)..];
        let [allocated, fragmentation, waiting] = means(rest, from, to).map(|value| (value * 1e3).round() / 1e3);
        series.time_s.push(to as f64 / 1e3);
        series.allocated.push(allocated);
        series.fragmentation.push(fragmentation);
        series.waiting.push(waiting);
    }
    series
}

/// Pods that share a reason for not having been placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unplaced {
    /// What the nearest node lacked: `gpu`, `shape`, `cpu`, … (see `partita_core::explain::Shortage`).
    pub short: String,
    /// True if no node could have taken the pod even when idle.
    pub never: bool,
    /// Pods.
    pub pods: usize,
    /// One of them, as namespace/name.
    pub example: String,
    /// The full reason of that one.
    pub reason: String,
}

/// Questions that a policy of the chain did not answer, by cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The cause, as in `partita_core::policy::Cause`.
    pub cause: String,
    /// How often.
    pub count: usize,
    /// What the policy's host said the first time.
    pub example: String,
}

/// What came of one policy's run. The same input, options and policy give the same result, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunResult {
    /// Pods that were placed.
    pub placed: usize,
    /// Pods dropped because they did not fit when they came.
    pub dropped: usize,
    /// Times that a pod was evicted for another; it then waits again.
    pub evicted: usize,
    /// Times that a pod was moved to make room.
    pub moved: usize,
    /// Pods placed of those that came after the warm-up, percent.
    pub accepted: f64,
    /// Pods that still wait at the end.
    pub pending: usize,
    /// Decisions taken: pods placed, and demands found to have no place.
    pub decisions: usize,
    /// Virtual time of the last event, seconds.
    pub end_s: f64,
    /// Mean allocated GPU over the time between the first and the last arrival, the warm-up left out, percent.
    pub allocated_mean: f64,
    /// Allocated GPU at the end, percent.
    pub allocated_end: f64,
    /// Mean fragmentation over the same time, percent of the free GPU.
    pub fragmentation_mean: f64,
    /// Fragmentation at the end, percent of the free GPU.
    pub fragmentation_end: f64,
    /// Waits of all pods that were not dropped.
    pub waits: Waits,
    /// The same by namespace.
    pub waits_by_namespace: BTreeMap<String, Waits>,
    /// The cluster over time.
    pub series: Series,
    /// Mean allocated percentage at each whole percentage of the capacity asked for: (asked, allocated). Only where pods never leave
    /// and those that do not fit are dropped; else empty.
    pub allocation: Vec<(u64, f64)>,
    /// Why pods were not placed, the most frequent first.
    pub unplaced: Vec<Unplaced>,
    /// Why policies of the chain were passed over, by cause.
    pub failures: Vec<Failure>,
}

/// Wall-clock time of decisions, microseconds. It differs from run to run and machine to machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Median time of a decision.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
    /// All decisions together, seconds.
    pub decisions_s: f64,
    /// The whole run, with the simulator's own work, seconds.
    pub wall_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_summed_up_by_nearest_rank() {
        let waits = Waits::of((1..=100).rev().map(|second| second * 1000).collect());
        assert_eq!(waits, Waits { pods: 100, mean_s: 50.5, p50_s: 50.0, p99_s: 99.0, max_s: 100.0 });
        assert_eq!(Waits::of(Vec::new()), Waits::default());
        assert_eq!(Waits::of(vec![7]), Waits { pods: 1, mean_s: 0.007, p50_s: 0.007, p99_s: 0.007, max_s: 0.007 });
    }

    fn state(at_ms: u64, waiting: usize) -> State {
        State { at_ms, allocated: waiting as f64 * 10.0, fragmentation: 1.0, waiting }
    }

    #[test]
    fn means_weigh_states_by_how_long_they_lasted() {
        let states = [state(0, 0), state(1000, 4), state(3000, 1)];
        let shown = |from, to| format!("{:?}", means(&states, from, to));
        assert_eq!(shown(0, 4000), "[22.5, 1.0, 2.25]");
        assert_eq!(shown(2000, 4000), "[25.0, 1.0, 2.5]");
        assert_eq!(shown(3000, 3000), "[10.0, 1.0, 1.0]");
    }

    #[test]
    fn a_series_keeps_the_mean_and_has_a_bounded_length() {
        let states: Vec<State> = (0..10_000).map(|second| state(second * 1000, (second % 7) as usize)).collect();
        let series = series(&states, 10_000_000);
        assert_eq!(series.time_s.len(), POINTS_MAX);
        assert_eq!(series.time_s.last(), Some(&10_000.0));
        let mean = series.waiting.iter().sum::<f64>() / POINTS_MAX as f64;
        assert!((mean - means(&states, 0, 10_000_000)[2]).abs() < 1e-3, "{mean}");
        assert_eq!(super::series(&states[..1], 0).waiting, [0.0]);
        assert_eq!(super::series(&[], 0), Series::default());
    }
}
