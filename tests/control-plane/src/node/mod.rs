//! A real node: the kubelet, containerd and runc, with real containers, for tests of what stands between the API server and a container.
//!
//! Everything runs in namespaces of its own ([`settings::INSIDE`]). The kubelet's fixed path `/var/lib/kubelet` is a folder of the node's
//! there, so several nodes may run at once, beside a kubelet of the machine's own; and when the first process in there is killed, the kernel
//! ends all others, containers too, and undoes their mounts. What remains are empty cgroups and the folder, which go with the value.

mod cgroups;
mod image;
mod settings;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use settings::{INSIDE, Places};

use crate::{
    ControlPlane,
    error::{Doing, Error},
    process::{Process, dying_with_us, last_lines, spawn},
    programs::{self, NodePrograms},
};

/// The image of every container of a real node: a program that prints what it sees as one line of JSON (environment, mounts, devices), and
/// ends when it is told to, or at once with the argument `once`.
pub const WITNESS_IMAGE: &str = "partita.dev/witness:1";

/// How long a program may take to become ready, on a machine that does much else.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// How often readiness is asked about.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// A node that runs. It ends and goes when this is dropped, which has to be before its control plane.
pub struct Node {
    name: String,
    places: Places,
    programs: NodePrograms,
    kubeconfig: PathBuf,
    client: kube::Client,
    /// The first process of the namespaces is its child.
    containerd: Process,
    kubelet: Mutex<Option<Process>>,
}

impl Node {
    /// Why this machine can have no real node, if it cannot. Tests that need one say so and pass.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("containers need root".to_owned());
        }
        let programs = [("runc", "runc"), ("unshare", "util-linux"), ("nsenter", "util-linux"), ("setpriv", "util-linux")];
        let lacks = |program: &str| {
            let mut trial = process::Command::new(program);
            trial.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            trial.status().is_err()
        };
        if let Some((program, package)) = programs.into_iter().find(|(program, _)| lacks(program)) {
            return Some(format!("{program} was not found: install the package {package}"));
        }
        let mut trial = process::Command::new("unshare");
        trial.args(["--mount", "--pid", "--fork", "--mount-proc", "true"]).stdin(Stdio::null());
        match trial.output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!("namespaces cannot be made here: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Some(format!("unshare cannot be run: {error}")),
        }
    }

    /// Builds the programs if they are not built yet, starts them, and returns when the node `name` of `cluster` is ready.
    ///
    /// # Errors
    /// When [`Self::missing`] says why not, or a program does not become ready: then with the end of its log.
    pub async fn start(cluster: &ControlPlane, name: &str) -> Result<Self, Error> {
        if let Some(why) = Self::missing() {
            return Err(Error::NoNode(why));
        }
        let programs = tokio::task::spawn_blocking(programs::build_node).await;
        let programs = programs.map_err(io::Error::other).doing(|| "the build was interrupted".to_owned())??;
        // Short, as plugins make sockets in there, whose paths may have 107 bytes.
        let folder = cluster.folder().join(name);
        let places = Places { cgroup: cgroups::new_name(), folder };
        prepare(&places, &programs).doing(|| format!("could not prepare {}", places.folder.display()))?;
        let containerd = containerd(&places, &programs)?;
        let (name, kubeconfig, client) = (name.to_owned(), cluster.kubeconfig().to_owned(), cluster.client());
        let mut node = Self { name, places, programs, kubeconfig, client, containerd, kubelet: Mutex::default() };
        node.import().await?;
        node.start_kubelet().await?;
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the kubelet expects device plugins. Inside of the node this is `/var/lib/kubelet/device-plugins`.
    #[must_use]
    pub fn device_plugins_folder(&self) -> PathBuf {
        self.places.kubelet().join("device-plugins")
    }

    /// Where the kubelet answers who uses what.
    #[must_use]
    pub fn pod_resources_socket(&self) -> PathBuf {
        self.places.kubelet().join("pod-resources/kubelet.sock")
    }

    /// Where containerd looks for descriptions of devices (Container Device Interface).
    #[must_use]
    pub fn cdi_folder(&self) -> PathBuf {
        self.places.cdi()
    }

    /// What the kubelet said.
    #[must_use]
    pub fn kubelet_log(&self) -> PathBuf {
        self.places.log("kubelet")
    }

    /// What containerd said.
    #[must_use]
    pub fn containerd_log(&self) -> PathBuf {
        self.places.log("containerd")
    }

    /// What the newest run of a container printed, or nothing if it did not run yet.
    #[must_use]
    pub fn container_log(&self, namespace: &str, pod: &str, container: &str) -> String {
        let of_pod = format!("{namespace}_{pod}_");
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_pod = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&of_pod));
        let logs = entries(&self.places.pod_logs()).filter(is_pod).flat_map(|pod| entries(&pod.join(container)));
        let newest = logs.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
        let text = newest.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        // Time, stream, and whether the line is whole come first: `2026-01-01T00:00:00Z stdout F …`.
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).flat_map(|line| [line, "\n"]).collect()
    }

    /// Ends the kubelet as `kill -9` would. Containers go on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_kubelet(&self) -> Result<(), Error> {
        let kubelet = self.kubelet().take();
        kubelet.map_or(Ok(()), |mut kubelet| kubelet.kill_inside()).doing(|| format!("could not kill the kubelet of {}", self.name))
    }

    /// Starts the kubelet, for the first time or again, and waits until the node is ready.
    ///
    /// # Errors
    /// When it does not become ready: then with the end of its log.
    pub async fn start_kubelet(&self) -> Result<(), Error> {
        self.kill_kubelet()?;
        let ours = format!("/proc/{}/ns", self.containerd.id());
        let arguments = [
            format!("--mount={ours}/mnt"),
            format!("--pid={ours}/pid_for_children"),
            "--".to_owned(),
            "setpriv".to_owned(),
            "--pdeathsig=KILL".to_owned(),
            "--".to_owned(),
            self.programs.kubelet.display().to_string(),
            format!("--config={}", self.places.kubelet_settings().display()),
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--hostname-override={}", self.name),
            // Refused as an address of the node, which then has none, and needs none.
            "--node-ip=127.0.0.1".to_owned(),
            "--v=2".to_owned(),
        ];
        let since = k8s_openapi::jiff::Timestamp::now();
        let started = Process::start(Path::new("nsenter"), &arguments, &self.places.folder, &self.kubelet_log());
        *self.kubelet() = Some(started.doing(|| format!("could not run the kubelet of {}", self.name))?);
        let nodes: Api<Object> = Api::all(self.client.clone());
        let ready = async || nodes.get(&self.name).await.is_ok_and(|node| is_ready(&node, since));
        let ended = || self.kubelet().as_mut().and_then(Process::ended).map(|status| format!("the kubelet ended ({status})"));
        self.wait("the node was ready", &self.kubelet_log(), ready, ended).await
    }

    fn kubelet(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic elsewhere leaves it whole: every change is one statement.
        self.kubelet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Imports the image, once containerd takes it.
    async fn import(&mut self) -> Result<(), Error> {
        let (socket, image) = (self.places.socket(), self.places.image());
        let mut import = dying_with_us(&self.programs.ctr);
        import
            .arg("--address")
            .arg(&socket)
            .args(["--namespace", "k8s.io", "images", "import", "--local", "--snapshotter", "native"])
            .arg(&image);
        let log = self.containerd_log();
        let containerd = Mutex::new(&mut self.containerd);
        let ended = || {
            let ended = containerd.lock().unwrap_or_else(PoisonError::into_inner).ended();
            ended.map(|status| format!("containerd ended ({status})"))
        };
        let wait = Waiting { node: &self.name, what: "containerd listened", log: &log };
        wait.until(async || std::os::unix::net::UnixStream::connect(&socket).is_ok(), ended).await?;
        import.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn(import).doing(|| format!("could not run {}", self.programs.ctr.display()))?;
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.map_err(io::Error::other).flatten();
        let output = output.doing(|| "could not wait for the import of an image".to_owned())?;
        if output.status.success() {
            return Ok(());
        }
        let why = format!("{} was not imported: {}", image.display(), String::from_utf8_lossy(&output.stderr).trim());
        Err(Error::Node { node: self.name.clone(), why, last_lines: last_lines(&log), log })
    }

    async fn wait(&self, what: &str, log: &Path, ready: impl AsyncFn() -> bool, ended: impl Fn() -> Option<String>) -> Result<(), Error> {
        Waiting { node: &self.name, what, log }.until(ready, ended).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both are tried, and what remains is seen by nobody but the next start.
        let _ = self.kill_kubelet();
        let _ = self.containerd.kill();
        cgroups::remove(&self.places.cgroup);
        let _ = fs::remove_dir_all(&self.places.folder);
    }
}

