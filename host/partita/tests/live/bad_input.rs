//! Objects that make no sense: a reason on each, and everything else goes on.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use partita_cluster::agent::Violation;
use serde_json::{Value, json};

use crate::stage::{Stage, asks, gpu_nodes};

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_told_of_and_hurts_nobody_else() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 1, 2).await;
    let agents = stage.agents();
    agents.ready(1).await;
    let mut scheduler = stage.scheduler();
    let floor = |memory: &str| json!({ "annotations": { "partita.dev/memory": memory } });
    let part = || asks(&json!({ "partita.dev/gpu": "1" }));
    let wrong: [(&str, Value, Value, &str); 7] = [
        ("no-memory", json!({}), part(), "partita.dev/memory"),
        ("odd-memory", floor("plenty"), part(), "plenty"),
        ("huge-memory", floor("9E"), part(), "partita.dev/memory"),
        ("odd-profile", json!({}), asks(&json!({ "nvidia.com/mig-9g.999gb": "1" })), "9g.999gb"),
        ("many", json!({}), asks(&json!({ "nvidia.com/mig-1g.10gb": "1000" })), "1000"),
        ("gpus", json!({}), asks(&json!({ "nvidia.com/gpu": "65" })), "65"),
        ("runtime", json!({ "annotations": { "partita.dev/min-runtime": "soon" } }), asks(&json!({ "nvidia.com/gpu": "1" })), "soon"),
    ];
    for (name, meta, spec, _) in &wrong {
        stage.pod("default", name, meta.clone(), spec.clone()).await;
    }
    // Nodes that contradict themselves.
    let nodes: Api<Node> = Api::all(stage.client.clone());
    stage.node("odd", json!({ "partita.dev/partitioning": "maybe" }), json!({}), json!({ "nvidia.com/gpu": "4" })).await;
    stage.node("empty", json!({}), json!({}), json!({})).await;
    // A layout that somebody wrote by hand.
    let by_hand = Patch::Merge(json!({ "spec": { "generation": 1000, "gpus": [] } }));
    let gpu_nodes: Api<partita_kube::crd::GpuNode> = Api::all(stage.client.clone());
    gpu_nodes.patch("gpu-0", &PatchParams::default(), &by_hand).await.unwrap();
    // What the scheduler told of a pod is the pod's owner's to edit.
    stage
        .pod(
            "default",
            "edited",
            json!({ "annotations": { "partita.dev/grant": "0:7g.80gb@0,nonsense" } }),
            asks(&json!({ "cpu": "100m" })),
        )
        .await;

    stage.asking("default", "fine", json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    assert_eq!(stage.bound("default", "fine").await, "gpu-0");
    stage.bound("default", "edited").await;
    for (name, _, _, words) in &wrong {
        stage.told("default", name, words).await;
    }
    nodes.delete("odd", &kube::api::DeleteParams::default()).await.unwrap();
    stage.asking("default", "also-fine", json!({ "nvidia.com/mig-2g.20gb": "1" })).await;
    stage.bound("default", "also-fine").await;
    assert!(scheduler.runs(), "{}", scheduler.log());
    // The annotation that was forged, and nothing else.
    let others = agents.violations().into_iter().filter(|one| !matches!(one, Violation::Unreadable { pod, .. } if pod == "default/edited"));
    assert_eq!(others.collect::<Vec<_>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_it_would_do_and_writes_nothing() {
    let stage = Stage::with(&[]).await;
    gpu_nodes(&stage, "gpu", 1, 1).await;
    let _agents = stage.agents();
    let scheduler = stage.scheduler_with(&["--dry-run", "-o", "json"], None);
    stage.asking("default", "fits", json!({ "nvidia.com/mig-1g.10gb": "1" })).await;
    stage.asking("default", "large", json!({ "cpu": "1000" })).await;
    let lines = crate::stage::until("it says both", async || {
        let lines: Vec<Value> = Stage::output(&scheduler).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.iter().any(|line| line.get("Bind").is_some()) && lines.iter().any(|line| line.get("Explain").is_some())).then_some(lines)
    })
    .await;
    let bind = lines.iter().find_map(|line| line.get("Bind")).unwrap();
    assert_eq!((&bind["pod"]["name"], &bind["node"]), (&json!("fits"), &json!("gpu-0")));
    for name in ["fits", "large"] {
        let pod = stage.pods("default").get(name).await.unwrap();
        assert_eq!(pod.spec.unwrap().node_name, None);
        assert!(pod.status.unwrap().conditions.is_none_or(|all| all.is_empty()));
    }
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(stage.client.clone(), "kube-system");
    assert!(leases.get_opt("partita-scheduler").await.unwrap().is_none());
}
