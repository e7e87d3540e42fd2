//! Pods that wait: higher priority first, then the older.
//!
//! Pods of one priority and demand form a lane, because they stand or fall together: when the first cannot be placed, neither can the
//! others until the cluster changes. A round therefore costs what it places plus the number of lanes, not the number of waiting pods.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::model::{DemandId, PodId};

/// Identifies a lane; sorts by priority, highest first.
pub type LaneKey = (Reverse<i32>, DemandId);

/// Waiting pods in lanes.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// In each lane: order of arrival → pod.
    lanes: BTreeMap<LaneKey, BTreeMap<u64, PodId>>,
    /// Lane and order of arrival of each waiting pod.
    places: BTreeMap<PodId, (LaneKey, u64)>,
    arrivals: u64,
}

impl Queue {
    /// Lets a pod wait, behind all of its priority.
    pub fn push(&mut self, pod: PodId, priority: i32, demand: DemandId) {
        let lane = (Reverse(priority), demand);
        self.arrivals += 1;
        self.places.insert(pod, (lane, self.arrivals));
        self.lanes.entry(lane).or_default().insert(self.arrivals, pod);
    }

    /// Puts a waiting pod into the lane of another demand, in the order of its arrival.
    pub fn relane(&mut self, pod: PodId, demand: DemandId) {
        let Some(&((priority, _), arrival)) = self.places.get(&pod) else { return };
        self.remove(pod);
        self.places.insert(pod, ((priority, demand), arrival));
        self.lanes.entry((priority, demand)).or_default().insert(arrival, pod);
    }

    /// Takes a pod out. False if it did not wait.
    pub fn remove(&mut self, pod: PodId) -> bool {
        let Some((lane, arrival)) = self.places.remove(&pod) else { return false };
        if let Some(pods) = self.lanes.get_mut(&lane) {
            pods.remove(&arrival);
            if pods.is_empty() {
                self.lanes.remove(&lane);
            }
        }
        true
    }

    /// The first pod of a lane with its order of arrival.
    #[must_use]
    pub fn head(&self, lane: LaneKey) -> Option<(u64, PodId)> {
        self.lanes.get(&lane)?.first_key_value().map(|(&arrival, &pod)| (arrival, pod))
    }

    /// All lanes, highest priority first.
    pub fn lanes(&self) -> impl Iterator<Item = LaneKey> {
        self.lanes.keys().copied()
    }

    /// Pods of a lane, oldest first.
    pub fn pods(&self, lane: LaneKey) -> impl Iterator<Item = PodId> {
        self.lanes.get(&lane).into_iter().flat_map(|pods| pods.values().copied())
    }

    /// How many pods wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no pod waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
