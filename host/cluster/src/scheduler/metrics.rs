//! What is counted and measured, for Prometheus.

use std::sync::atomic::AtomicU64;

use partita_core::{
    Plan, Planner,
    policy::{Candidates, Fault, Movable, Moves, Partitioner, Reads, Revision, View},
    state::{Change, Layout},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::effect::Outcome;

/// A phase of a pod's way, or a kind of something.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Kind {
    /// Which.
    kind: &'static str,
}

/// A call to the API server.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    kind: &'static str,
    outcome: &'static str,
}

/// Counters and histograms of one scheduler. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reports that contradicted what was known.
    pub(super) refused: Counter,
    pub(super) given_back: Counter,
    evictions: Counter,
    pub(super) evictions_failed: Counter,
    decisions: Counter,
    faults: Family<Kind, Counter>,
    rounds: Counter,
    changes: Family<Kind, Counter>,
    binds: Counter,
    effects: Family<Call, Counter>,
    policy_calls: Family<Kind, Counter>,
    leader: Gauge,
    claims: Gauge,
    phases: Family<Kind, Histogram>,
    pods: Family<Kind, Gauge>,
    partitions: Family<Kind, Gauge>,
    fragmentation: Gauge<f64, AtomicU64>,
    gpus: Gauge,
    nodes: Gauge,
}

impl Metrics {
    /// Metrics that `registry` shows.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        // From a tenth of a millisecond to two minutes, in steps of two.
        let phases: Family<Kind, Histogram> = Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 2.0, 21)));
        let metrics = Self {
            refused: Counter::default(),
            given_back: Counter::default(),
            evictions: Counter::default(),
            evictions_failed: Counter::default(),
            decisions: Counter::default(),
            faults: Family::default(),
            rounds: Counter::default(),
            changes: Family::default(),
            binds: Counter::default(),
            effects: Family::default(),
            policy_calls: Family::default(),
            leader: Gauge::default(),
            claims: Gauge::default(),
            phases,
            pods: Family::default(),
            partitions: Family::default(),
            fragmentation: Gauge::default(),
            gpus: Gauge::default(),
            nodes: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("partita");
        r.register("rounds", "Rounds of planning", metrics.rounds.clone());
        r.register("decisions", "Pods placed and demands found to have no place", metrics.decisions.clone());
        r.register("policy_faults", "Decisions that a policy failed at, by cause", metrics.faults.clone());
        r.register("refused_reports", "Reports that contradicted what was known", metrics.refused.clone());
        r.register("binds", "Pods seen bound", metrics.binds.clone());
        r.register("given_back", "Assumptions given back: a pod did not get where it was on its way to", metrics.given_back.clone());
        r.register("evictions", "Evictions that the API server took", metrics.evictions.clone());
        r.register("evictions_failed", "Evictions that it did not take, or of which nobody knows", metrics.evictions_failed.clone());
        r.register("gpu_changes", "Changes of GPUs that were asked for, by kind", metrics.changes.clone());
        r.register("policy_calls", "Questions put to policies, by kind", metrics.policy_calls.clone());
        r.register("leader", "1 while this process leads", metrics.leader.clone());
        r.register("effects", "Calls to the API server, by kind and outcome", metrics.effects.clone());
        r.register_with_unit(
            "phase",
            "Time of a pod's way: until placed, until bound; and of rounds and calls",
            Unit::Seconds,
            metrics.phases.clone(),
        );
        r.register("pods", "Pods, by where they are in their life", metrics.pods.clone());
        r.register("claims", "Places that are made or kept for pods that wait", metrics.claims.clone());
        r.register("partitions", "MIG partitions and MPS shares, used and warm", metrics.partitions.clone());
        r.register(
            "fragmentation_ratio",
            "Free GPU capacity that no demand of the expected mix could use, as a part of all",
            metrics.fragmentation.clone(),
        );
        r.register("gpus", "GPUs", metrics.gpus.clone());
        r.register("nodes", "Nodes", metrics.nodes.clone());
        metrics
    }

    /// Counts what was done to the API server, how it went and how long it took.
    pub(crate) fn called(&self, kind: &'static str, outcome: &Outcome, seconds: f64) {
        self.effects.get_or_create(&Call { kind, outcome: outcome.name() }).inc();
        self.evictions.inc_by(u64::from(kind == "evict" && *outcome == Outcome::Done));
        self.phases.get_or_create(&Kind { kind }).observe(seconds);
    }

    /// Whether this process leads.
    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Measures a round.
    pub(crate) fn round_took(&self, seconds: f64) {
        self.phases.get_or_create(&Kind { kind: "round" }).observe(seconds);
    }

    pub(super) fn decided(&self, plan: &Plan) {
        self.rounds.inc();
        self.decisions.inc_by(plan.decisions as u64);
        for ((_, cause), faults) in &plan.faults {
            self.faults.get_or_create(&Kind { kind: cause.name() }).inc_by(faults.count as u64);
        }
    }

    pub(super) fn changed(&self, change: Change) {
        let kind = match change {
            Change::Cut(_) => "cut",
            Change::Destroy(_) => "destroy",
            Change::Withdraw(_) => "withdraw",
        };
        self.changes.get_or_create(&Kind { kind }).inc();
    }

    pub(super) fn placed(&self, after_ms: u64) {
        self.phases.get_or_create(&Kind { kind: "placed" }).observe(after_ms as f64 / 1000.0);
    }

    pub(super) fn bound(&self, after_ms: u64) {
        self.binds.inc();
        self.phases.get_or_create(&Kind { kind: "bound" }).observe(after_ms as f64 / 1000.0);
    }

    /// Measures the queue.
    pub(super) fn observe(&self, planner: &Planner, on_the_way: usize) {
        self.pods.get_or_create(&Kind { kind: "waiting" }).set(planner.queue().len() as i64);
        self.pods.get_or_create(&Kind { kind: "on_the_way" }).set(on_the_way as i64);
        self.claims.set(planner.cluster().claims().count() as i64);
    }

    /// Measures nodes, GPUs and partitions: a look at every GPU, so only now and then.
    pub(crate) fn look(&self, planner: &Planner) {
        let cluster = planner.cluster();
        let (mut nodes, mut gpus, mut used, mut warm) = (0i64, 0i64, 0i64, 0i64);
        for (_, node) in cluster.nodes() {
            nodes += 1;
            for gpu in &node.room.gpus {
                gpus += 1;
                warm += i64::from(gpu.warm());
                used += match &gpu.layout {
                    Layout::Mig(mig) => mig.users().len() as i64,
                    Layout::Mps(slices) => slices.all.iter().filter(|one| one.holder.is_some()).count() as i64,
                    Layout::Shares { .. } => 0,
                };
            }
        }
        self.nodes.set(nodes);
        self.gpus.set(gpus);
        self.partitions.get_or_create(&Kind { kind: "used" }).set(used);
        self.partitions.get_or_create(&Kind { kind: "warm" }).set(warm);
        self.fragmentation.set(fragmentation(planner));
    }
}

