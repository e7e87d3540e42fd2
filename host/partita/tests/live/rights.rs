//! What deploy/ gives the scheduler is enough for its work, and keeps others from it.

use std::{path::Path, process::Command};

use kube::api::{Patch, PatchParams};
use partita_cluster::Program;
use serde_json::json;

use crate::stage::{Stage, asks, gpu_nodes, merge, until};

const ACCOUNT: &str = "system:serviceaccount:kube-system:partita-scheduler";

fn kubectl(stage: &Stage, arguments: &[&str]) -> String {
    let mut command = Command::new(&stage.cluster.programs().kubectl);
    let output =
        command.args(arguments).env("KUBECONFIG", stage.cluster.kubeconfig()).env("HOME", stage.cluster.folder()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployed_account_may_do_its_work_and_no_more() {
    let stage = Stage::with(&[Program::ControllerManager, Program::Kwok]).await;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    // The files are what people apply, over what is there already too.
    kubectl(&stage, &["apply", "--server-side", "--force-conflicts", "-f", deploy.join("crds").to_str().unwrap()]);
    kubectl(&stage, &["apply", "-f", deploy.join("scheduler.yaml").to_str().unwrap()]);
    gpu_nodes(&stage, "gpu", 1, 1).await;
    let agents = stage.agents();
    let kubeconfig = stage.cluster.kubeconfig_for(ACCOUNT).await.unwrap();
    let scheduler = stage.scheduler_as(&kubeconfig, &["--identity", "deployed"]);

    let class = json!({ "metadata": { "name": "high" }, "value": 100 });
    let class: k8s_openapi::api::scheduling::v1::PriorityClass = serde_json::from_value(class).unwrap();
    kube::Api::all(stage.client.clone()).create(&kube::api::PostParams::default(), &class).await.unwrap();
    let mig = asks(&json!({ "nvidia.com/mig-7g.80gb": "1" }));
    stage.pod("default", "low", json!({}), mig.clone()).await;
    stage.bound("default", "low").await;
    let mut high = mig;
    merge(&mut high, json!({ "priorityClassName": "high" }));
    stage.pod("default", "high", json!({}), high).await;
    stage.bound("default", "high").await;
    stage.asking("default", "large", json!({ "cpu": "1000" })).await;
    stage.told("default", "large", "cpu").await;
    // As the API server says it: a bare 403 may be any three digits of a time.
    assert!(!scheduler.log().contains("is forbidden"), "{}", scheduler.log());
    assert_eq!(agents.violations(), []);

    // What a pod got is not its owner's to write.
    let forged = json!({ "annotations": { "partita.dev/grant": "0:1g.10gb@0" } });
    let mut tried = 0;
    let error = until("the admission policy is active", async || {
        tried += 1;
        stage.try_pod("default", &format!("forged-{tried}"), forged.clone(), json!({})).await.err()
    })
    .await;
    assert!(error.to_string().contains("written by the scheduler"), "{error}");
    let patch = Patch::Merge(json!({ "metadata": forged }));
    let error = stage.pods("default").patch("high", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(error.to_string().contains("written by the scheduler"), "{error}");
    let error = stage.pods("default").patch_status("high", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(error.to_string().contains("written by the scheduler"), "{error}");
    // And the account may not do everything.
    let client = stage.cluster.client_for(ACCOUNT).await.unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client, "default");
    assert!(pods.delete("high", &kube::api::DeleteParams::default()).await.unwrap_err().to_string().contains("forbidden"));
}
