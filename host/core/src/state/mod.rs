//! The cluster as events tell it.
//!
//! [`Cluster::apply`] is total: an event that contradicts what is known is refused with a reason and changes nothing. Every change of a
//! node is written to the [`Journal`], from which each ranking learns what to ask a policy again.

mod catalogue;
mod demands;
mod gpu;
mod journal;
mod node;

use thiserror::Error;

pub use catalogue::Models;
pub use demands::{Demands, Entry};
pub use gpu::{Gpu, Layout, Partition};
pub use journal::Journal;
pub use node::{Grant, Node, Shape, Use};

use crate::model::{Cut, Demand, DemandError, DemandId, GpuModel, NodeError, NodeId, NodeSpec, Placement, PodId, PodSpec, node::GPUS_MAX};

/// What the outside tells the core. Ids are given by the sender: dense, and reused only after the thing is gone.
#[derive(Clone, Debug)]
pub enum Event {
    /// A GPU model, before the first node that has it.
    ModelSeen(GpuModel),
    /// A node that may be used; the order of ids is the order that breaks ties.
    NodeAdded(NodeId, NodeSpec),
    /// A node went away. Its pods are told of one by one.
    NodeRemoved(NodeId),
    /// A pod that waits to be placed.
    PodAdded(PodId, PodSpec),
    /// A pod ended or was deleted, placed or not.
    PodRemoved(PodId),
    /// What to expect: demands with their weights. Replaces the mix told before.
    MixChanged(Vec<(Demand, u32)>),
}

/// An event that was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// A node that cannot be taken in.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A node with an id that another has.
    #[error("node {name} was announced as number {id}, which {other} has", id = id.0)]
    NodeTwice {
        /// The new node.
        name: String,
        /// Its id.
        id: NodeId,
        /// Who has the id.
        other: String,
    },
    /// An id that leaves a gap.
    #[error("number {id} was given although only {rows} numbers are taken; ids are dense")]
    Sparse {
        /// The id.
        id: u32,
        /// Numbers taken.
        rows: usize,
    },
    /// A node that nobody announced.
    #[error("node number {} went away without ever having come", .0.0)]
    NoNode(NodeId),
    /// A pod with an id that another has.
    #[error("pod {namespace}/{name} was announced as number {id}, which is taken", id = id.0)]
    PodTwice {
        /// Namespace of the new pod.
        namespace: String,
        /// Its name.
        name: String,
        /// Its id.
        id: PodId,
    },
    /// A demand that makes no sense.
    #[error("{whose} asks for what no node could give")]
    Demand {
        /// Whose demand it is.
        whose: String,
        /// What is wrong.
        source: DemandError,
    },
    /// A pod that nobody announced.
    #[error("pod number {} went away without ever having come", .0.0)]
    NoPod(PodId),
}

/// A pod: what it asks, and where it runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What it is.
    pub spec: PodSpec,
    /// Its demand.
    pub demand: DemandId,
    /// Where it runs; none while it waits.
    pub placed: Option<Placed>,
}

/// Where a pod runs.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The node.
    pub node: NodeId,
    /// What it uses of the node's GPUs.
    pub grant: Grant,
    /// Which node of that number: a node that comes back after it went away does not run the pods it ran before.
    incarnation: u64,
}

/// Nodes, pods and what they use.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: Vec<Option<Node>>,
    pods: Vec<Option<Pod>>,
    models: Models,
    demands: Demands,
    mix: Vec<(DemandId, u32)>,
    mix_version: u64,
    journal: Journal,
    incarnations: u64,
}

fn dense(id: u32, rows: usize) -> Result<(), Refused> {
    if id as usize > rows { Err(Refused::Sparse { id, rows }) } else { Ok(()) }
}