/// A policy whose questions are counted.
pub(crate) struct Counted<'a> {
    pub(crate) policy: &'a mut dyn Partitioner,
    pub(crate) metrics: &'a Metrics,
}

impl Partitioner for Counted<'_> {
    fn revision(&self) -> Revision {
        self.policy.revision()
    }

    fn reads(&self) -> Reads {
        self.policy.reads()
    }

    fn ready(&mut self) -> Result<(), Fault> {
        self.policy.ready()
    }

    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        self.metrics.policy_calls.get_or_create(&Kind { kind: "score" }).inc();
        self.policy.score(view, demand, candidates, scores)
    }

    fn choose_moves(&mut self, view: &View<'_>, mix: u32, pods: &Movable<'_>, most: u32) -> Result<Moves, Fault> {
        self.metrics.policy_calls.get_or_create(&Kind { kind: "choose_moves" }).inc();
        self.policy.choose_moves(view, mix, pods, most)
    }

    fn refused(&mut self, fault: &Fault) {
        self.policy.refused(fault);
    }
}

/// Free capacity of GPUs that the most frequent demand of the expected mix could not use, as a part of all capacity.
fn fragmentation(planner: &Planner) -> f64 {
    let cluster = planner.cluster();
    let (mut all, mut free, mut usable) = (0u64, 0u64, 0u64);
    let mut found = Vec::new();
    for (_, node) in cluster.nodes() {
        let left: u64 = node.room.gpus.iter().map(|gpu| u64::from(gpu.free_milli(cluster.models().slots(gpu.model)))).sum();
        all += node.room.gpus.len() as u64 * 1000;
        free += left;
        let serves = cluster.mix().0.iter().any(|&(demand, _)| {
            let entry = cluster.demands().get(demand);
            partita_core::place::enumerate(cluster, entry, node, partita_core::Reuse::First, &mut found);
            entry.demand.gpu != partita_core::model::GpuAsk::None && !found.is_empty()
        });
        usable += if serves { left } else { 0 };
    }
    if all == 0 { 0.0 } else { (free - usable) as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn calls_are_counted_by_how_they_went() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.called("bind", &Outcome::Done, 0.1);
        metrics.called("bind", &Outcome::Refused("no".into()), 0.1);
        metrics.called("evict", &Outcome::Conflict("a budget".into()), 0.1);
        assert!(shown(&registry).contains("partita_evictions_total 0\n") && shown(&registry).contains("partita_leader 0\n"));
        metrics.called("evict", &Outcome::Done, 0.1);
        metrics.leads(true);
        let text = shown(&registry);
        for line in [
            "partita_effects_total{kind=\"bind\",outcome=\"done\"} 1",
            "partita_effects_total{kind=\"bind\",outcome=\"refused\"} 1",
            "partita_effects_total{kind=\"evict\",outcome=\"conflict\"} 1",
            "partita_evictions_total 1",
            "partita_leader 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
