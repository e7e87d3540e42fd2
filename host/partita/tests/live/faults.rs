//! Whatever dies at whatever moment: no pod is lost, none is bound twice, no partition is used twice.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use partita_cluster::Program;
use serde_json::json;

use crate::stage::{Stage, asks, gpu_nodes, merge, until};

/// How many pods wait when the scheduler dies; those of the first wave are bound before.
const PODS: usize = 12;

/// Pods that need partitions, and one that needs none. Those of an odd wave need others than those of an even one, so that warm partitions
/// do not do.
async fn pods(stage: &Stage, wave: &str, odd: bool) -> Vec<String> {
    let mut names = Vec::new();
    for number in 0..PODS {
        let name = format!("{wave}-{number}");
        let profile = if odd { ["4g.40gb", "4g.40gb", "3g.40gb"] } else { ["1g.10gb", "2g.20gb", "1g.20gb"] }[number % 3];
        stage.asking("default", &name, json!({ format!("nvidia.com/mig-{profile}"): "1" })).await;
        names.push(name);
    }
    let plain = format!("{wave}-plain");
    stage.asking("default", &plain, json!({ "cpu": "100m" })).await;
    names.push(plain);
    names
}

async fn all_bound(stage: &Stage, names: &[String]) {
    for name in names {
        stage.bound("default", name).await;
    }
}

/// A scheduler that dies at each place where it is about to do something, or has just done it.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_dies_loses_and_doubles_nothing() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 2, 4).await;
    let agents = stage.agents();
    for (row, fault) in
        ["layout.before", "layout.after", "bind.before", "bind.after", "bind.before:5", "layout.after", "bind.after:9"].iter().enumerate()
    {
        let mut dies = stage.scheduler_with(&["--no-lease"], Some(fault));
        let names = pods(&stage, &format!("wave-{row}"), row % 2 == 1).await;
        let status = dies.ended().await;
        assert!(!status.success(), "{fault}");
        let lives = stage.scheduler();
        all_bound(&stage, &names).await;
        drop(lives);
        assert_eq!(agents.violations(), [], "{fault}");
        for name in names {
            stage.delete("default", &name).await;
        }
    }
}

/// The API server and etcd go away and come back, and history is forgotten, while pods come.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_comes_back_is_followed_again() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 4, 4).await;
    let agents = stage.agents();
    let mut scheduler = stage.scheduler();
    let mut names = pods(&stage, "before", false).await;
    all_bound(&stage, &names).await;

    stage.cluster.restart(Program::ApiServer).await.unwrap();
    names = pods(&stage, "restarted", false).await;
    all_bound(&stage, &names).await;

    stage.cluster.kill(Program::Etcd).unwrap();
    stage.cluster.start_again(Program::Etcd).await.unwrap();
    until("the API server answers", async || stage.pods("default").get("before-0").await.ok()).await;
    names = pods(&stage, "etcd", false).await;
    all_bound(&stage, &names).await;

    // A watch that stood still while everything it would be told of was forgotten must list anew.
    scheduler.signal(rustix::process::Signal::STOP);
    stage.delete("default", "before-0").await;
    names = pods(&stage, "forgotten", false).await;
    stage.cluster.forget_history().await.unwrap();
    scheduler.signal(rustix::process::Signal::CONT);
    all_bound(&stage, &names).await;

    assert!(scheduler.runs(), "{}", scheduler.log());
    assert_eq!(agents.violations(), []);
}

/// The same while pods are evicted and volumes are chosen.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_dies_while_it_evicts_or_chooses_volumes_goes_on() {
    let stage = Stage::with(&[Program::ControllerManager, Program::Kwok]).await;
    stage.priority("high", 100).await;
    stage.local_volumes("local").await;
    for (row, fault) in ["evict.before", "evict.after", "volumes.before", "volumes.after"].iter().enumerate() {
        let node = format!("node-{row}");
        stage.node(&node, json!({}), json!({}), json!({ "cpu": "4" })).await;
        let here = json!({ "nodeSelector": { "kubernetes.io/hostname": node } });
        let asking = |cpu: &str, more: serde_json::Value| {
            let mut spec = asks(&json!({ "cpu": cpu }));
            merge(&mut spec, here.clone());
            merge(&mut spec, more);
            spec
        };
        let (loses, wins, claim) = (format!("loses-{row}"), format!("wins-{row}"), format!("data-{row}"));
        let lives = stage.scheduler();
        stage.pod("default", &loses, json!({}), asking("3", json!({ "terminationGracePeriodSeconds": 1 }))).await;
        stage.bound("default", &loses).await;
        drop(lives);

        stage.claim(&claim, "local").await;
        stage.local_volume(&format!("disk-{row}"), "local", &node).await;
        let mut dies = stage.scheduler_with(&["--no-lease"], Some(fault));
        let volumes = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }]);
        stage.pod("default", &wins, json!({}), asking("2", json!({ "priorityClassName": "high", "volumes": volumes }))).await;
        assert!(!dies.ended().await.success(), "{fault}");
        let _lives = stage.scheduler();
        assert_eq!(stage.bound("default", &wins).await, node, "{fault}");
        let gone = async || stage.pods("default").get_opt(&loses).await.unwrap().is_none().then_some(());
        until(&format!("{loses} is gone, and nobody else"), gone).await;
        let claims: kube::Api<PersistentVolumeClaim> = kube::Api::namespaced(stage.client.clone(), "default");
        assert_eq!(claims.get(&claim).await.unwrap().spec.unwrap().volume_name, Some(format!("disk-{row}")), "{fault}");
    }
}
