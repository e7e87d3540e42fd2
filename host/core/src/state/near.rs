//! What of a demand's constraints concerns the pods on other nodes, looked up once.

use super::{
    crowds::{CrowdId, Crowds},
    domains::{Domains, TopologyId},
    names::Names,
};
use crate::model::{Constraints, constraints};

/// Everything that constraints name, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) names: Names,
    pub(crate) crowds: Crowds,
    pub(crate) domains: Domains,
}

impl Lookup {
    fn topology(&mut self, key: &str) -> TopologyId {
        let key = self.names.id(key);
        self.domains.topology(key)
    }
}

/// Pods, and by which label of nodes somebody is next to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Beside {
    pub(crate) crowd: CrowdId,
    pub(crate) topology: TopologyId,
}

impl Beside {
    /// The least one of a crowd.
    pub(super) fn first(crowd: CrowdId) -> Self {
        Self { crowd, topology: TopologyId::FIRST }
    }
}

/// How evenly a pod is spread with others.
#[derive(Clone, Debug)]
pub(crate) struct Even {
    pub(crate) beside: Beside,
    /// Whether anybody is counted. A selector without conditions counts nobody, though it matches everybody: so does kube-scheduler.
    pub(crate) counts: bool,
    pub(crate) max_skew: u32,
    pub(crate) min_domains: u32,
    pub(crate) honor_affinity: bool,
    pub(crate) honor_taints: bool,
}

/// What of a demand's constraints concerns the pods on other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Near {
    /// The pods that belong to all crowds next to which it must run, and all the labels that say what is near.
    pub(crate) together: Option<(CrowdId, Vec<TopologyId>)>,
    /// Next to whom it must not run, each once.
    pub(crate) apart: Vec<Beside>,
    /// How evenly it must be spread.
    pub(crate) spread: Vec<Even>,
    /// Next to whom it should run, or rather not, with the weight of one pod.
    pub(crate) preferred: Vec<(i64, Beside)>,
    /// How evenly it should be spread.
    pub(crate) preferred_spread: Vec<Even>,
}

impl Near {
    /// None if pods on other nodes do not concern it.
    pub(super) fn of(constraints: Option<&Constraints>, lookup: &mut Lookup) -> Option<Box<Self>> {
        let Constraints { together, apart, preferred_pods, spread, .. } = constraints?;
        if together.is_empty() && apart.is_empty() && preferred_pods.is_empty() && spread.is_empty() {
            return None;
        }
        let mut beside =
            |term: &constraints::PodTerm| Beside { crowd: lookup.crowds.of(&term.pods), topology: lookup.topology(&term.topology) };
        let terms: Vec<Beside> = together.iter().map(&mut beside).collect();
        let mut apart: Vec<Beside> = apart.iter().map(&mut beside).collect();
        apart.sort_unstable();
        apart.dedup();
        let preferred = preferred_pods.iter().map(|(weight, term)| (i64::from(*weight), beside(term))).collect();
        let mut topologies: Vec<TopologyId> = terms.iter().map(|term| term.topology).collect();
        topologies.sort_unstable();
        topologies.dedup();
        let crowds = terms.iter().map(|term| term.crowd).collect();
        let together = (!terms.is_empty()).then(|| (lookup.crowds.all(crowds), topologies));
        let mut even = |required: bool| -> Vec<Even> {
            spread.iter().filter(|one| one.required == required).map(|one| Even::of(one, lookup)).collect()
        };
        Some(Box::new(Self { together, apart, spread: even(true), preferred, preferred_spread: even(false) }))
    }

    /// All crowds that it names, each as often as it does.
    pub(super) fn crowds(&self) -> Vec<CrowdId> {
        let together = self.together.iter().map(|(crowd, _)| *crowd);
        let beside = self.apart.iter().chain(self.preferred.iter().map(|(_, beside)| beside));
        let even = self.spread.iter().chain(&self.preferred_spread).map(|even| &even.beside);
        together.chain(beside.chain(even).map(|beside| beside.crowd)).collect()
    }

    /// Whether pods that are placed may open a place that was closed to it.
    pub(crate) fn seeks(&self) -> bool {
        self.together.is_some() || !self.spread.is_empty()
    }
}

impl Even {
    fn of(spread: &constraints::Spread, lookup: &mut Lookup) -> Self {
        Self {
            beside: Beside { crowd: lookup.crowds.of(&spread.pods), topology: lookup.topology(&spread.topology) },
            counts: spread.pods.labels.as_ref().is_none_or(|labels| !labels.is_empty()),
            max_skew: spread.max_skew,
            min_domains: spread.min_domains.max(1),
            honor_affinity: spread.honor_affinity,
            honor_taints: spread.honor_taints,
        }
    }
}
