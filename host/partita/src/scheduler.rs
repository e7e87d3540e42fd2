//! `partita scheduler`: the live scheduler, wired up.

use std::{env, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use partita_core::policy::Partitioner;
use partita_kube::{
    lease,
    run::{self, End, Options, Shared},
    scheduler::{self, Metrics, effect::Effect},
};
use partita_web::Source;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::{net::TcpListener, signal::unix::SignalKind, sync::watch};

use crate::{
    args::{Output, Scheduler},
    output, simulate,
};

/// The policy that decides if none is named.
const DEFAULT: &str = "fragmentation";
/// How long requests for metrics may go on after the scheduler ended.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Runs the command.
pub(crate) fn run(arguments: &Scheduler) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("there are no threads to run on")?;
    let end = runtime.block_on(schedule(arguments))?;
    // Calls under way are not waited for: what they did is seen by whoever leads next.
    runtime.shutdown_timeout(LAST_REQUESTS);
    match end {
        End::Stopped => Ok(ExitCode::SUCCESS),
        End::LostLease => bail!("the lease was lost: another process may lead now; start this one again to run for it anew"),
        End::Blind => bail!("a watch of the cluster ended; start this process again, and report the bug with its log"),
    }
}

async fn schedule(arguments: &Scheduler) -> Result<End> {
    let client = client(arguments.kubeconfig.as_deref()).await?;
    let policies = policies(arguments)?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let brain = scheduler::Scheduler::new(&arguments.name, arguments.planner.config(), arguments.dry_run, metrics.clone());
    let shared = Arc::new(Shared::new(brain, metrics));
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("metrics and health cannot be served on {}; name another address with --listen", arguments.listen))?;
    let server = tokio::spawn(partita_web::serve(listener, Arc::new(Shown { shared: shared.clone(), registry }), stopped.clone()));
    tokio::spawn(stop_on_signal(stop.clone()));

    let identity = lease::identity(&name(arguments)).context("no name can be made for this process that no other has")?;
    let lease = (!arguments.no_lease && !arguments.dry_run).then(|| lease::Config {
        namespace: arguments.lease_namespace.clone(),
        name: arguments.lease_name.clone().unwrap_or_else(|| format!("{}-scheduler", arguments.name)),
        identity: identity.clone(),
        duration: Duration::from_secs(arguments.lease_seconds),
    });
    let options = Options { identity, lease, dry_run: arguments.dry_run };
    let json = arguments.output == Output::Json;
    let mut report = |effect: &Effect| {
        // A reader that went away misses the rest; the next thing that fails for it ends the program.
        let _ = if json { output::json_line(effect) } else { output::line(&words(effect)) };
    };
    let end = run::run(client, &options, &shared, policies, &mut report, stopped).await;
    stop.send_replace(true);
    drop(tokio::time::timeout(LAST_REQUESTS, server).await);
    Ok(end)
}

/// A client that repeats nothing by itself.
pub(crate) async fn client(kubeconfig: Option<&std::path::Path>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.context("the kubeconfig names no usable cluster")?
        }
        None => {
            Config::infer().await.context("no cluster was found; name a kubeconfig with --kubeconfig or KUBECONFIG, or run in a cluster")?
        }
    };
    config.default_retry = false;
    Client::try_from(config).context("the kubeconfig does not make a client")
}

/// The policy and what answers for it when it fails.
fn policies(arguments: &Scheduler) -> Result<Vec<Box<dyn Partitioner + Send>>> {
    let spec = match &arguments.policy {
        Some(spec) => spec.clone(),
        None => DEFAULT.parse().map_err(anyhow::Error::msg)?,
    };
    Ok(simulate::chain(&simulate::host()?, &spec, arguments.native)?.into_links())
}

/// What people know this process by: the pod's name in a cluster, else the machine's.
fn name(arguments: &Scheduler) -> String {
    let set = arguments.identity.clone().or_else(|| env::var("HOSTNAME").ok());
    // Shells seldom export HOSTNAME; what is appended tells apart those that have no name at all.
    let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    set.or_else(machine).filter(|name| !name.is_empty()).unwrap_or_else(|| "partita".into())
}

pub(crate) async fn stop_on_signal(stop: watch::Sender<bool>) {
    let term = async {
        match tokio::signal::unix::signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = term => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("is asked to stop");
    stop.send_replace(true);
}

/// What the HTTP server shows.
struct Shown {
    shared: Arc<Shared>,
    registry: Registry,
}

impl Source for Shown {
    fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn live(&self) -> Result<(), String> {
        self.shared.live()
    }

    fn ready(&self) -> Result<(), String> {
        self.shared.ready()
    }

    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let standing = self.shared.brain().standing(namespace, pod)?;
        serde_json::to_value(standing).ok()
    }
}

/// An effect of a dry run, for a person.
fn words(effect: &Effect) -> String {
    match effect {
        Effect::Layout { node, spec, .. } => format!("layout   {node}: generation {}", spec.generation),
        Effect::Volumes { pod, choices, .. } => format!("volumes  {}/{}: {} to choose", pod.namespace, pod.name, choices.len()),
        Effect::Bind { pod, node, grant } => {
            let grant = grant.as_ref().map(|grant| format!(" ({grant})")).unwrap_or_default();
            format!("bind     {}/{} to {node}{grant}", pod.namespace, pod.name)
        }
        Effect::Look { pod, node } => format!("look     {}/{}: whether it is on {node}", pod.namespace, pod.name),
        Effect::Evict { pod, by } => format!("evict    {}/{} for {by}", pod.namespace, pod.name),
        Effect::Nominate { pod, node } if node.is_empty() => format!("nominate {}/{} to no node any more", pod.namespace, pod.name),
        Effect::Nominate { pod, node } => format!("nominate {}/{} to {node}", pod.namespace, pod.name),
        Effect::Explain { pod, message, .. } => format!("waits    {}/{}: {message}", pod.namespace, pod.name),
    }
}
