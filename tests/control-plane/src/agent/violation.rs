//! What must never happen to a node, whatever its agent does.

use super::Part;

/// Something that a scheduler did and must not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Violation {
    /// A pod was bound to a part that was not there, or of which its agent had not said that it is.
    #[error("pod {pod} was bound on {node} to {part} of GPU {gpu}, which was not there")]
    Missing {
        /// The node.
        node: String,
        /// `namespace/name` of the pod.
        pod: String,
        /// Index of the GPU, as the pod's grant says.
        gpu: u8,
        /// The part.
        part: Part,
    },
    /// A pod was bound with a grant that cannot be read.
    #[error("pod {pod} was bound on {node} with the grant {grant:?}, which is none")]
    Unreadable {
        /// The node.
        node: String,
        /// `namespace/name` of the pod.
        pod: String,
        /// The text.
        grant: String,
    },
    /// Two parts that pods have share a slot, or are one partition.
    #[error("pod {pod} was bound on {node} to {part} of {gpu}, which overlaps {other_part} of pod {other}")]
    Overlap {
        /// The node.
        node: String,
        /// UUID of the GPU.
        gpu: String,
        /// `namespace/name` of the pod that came later.
        pod: String,
        /// Its part.
        part: Part,
        /// `namespace/name` of the pod that was there.
        other: String,
        /// Its part.
        other_part: Part,
    },
    /// Pods have more than all of a GPU together.
    #[error("with pod {pod}, {asked} {unit} of {gpu} on {node} are given away; it has {has}")]
    Overcommitted {
        /// The node.
        node: String,
        /// UUID of the GPU.
        gpu: String,
        /// `namespace/name` of the pod that was too much.
        pod: String,
        /// What all pods have together.
        asked: u32,
        /// What there is.
        has: u32,
        /// Of what: `thousandths` or `MiB`.
        unit: &'static str,
    },
    /// Pods have parts of different kinds of one GPU.
    #[error("pod {pod} was bound on {node} to {part} of {gpu}, of which pod {other} has {other_part}")]
    Mixed {
        /// The node.
        node: String,
        /// UUID of the GPU.
        gpu: String,
        /// `namespace/name` of the pod that came later.
        pod: String,
        /// Its part.
        part: Part,
        /// `namespace/name` of the pod that was there.
        other: String,
        /// Its part.
        other_part: Part,
    },
    /// The agent was asked to destroy what a pod uses.
    #[error("generation {generation} asks {node} to destroy {part} of {gpu}, which pod {pod} uses")]
    Destroys {
        /// The node.
        node: String,
        /// The generation of the layout.
        generation: i64,
        /// UUID of the GPU.
        gpu: String,
        /// The part.
        part: Part,
        /// `namespace/name` of the pod.
        pod: String,
    },
}
