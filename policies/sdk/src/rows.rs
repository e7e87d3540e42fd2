//! Rows: one index over the columns of a view, with a method for each column and iterators for what hangs below.

use std::ops::Range;

use crate::columns::{Candidates, NONE, View};

impl View<'_> {
    /// How many nodes the question holds.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.cpu_free.len()
    }

    /// Node row `index`.
    #[must_use]
    pub fn node(&self, index: usize) -> Node<'_> {
        Node { view: self, index }
    }

    /// Every node of the question, in row order.
    #[must_use]
    pub fn node_rows(&self) -> impl ExactSizeIterator<Item = Node<'_>> {
        (0..self.node_count()).map(|index| self.node(index))
    }

    /// GPU row `index`.
    #[must_use]
    pub fn gpu(&self, index: usize) -> Gpu<'_> {
        Gpu { view: self, index }
    }

    /// Demand row `index`.
    #[must_use]
    pub fn demand(&self, index: usize) -> Demand<'_> {
        Demand { view: self, index }
    }

    /// The demands that the host expects: those with a weight above 0, in row order.
    pub fn mix(&self) -> impl Iterator<Item = Demand<'_>> {
        self.demands.weight.iter().enumerate().filter(|(_, weight)| **weight > 0).map(|(index, _)| self.demand(index))
    }

    /// Every shape of nodes in the cluster, in row order.
    #[must_use]
    pub fn shape_rows(&self) -> impl ExactSizeIterator<Item = Shape<'_>> {
        (0..self.shapes.model.len()).map(|index| Shape { view: self, index })
    }

    /// MIG profile row `index`.
    #[must_use]
    pub fn profile(&self, index: usize) -> Profile<'_> {
        Profile { view: self, index }
    }
}

/// Rows `start[index] .. start[index + 1]` of ragged data.
fn span(start: &[u32], index: usize) -> Range<usize> {
    start[index] as usize..start[index + 1] as usize
}

/// Declares getters that read one column at the row's index.
macro_rules! columns {
    ($table:ident: $($(#[$doc:meta])* $column:ident),+ $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $column(&self) -> u32 {
            self.view.$table.$column[self.index]
        })+

        /// Number of the row in the view.
        #[must_use]
        pub fn index(&self) -> usize {
            self.index
        }
    };
}

/// One node.
#[derive(Clone, Copy, Debug)]
pub struct Node<'v> {
    view: &'v View<'v>,
    index: usize,
}

impl<'v> Node<'v> {
    columns! { nodes:
        /// Free cpu, milli-cores.
        cpu_free,
        /// Allocatable cpu, milli-cores.
        cpu_capacity,
        /// Free memory, MiB.
        memory_free,
        /// Allocatable memory, MiB.
        memory_capacity,
        /// Pods on the node that use GPUs.
        gpu_pods,
        /// Those of them that use GPUs as the asked demand does: a share, the same number of whole GPUs, or the same MIG profile.
        like_pods,
    }

    /// The GPU rows of the node.
    #[must_use]
    pub fn gpu_rows(&self) -> Range<usize> {
        span(self.view.nodes.gpu_start, self.index)
    }

    /// The GPUs of the node.
    #[must_use]
    pub fn gpus(&self) -> impl ExactSizeIterator<Item = Gpu<'v>> {
        let view = self.view;
        self.gpu_rows().map(move |index| Gpu { view, index })
    }

    /// The free shares of the node's GPUs, milli-GPU: a slice of the column, for inner loops.
    #[must_use]
    pub fn shares_free(&self) -> &'v [u32] {
        &self.view.gpus.free[self.gpu_rows()]
    }

    /// The free share of all GPUs together, milli-GPU.
    #[must_use]
    pub fn milli_free(&self) -> u32 {
        self.shares_free().iter().sum()
    }
}

/// One GPU.
#[derive(Clone, Copy, Debug)]
pub struct Gpu<'v> {
    view: &'v View<'v>,
    index: usize,
}

impl Gpu<'_> {
    columns! { gpus:
        /// Row of the model.
        model,
        /// Free share, milli-GPU.
        free,
        /// Slots of MIG partitions in use, as a bit mask.
        used_slots,
        /// Slots of warm MIG partitions, as a bit mask.
        warm_slots,
    }

    /// Whether MIG cuts the GPU.
    #[must_use]
    pub fn is_mig(&self) -> bool {
        self.view.gpus.mig[self.index] != 0
    }
}

/// One kind of demand.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'v> {
    view: &'v View<'v>,
    index: usize,
}

impl<'v> Demand<'v> {
    columns! { demands:
        /// Cpu of one pod, milli-cores.
        cpu,
        /// Memory of one pod, MiB.
        memory,
        /// GPUs or partitions of one pod.
        count,
        /// Share of each GPU, milli-GPU; 1000 for whole GPUs; 0 for MIG.
        milli,
        /// Weight in the expected mix.
        weight,
    }

