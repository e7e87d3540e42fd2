//! Our scheduler in the process of a benchmark, with its policies as components, exactly as `partita scheduler` wires it.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use partita_cluster::ControlPlane;
use partita_core::{Config, policy::Partitioner};
use partita_kube::{
    run::{self, Shared},
    scheduler::{Metrics, Scheduler},
};
use partita_policy::{Host, Limits};
use prometheus_client::registry::Registry;
use tokio::{sync::watch, task::JoinHandle};

/// Our scheduler, running.
pub(crate) struct Ours {
    stop: watch::Sender<bool>,
    task: JoinHandle<run::End>,
}

impl Ours {
    /// Starts it, and returns when it knows all there is.
    pub(crate) async fn start(cluster: &ControlPlane, host: Host) -> Result<Self> {
        let policy = tokio::task::spawn_blocking(move || {
            host.load_bundled("fragmentation", "", Limits::default()).map(|loaded| (host, loaded.policy))
        });
        let (host, policy) = policy.await??;
        let first_fit = partita_policy::native("first-fit", "")?;
        let policies: Vec<Box<dyn Partitioner + Send>> = vec![Box::new(policy), Box::new(first_fit)];
        let metrics = Metrics::new(&mut Registry::default());
        let shared = Arc::new(Shared::new(Scheduler::new("partita", Config::DEFAULT, false, metrics.clone()), metrics));
        let (stop, stopped) = watch::channel(false);
        let client = cluster.client();
        let options = run::Options { identity: "bench".into(), lease: None, dry_run: false };
        let running = shared.clone();
        let task = tokio::spawn(async move {
            // The host's clock must tick as long as its policies are asked.
            let _host = host;
            run::run(client, &options, &running, policies, &mut |_| {}, stopped).await
        });
        while shared.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { stop, task })
    }

    /// Ends it, and waits for that.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.task.await?;
        Ok(())
    }
}
