//! What the API server makes of what pods are told.

use k8s_openapi::api::core::v1::{Node, PodCondition};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::stage::{Stage, asks, merge};

async fn condition(stage: &Stage, name: &str) -> PodCondition {
    let conditions = stage.pods("default").get(name).await.unwrap().status.unwrap().conditions.unwrap();
    conditions.into_iter().find(|condition| condition.type_ == "PodScheduled").unwrap()
}

/// A reason that changes: the condition turns once, and one event counts. A nomination ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_turns_once_events_are_counted_and_nominations_end() {
    let stage = Stage::with(&[]).await;
    stage.priority("high", 100).await;
    stage.node("a", json!({}), json!({}), json!({ "cpu": "4" })).await;
    let _scheduler = stage.scheduler();
    stage.asking("default", "large", json!({ "cpu": "64" })).await;
    stage.told("default", "large", "0/1 nodes fit").await;
    let first = condition(&stage, "large").await;
    assert_eq!(first.reason.as_deref(), Some("Unschedulable"));
    assert!(first.last_transition_time.is_some());

    // Room is made for one that is urgent, by stopping one that takes its time; then the node goes away.
    let asking = |cpu: &str, more: serde_json::Value| {
        let mut spec = asks(&json!({ "cpu": cpu }));
        merge(&mut spec, more);
        spec
    };
    stage.pod("default", "low", json!({}), asking("3", json!({ "terminationGracePeriodSeconds": 300 }))).await;
    stage.bound("default", "low").await;
    stage.pod("default", "high", json!({}), asking("3", json!({ "priorityClassName": "high" }))).await;
    stage.told("default", "high", "room is being made on node a").await;
    let nominated = async || stage.pods("default").get("high").await.unwrap().status.unwrap().nominated_node_name;
    crate::stage::until("it is nominated", async || nominated().await.filter(|node| node == "a")).await;
    stage.node("b", json!({}), json!({ "unschedulable": true }), json!({ "cpu": "4" })).await;
    let nodes: Api<Node> = Api::all(stage.client.clone());
    nodes.delete("a", &DeleteParams::default()).await.unwrap();
    crate::stage::until("it is so no longer", async || nominated().await.is_none().then_some(())).await;

    stage.node("c", json!({}), json!({ "unschedulable": true }), json!({ "cpu": "4" })).await;
    stage.told("default", "large", "0/2 nodes fit").await;
    let then = condition(&stage, "large").await;
    assert!(then.message != first.message && then.last_transition_time == first.last_transition_time, "{first:?} {then:?}");
    let counted = async || {
        let events = stage.events("default", "large", "FailedScheduling").await;
        (events.len() == 1).then_some(())?;
        events[0].series.as_ref()?.count.filter(|count| *count >= 2)
    };
    crate::stage::until("one event counts", counted).await;
}
