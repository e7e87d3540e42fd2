//! The loop: a pass whenever something changed.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kube::Client;
use partita_kube::crd::GpuNodeStatus;
use partita_kubelet::DevicePlugins;
use tokio::{sync::watch, time::sleep};

use crate::{
    allocate::Answers,
    cdi::{Cdi, Common},
    error::AgentError,
    machine::Load,
    metrics::Metrics,
    object::{Objects, Seen, no_node},
    pass::{Agent, Depth, LOOK_EVERY},
};

/// How long a pass may take before the agent counts as stuck: making the partitions of eight GPUs, each call with its own limit, ends
/// before.
const STUCK_AFTER: Duration = Duration::from_mins(10);

/// How long the agent waits at its end until it is written that it ended.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What an agent needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of its `Node`.
    pub node: String,
    /// Its GPUs.
    pub device: partita_device::Settings,
    /// The kubelet's folder for device plugins.
    pub device_plugins: PathBuf,
    /// The socket where the kubelet says who uses what.
    pub pod_resources: PathBuf,
    /// The folder of CDI files; none where containers get GPUs by environment variables only.
    pub cdi: Option<PathBuf>,
    /// What every container with a GPU gets by CDI.
    pub cdi_common: Common,
    /// Where the kernel tells the numbers of device nodes: `/proc`.
    pub proc: PathBuf,
}

/// What others may see of a running agent.
#[derive(Debug)]
pub struct Shared {
    start: Instant,
    /// When the last pass ended, in milliseconds since the start.
    turned: AtomicU64,
    /// Why it is not ready, if it is not.
    ready: Mutex<Result<(), String>>,
    pub(crate) metrics: Metrics,
}

impl Default for Shared {
    fn default() -> Self {
        let ready = Mutex::new(Err("no pass has ended yet".to_owned()));
        Self { start: Instant::now(), turned: AtomicU64::default(), ready, metrics: Metrics::default() }
    }
}

impl Shared {
    /// Whether the loop turns.
    ///
    /// # Errors
    /// Since when not.
    pub fn live(&self) -> Result<(), String> {
        let since = self.start.elapsed().saturating_sub(Duration::from_millis(self.turned.load(Ordering::Relaxed)));
        if since < STUCK_AFTER { Ok(()) } else { Err(format!("no pass has ended for {} s", since.as_secs())) }
    }

    /// Whether its node's GPUs can be used.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn ready(&self) -> Result<(), String> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All metrics, in the Prometheus (`OpenMetrics`) text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }

    fn turn(&self, ready: Result<(), String>) {
        self.turned.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }
}

/// Runs the agent until `stop` becomes true or its sender is gone.
///
/// # Errors
/// If another agent runs here, a file that was named cannot be read, or a thread ended.
pub async fn run(
    client: Client,
    load: Load,
    settings: Settings,
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), AgentError> {
    let cdi = settings.cdi.as_deref().map(|folder| Cdi::new(folder, settings.cdi_common.clone(), &settings.proc));
    let answers = Arc::new(Answers::default());
    let gave = answers.gave();
    let plugins = DevicePlugins::new(&settings.device_plugins, answers.clone());
    let mut states = plugins.states();
    let node = settings.node.clone();
    let objects = Objects::of(&client, &node);
    let mut seen = objects.seen();
    let mut agent = Agent::new(settings, load, plugins, answers, cdi, shared.clone());
    let mut depth = Depth::All;
    let mut looked = Instant::now();
    let seen = 'work: loop {
        if depth == Depth::All {
            looked = Instant::now();
        }
        let now = seen.borrow_and_update().clone();
        let passed = agent.pass(&now, depth).await;
        if let Err(error @ AgentError::Checkpoint(_)) = &passed {
            objects.warn("AnotherAgentRuns", &error.to_string(), LAST_WORDS).await;
        }
        let (told, pause, next) = passed?;
        shared.turn(readiness(&now, &node, told.as_ref()));
        if let Some(told) = &told {
            objects.tell(told);
            shared.metrics.tell(told);
        }
        let due = LOOK_EVERY.saturating_sub(looked.elapsed());
        let (pause, after) = if due <= pause { (due, Depth::All) } else { (pause, next) };
        depth = 'wait: loop {
            break tokio::select! {
            biased;
            () = stopped(&mut stop) => break 'work now,
            changed = seen.changed() => {
                if changed.is_err() {
                    return Err(AgentError::Thread("the one that watches the API server".to_owned()));
                }
                Depth::Kubelet
            }
            event = agent.event() => {
                if !agent.hear(event).await? {
                    continue 'wait;
                }
                Depth::All
            }
            () = gave.notified() => {
                shared.metrics.gave();
                Depth::Kubelet
            }
            Ok(()) = states.changed() => Depth::Kubelet,
            () = sleep(pause) => after,
            };
        };
    };
    if let Some(last) = agent.stop(&seen).await {
        objects.tell(&last);
        objects.written(&last, LAST_WORDS).await;
    }
    Ok(())
}

/// Returns when it is time to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn readiness(seen: &Seen, node: &str, status: Option<&GpuNodeStatus>) -> Result<(), String> {
    if seen.node.is_none() {
        return Err(no_node(node));
    }
    let status =
        status.ok_or_else(|| "the API server has not told of the GpuNode yet; are the definitions of deploy/crds installed?".to_owned())?;
    match status.conditions.iter().find(|one| one.type_ == "Ready" && one.status != "True") {
        Some(bad) => Err(format!("{}: {}", bad.reason, bad.message)),
        None => Ok(()),
    }
}
