//! `partita-cluster up`: a cluster in the foreground.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use partita_cluster::{
    ControlPlane, KUBERNETES_VERSION, NodeShape, Options, Program,
    agent::{Agents, Behaviour},
    install_crds, nodes, programs,
};
use partita_kube::translate::keys;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Output, Up};

/// Where the kubeconfig of the running cluster lies, unless it was told another place.
pub(crate) fn kubeconfig() -> PathBuf {
    programs::cache().join("kubeconfig")
}

pub(crate) fn run(arguments: &Up) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(up(arguments))
}

async fn up(arguments: &Up) -> Result<()> {
    let mut place = Place::take(arguments.kubeconfig.as_deref())?;
    let [mut interrupt, mut terminate] = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    // Builds first, so that the time of the start is that of the start.
    tokio::task::spawn_blocking(programs::build).await??;
    let began = Instant::now();
    // The agents end before the cluster does.
    let (cluster, _agents) = tokio::select! {
        cluster = start(arguments) => cluster?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    place.fill(cluster.kubeconfig())?;
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Text => out.write_all(text(arguments, &cluster, &place.path, began).as_bytes())?,
        Output::Json => writeln!(out, "{}", json(arguments, &cluster, &place.path))?,
    }
    out.flush()?;
    drop(out);
    tokio::select! {
        error = cluster.failure() => Err(error.into()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

async fn start(arguments: &Up) -> Result<(ControlPlane, Agents)> {
    let mut programs: std::collections::BTreeSet<Program> = [Program::ControllerManager, Program::Kwok].into();
    programs.extend(arguments.with_kube_scheduler.then_some(Program::Scheduler));
    let cluster = ControlPlane::start(Options { programs, ..Options::default() }).await?;
    install_crds(&cluster.client()).await?;
    nodes::create(&cluster.client(), &shape(arguments)).await?;
    let agents = Agents::start(cluster.client(), Behaviour::default());
    agents.ready(if arguments.gpus > 0 { arguments.nodes } else { 0 }).await;
    Ok((cluster, agents))
}

fn shape(arguments: &Up) -> NodeShape {
    let plain = NodeShape::new(if arguments.gpus > 0 { "gpu" } else { "node" }, arguments.nodes);
    let shape = NodeShape { cpu: arguments.cpu.clone(), memory: arguments.memory.clone(), ..plain };
    if arguments.gpus == 0 {
        return shape;
    }
    let mut shape = shape.with_gpus(arguments.model, arguments.gpus);
    let partitioning = arguments.partitioning.to_possible_value().map(|value| value.get_name().to_owned());
    shape.labels.extend(partitioning.map(|value| (keys::PARTITIONING.to_owned(), value)));
    shape
}

fn text(arguments: &Up, cluster: &ControlPlane, kubeconfig: &Path, began: Instant) -> String {
    let Up { nodes, gpus, cpu, memory, .. } = arguments;
    let equipment = if *gpus > 0 { format!("{gpus} × {}, ", arguments.model.product) } else { String::new() };
    let scheduler = if arguments.with_kube_scheduler { "kube-scheduler" } else { "none: pods stay pending until a scheduler runs" };
    let agents = if *gpus > 0 { "simulated: they make partitions of nothing and report them in GpuNodes" } else { "none" };
    format!(
        "Kubernetes v{KUBERNETES_VERSION} runs until Ctrl-C, started in {:.1} s\n\
         \n\
         address    {}\n\
         nodes      {nodes}, simulated, each with {equipment}{cpu} processors and {memory} of memory\n\
         scheduler  {scheduler}\n\
         agents     {agents}\n\
         logs       {}\n\
         kubectl    {}\n\
         \n\
         In another terminal:\n\
         export KUBECONFIG={}\n",
        began.elapsed().as_secs_f64(),
        cluster.url(),
        cluster.log(Program::ApiServer).with_file_name("*.log").display(),
        cluster.programs().kubectl.display(),
        kubeconfig.display(),
    )
}

fn json(arguments: &Up, cluster: &ControlPlane, kubeconfig: &Path) -> serde_json::Value {
    let running: Vec<_> = Program::ALL.into_iter().filter_map(|program| Some((program.name(), cluster.process_id(program)?))).collect();
    json!({
        "kubernetes": KUBERNETES_VERSION,
        "url": cluster.url(),
        "kubeconfig": kubeconfig,
        "kubectl": cluster.programs().kubectl,
        "folder": cluster.folder(),
        "nodes": arguments.nodes,
        "processes": running.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

/// Where the kubeconfig is put. It goes when the cluster does.
struct Place {
    path: PathBuf,
    filled: bool,
    /// Locked as long as the cluster runs, if the place is the default one.
    _lock: Option<File>,
}

impl Place {
    fn take(path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path {
            let path = std::path::absolute(path)?;
            if path.exists() {
                // It may be the way to a cluster that somebody works with.
                bail!("{} exists: name a file that does not, or remove it", path.display());
            }
            return Ok(Self { path, filled: false, _lock: None });
        }
        let path = kubeconfig();
        let lock = path.with_extension("lock");
        fs::create_dir_all(programs::cache()).with_context(|| format!("could not make {}", programs::cache().display()))?;
        let file = File::create(&lock).with_context(|| format!("could not make {}", lock.display()))?;
        if file.try_lock().is_err() {
            bail!("a cluster runs already: end it, or give this one a place of its own with --kubeconfig");
        }
        Ok(Self { path, filled: false, _lock: Some(file) })
    }

    /// Copies the file, which only its owner may read.
    fn fill(&mut self, kubeconfig: &Path) -> Result<()> {
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(self.path.parent().unwrap_or(Path::new(".")))?;
            file.write_all(&fs::read(kubeconfig)?)?;
            file.persist(&self.path).map_err(|error| error.error)
        };
        write().with_context(|| format!("could not write {}", self.path.display()))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.filled {
            // It leads nowhere any more; if it cannot go, kubectl will say so.
            let _ = fs::remove_file(&self.path);
        }
    }
}
