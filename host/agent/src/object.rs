//! The agent's own two objects: its `Node`, of which it reads one label, and its `GpuNode`.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        events::{Event, EventType, Recorder, Reporter},
        watcher::{self, watcher},
    },
};
use partita_kube::{
    crd::{GpuNode, GpuNodeStatus},
    translate::keys,
};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use crate::wish::Rule;

/// Whose fields they are, by server-side apply.
const MANAGER: &str = "partita-agent";
/// Who says so in events; the admission policy of deploy/agent.yaml wants this name.
const CONTROLLER: &str = "partita.dev/agent";
/// How long the API server may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// After a call failed; doubled each time.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What the API server says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Of the `Node`; none until it was read.
    pub(crate) node: Option<OfNode>,
    /// The `GpuNode`.
    pub(crate) object: Object,
}

/// What is known of the `GpuNode`.
#[derive(Clone, Debug, Default)]
pub(crate) enum Object {
    /// It was not read yet.
    #[default]
    Unknown,
    /// There is none.
    None,
    /// It is this.
    Some(Box<GpuNode>),
}

/// What the agent reads of its `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfNode {
    /// What the label means.
    pub(crate) rule: Rule,
    /// The label, if it means nothing.
    pub(crate) nonsense: Option<String>,
    /// Its UID: the owner of the `GpuNode`.
    pub(crate) uid: String,
}

/// The tasks that watch and write. They end when this goes.
pub(crate) struct Objects {
    seen: watch::Receiver<Seen>,
    status: watch::Sender<Option<GpuNodeStatus>>,
    written: watch::Receiver<Option<GpuNodeStatus>>,
    recorder: Recorder,
    _tasks: JoinSet<()>,
}

impl Objects {
    /// Watches the objects of the node `name`.
    #[must_use]
    pub(crate) fn of(client: &Client, name: &str) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let (status, wanted) = watch::channel(None);
        let (stands, written) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_node(Api::all(client.clone()), name.to_owned(), sender.clone()));
        tasks.spawn(watch_object(Api::all(client.clone()), name.to_owned(), sender));
        let recorder = Recorder::new(client.clone(), Reporter { controller: CONTROLLER.to_owned(), instance: Some(name.to_owned()) });
        tasks.spawn(write(Api::all(client.clone()), name.to_owned(), seen.clone(), wanted, (stands, recorder.clone())));
        Self { seen, status, written, recorder, _tasks: tasks }
    }

    /// What the API server says, now and after every change.
    #[must_use]
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// This is to be told: written soon, and again until it stands there. What is overtaken is not written.
    pub(crate) fn tell(&self, status: &GpuNodeStatus) {
        self.status.send_if_modified(|known| {
            let changed = known.as_ref() != Some(status);
            if changed {
                *known = Some(status.clone());
            }
            changed
        });
    }
}

impl Objects {
    /// Says why this agent ends, in an event: the status is another agent's to write.
    pub(crate) async fn warn(&self, reason: &str, message: &str, within: Duration) {
        let said = async {
            let mut seen = self.seen.clone();
            // Without an object there is nothing that the event could be about.
            drop(seen.wait_for(|seen| matches!(seen.object, Object::Some(_))).await);
            publish(&self.recorder, &seen, EventType::Warning, reason, message).await;
        };
        // The log has it too.
        let _ = tokio::time::timeout(within, said).await;
    }

    /// Waits until this stands in the object, but not longer than so.
    pub(crate) async fn written(&self, status: &GpuNodeStatus, within: Duration) {
        let mut written = self.written.clone();
        // Who comes after will tell it.
        let _ = tokio::time::timeout(within, written.wait_for(|one| one.as_ref() == Some(status))).await;
    }
}

/// What is to be done where there is no such Node.
pub(crate) fn no_node(name: &str) -> String {
    format!(
        "the API server has told of no Node {name:?} yet; if `kubectl get nodes` does not list it, name this machine's with --node or NODE_NAME"
    )
}

fn config(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

async fn watch_node(api: Api<PartialObjectMeta<Node>>, name: String, seen: watch::Sender<Seen>) {
    let mut events = Box::pin(watcher(api, config(&name)).default_backoff());
    while let Some(event) = events.next().await {
        if matches!(event, Ok(watcher::Event::InitDone)) && seen.borrow().node.is_none() {
            tracing::error!(node = name, "{}", no_node(&name));
        }
        match event {
            Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                let label = node.labels().get(keys::PARTITIONING);
                let rule = Rule::of(label.map(String::as_str));
                let nonsense = label.filter(|_| rule == Rule::Fixed).cloned();
                let node = OfNode { rule, nonsense, uid: node.uid().unwrap_or_default() };
                seen.send_if_modified(|seen| seen.node.replace(node.clone()).as_ref() != Some(&node));
            }
            // Without its Node there is nobody to schedule for; what is, stays.
            Ok(watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(node = name, "the Node cannot be watched: {error}"),
        }
    }
}

async fn watch_object(api: Api<GpuNode>, name: String, seen: watch::Sender<Seen>) {
    let mut events = Box::pin(watcher(api, config(&name)).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = Some(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(object)) => Some(object),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::warn!(node = name, "the GpuNode cannot be watched: {error}; are the definitions of deploy/crds installed?");
                continue;
            }
        };
        seen.send_modify(|seen| seen.object = object.map_or(Object::None, |object| Object::Some(Box::new(object))));
    }
}