impl Cluster {
    /// Applies one event. Returns the pod that now waits, if the event brought one.
    ///
    /// # Errors
    /// [`Refused`] when the event contradicts what is known; then nothing changed.
    pub fn apply(&mut self, event: Event) -> Result<Option<PodId>, Refused> {
        match event {
            Event::ModelSeen(model) => {
                self.models.add(&model)?;
                self.demands.resolve(&self.models);
                // What a demand accepts may have changed, so may every ranking.
                self.mix_version += 1;
                self.journal.reset(self.nodes.len());
            }
            Event::NodeAdded(id, spec) => self.add_node(id, spec)?,
            Event::NodeRemoved(id) => self.remove_node(id)?,
            Event::PodAdded(id, spec) => {
                self.add_pod(id, spec)?;
                return Ok(Some(id));
            }
            Event::PodRemoved(id) => self.remove_pod(id)?,
            Event::MixChanged(mix) => {
                let whole = |source| Refused::Demand { whose: "the mix".into(), source };
                let mix = mix.into_iter().map(|(demand, weight)| Ok((demand.validated().map_err(whole)?, weight)));
                let mix = mix.collect::<Result<Vec<_>, Refused>>()?;
                self.mix = mix.into_iter().map(|(demand, weight)| (self.demands.intern(&demand, &self.models), weight)).collect();
                self.mix_version += 1;
            }
        }
        Ok(None)
    }

