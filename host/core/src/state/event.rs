//! What the outside tells the core, and why it may be refused.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Grant, Use};
use crate::model::{Demand, DemandError, GpuModel, NodeError, NodeId, NodeSpec, PodId, PodSpec, Terms};

/// What the outside tells the core. Ids are given by the sender: dense, and reused only after the thing is gone.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time, milliseconds since any start. A time before the last one told changes nothing.
    Time(u64),
    /// A GPU model, before the first node that has it.
    ModelSeen(GpuModel),
    /// A node that may be used; the order of ids is the order that breaks ties.
    NodeAdded(NodeId, NodeSpec),
    /// What a node has is otherwise than was told before. Its pods stay, those among them whose GPUs are no longer there without GPUs.
    NodeChanged(NodeId, NodeSpec),
    /// A node went away. Its pods are told of one by one.
    NodeRemoved(NodeId),
    /// A pod that waits to be placed.
    PodAdded(PodId, PodSpec),
    /// A pod that runs already, where and on what.
    PodRuns(PodId, PodSpec, NodeId, Grant),
    /// Pods on a node use these parts of its GPUs, whatever was thought before: all at once, since one may have what was held to be another's.
    /// The last are partitions that are in use by somebody unknown.
    PodsUse(NodeId, Vec<(PodId, Grant)>, Vec<(u8, Use)>),
    /// A pod ended or was deleted, placed or not.
    PodRemoved(PodId),
    /// A pod that was moved has left the place where it was.
    PodLeft(PodId),
    /// A running pod was told to stop, by whomever: its place will become free.
    PodStops(PodId),
    /// A pod that was told to stop, or to move, stays where it was after all: it could not be stopped.
    PodStays(PodId),
    /// What may be done to a pod, or by it, is otherwise than was told before.
    PodTerms(PodId, Terms),
    /// A pod has other labels.
    PodRelabelled(PodId, BTreeMap<String, String>),
    /// The labels of a namespace; none if it is gone. Selectors that go by labels of namespaces know only those told of.
    Namespace(String, Option<BTreeMap<String, String>>),
    /// How many pods of a disruption budget may be stopped now; none if the budget is gone.
    Budget(String, Option<u32>),
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
    /// A pod that was never moved.
    #[error("pod number {} is said to have left its place, but nothing moved it", .0.0)]
    NotMoved(PodId),
    /// A pod that is said to stay, but was not told to go.
    #[error("pod number {} is said to stay where it is, but nobody told it to stop", .0.0)]
    NotStopping(PodId),
    /// Another node under a number that is taken.
    #[error("node number {id} is said to have become {name}, but it is {was}; tell that the one went and the other came", id = id.0)]
    Renamed {
        /// Its number.
        id: NodeId,
        /// Its new name.
        name: String,
        /// Its name.
        was: String,
    },
    /// A pod that is said to use of GPUs what it cannot.
    #[error("pod {namespace}/{name} is said to run on {node}, which has no room for what it uses of GPUs there")]
    NoRoom {
        /// Namespace of the pod.
        namespace: String,
        /// Its name.
        name: String,
        /// Name of the node, or its number if there is none.
        node: String,
    },
    /// A partition that somebody is said to use where pods have what it cannot be beside.
    #[error("somebody is said to use a partition on GPU {gpu} of {node}, which cannot be there beside what pods have")]
    InTheWay {
        /// Index of the GPU.
        gpu: u8,
        /// Name of the node.
        node: String,
    },
}
