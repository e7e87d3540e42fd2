//! Node agents for simulated nodes: they keep the handshake of `GpuNode` as a real agent would, make partitions of nothing, and notice
//! when a scheduler does what it must not.
//!
//! ```text
//! one watch each: nodes, GpuNodes, pods ─► state (who has what, what exists, what was said) ─► one task a node ─► API server
//!                                            └─► violations
//! ```
//!
//! An agent takes a layout only if its (term, generation) is above the last one's; destroys first what the layout no longer has, but never what
//! a pod uses; makes what is missing, if the layout algebra of the core admits it beside what exists; and says once how that went. What
//! exists outlives the agents: new ones take it over from the last report.

mod behaviour;
mod hardware;
mod ledger;
mod part;
mod report;
mod state;
mod violation;
mod work;

use std::{fmt, sync::Arc, time::Duration};

use kube::Client;
use tokio::task::JoinSet;

pub use self::{
    behaviour::{Behaviour, Failure, Lie},
    part::Part,
    violation::Violation,
};
use self::{state::State, work::Shared};

/// How often it is looked whether the agents have spoken.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// The agents of every node that has GPUs, those that come later included. They stop when this is dropped.
pub struct Agents {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Agents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Agents").finish_non_exhaustive()
    }
}

impl Agents {
    /// Begins to look after all nodes. The definitions must be there: [`crate::install_crds`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(client: Client, behaviour: Behaviour) -> Self {
        let shared = Arc::new(Shared::new(client, State::new(behaviour)));
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().watch());
        Self { shared, _tasks: tasks }
    }

    /// Waits until the agents of so many nodes have reported.
    pub async fn ready(&self, nodes: usize) {
        while self.shared.state().nodes.values().filter(|node| node.said.arrived).count() < nodes {
            tokio::time::sleep(ASKED_EVERY).await;
        }
    }

    /// Every agent that was not told otherwise behaves so from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.state().behave(None, behaviour);
    }

    /// The agent of one node, which it knows already, behaves so from now on.
    pub fn behave_on(&self, node: &str, behaviour: Behaviour) {
        self.shared.state().behave(Some(node), behaviour);
    }

    /// What a scheduler, or whoever binds pods, did and must not do, in the order in which it was noticed.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.state().violations.clone()
    }

    /// What the API server refused to be told: the node, and why.
    #[must_use]
    pub fn refusals(&self) -> Vec<(String, String)> {
        self.shared.state().refusals.clone()
    }

    /// The UUID of a GPU, by the node's name and the index in the machine. It is the same whenever a node of that name has such a GPU.
    #[must_use]
    pub fn uuid(&self, node: &str, index: u8) -> Option<String> {
        Some(self.shared.state().nodes.get(node)?.gpus.get(usize::from(index))?.uuid.clone())
    }
}
