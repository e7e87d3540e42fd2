//! `partita agent`: the agent of this node, wired up.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use partita_agent::{Settings, Shared, cdi, machine};
use partita_device::{Installed, Programs, TimeSlice};
use partita_web::Source;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

use super::Gpus;
use crate::scheduler::{client, stop_on_signal};

/// How long requests for metrics may go on after the agent ended.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// The end of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  partita agent --node gpu-1
      on the machine of the Node gpu-1, as deploy/agent.yaml runs it
  partita agent --node gpu-1 --simulated H100-80GB×8 --kubeconfig ./config
      the same with GPUs that do not exist
  partita agent inspect
      what is on the GPUs of this machine; changes nothing";

/// Runs the agent of a node: makes its GPUs what the scheduler wants, hands them to the kubelet, and tells the API server what they are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// The name of this machine's Node.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", default_value = "")]
    node: String,
    #[command(flatten)]
    gpus: Gpus,
    /// How to reach the cluster, if not as kubectl or a pod does.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where metrics and health are served.
    #[arg(long, default_value = "127.0.0.1:9477", value_name = "ADDRESS")]
    listen: String,
    /// The folder where it keeps what it made; the same after a restart.
    #[arg(long, default_value = "/var/lib/partita", value_name = "FOLDER")]
    state: PathBuf,
    /// The kubelet's folder for device plugins.
    #[arg(long, default_value = partita_agent::DEVICE_PLUGINS_FOLDER, value_name = "FOLDER")]
    device_plugins: PathBuf,
    /// Where the kubelet answers who uses what.
    #[arg(long, default_value = partita_agent::POD_RESOURCES_SOCKET, value_name = "SOCKET")]
    pod_resources: PathBuf,
    /// The folder where container runtimes look for devices (CDI).
    #[arg(long, default_value = "/var/run/cdi", value_name = "FOLDER")]
    cdi: PathBuf,
    /// A CDI file of which every container with a GPU gets the common part, the driver's libraries: what `nvidia-ctk cdi generate` writes. It is
    /// found by itself in /var/run/cdi or /etc/cdi. Without it containers get GPUs by `NVIDIA_VISIBLE_DEVICES`.
    #[arg(long, value_name = "FILE")]
    cdi_common: Option<PathBuf>,
    /// The folder of MPS's daemons. It is mounted into containers, so in a pod it must have the same path as on the machine.
    #[arg(long, default_value = "/run/partita/mps", value_name = "FOLDER")]
    mps: PathBuf,
    /// MPS's control program, if PATH does not have it.
    #[arg(long, value_name = "FILE")]
    mps_control: Option<PathBuf>,
    /// How long a process has a GPU that several use in turn.
    #[arg(long, value_enum, default_value_t = Slice::Default, value_name = "LENGTH")]
    time_slice: Slice,
    /// Where the kernel tells the numbers of device nodes.
    #[arg(long, default_value = "/proc", value_name = "FOLDER")]
    proc: PathBuf,
    /// Write no CDI file: containers get GPUs by `NVIDIA_VISIBLE_DEVICES`, which NVIDIA's container runtime reads.
    #[arg(long, conflicts_with_all = ["cdi", "cdi_common"])]
    no_cdi: bool,
}

/// The driver's lengths of a time slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Slice {
    /// As the driver does it by itself.
    Default,
    /// Answers come sooner, and more time goes into switching.
    Short,
    /// Between the two.
    Medium,
    /// Less switching, later answers.
    Long,
}

/// Runs the command.
pub(super) fn run(arguments: &Run) -> Result<ExitCode> {
    anyhow::ensure!(!arguments.node.is_empty(), "no Node is named: name this machine's with --node or NODE_NAME (see `kubectl get nodes`)");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("there are no threads to run on")?;
    let end = runtime.block_on(work(arguments));
    // A call of the driver that hangs is not waited for.
    runtime.shutdown_timeout(LAST_REQUESTS);
    end.map(|()| ExitCode::SUCCESS)
}

async fn work(arguments: &Run) -> Result<()> {
    let client = client(arguments.kubeconfig.as_deref()).await?;
    let shared = Arc::new(Shared::default());
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("metrics and health cannot be served on {}; name another address with --listen", arguments.listen))?;
    let server = tokio::spawn(partita_web::serve(listener, Arc::new(Shown(shared.clone())), stopped.clone()));
    tokio::spawn(stop_on_signal(stop.clone()));
    let common = arguments.cdi_common.clone().or_else(|| if arguments.gpus.is_simulated() { None } else { cdi::common() });
    // Nothing of a GPU that does not exist has to be brought into a container.
    let has_cdi = !arguments.no_cdi && (common.is_some() || arguments.gpus.is_simulated());
    let settings = Settings {
        node: arguments.node.clone(),
        device: arguments.device(),
        device_plugins: arguments.device_plugins.clone(),
        pod_resources: arguments.pod_resources.clone(),
        cdi: has_cdi.then(|| arguments.cdi.clone()),
        cdi_common: common,
        proc: arguments.proc.clone(),
    };
    let (gpus, node) = (arguments.gpus.clone(), arguments.node.clone());
    let load: machine::Load = Arc::new(move || gpus.driver(&node));
    let end = partita_agent::run(client, load, settings, &shared, stopped).await;
    stop.send_replace(true);
    drop(tokio::time::timeout(LAST_REQUESTS, server).await);
    end.map_err(Into::into)
}

impl Run {
    fn device(&self) -> partita_device::Settings {
        let settings = partita_device::Settings::new(&self.state.join("agent.json"), &machine::boot_id());
        let settings = if self.gpus.is_simulated() { settings.simulated() } else { self.with_programs(settings) };
        let time_slice = match self.time_slice {
            Slice::Default => TimeSlice::Default,
            Slice::Short => TimeSlice::Short,
            Slice::Medium => TimeSlice::Medium,
            Slice::Long => TimeSlice::Long,
        };
        partita_device::Settings { time_slice, ..settings }
    }

    fn with_programs(&self, settings: partita_device::Settings) -> partita_device::Settings {
        let installed = Installed::new(&self.mps);
        let control = self.mps_control.clone().unwrap_or_else(|| installed.control.clone());
        partita_device::Settings { programs: Programs::Installed(Installed { control, ..installed }), ..settings }
    }
}

/// What the HTTP server shows.
struct Shown(Arc<Shared>);

impl Source for Shown {
    fn metrics(&self) -> String {
        self.0.metrics()
    }

    fn live(&self) -> Result<(), String> {
        self.0.live()
    }

    fn ready(&self) -> Result<(), String> {
        self.0.ready()
    }

    fn explain(&self, _: &str, _: &str) -> Option<Value> {
        None
    }
}
