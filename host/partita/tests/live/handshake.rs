//! Pods that need new partitions: made, reused, destroyed for others, and what happens when an agent cannot.

use partita_cluster::agent::{Behaviour, Failure};
use serde_json::json;

use crate::stage::{Stage, asks, gpu_nodes, merge};

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_before_pods_are_bound_and_reused_after() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 1, 1).await;
    let agents = stage.agents();
    let _scheduler = stage.scheduler();
    let mig = |profile: &str| json!({ format!("nvidia.com/mig-{profile}"): "1" });
    for name in ["a", "b"] {
        stage.asking("default", name, mig("3g.40gb")).await;
        assert_eq!(stage.bound("default", name).await, "gpu-0");
    }
    let grants = [stage.grant("a").await, stage.grant("b").await];
    assert!(grants.iter().all(|grant| grant.starts_with("0:3g.40gb@")) && grants[0] != grants[1], "{grants:?}");
    assert_eq!(stage.partitions("gpu-0").await, 2);

    stage.asking("default", "c", mig("1g.10gb")).await;
    stage.told("default", "c", "nearest is gpu-0").await;
    // Who ends leaves a warm partition, which the next of its kind gets as it is, and one of another kind at its cost.
    stage.delete("default", "a").await;
    stage.bound("default", "c").await;
    stage.asking("default", "d", mig("2g.20gb")).await;
    stage.bound("default", "d").await;
    stage.delete("default", "d").await;
    stage.asking("default", "e", mig("2g.20gb")).await;
    stage.bound("default", "e").await;

    // A whole GPU, and several partitions at once.
    for name in ["b", "c", "e"] {
        stage.delete("default", name).await;
    }
    stage.asking("default", "whole", json!({ "nvidia.com/gpu": "1" })).await;
    stage.bound("default", "whole").await;
    assert_eq!(stage.grant("whole").await, "0:1000m");
    stage.delete("default", "whole").await;
    stage.asking("default", "several", json!({ "nvidia.com/mig-1g.10gb": "3", "nvidia.com/mig-3g.40gb": "1" })).await;
    stage.bound("default", "several").await;
    stage.delete("default", "several").await;
    let mut floor = asks(&json!({ "partita.dev/gpu": "1" }));
    merge(&mut floor, json!({}));
    let annotations = json!({ "annotations": { "partita.dev/memory": "15Gi", "partita.dev/isolation": "hardware" } });
    stage.pod("default", "floor", annotations, floor).await;
    stage.bound("default", "floor").await;
    assert_eq!(agents.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_fails_or_is_silent_costs_one_gpu_for_a_while() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 1, 2).await;
    let agents = stage.agents();
    let fails = [("1g.10gb".to_owned(), Failure { times: 1, message: "insufficient resources".into() })].into();
    agents.behave(Behaviour { fails, ..Behaviour::default() });
    let scheduler = stage.scheduler();
    stage.asking("default", "pod", json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    // It failed once; the pod comes back and goes to the other GPU, or to the same later.
    assert_eq!(stage.bound("default", "pod").await, "gpu-0");
    assert!(scheduler.log().contains("insufficient resources"), "{}", scheduler.log());
    assert_eq!(agents.violations(), []);
}
