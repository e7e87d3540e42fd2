//! The machine's GPUs: the driver, loaded when it can be, and calls that block, kept off the agent's own thread.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use partita_device::{CheckpointError, DeviceError, Driver, Node, Settings, gpu::Event};
use tokio::{sync::mpsc as inbox, task::spawn_blocking};

use crate::{error::AgentError, report::Standing};

/// Loads the driver: again and again while there is none.
pub type Load = Arc<dyn Fn() -> Result<Arc<dyn Driver>, DeviceError> + Send + Sync>;

/// How long one wait for errors of GPUs takes, and the pause after one that failed.
const EVENTS_WITHIN: Duration = Duration::from_secs(5);
/// Errors of GPUs that wait for the agent: beyond it the driver keeps them.
const EVENTS_MAX: usize = 256;

/// GPUs, with the driver loaded.
pub struct Machine {
    /// None only while a call is under way on another thread.
    node: Option<Node>,
    /// The driver's version.
    pub version: String,
    /// What an operator should know of the checkpoint.
    pub damage: Option<String>,
    /// Errors of GPUs.
    pub events: inbox::Receiver<Event>,
    /// The GPUs that the thread of events listens to.
    listened: Arc<Mutex<Vec<String>>>,
    /// The thread of events ends when this is dropped.
    _alive: mpsc::Sender<()>,
}

/// Why there is no machine.
#[derive(Debug)]
pub enum Missing {
    /// For now: it is tried again.
    Now(Standing),
    /// Another agent has it.
    Taken(CheckpointError),
}

impl Machine {
    /// Loads the driver and takes up where the last run ended.
    ///
    /// # Errors
    /// Why not, and whether it can be tried again.
    pub async fn open(load: Load, settings: Settings) -> Result<Self, Missing> {
        let standing = |reason, message| Missing::Now(Standing { ready: false, reason, message });
        let opened = spawn_blocking(move || {
            let driver = load().map_err(|error| standing("NoDriver", error.to_string()))?;
            let (node, damage) = Node::open(driver, &settings).map_err(|error| match error {
                CheckpointError::Locked(_) => Missing::Taken(error),
                CheckpointError::File { .. } => standing("CheckpointUnusable", error.to_string()),
            })?;
            let version = node.driver().version().map_err(|error| standing("DriverFails", error.to_string()))?;
            Ok((node, damage, version))
        });
        let (node, damage, version) = opened.await.map_err(|error| standing("Bug", error.to_string()))??;
        let (alive, ended) = mpsc::channel();
        let (sender, events) = inbox::channel(EVENTS_MAX);
        let listened = Arc::<Mutex<Vec<String>>>::default();
        let (driver, gpus) = (node.driver(), listened.clone());
        thread::spawn(move || listen(&*driver, &gpus, &sender, &ended));
        Ok(Self { node: Some(node), version, damage, events, listened, _alive: alive })
    }

    /// Does something that may block.
    ///
    /// # Errors
    /// If it panicked.
    pub async fn with<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Node) -> T + Send + 'static) -> Result<T, AgentError> {
        let ended = || AgentError::Thread("its work on the GPUs failed before".to_owned());
        let mut node = self.node.take().ok_or_else(ended)?;
        let done = spawn_blocking(move || {
            let result = work(&mut node);
            (node, result)
        });
        let (node, result) = done.await.map_err(|error| AgentError::Thread(error.to_string()))?;
        self.node = Some(node);
        Ok(result)
    }

    /// Listens to the errors of these GPUs from now on.
    pub fn listen_to(&self, gpus: Vec<String>) {
        *self.listened.lock().unwrap_or_else(PoisonError::into_inner) = gpus;
    }
}

fn listen(driver: &dyn Driver, gpus: &Mutex<Vec<String>>, sender: &inbox::Sender<Event>, ended: &mpsc::Receiver<()>) {
    let gone = |within| matches!(ended.recv_timeout(within), Err(mpsc::RecvTimeoutError::Disconnected));
    while !gone(Duration::ZERO) {
        let listened = gpus.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let event = if listened.is_empty() { Ok(None) } else { driver.next_event(&listened, EVENTS_WITHIN) };
        let pause = match event {
            Ok(Some(event)) => match sender.blocking_send(event) {
                Ok(()) => continue,
                Err(_) => return,
            },
            Ok(None) => {
                if listened.is_empty() {
                    Duration::from_millis(200)
                } else {
                    Duration::ZERO
                }
            }
            Err(error) => {
                tracing::warn!("errors of GPUs cannot be heard: {error}");
                EVENTS_WITHIN
            }
        };
        if gone(pause) {
            return;
        }
    }
}

/// What tells one boot of this machine from another.
#[must_use]
pub fn boot_id() -> String {
    let read = std::fs::read_to_string(PathBuf::from("/proc/sys/kernel/random/boot_id"));
    read.map(|text| text.trim().to_owned()).unwrap_or_default()
}
