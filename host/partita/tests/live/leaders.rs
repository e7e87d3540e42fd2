//! Two schedulers, one of which acts.

use rustix::process::Signal;
use serde_json::json;

use crate::stage::{Stage, gpu_nodes, until};

async fn holder(stage: &Stage) -> Option<String> {
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> = kube::Api::namespaced(stage.client.clone(), "kube-system");
    leases.get_opt("partita-scheduler").await.ok()??.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_replaced_and_does_nothing_when_it_wakes() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 2, 4).await;
    let agents = stage.agents();
    let replica = |identity: &str| stage.scheduler_with(&["--identity", identity, "--lease-seconds", "3"], None);
    let mut one = replica("one");
    until("one leads", async || holder(&stage).await.filter(|holder| holder == "one")).await;
    let mut two = replica("two");
    stage.asking("default", "first", json!({ "nvidia.com/mig-3g.40gb": "1" })).await;
    stage.bound("default", "first").await;

    // Pods come while the leader stands still.
    one.signal(Signal::STOP);
    for number in 0..6 {
        stage.asking("default", &format!("pod-{number}"), json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    }
    until("two leads", async || holder(&stage).await.filter(|holder| holder == "two")).await;
    for number in 0..6 {
        stage.bound("default", &format!("pod-{number}")).await;
    }
    // It wakes with everything in its hands that it was about to do, finds its lease lost, and ends.
    stage.asking("default", "later", json!({ "nvidia.com/mig-2g.20gb": "1" })).await;
    one.signal(Signal::CONT);
    let status = one.ended().await;
    assert!(!status.success());
    assert!(one.log().contains("the lease was lost"), "{}", one.log());
    stage.bound("default", "later").await;
    assert_eq!(agents.violations(), []);

    // Who is asked to end gives the lease up, and the next one need not wait for its end.
    let mut three = replica("three");
    two.signal(Signal::TERM);
    assert!(two.ended().await.success());
    until("three leads", async || holder(&stage).await.filter(|holder| holder == "three")).await;
    stage.asking("default", "last", json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    stage.bound("default", "last").await;
    assert!(three.runs());
}
