//! Two schedulers, one of which acts.

use rustix::process::Signal;
use serde_json::json;

use crate::stage::{Stage, gpu_nodes, until};

/// Whether a replica of this identity holds a lease.
async fn holds(stage: &Stage, lease: &str, identity: &str) -> Option<()> {
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> = kube::Api::namespaced(stage.client.clone(), "kube-system");
    let holder = leases.get_opt(lease).await.ok()??.spec?.holder_identity?;
    holder.starts_with(&format!("{identity}_")).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_replaced_and_does_nothing_when_it_wakes() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 2, 4).await;
    let agents = stage.agents();
    let replica = |identity: &str| stage.scheduler_with(&["--identity", identity, "--lease-seconds", "3"], None);
    let mut one = replica("one");
    until("one leads", async || holds(&stage, "partita-scheduler", "one").await).await;
    let mut two = replica("two");
    stage.asking("default", "first", json!({ "nvidia.com/mig-3g.40gb": "1" })).await;
    stage.bound("default", "first").await;

    // Pods come while the leader stands still.
    one.signal(Signal::STOP);
    for number in 0..6 {
        stage.asking("default", &format!("pod-{number}"), json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    }
    until("two leads", async || holds(&stage, "partita-scheduler", "two").await).await;
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
    until("three leads", async || holds(&stage, "partita-scheduler", "three").await).await;
    stage.asking("default", "last", json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    stage.bound("default", "last").await;
    assert!(three.runs());
}

/// Replicas of one `--identity` are still two, and schedulers of two names do not wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_told_apart_and_so_are_schedulers() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 1, 1).await;
    let one = stage.scheduler_with(&["--identity", "same"], None);
    until("one leads", async || holds(&stage, "partita-scheduler", "same").await).await;
    let mut two = stage.scheduler_with(&["--identity", "same"], None);
    let waits = "waits for the lease kube-system/partita-scheduler, which same_";
    until("the other says that it waits", async || two.log().contains(waits).then_some(())).await;
    assert!(two.runs() && !two.log().contains("leads"), "{}", two.log());

    let third = stage.scheduler_with(&["--identity", "same", "--name", "other"], None);
    until("one of another name leads", async || holds(&stage, "other-scheduler", "same").await).await;
    let mut spec = crate::stage::asks(&json!({ "cpu": "100m" }));
    crate::stage::merge(&mut spec, json!({ "schedulerName": "other" }));
    stage.pod("default", "others", json!({}), spec).await;
    stage.bound("default", "others").await;
    assert!(!third.log().contains("waits for the lease"), "{}", third.log());
    drop(one);
}