/// Something that a program of a node is waited for.
struct Waiting<'a> {
    node: &'a str,
    what: &'a str,
    log: &'a Path,
}

impl Waiting<'_> {
    /// Asks `ready` until it says yes, as long as the program has not ended and not for ever.
    async fn until(&self, ready: impl AsyncFn() -> bool, ended: impl Fn() -> Option<String>) -> Result<(), Error> {
        let began = Instant::now();
        while !ready().await {
            let why = match ended() {
                Some(ended) => format!("{ended} before {}", self.what),
                None if began.elapsed() > READY_WITHIN => format!("{} s passed, and not {}", READY_WITHIN.as_secs(), self.what),
                None => {
                    tokio::time::sleep(ASKED_EVERY).await;
                    continue;
                }
            };
            let (node, log) = (self.node.to_owned(), self.log.to_owned());
            return Err(Error::Node { node, why, last_lines: last_lines(&log), log });
        }
        Ok(())
    }
}

/// Makes folders and settings, and removes what is left of nodes whose owners were killed.
fn prepare(places: &Places, programs: &NodePrograms) -> io::Result<()> {
    cgroups::remove_abandoned();
    for folder in [places.kubelet(), places.cdi(), places.networks(), places.pod_logs()] {
        fs::create_dir_all(folder)?;
    }
    fs::write(places.containerd_settings(), settings::containerd(places, WITNESS_IMAGE))?;
    fs::write(places.kubelet_settings(), settings::kubelet(places).to_string())?;
    fs::write(places.networks().join("none.conflist"), settings::network().to_string())?;
    image::write(&places.image(), WITNESS_IMAGE, &programs.witness)
}

fn containerd(places: &Places, programs: &NodePrograms) -> Result<Process, Error> {
    let text = |path: &Path| path.display().to_string();
    let beside = programs.containerd.parent().map(text).unwrap_or_default();
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", "sh", "-c", INSIDE, "sh"];
    let inside = [text(&places.kubelet()), beside, text(&programs.containerd), "--config".to_owned(), text(&places.containerd_settings())];
    let arguments: Vec<String> = namespaces.map(str::to_owned).into_iter().chain(inside).collect();
    let started = Process::start(Path::new("unshare"), &arguments, &places.folder, &places.log("containerd"));
    started.doing(|| format!("could not run {}", programs.containerd.display()))
}

/// Whether the kubelet said so after `since`, and no earlier one.
fn is_ready(node: &Object, since: k8s_openapi::jiff::Timestamp) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    // Times of the API are whole seconds.
    let fresh = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| time.0.as_second() > since.as_second();
    conditions.into_iter().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.last_heartbeat_time.as_ref().is_some_and(fresh)
    })
}