    /// The node numbered `id`, if there is one.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index()).and_then(Option::as_ref)
    }

    /// All nodes in the fixed order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(row, node)| Some((NodeId::new(row), node.as_ref()?)))
    }

    /// One more than the largest node number given.
    #[must_use]
    pub fn node_rows(&self) -> usize {
        self.nodes.len()
    }

    /// The pod numbered `id`, if there is one.
    #[must_use]
    pub fn pod(&self, id: PodId) -> Option<&Pod> {
        self.pods.get(id.index()).and_then(Option::as_ref)
    }

    /// Where a pod runs and what it uses there; none if it waits, or if its node went away.
    #[must_use]
    pub fn runs_on(&self, id: PodId) -> Option<(NodeId, &Grant)> {
        let placed = self.pod(id)?.placed.as_ref()?;
        let node = self.node(placed.node)?;
        (node.incarnation == placed.incarnation).then_some((placed.node, &placed.grant))
    }

    /// GPU models and MIG profiles.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// All demands.
    #[must_use]
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// The expected mix, and a number that grows whenever it changes.
    #[must_use]
    pub fn mix(&self) -> (&[(DemandId, u32)], u64) {
        (&self.mix, self.mix_version)
    }

    /// Which nodes changed, in order.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn add_node(&mut self, id: NodeId, spec: NodeSpec) -> Result<(), Refused> {
        if let Some(other) = self.node(id) {
            return Err(Refused::NodeTwice { name: spec.name, id, other: other.spec.name.clone() });
        }
        dense(id.0, self.nodes.len())?;
        if spec.gpus.len() > GPUS_MAX as usize {
            return Err(NodeError::TooManyGpus { node: spec.name, count: spec.gpus.len() }.into());
        }
        let mut gpus = Vec::with_capacity(spec.gpus.len());
        for gpu in &spec.gpus {
            let unknown = || NodeError::UnknownModel { node: spec.name.clone(), model: gpu.model.clone() };
            let model = self.models.id(&gpu.model).ok_or_else(unknown)?;
            if gpu.cut == Cut::Mig && self.models.grid(model).is_none() {
                return Err(NodeError::NoMig { node: spec.name.clone(), model: gpu.model.clone() }.into());
            }
            gpus.push(Gpu::idle(model, gpu.cut));
        }
        self.models.count(&gpus, spec.cpu_milli, 1);
        if self.nodes.len() == id.index() {
            self.nodes.push(None);
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let node = Node { incarnation, cpu_free: spec.cpu_milli, memory_free: spec.memory_mib, gpus, by_shape: Vec::new(), spec };
        self.nodes[id.index()] = Some(node);
        // Policies see how many GPUs there are of each model.
        self.mix_version += 1;
        self.journal.changed(id);
        Ok(())
    }

    fn remove_node(&mut self, id: NodeId) -> Result<(), Refused> {
        let node = self.nodes.get_mut(id.index()).and_then(Option::take).ok_or(Refused::NoNode(id))?;
        self.models.count(&node.gpus, node.spec.cpu_milli, -1);
        self.mix_version += 1;
        self.journal.changed(id);
        Ok(())
    }

    fn add_pod(&mut self, id: PodId, spec: PodSpec) -> Result<(), Refused> {
        if self.pod(id).is_some() {
            return Err(Refused::PodTwice { namespace: spec.namespace, name: spec.name, id });
        }
        dense(id.0, self.pods.len())?;
        let whose = || format!("pod {}/{}", spec.namespace, spec.name);
        let demand = spec.demand.clone().validated().map_err(|source| Refused::Demand { whose: whose(), source })?;
        if self.pods.len() == id.index() {
            self.pods.push(None);
        }
        let demand = self.demands.intern(&demand, &self.models);
        self.pods[id.index()] = Some(Pod { spec, demand, placed: None });
        Ok(())
    }

    fn remove_pod(&mut self, id: PodId) -> Result<(), Refused> {
        let pod = self.pods.get_mut(id.index()).and_then(Option::take).ok_or(Refused::NoPod(id))?;
        let Some(Placed { node: node_id, grant, incarnation }) = pod.placed else { return Ok(()) };
        // The node may have gone before its pods.
        let node = self.nodes.get_mut(node_id.index()).and_then(Option::as_mut);
        let Some(node) = node.filter(|node| node.incarnation == incarnation) else { return Ok(()) };
        let entry = self.demands.get(pod.demand);
        node.cpu_free += entry.demand.cpu_milli;
        node.memory_free += entry.demand.memory_mib;
        node.count(entry.shape.as_ref(), -1);
        for &(index, used) in &grant.0 {
            let gpu = &mut node.gpus[usize::from(index)];
            match (used, self.models.grid(gpu.model)) {
                (Use::Share(milli), _) => {
                    if let Layout::Shares { free } = &mut gpu.layout {
                        *free += milli;
                    }
                }
                (Use::Partition(placement), Some(grid)) => {
                    gpu.release(grid, placement, id);
                }
                (Use::Partition(_), None) => {}
            }
        }
        self.journal.changed(node_id);
        Ok(())
    }

    /// Puts a waiting pod on a node, as `place` chose. Returns the warm partitions that had to go, with their GPU.
    ///
    /// # Panics
    /// If the pod does not wait or the grant does not fit: `place` proved both for this very state.
    pub(crate) fn assume(&mut self, id: PodId, node_id: NodeId, grant: Grant) -> Vec<(u8, Placement)> {
        let pod = self.pods[id.index()].as_mut().expect("a pod that is placed exists");
        assert!(pod.placed.is_none(), "a pod is placed once");
        let node = self.nodes[node_id.index()].as_mut().expect("a node that is chosen exists");
        let entry = self.demands.get(pod.demand);
        node.cpu_free = node.cpu_free.checked_sub(entry.demand.cpu_milli).expect("cpu was proved to suffice");
        node.memory_free = node.memory_free.checked_sub(entry.demand.memory_mib).expect("memory was proved to suffice");
        node.count(entry.shape.as_ref(), 1);
        let mut destroyed = Vec::new();
        for &(index, used) in &grant.0 {
            let gpu = &mut node.gpus[usize::from(index)];
            match used {
                Use::Share(milli) => {
                    let Layout::Shares { free } = &mut gpu.layout else { panic!("shares were granted on a GPU cut by shares") };
                    *free = free.checked_sub(milli).expect("the share was proved to be free");
                }
                Use::Partition(placement) => {
                    let grid = self.models.grid(gpu.model).expect("a partition was granted on a GPU with a grid");
                    assert!(gpu.admits(grid, placement), "the slots were proved to be free");
                    destroyed.extend(gpu.occupy(grid, placement, id).into_iter().map(|gone| (index, gone)));
                }
            }
        }
        pod.placed = Some(Placed { node: node_id, grant, incarnation: node.incarnation });
        self.journal.changed(node_id);
        destroyed
    }
}
