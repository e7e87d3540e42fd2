//! What is counted and measured, for Prometheus.

use std::time::Duration;

use partita_kube::crd::{GpuNodeStatus, PartitionState};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Counters and histograms of one agent.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    passes: Counter,
    allocations: Counter,
    gpu_errors: Counter,
    kubelet_errors: Counter,
    phases: Family<Kind, Histogram>,
    partitions: Family<Kind, Gauge>,
    gpus: Family<Kind, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a tenth of a millisecond to two minutes, in steps of two.
        let phases: Family<Kind, Histogram> = Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 2.0, 21)));
        let mut all = Self {
            registry: Registry::default(),
            passes: Counter::default(),
            allocations: Counter::default(),
            gpu_errors: Counter::default(),
            kubelet_errors: Counter::default(),
            phases,
            partitions: Family::default(),
            gpus: Family::default(),
        };
        let r = all.registry.sub_registry_with_prefix("partita_agent");
        r.register("passes", "Looks at the kubelet and the GPUs", all.passes.clone());
        r.register("allocations", "Questions of the kubelet what a container gets", all.allocations.clone());
        r.register("gpu_errors", "Errors that GPUs reported (XID), those of programs left out", all.gpu_errors.clone());
        r.register("kubelet_errors", "Passes in which the kubelet did not answer", all.kubelet_errors.clone());
        let help = "Time that it took: a whole pass, to change a GPU, and until the kubelet had what it was handed";
        r.register_with_unit("phase", help, Unit::Seconds, all.phases.clone());
        r.register("partitions", "Partitions and shares, by state", all.partitions.clone());
        r.register("gpus", "GPUs, by health", all.gpus.clone());
        all
    }
}

impl Metrics {
    /// All of them in the text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn passed(&self, took: Duration, kubelet: bool) {
        self.passes.inc();
        if !kubelet {
            self.kubelet_errors.inc();
        }
        self.phase("pass", took);
    }

    pub(crate) fn changed(&self, took: Duration) {
        self.phase("gpu", took);
    }

    pub(crate) fn handed_over(&self, took: Duration) {
        self.phase("kubelet", took);
    }

    pub(crate) fn gave(&self) {
        self.allocations.inc();
    }

    pub(crate) fn gpu_error(&self) {
        self.gpu_errors.inc();
    }

    /// What the node has now.
    pub(crate) fn tell(&self, status: &GpuNodeStatus) {
        let kinds = [
            ("ready", PartitionState::Ready),
            ("creating", PartitionState::Creating),
            ("destroying", PartitionState::Destroying),
            ("failed", PartitionState::Failed),
        ];
        let all = || status.gpus.iter().flat_map(|gpu| &gpu.partitions);
        for (kind, state) in kinds {
            self.partitions.get_or_create(&Kind { kind }).set(all().filter(|one| one.state == state).count() as i64);
        }
        for (kind, healthy) in [("healthy", true), ("unhealthy", false)] {
            self.gpus.get_or_create(&Kind { kind }).set(status.gpus.iter().filter(|gpu| gpu.healthy == healthy).count() as i64);
        }
    }

    fn phase(&self, kind: &'static str, took: Duration) {
        self.phases.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }
}