    /// Rows of the models that the demand accepts; empty for a demand that accepts every model.
    #[must_use]
    pub fn models(&self) -> &'v [u32] {
        &self.view.demands.models[span(self.view.demands.model_start, self.index)]
    }

    /// Rows of the profiles that serve the demand; empty for a demand that asks for no MIG partition.
    #[must_use]
    pub fn profiles(&self) -> &'v [u32] {
        &self.view.demands.profiles[span(self.view.demands.profile_start, self.index)]
    }

    /// Whether GPUs of model row `model` serve the demand.
    #[must_use]
    pub fn accepts(&self, model: u32) -> bool {
        let models = self.models();
        models.is_empty() || models.contains(&model)
    }

    /// Whether a pod of this demand takes a part of one GPU.
    #[must_use]
    pub fn is_share(&self) -> bool {
        self.count() == 1 && (1..1000).contains(&self.milli())
    }

    /// Whether a pod of this demand asks for MIG partitions only.
    #[must_use]
    pub fn is_mig(&self) -> bool {
        self.count() > 0 && self.milli() == 0
    }

    /// What one pod takes of its GPUs together, milli-GPU.
    #[must_use]
    pub fn total_milli(&self) -> u32 {
        self.count() * self.milli()
    }
}

/// One shape of nodes.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'v> {
    view: &'v View<'v>,
    index: usize,
}

impl Shape<'_> {
    columns! { shapes:
        /// Row of the model.
        model,
        /// GPUs of that model on one node.
        gpus,
        /// Allocatable cpu of one node, milli-cores.
        cpu_capacity,
        /// Nodes of this shape in the cluster.
        nodes,
    }
}

/// One MIG profile.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'v> {
    view: &'v View<'v>,
    index: usize,
}

impl Profile<'_> {
    columns! { profiles:
        /// Row of the model.
        model,
        /// Memory slots of one partition.
        size,
        /// Compute slices of one partition.
        compute,
        /// Memory of one partition, MiB.
        memory,
        /// Bit mask of the slots where a partition may start.
        starts,
    }
}

/// One place for the pod.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'c> {
    candidates: &'c Candidates<'c>,
    index: usize,
}

/// `None` for the row number that stands for none.
fn some(row: u32) -> Option<usize> {
    (row != NONE).then_some(row as usize)
}

impl Candidate<'_> {
    /// Number of the candidate, and of its score.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Row of the node.
    #[must_use]
    pub fn node(&self) -> usize {
        self.candidates.node[self.index] as usize
    }

    /// Row of the first GPU; none for a pod without GPU.
    #[must_use]
    pub fn gpu(&self) -> Option<usize> {
        some(self.candidates.gpu[self.index])
    }

    /// Row of the profile and first slot; none for a place that is no MIG partition.
    #[must_use]
    pub fn partition(&self) -> Option<(usize, u32)> {
        some(self.candidates.profile[self.index]).map(|profile| (profile, self.candidates.slot[self.index]))
    }
}

impl<'c> Candidate<'c> {
    /// What kind of place it is. A policy that asks must read `places.kind`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.candidates.kind.get(self.index) {
            Some(1) => Kind::Shares,
            Some(2) => Kind::Mig,
            Some(3) => Kind::Mps,
            _ => Kind::NoGpu,
        }
    }

    /// How much of one GPU it takes, milli-GPU; 0 for a place without GPU or on several. A policy that asks must read `places.milli`.
    #[must_use]
    pub fn milli(&self) -> u32 {
        self.candidates.milli.get(self.index).copied().unwrap_or(0)
    }

    /// The partitions of a place that has several, as (row of the GPU, row of the profile, first slot), GPU by GPU; nothing for a place
    /// that has one. A policy that asks must read `uses.*`.
    #[must_use]
    pub fn uses(&self) -> impl ExactSizeIterator<Item = (usize, usize, u32)> + use<'c> {
        let candidates = self.candidates;
        let range = if candidates.use_start.is_empty() { 0..0 } else { span(candidates.use_start, self.index) };
        range.map(move |row| (candidates.use_gpu[row] as usize, candidates.use_profile[row] as usize, candidates.use_slot[row]))
    }
}

/// What kind of place a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The node, without a GPU.
    NoGpu,
    /// Whole GPUs, or time-sliced shares.
    Shares,
    /// MIG partitions.
    Mig,
    /// A share under MPS.
    Mps,
}

/// The candidates of one node.
#[derive(Clone, Debug)]
pub struct NodeCandidates<'c> {
    candidates: &'c Candidates<'c>,
    /// Row of the node.
    pub node: usize,
    /// Numbers of its candidates.
    pub range: Range<usize>,
}

impl<'c> NodeCandidates<'c> {
    /// The places on the node, the tightest first.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Candidate<'c>> + use<'c> {
        let candidates = self.candidates;
        self.range.clone().map(move |index| Candidate { candidates, index })
    }
}