/// Makes the object, and writes the newest status until it stands there.
async fn write(
    api: Api<GpuNode>,
    name: String,
    mut seen: watch::Receiver<Seen>,
    mut wanted: watch::Receiver<Option<GpuNodeStatus>>,
    (stands, recorder): (watch::Sender<Option<GpuNodeStatus>>, Recorder),
) {
    let mut reason = None;
    let mut pause = AGAIN_MIN;
    loop {
        let ready = async {
            let node = seen.wait_for(|seen| seen.node.is_some()).await.ok()?.node.clone()?;
            let status = wanted.wait_for(Option::is_some).await.ok()?.clone()?;
            wanted.mark_unchanged();
            Some((node, status))
        };
        let Some((node, status)) = ready.await else { return };
        match tokio::time::timeout(ANSWERS_WITHIN, tell(&api, &name, &node, &status)).await {
            Ok(Ok(())) => {
                pause = AGAIN_MIN;
                report(&recorder, &seen, &status, &mut reason).await;
                stands.send_replace(Some(status));
                // A `GpuNode` that somebody deleted is made again.
                let gone = |seen: &Seen| matches!(seen.object, Object::None);
                tokio::select! {
                    changed = wanted.changed() => if changed.is_err() { return },
                    _ = async { seen.wait_for(|seen| !gone(seen)).await.ok(); seen.wait_for(gone).await.is_ok() } => {}
                }
                continue;
            }
            Ok(Err(error)) => tracing::warn!(node = name, "the GpuNode's status cannot be written: {error}; it is tried again"),
            Err(_) => tracing::warn!(node = name, "the API server takes long to write the GpuNode's status; it is tried again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Makes an event of a condition whose reason is another one than before.
async fn report(recorder: &Recorder, seen: &watch::Receiver<Seen>, status: &GpuNodeStatus, before: &mut Option<String>) {
    let Some(ready) = status.conditions.first() else { return };
    let first = before.is_none();
    if before.replace(ready.reason.clone()).as_ref() == Some(&ready.reason) || first && ready.status == "True" {
        return;
    }
    let type_ = if ready.status == "True" { EventType::Normal } else { EventType::Warning };
    publish(recorder, seen, type_, &ready.reason, &ready.message).await;
}

/// Makes an event about the `GpuNode`, if there is one.
async fn publish(recorder: &Recorder, seen: &watch::Receiver<Seen>, type_: EventType, reason: &str, message: &str) {
    let object = if let Object::Some(object) = &seen.borrow().object { object.object_ref(&()) } else { return };
    let note = Some(message.to_owned()).filter(|note| !note.is_empty());
    let event = Event { type_, reason: reason.to_owned(), note, action: "Report".to_owned(), secondary: None };
    if let Err(error) = recorder.publish(&event, &object).await {
        tracing::warn!("an event cannot be written: {error}");
    }
}

async fn tell(api: &Api<GpuNode>, name: &str, node: &OfNode, status: &GpuNodeStatus) -> Result<(), kube::Error> {
    let how = PatchParams::apply(MANAGER).force();
    let body = |status: &GpuNodeStatus| {
        let metadata = json!({"name": name});
        json!({"apiVersion": GpuNode::api_version(&()), "kind": GpuNode::kind(&()), "metadata": metadata, "status": status})
    };
    match api.patch_status(name, &how, &Patch::Apply(&body(status))).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {}
        answer => return answer.map(drop),
    }
    // It goes with its Node.
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid});
    let object = json!({
        "apiVersion": GpuNode::api_version(&()), "kind": GpuNode::kind(&()),
        "metadata": {"name": name, "ownerReferences": [owner]}, "spec": {},
    });
    api.patch(name, &how, &Patch::Apply(&object)).await?;
    // No layout of this object was taken yet, whatever was taken from one before it.
    let fresh = GpuNodeStatus { observed_term: 0, observed_generation: 0, ..status.clone() };
    api.patch_status(name, &how, &Patch::Apply(&body(&fresh))).await.map(drop)
}
