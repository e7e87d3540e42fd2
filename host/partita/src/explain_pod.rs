//! `partita explain pod`: why a pod of a live cluster waits, or where it runs.

use std::process::ExitCode;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use partita_kube::translate::keys;
use serde::Serialize;

use crate::{
    args::{ExplainPod, Output},
    output, scheduler,
};

/// What there is to say of a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    name: String,
    phase: String,
    scheduler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nominated_node: Option<String>,
}

/// Runs the command. The answer is what the scheduler wrote on the pod: whoever may read the pod may ask.
pub(crate) fn run(arguments: &ExplainPod) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("there is no thread to run on")?;
    let pod = runtime.block_on(get(arguments))?;
    let answer = answer(pod);
    match arguments.output {
        Output::Json => output::json(&answer)?,
        Output::Table => output::line(&words(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(arguments: &ExplainPod) -> Result<Pod> {
    let client = scheduler::client(arguments.kubeconfig.as_deref()).await?;
    let (namespace, name) = match (arguments.pod.split_once('/'), &arguments.namespace) {
        (Some((namespace, name)), None) => (namespace.to_owned(), name.to_owned()),
        (_, Some(namespace)) => (namespace.clone(), arguments.pod.clone()),
        (None, None) => (client.default_namespace().to_owned(), arguments.pod.clone()),
    };
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    pods.get(&name).await.with_context(|| format!("pod {namespace}/{name} cannot be read"))
}

fn answer(pod: Pod) -> Answer {
    let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
    let scheduled = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let waits = scheduled.filter(|condition| condition.status == "False");
    Answer {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        phase: status.phase.unwrap_or_default(),
        scheduler: spec.scheduler_name.unwrap_or_default(),
        node: spec.node_name,
        grant: pod.metadata.annotations.and_then(|mut annotations| annotations.remove(keys::GRANT)),
        reason: waits.as_ref().and_then(|condition| condition.reason.clone()),
        message: waits.and_then(|condition| condition.message),
        nominated_node: status.nominated_node_name.filter(|node| !node.is_empty()),
    }
}

fn words(answer: &Answer) -> String {
    let Answer { namespace, name, phase, scheduler, .. } = answer;
    let who = format!("{namespace}/{name} ({phase})");
    if let Some(node) = &answer.node {
        let grant = answer.grant.as_ref().map(|grant| format!(", on its GPUs {grant}")).unwrap_or_default();
        return format!("{who} is on node {node}{grant}");
    }
    let mut text = match (&answer.reason, &answer.message) {
        (Some(reason), Some(message)) => format!("{who} waits: {reason}\n  {}", message.replace("; ", "\n  ").replace(": ", ":\n    ")),
        (Some(reason), None) => format!("{who} waits: {reason}"),
        _ => format!("{who} waits, and no scheduler has said why; its schedulerName is {scheduler}: does that scheduler run?"),
    };
    if let Some(node) = &answer.nominated_node {
        text = format!("{text}\n  room is being made for it on node {node}");
    }
    text
}
