//! A kubelet as far as device plugins see one, for tests: registration, the stream of devices, `Allocate`, and pod resources, over real
//! Unix sockets, without containers and in milliseconds.
//!
//! It does what the real one does (`pkg/kubelet/cm/devicemanager` of Kubernetes 1.37) where a plugin could notice: all sockets in the folder
//! of plugins are removed at the start, a registration is answered after the plugin was called back, a socket that is connected already is
//! refused, a resource whose stream ended has no healthy devices, a device that a pod uses stays used over a restart, a preference is asked
//! for where there is a choice. It lives on a thread of its own, so that [`FakeKubelet::kill`] ends everything of it at once.
//!
//! [`Faults`] make it slow, unwilling or dead in the middle of a call.

mod books;
mod pods;
mod registration;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use books::Books;
pub use books::{Admitted, Pod, Refused, Registration};
use partita_kubelet::proto::{
    v1::pod_resources_lister_server::PodResourcesListerServer,
    v1beta1::{device_plugin_client::DevicePluginClient, registration_server::RegistrationServer},
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Server};

/// How long [`FakeKubelet::until`] waits: long enough on any machine that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What goes wrong, from the next time on. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every answer comes this much later.
    pub delay: Duration,
    /// Registrations are refused in these words.
    pub refuse_registration: Option<String>,
    /// Registrations are answered well, and nothing follows.
    pub forget_registration: bool,
    /// The stream of devices is closed after so many lists.
    pub hang_up_after: Option<usize>,
    /// It dies when an `Allocate` is under way.
    pub die_in_allocate: bool,
    /// Questions about pod resources are refused in these words.
    pub refuse_pod_resources: Option<String>,
    /// It names no pods, as right after it was started, when it does not know them yet.
    pub names_no_pods: bool,
    /// The answer about pods has so many pods more, each with a long name.
    pub invented_pods: usize,
}

/// A kubelet in `root`: plugins in `root/device-plugins`, pod resources at `root/pod-resources/kubelet.sock`. What it knows of pods and devices survives a restart,
/// as the real one's checkpoint does.
#[derive(Debug)]
pub struct FakeKubelet {
    root: PathBuf,
    shared: Arc<Shared>,
    running: Mutex<Option<Runtime>>,
}

/// What its services share.
#[derive(Debug, Default)]
struct Shared {
    folder: PathBuf,
    books: Mutex<Books>,
    faults: Mutex<Faults>,
}

/// A panic in one test's thread leaves these whole: every change is one statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeKubelet {
    /// One that does not run yet; there is not even a folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let shared = Shared { folder: root.join("device-plugins"), ..Shared::default() };
        Self { root, shared: Arc::new(shared), running: Mutex::default() }
    }

    /// One that runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn started(root: impl Into<PathBuf>) -> io::Result<Self> {
        let kubelet = Self::new(root);
        kubelet.start()?;
        Ok(kubelet)
    }

    /// The folder of plugins.
    #[must_use]
    pub fn device_plugins_folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Where it answers about pods.
    #[must_use]
    pub fn pod_resources_socket(&self) -> PathBuf {
        self.root.join("pod-resources/kubelet.sock")
    }

    /// Starts, for the first time or again. Every socket in the folder of plugins is removed first.
    ///
    /// # Errors
    /// When folders or sockets cannot be made.
    pub fn start(&self) -> io::Result<()> {
        self.end();
        let pod_resources = self.pod_resources_socket();
        for folder in [Some(self.shared.folder.as_path()), pod_resources.parent()].into_iter().flatten() {
            fs::create_dir_all(folder)?;
            remove_sockets(folder)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let registration = Server::builder().add_service(RegistrationServer::new(registration::Service(self.shared.clone())));
        let lister = Server::builder().add_service(PodResourcesListerServer::new(pods::Service(self.shared.clone())));
        for (server, path) in [(registration, self.shared.folder.join("kubelet.sock")), (lister, pod_resources)] {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            let _inside = runtime.enter();
            let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
            // It ends with the runtime, and nobody is left to hear how.
            runtime.spawn(async move { drop(server.serve_with_incoming(incoming).await) });
        }
        *lock(&self.running) = Some(runtime);
        Ok(())
    }

    /// Ends as if killed: every connection breaks, its sockets stay as files.
    pub fn kill(&self) {
        self.end();
    }

    /// Ends in order: its own sockets are removed.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn stop(&self) -> io::Result<()> {
        self.end();
        for socket in [self.shared.folder.join("kubelet.sock"), self.pod_resources_socket()] {
            fs::remove_file(socket)?;
        }
        Ok(())
    }

    /// Changes what goes wrong.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.shared.faults));
    }

    /// Every registration that was asked for, the refused ones too.
    #[must_use]
    pub fn registrations(&self) -> Vec<Registration> {
        lock(&self.shared.books).registrations.clone()
    }

    /// The devices of a resource and whether they are healthy; none if it was never registered.
    #[must_use]
    pub fn devices(&self, resource: &str) -> Option<BTreeMap<String, bool>> {
        lock(&self.shared.books).devices.get(resource).cloned()
    }

    /// The ids of the healthy devices of a resource.
    #[must_use]
    pub fn healthy(&self, resource: &str) -> Vec<String> {
        let devices = self.devices(resource).unwrap_or_default();
        devices.into_iter().filter_map(|(id, healthy)| healthy.then_some(id)).collect()
    }

    /// A client of the plugin that serves `resource`, for calls that a real kubelet would never make.
    #[must_use]
    pub fn plugin(&self, resource: &str) -> Option<DevicePluginClient<Channel>> {
        lock(&self.shared.books).plugin(resource)
    }

    /// Returns when `condition` holds.
    ///
    /// # Panics
    /// When that takes longer than a minute: `what` did not come true.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let holds = async {
            while !condition(self) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, holds).await;
        assert!(waited.is_ok(), "a minute passed, and not {what}: {:?}", lock(&self.shared.books));
    }

    /// Gives a pod its devices, as at its start.
    ///
    /// # Errors
    /// When the pod would not be admitted, with the reason of its status.
    pub async fn admit(&self, pod: &Pod) -> Result<Admitted, Refused> {
        let dies = lock(&self.shared.faults).die_in_allocate;
        let admission = pods::admit(self.shared.clone(), pod.clone());
        let Some(runtime) = lock(&self.running).as_ref().map(|runtime| runtime.handle().clone()) else {
            return Err(Refused("the kubelet does not run".to_owned()));
        };
        let admission = runtime.spawn(admission);
        if dies {
            self.until("Allocate was under way", |kubelet| lock(&kubelet.shared.books).allocating > 0).await;
            self.kill();
        }
        admission.await.unwrap_or_else(|_| Err(Refused("the kubelet died".to_owned())))
    }

    /// The pod has ended: its devices are free.
    pub fn terminate(&self, namespace: &str, name: &str) {
        lock(&self.shared.books).terminate(namespace, name);
    }

    fn end(&self) {
        let runtime = lock(&self.running).take();
        if let Some(runtime) = runtime {
            // On a thread that may block: when this returns, nobody listens any more. A panic in there is of no interest.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join();
        }
        lock(&self.shared.books).disconnect_all();
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.end();
    }
}

fn remove_sockets(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