impl Candidates<'_> {
    /// How many scores the answer holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.node.len()
    }

    /// Whether there is nothing to score.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.node.is_empty()
    }

    /// Candidate row `index`.
    #[must_use]
    pub fn row(&self, index: usize) -> Candidate<'_> {
        Candidate { candidates: self, index }
    }

    /// Every candidate, in row order.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Candidate<'_>> {
        (0..self.len()).map(|index| self.row(index))
    }

    /// The candidates grouped by node, in row order: what depends on the node alone is then computed once a node.
    pub fn by_node(&self) -> impl Iterator<Item = NodeCandidates<'_>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let node = *self.node.get(start)?;
            let len = self.node[start..].iter().take_while(|other| **other == node).count();
            let range = start..start + len;
            start = range.end;
            Some(NodeCandidates { candidates: self, node: node as usize, range })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::columns::{Demands, Gpus, Nodes, Profiles, Shapes};

    use super::*;

    fn view() -> View<'static> {
        View {
            nodes: Nodes { cpu_free: &[4_000, 8_000], gpu_pods: &[1, 2], gpu_start: &[0, 2, 2], ..Nodes::default() },
            gpus: Gpus { model: &[0, 1], free: &[300, 700], used_slots: &[0, 5], mig: &[0, 1], ..Gpus::default() },
            profiles: Profiles { size: &[1, 2], ..Profiles::default() },
            shapes: Shapes { model: &[0, 1], gpus: &[1, 1], cpu_capacity: &[8_000, 8_000], nodes: &[1, 1] },
            demands: Demands {
                count: &[1, 2, 1, 0],
                milli: &[300, 1000, 0, 0],
                weight: &[5, 0, 2, 0],
                model_start: &[0, 1, 1, 1, 1],
                models: &[1],
                profile_start: &[0, 0, 0, 2, 2],
                profiles: &[1, 0],
                ..Demands::default()
            },
            ..View::default()
        }
    }

    #[test]
    fn nodes_own_their_gpus() {
        let view = view();
        assert_eq!(view.node_rows().map(|node| (node.cpu_free(), node.gpus().len())).collect::<Vec<_>>(), [(4_000, 2), (8_000, 0)]);
        let node = view.node(0);
        assert_eq!(node.gpus().map(|gpu| (gpu.index(), gpu.free(), gpu.is_mig())).collect::<Vec<_>>(), [(0, 300, false), (1, 700, true)]);
        assert_eq!((node.shares_free(), node.milli_free(), node.gpu_pods()), (&[300, 700][..], 1000, 1));
        assert_eq!((view.gpu(1).used_slots(), view.profile(1).size(), view.shape_rows().len()), (5, 2, 2));
    }

    #[test]
    fn demands_say_what_kind_they_are() {
        let view = view();
        let kinds = |row: usize| (view.demand(row).is_share(), view.demand(row).is_mig(), view.demand(row).total_milli());
        assert_eq!((kinds(0), kinds(1)), ((true, false, 300), (false, false, 2000)));
        assert_eq!((kinds(2), kinds(3)), ((false, true, 0), (false, false, 0)));
        assert_eq!((view.demand(0).accepts(0), view.demand(0).accepts(1), view.demand(1).accepts(7)), (false, true, true));
        assert_eq!(view.demand(2).profiles(), [1, 0]);
    }

    #[test]
    fn the_mix_is_what_has_a_weight() {
        assert_eq!(view().mix().map(|demand| (demand.index(), demand.weight())).collect::<Vec<_>>(), [(0, 5), (2, 2)]);
    }

    #[test]
    fn candidates_group_by_node() {
        let candidates = Candidates {
            node: &[3, 3, 0, 7],
            gpu: &[9, 8, NONE, 2],
            profile: &[NONE, NONE, NONE, 4],
            slot: &[NONE, NONE, NONE, 6],
            ..Candidates::default()
        };
        let groups: Vec<_> = candidates.by_node().map(|places| (places.node, places.range.clone())).collect();
        assert_eq!(groups, [(3, 0..2), (0, 2..3), (7, 3..4)]);
        let places =
            candidates.by_node().nth(2).map(|places| places.rows().map(|place| (place.index(), place.node(), place.partition())).collect());
        assert_eq!(places, Some(vec![(3, 7, Some((4, 6)))]));
        assert_eq!((candidates.row(0).gpu(), candidates.row(2).gpu(), candidates.row(0).partition()), (Some(9), None, None));
        assert_eq!((candidates.len(), candidates.is_empty()), (4, false));
        assert_eq!((candidates.row(3).kind(), candidates.row(3).milli(), candidates.row(3).uses().len()), (Kind::NoGpu, 0, 0));
    }

    #[test]
    fn a_place_may_have_several_partitions() {
        let candidates = Candidates {
            node: &[0, 0],
            kind: &[2, 3],
            milli: &[0, 250],
            use_start: &[0, 2, 2],
            use_gpu: &[4, 5],
            use_profile: &[1, 1],
            use_slot: &[0, 2],
            ..Candidates::default()
        };
        assert_eq!(candidates.row(0).uses().collect::<Vec<_>>(), [(4, 1, 0), (5, 1, 2)]);
        assert_eq!((candidates.row(0).kind(), candidates.row(1).kind(), candidates.row(1).milli()), (Kind::Mig, Kind::Mps, 250));
        assert_eq!(candidates.row(1).uses().len(), 0);
    }
}
