//! The virtual clock: arrivals and departures in order of time, decided by the core.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use partita_core::{
    Action, Config, Faults, Planner,
    model::{DemandId, NodeId, PodId, PodSpec},
    policy::{Cause, Partitioner},
    state::{Event, Grant},
};

use crate::{
    Contender, Options, SimError, Tidy, Unplaceable,
    cluster::Cluster,
    ledger::Ledger,
    metrics::{self, Failure, RunResult, State, Timing, Unplaced, Waits},
    openb::{self, Step},
    workload::{Workload, seconds},
};

/// How many events pass between two calls of the progress function.
const PROGRESS_EVERY: usize = 256;

/// Rounds at one instant, beyond one for each pod, after which the planner is taken to chase its own tail. Each round but the last one
/// evicts or moves somebody for a pod of higher priority, so it comes to rest long before.
const ROUNDS_MORE: usize = 100;

/// Plays `workload` on `cluster` with one contender's chain of policies.
pub(crate) fn run(
    cluster: &Cluster,
    workload: &Workload,
    options: &Options,
    contender: &mut Contender<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<(RunResult, Timing), SimError> {
    let started = Instant::now();
    let mut engine = Engine::new(cluster, workload, options)?;
    engine.play(&mut contender.chain, progress)?;
    let mut timing = engine.latency.timing();
    let result = engine.finish();
    timing.wall_s = started.elapsed().as_secs_f64();
    Ok((result, timing))
}

/// A pod that runs: where, and what it uses.
struct Running {
    node: NodeId,
    grant: Grant,
}

struct Engine<'a> {
    cluster: &'a Cluster,
    workload: &'a Workload,
    drops: bool,
    warm_up: usize,
    /// Pods placed of those that came after the warm-up.
    accepted: usize,
    planner: Planner,
    ledger: Ledger<'a>,
    now_ms: u64,
    tidy: Option<Tidy>,
    /// When pods are moved next to tidy up.
    tidy_at_ms: Option<u64>,
    /// Arrivals that have come; also the number of the next pod.
    come: usize,
    /// When a pod ends, and which of its starts that is about.
    departures: BinaryHeap<Reverse<(u64, PodId, u32)>>,
    /// How often each pod was stopped and started again.
    starts: Vec<u32>,
    running: Vec<Option<Running>>,
    waits_ms: Vec<Option<u64>>,
    states: Vec<State>,
    steps: Vec<Step>,
    requested: u64,
    reasons: Reasons,
    failures: BTreeMap<Cause, Failure>,
    latency: Latency,
    result: RunResult,
}

impl<'a> Engine<'a> {
    fn new(cluster: &'a Cluster, workload: &'a Workload, options: &Options) -> Result<Self, SimError> {
        let mut planner = Planner::new(Config { seed: options.seed, ..options.planner });
        for model in &cluster.models {
            planner.apply(Event::ModelSeen(model.clone()))?;
        }
        for (row, node) in cluster.nodes.iter().enumerate() {
            planner.apply(Event::NodeAdded(NodeId::new(row), node.clone()))?;
        }
        planner.apply(Event::MixChanged(workload.mix.clone()))?;
        let pods = workload.arrivals.len();
        Ok(Self {
            cluster,
            workload,
            drops: options.unplaceable == Unplaceable::Drop,
            warm_up: options.warm_up,
            accepted: 0,
            planner,
            ledger: Ledger::new(cluster, &workload.mix),
            now_ms: 0,
            tidy: options.tidy,
            tidy_at_ms: options.tidy.map(|tidy| tidy.every_ms.max(1)),
            come: 0,
            departures: BinaryHeap::new(),
            running: std::iter::repeat_with(|| None).take(pods).collect(),
            starts: vec![0; pods],
            waits_ms: vec![None; pods],
            states: Vec::new(),
            steps: Vec::new(),
            requested: 0,
            reasons: Reasons::default(),
            failures: BTreeMap::new(),
            latency: Latency::default(),
            result: RunResult::default(),
        })
    }

    fn play(&mut self, chain: &mut [&mut dyn Partitioner], progress: &mut dyn FnMut(usize)) -> Result<(), SimError> {
        let mut told = 0;
        while let Some(at_ms) = self.next_event() {
            self.now_ms = at_ms;
            self.depart()?;
            self.tidy(chain)?;
            if self.drops {
                // One at a time, as in the paper: a pod that does not fit now is gone before the next comes.
                while self.arrive()? {
                    self.decide(chain)?;
                    self.drop_waiting()?;
                    self.record();
                }
            } else {
                while self.arrive()? {}
                self.decide(chain)?;
            }
            self.record();
            if self.come - told >= PROGRESS_EVERY {
                told = self.come;
                progress(told);
            }
        }
        progress(self.come);
        Ok(())
    }

