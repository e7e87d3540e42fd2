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
use partita_kubelet::DevicePlugins;
use tokio::{sync::watch, time::sleep};

use crate::{
    allocate::Answers,
    cdi::Cdi,
    error::AgentError,
    machine::Load,
    metrics::Metrics,
    object::Objects,
    pass::{Agent, Depth, LOOK_EVERY},
};

/// How long a pass may take before the agent counts as stuck: making the partitions of eight GPUs, each call with its own limit, ends
/// before.
const STUCK_AFTER: Duration = Duration::from_mins(10);

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
    /// A CDI file of which the part for all containers is taken.
    pub cdi_common: Option<PathBuf>,
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
    let cdi = settings.cdi.as_deref().map(|folder| Cdi::new(folder, settings.cdi_common.as_deref(), &settings.proc)).transpose()?;
    let answers = Arc::new(Answers::new(cdi.is_some()));
    let gave = answers.gave();
    let plugins = DevicePlugins::new(&settings.device_plugins, answers.clone());
    let mut states = plugins.states();
    let objects = Objects::of(&client, &settings.node);
    let mut seen = objects.seen();
    let mut agent = Agent::new(settings, load, plugins, answers, cdi, shared.clone());
    let mut depth = Depth::All;
    let mut looked = Instant::now();
    loop {
        if depth == Depth::All {
            looked = Instant::now();
        }
        let now = seen.borrow_and_update().clone();
        let (told, pause, next) = agent.pass(&now, depth).await?;
        shared.turn(readiness(told.as_ref()));
        if let Some(told) = &told {
            objects.tell(told);
            shared.metrics.tell(told);
        }
        let due = LOOK_EVERY.saturating_sub(looked.elapsed());
        let (pause, after) = if due <= pause { (due, Depth::All) } else { (pause, next) };
        depth = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = seen.changed() => {
                if changed.is_err() {
                    return Err(AgentError::Thread("the one that watches the API server".to_owned()));
                }
                Depth::Kubelet
            }
            event = agent.event() => if agent.hear(event).await? { Depth::All } else { Depth::Kubelet },
            () = gave.notified() => {
                shared.metrics.gave();
                Depth::Kubelet
            }
            Ok(()) = states.changed() => Depth::Kubelet,
            () = sleep(pause) => after,
        };
    }
    agent.stop().await;
    Ok(())
}

fn readiness(status: Option<&partita_kube::crd::GpuNodeStatus>) -> Result<(), String> {
    let status = status.ok_or_else(|| "the API server has not told of this node yet".to_owned())?;
    match status.conditions.iter().find(|one| one.type_ == "Ready" && one.status != "True") {
        Some(bad) => Err(format!("{}: {}", bad.reason, bad.message)),
        None => Ok(()),
    }
}
