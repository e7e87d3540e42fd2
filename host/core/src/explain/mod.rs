//! Why a demand cannot be placed: one structured reason, the same for the pod's condition, its event and `partita explain`.

mod shortage;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    model::DemandId,
    place::{self, Around, Heeds, Reuse},
    state::{Cluster, Node},
};
pub use shortage::Shortage;

/// Why a demand cannot be placed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What most stands in the way: the shortage of the nearest node.
    pub short: Option<Shortage>,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Nodes by what they lack.
    pub lacking: BTreeMap<Shortage, usize>,
    /// The node nearest to a fit.
    pub nearest: Option<String>,
    /// What the nearest node would need, for a person.
    pub would_help: String,
    /// GPUs that would do but for a fault, for which they are set aside.
    pub set_aside: usize,
    /// The first of these GPUs and its fault, for a person.
    pub fault: Option<String>,
    /// True if no node could take the demand even when idle: waiting does not help. That is not known as long as GPUs are set aside.
    pub never: bool,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0/{} nodes fit", self.nodes)?;
        for (row, (shortage, count)) in self.lacking.iter().enumerate() {
            write!(f, "{} {count} {}", if row == 0 { ":" } else { "," }, shortage.phrase())?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; nearest is {nearest}: {}", self.would_help)?;
        }
        if self.set_aside > 0 {
            write!(f, "; {} GPUs that would do are set aside for a fault", self.set_aside)?;
        }
        if let Some(fault) = &self.fault {
            write!(f, ", such as {fault}")?;
        }
        if self.never { f.write_str("; no node could take it even when idle") } else { Ok(()) }
    }
}

/// The reason why `demand` cannot be placed, or none if a node can take it.
#[must_use]
pub fn reason(cluster: &Cluster, demand: DemandId) -> Option<Reason> {
    let entry = cluster.demands().get(demand);
    let mut lacking = BTreeMap::new();
    // Nearest: the furthest stage passed, then the least missing, then the fixed order.
    let mut nearest: Option<(Shortage, u64, &Node)> = None;
    let mut found = Vec::new();
    let (mut nodes, mut set_aside, mut fault) = (0, 0, None);
    let around = Around::of(cluster, entry, None, Heeds::ALL);
    for (id, node) in cluster.nodes() {
        nodes += 1;
        let unmet = around.as_ref().and_then(|around| around.unmet(id));
        place::enumerate(cluster, entry, node, Reuse::First, &mut found);
        if !found.is_empty() && unmet.is_none() {
            return None;
        }
        if entry.admitted(node, cluster.names()) {
            set_aside += shortage::set_aside(cluster, entry, node).count();
            fault = fault.or_else(|| shortage::set_aside(cluster, entry, node).next());
        }
        let (shortage, missing) = shortage::shortage(cluster, entry, node, unmet);
        *lacking.entry(shortage).or_insert(0) += 1;
        if nearest.is_none_or(|best| shortage > best.0 || (shortage == best.0 && missing < best.1)) {
            nearest = Some((shortage, missing, node));
        }
    }
    let would_help = nearest
        .map_or_else(|| "add a node".to_owned(), |(shortage, missing, node)| shortage::would_help(cluster, entry, node, shortage, missing));
    Some(Reason {
        short: nearest.map(|best| best.0),
        nodes,
        lacking,
        nearest: nearest.map(|best| best.2.spec.name.clone()),
        would_help,
        set_aside,
        fault: fault.map(|(node, gpu, fault)| format!("GPU {gpu} of {node}: {fault}")),
        never: set_aside == 0 && !cluster.nodes().any(|(_, node)| shortage::could_when_idle(cluster, entry, node)),
    })
}