    fn next_event(&self) -> Option<u64> {
        let arrival = self.workload.arrivals.get(self.come).map(|arrival| arrival.at_ms);
        let departure = self.departures.peek().map(|Reverse((at_ms, ..))| *at_ms);
        let next = arrival.into_iter().chain(departure).min()?;
        Some(self.tidy_at_ms.map_or(next, |at_ms| at_ms.min(next)))
    }

    fn pod(&self, id: PodId) -> &'a PodSpec {
        &self.workload.pods[self.workload.arrivals[id.index()].row as usize]
    }

    /// Takes away the pods that end now.
    fn depart(&mut self) -> Result<(), SimError> {
        while let Some(&Reverse((at_ms, id, start))) = self.departures.peek() {
            if at_ms > self.now_ms {
                break;
            }
            self.departures.pop();
            if self.starts[id.index()] == start {
                self.planner.apply(Event::PodRemoved(id))?;
                self.stop(id);
            }
        }
        Ok(())
    }

    /// Lets the next pod that comes now in. False if none does.
    fn arrive(&mut self) -> Result<bool, SimError> {
        let Some(arrival) = self.workload.arrivals.get(self.come) else { return Ok(false) };
        if arrival.at_ms > self.now_ms {
            return Ok(false);
        }
        let id = PodId::new(self.come);
        let spec = self.pod(id);
        self.requested += self.ledger.units(&spec.demand);
        self.come += 1;
        self.planner.apply(Event::PodAdded(id, spec.clone()))?;
        Ok(true)
    }

    /// Lets the planner decide until it has nothing more to do: who is told to stop stops at once.
    fn decide(&mut self, chain: &mut [&mut dyn Partitioner]) -> Result<(), SimError> {
        self.planner.apply(Event::Time(self.now_ms))?;
        let mut settled = false;
        let mut rounds = 0;
        while !settled && !self.planner.queue().is_empty() {
            rounds += 1;
            if rounds > self.workload.arrivals.len() + ROUNDS_MORE {
                return Err(SimError::Restless { at_s: seconds(self.now_ms), rounds });
            }
            let started = Instant::now();
            let plan = self.planner.round(chain);
            self.latency.add(started.elapsed(), plan.decisions);
            self.result.decisions += plan.decisions;
            for ((_, cause), faults) in plan.faults {
                self.fail(cause, faults);
            }
            settled = true;
            for action in plan.actions {
                settled &= !matches!(action, Action::Evict { .. } | Action::Move { .. });
                self.act(action)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), SimError> {
        match action {
            Action::Change { .. } => Ok(()),
            Action::Bind { pod, node, grant } => self.bind(pod, node, grant),
            Action::Evict { pod, .. } => self.evict(pod),
            Action::Move { pod, node, grant, .. } => {
                self.stop(pod);
                self.book(pod, node, &grant)?;
                self.running[pod.index()] = Some(Running { node, grant });
                self.result.moved += 1;
                Ok(self.planner.apply(Event::PodLeft(pod))?)
            }
        }
    }

    /// Stops a pod, which loses what it did and waits again.
    fn evict(&mut self, id: PodId) -> Result<(), SimError> {
        self.stop(id);
        self.result.evicted += 1;
        self.result.placed -= 1;
        self.accepted -= usize::from(id.index() >= self.warm_up);
        self.starts[id.index()] += 1;
        self.planner.apply(Event::PodRemoved(id))?;
        Ok(self.planner.apply(Event::PodAdded(id, self.pod(id).clone()))?)
    }

    /// Books decisions that a policy failed at.
    fn fail(&mut self, cause: Cause, faults: Faults) {
        let first = || Failure { cause: cause.name().into(), count: 0, example: faults.example };
        self.failures.entry(cause).or_insert_with(first).count += faults.count;
    }

    /// Moves pods to tidy up, if it is time to.
    fn tidy(&mut self, chain: &mut [&mut dyn Partitioner]) -> Result<(), SimError> {
        let (Some(tidy), Some(at_ms)) = (self.tidy, self.tidy_at_ms) else { return Ok(()) };
        if at_ms > self.now_ms {
            return Ok(());
        }
        self.tidy_at_ms = Some(at_ms + tidy.every_ms.max(1));
        self.planner.apply(Event::Time(self.now_ms))?;
        let plan = self.planner.consolidate(chain, tidy.moves);
        for ((_, cause), faults) in plan.faults {
            // A policy that moves nobody declines, which is no failure.
            if cause != Cause::Declined {
                self.fail(cause, faults);
            }
        }
        for action in plan.actions {
            self.act(action)?;
        }
        Ok(())
    }

    /// Takes a running pod off the books.
    fn stop(&mut self, id: PodId) {
        if let Some(running) = self.running[id.index()].take() {
            self.ledger.release(running.node.index(), &self.pod(id).demand, &running.grant);
        }
    }

    fn bind(&mut self, id: PodId, node: NodeId, grant: Grant) -> Result<(), SimError> {
        self.book(id, node, &grant)?;
        let arrival = &self.workload.arrivals[id.index()];
        self.result.placed += 1;
        self.accepted += usize::from(id.index() >= self.warm_up);
        self.waits_ms[id.index()].get_or_insert(self.now_ms - arrival.at_ms);
        self.running[id.index()] = Some(Running { node, grant });
        if let Some(lifetime_ms) = arrival.lifetime_ms {
            self.departures.push(Reverse((self.now_ms + lifetime_ms, id, self.starts[id.index()])));
        }
        Ok(())
    }

    /// Enters in the books what a pod uses.
    fn book(&mut self, id: PodId, node: NodeId, grant: &Grant) -> Result<(), SimError> {
        let spec = self.pod(id);
        self.ledger.bind(node.index(), &spec.demand, grant).map_err(|problem| SimError::Ledger {
            at_s: seconds(self.now_ms),
            pod: format!("{}/{}", spec.namespace, spec.name),
            node: self.cluster.nodes.get(node.index()).map_or_else(|| format!("number {}", node.0), |node| node.name.clone()),
            problem,
        })
    }

    /// Takes out the pods that were not placed: the one that came last, or those that it evicted.
    fn drop_waiting(&mut self) -> Result<(), SimError> {
        for id in self.waiting() {
            self.explain(id);
            self.planner.apply(Event::PodRemoved(id))?;
            self.result.dropped += 1;
        }
        self.steps.push(Step { requested: self.requested, used: self.ledger.used });
        Ok(())
    }

    fn waiting(&self) -> Vec<PodId> {
        self.planner.queue().lanes().flat_map(|lane| self.planner.queue().pods(lane)).collect()
    }

    /// Books why a pod is not placed. True if no node could take it even when idle.
    fn explain(&mut self, id: PodId) -> bool {
        let spec = self.pod(id);
        self.planner.cluster().pod(id).is_some_and(|pod| self.reasons.add(&self.planner, pod.demand, spec))
    }

    fn record(&mut self) {
        let state = State {
            at_ms: self.now_ms,
            allocated: self.ledger.allocated(),
            fragmentation: self.ledger.fragmentation(),
            waiting: self.planner.queue().len(),
        };
        match self.states.last_mut() {
            Some(last) if last.at_ms == self.now_ms => *last = state,
            _ => self.states.push(state),
        }
    }

    fn finish(mut self) -> RunResult {
        let waiting = self.waiting();
        for &id in &waiting {
            // No policy can help a pod that no node could take, so it counts in nobody's waits.
            if !self.explain(id) {
                self.waits_ms[id.index()] = Some(self.now_ms - self.workload.arrivals[id.index()].at_ms);
            }
        }
        let mut by_namespace: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (row, wait) in self.waits_ms.iter().enumerate() {
            if let Some(wait) = wait {
                by_namespace.entry(&self.pod(PodId::new(row)).namespace).or_default().push(*wait);
            }
        }
        let mut result = self.result;
        result.pending = waiting.len();
        result.waits = Waits::of(self.waits_ms.iter().flatten().copied().collect());
        result.waits_by_namespace = by_namespace.into_iter().map(|(name, waits)| (name.to_owned(), Waits::of(waits))).collect();
        result.end_s = self.now_ms as f64 / 1e3;
        let span = |arrival: Option<&crate::Arrival>| arrival.map_or(0, |arrival| arrival.at_ms);
        let counted = &self.workload.arrivals[self.warm_up..];
        result.accepted = if counted.is_empty() { 0.0 } else { self.accepted as f64 / counted.len() as f64 * 100.0 };
        let (first, last) = (span(counted.first()), span(counted.last()));
        [result.allocated_mean, result.fragmentation_mean, _] = metrics::means(&self.states, first, last);
        result.allocated_end = self.ledger.allocated();
        result.fragmentation_end = self.ledger.fragmentation();
        result.series = metrics::series(&self.states, self.now_ms);
        if self.drops && self.workload.arrivals.iter().all(|arrival| arrival.lifetime_ms.is_none()) {
            result.allocation = openb::allocation(&self.steps, self.ledger.capacity);
        }
        result.unplaced = self.reasons.groups();
        result.failures = self.failures.into_values().collect();
        result
    }
}

/// Reasons of pods that were not placed, grouped.
#[derive(Default)]
struct Reasons {
    groups: BTreeMap<(String, bool), Unplaced>,
    /// The last answer for each demand and the position of the journal it is true for: a full cluster is asked the same again and again.
    known: BTreeMap<DemandId, (u64, (String, bool))>,
}

impl Reasons {
    fn add(&mut self, planner: &Planner, demand: DemandId, pod: &PodSpec) -> bool {
        let position = planner.cluster().journal().position();
        if let Some((known, key)) = self.known.get(&demand)
            && *known == position
            && let Some(group) = self.groups.get_mut(key)
        {
            group.pods += 1;
            return group.never;
        }
        // A pod for which there is room waits only if no policy of the chain gave an answer.
        let (short, never, text) = match planner.reason(demand) {
            Some(reason) => (reason.short.map_or("nodes", |short| short.name()), reason.never, reason.to_string()),
            None => ("policy", false, "a node has room, but no policy of the chain gave a usable answer".to_owned()),
        };
        let key = (short.to_owned(), never);
        let group = self.groups.entry(key.clone()).or_insert_with(|| Unplaced {
            short: short.to_owned(),
            never,
            pods: 0,
            example: format!("{}/{}", pod.namespace, pod.name),
            reason: text,
        });
        group.pods += 1;
        self.known.insert(demand, (position, key));
        never
    }

    fn groups(self) -> Vec<Unplaced> {
        let mut groups: Vec<Unplaced> = self.groups.into_values().collect();
        groups.sort_by_key(|group| Reverse(group.pods));
        groups
    }
}

/// Times of decisions. A round that takes several counts its mean for each.
#[derive(Default)]
struct Latency {
    /// Decisions by nanoseconds, of which the seven leading bits are kept (within 1 %): bounded, however long the run.
    by_ns: BTreeMap<u64, u64>,
    longest_ns: u64,
    decisions: u64,
    total: Duration,
}

impl Latency {
    fn add(&mut self, elapsed: Duration, decisions: usize) {
        let each = elapsed.as_nanos() as u64 / decisions.max(1) as u64;
        let dropped = (u64::BITS - each.leading_zeros()).saturating_sub(7);
        let middle = (1 << dropped) >> 1;
        *self.by_ns.entry((each >> dropped << dropped) + middle).or_insert(0) += decisions as u64;
        self.longest_ns = self.longest_ns.max(each);
        self.decisions += decisions as u64;
        self.total += elapsed;
    }

    fn percentile_us(&self, percent: u64) -> f64 {
        let rank = (self.decisions * percent).div_ceil(100);
        let mut passed = 0;
        let found = self.by_ns.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        found.map_or(0.0, |(&ns, _)| ns.min(self.longest_ns) as f64 / 1e3)
    }

    fn timing(&self) -> Timing {
        Timing {
            p50_us: self.percentile_us(50),
            p99_us: self.percentile_us(99),
            max_us: self.longest_ns as f64 / 1e3,
            decisions_s: self.total.as_secs_f64(),
            wall_s: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_decision_times_are_right_within_one_percent() {
        let mut latency = Latency::default();
        for us in 1..=1000 {
            latency.add(Duration::from_micros(us), 1);
        }
        let timing = latency.timing();
        assert!((timing.p50_us / 500.0 - 1.0).abs() < 0.01, "{timing:?}");
        assert!((timing.p99_us / 990.0 - 1.0).abs() < 0.01, "{timing:?}");
        assert!((timing.max_us - 1000.0).abs() < 1e-9, "{timing:?}");
        latency.add(Duration::from_millis(1), 4000);
        assert!((latency.timing().p50_us / 0.25 - 1.0).abs() < 0.01, "a round counts its mean for each of its decisions");
        assert_eq!(Latency::default().timing(), Timing::default());
    }
}
