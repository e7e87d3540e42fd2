//! What the scheduler wants done, done: calls to the API server, each behind the fence, each with an end.
//!
//! The client must not repeat requests by itself (`Config::default_retry` off): a binding that is repeated for minutes while the pod is bound
//! elsewhere is worse than one that fails. What became of a request without an answer is looked up before anything else is said of it.

use std::{fmt, sync::Arc, time::Duration};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod},
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::Status,
    runtime::events::EventType,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc::Sender, time::Instant};
use tracing::Instrument;

use crate::{
    crd::{GpuNode, GpuNodeSpec},
    events::{Note, Notes, Say},
    fault,
    lease::Fence,
    limit::limited,
    line::Line,
    scheduler::{
        Metrics,
        effect::{Done, Effect, Outcome, PodName, VolumeChoice},
    },
    translate::keys,
};

/// Calls under way at most, of those that pods wait for: API servers allow a few hundred by default.
const CALLS_MAX: usize = 256;
/// Calls under way at most, of those that only say something.
const WORDS_MAX: usize = 16;
/// Words that wait to be said at most for an event to be left: conditions say more.
const UNSAID_MAX: usize = 4_096;
/// What could not be begun for so long is not begun any more, since what it was decided on has changed: less than the scheduler waits for
/// an answer.
const LATE: Duration = Duration::from_mins(1);
/// How often a call without an answer is tried.
const TRIES: u32 = 4;
/// Our name as a writer of fields.
const MANAGER: &str = "partita-scheduler";

/// What waits to be done, by what it is and about which object.
type Tasks = Line<(&'static str, String), Task>;

/// Something to do.
#[derive(Debug)]
enum Task {
    Effect(Effect),
    Note(Note),
}

/// Does what the scheduler wants.
#[derive(Clone)]
pub struct Hands {
    client: Client,
    fence: Fence,
    /// What pods wait for.
    calls: Arc<Tasks>,
    /// What only says something.
    words: Arc<Tasks>,
    /// What was said last about pods.
    notes: Arc<Notes>,
    identity: Arc<str>,
    metrics: Metrics,
}

impl fmt::Debug for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hands").field("fence", &self.fence).finish_non_exhaustive()
    }
}

impl Hands {
    /// Hands that write with `client` while `fence` is open, in the name of `identity`.
    #[must_use]
    pub fn new(client: &Client, fence: Fence, identity: &str, metrics: Metrics) -> Self {
        Self {
            client: limited(client, fence.call()),
            fence,
            calls: Arc::new(Line::new(CALLS_MAX)),
            words: Arc::new(Line::new(WORDS_MAX)),
            notes: Arc::default(),
            identity: identity.into(),
            metrics,
        }
    }

    /// Begins to do `effect`; how it went comes to `inbox`, unless the same is to be done to the same object otherwise before it began.
    pub fn start<T: From<Done> + Send + 'static>(&self, effect: Effect, inbox: &Sender<T>) {
        let (kind, object, says) = match &effect {
            Effect::Layout { node, .. } => ("layout", node, false),
            Effect::Volumes { pod, .. } => ("volumes", &pod.uid, false),
            Effect::Bind { pod, .. } => ("bind", &pod.uid, false),
            Effect::Look { pod, .. } => ("look", &pod.uid, false),
            Effect::Evict { pod, .. } => ("evict", &pod.uid, false),
            Effect::Nominate { pod, .. } => ("nominate", &pod.uid, true),
            Effect::Explain { pod, .. } => ("explain", &pod.uid, true),
        };
        let key = (kind, object.clone());
        self.put(if says { &self.words } else { &self.calls }, key, Task::Effect(effect), inbox);
    }

    fn put<T: From<Done> + Send + 'static>(&self, line: &Arc<Tasks>, key: (&'static str, String), task: Task, inbox: &Sender<T>) {
        if line.put(key, task) {
            tokio::spawn(self.clone().work(line.clone(), inbox.clone()));
        }
    }

    /// Does one thing after the other, as long as something waits.
    fn work<T: From<Done> + Send + 'static>(self, line: Arc<Tasks>, inbox: Sender<T>) -> BoxFuture<'static, ()> {
        let work = async move {
            let mut last = None;
            while let Some((key, task, since)) = line.take(last.take()) {
                match task {
                    Task::Effect(effect) => self.carry_out(&key, effect, since, &inbox).await,
                    Task::Note(note) => self.note(note).await,
                }
                last = Some(key);
            }
        };
        work.boxed()
    }

    async fn carry_out<T: From<Done> + Send + 'static>(
        &self,
        (kind, object): &(&'static str, String),
        effect: Effect,
        since: Instant,
        inbox: &Sender<T>,
    ) {
        let began = Instant::now();
        let span = tracing::info_span!("call", otel.name = kind, object);
        let (done, note) = if since.elapsed() < LATE { self.act(effect).instrument(span).await } else { (effect.ends(late()), None) };
        self.metrics.called(kind, done.outcome(), began.elapsed().as_secs_f64());
        // If the scheduler is gone, so is whoever would want to know.
        if let (Ok(()), Some(note)) = (inbox.send(done.into()).await, note)
            && self.words.len() < UNSAID_MAX
        {
            let key = (note.reason, note.about.uid.clone().unwrap_or_default());
            self.put(&self.words, key, Task::Note(note), inbox);
        }
    }

    async fn act(&self, effect: Effect) -> (Done, Option<Note>) {
        match effect {
            Effect::Layout { node, uid, spec } => {
                let generation = spec.generation;
                let outcome = self.layout(&node, &uid, &spec).await;
                (Done::Layout { node, generation, outcome }, None)
            }
            Effect::Volumes { pod, node, choices } => {
                let outcome = self.volumes(&pod, &choices).await;
                (Done::Volumes { pod, node, outcome }, None)
            }
            Effect::Bind { pod, node, grant } => {
                let outcome = self.bind(&pod, &node, grant.as_deref()).await;
                let bound =
                    || about(&pod, EventType::Normal, "Scheduled", "Binding", format!("assigned {}/{} to {node}", pod.namespace, pod.name));
                let note = (outcome == Outcome::Done).then(bound);
                (Done::Bind { pod, node, outcome }, note)
            }
            Effect::Look { pod, node } => {
                let found = self.node_of(&pod).await;
                (Done::Look { pod, node, found }, None)
            }
            Effect::Evict { pod, by } => {
                let outcome = self.evict(&pod).await;
                let note = (outcome == Outcome::Done)
                    .then(|| about(&pod, EventType::Normal, "Preempted", "Preempting", format!("stopped to make room for {by}")));
                (Done::Evict { pod, outcome }, note)
            }
            Effect::Nominate { pod, node } => {
                let node = Some(node).filter(|node| !node.is_empty());
                let outcome = self.patch_status(&pod, json!({ "nominatedNodeName": node })).await;
                (Done::Told { pod, outcome }, None)
            }
            Effect::Explain { pod, reason, message, turns } => {
                let mut condition = json!({ "type": "PodScheduled", "status": "False", "reason": reason, "message": message });
                if turns {
                    condition["lastTransitionTime"] = json!(Time(Timestamp::now()));
                }
                let outcome = self.patch_status(&pod, json!({ "conditions": [condition] })).await;
                let note = (outcome == Outcome::Done).then(|| about(&pod, EventType::Warning, "FailedScheduling", "Scheduling", message));
                (Done::Told { pod, outcome }, note)
            }
        }
    }

    /// Calls, behind the fence and with an end. A call without an answer is repeated, which all of ours bear.
    async fn call<'a, T>(&self, call: impl Fn() -> BoxFuture<'a, Result<T, kube::Error>> + Send + Sync) -> Result<T, Outcome> {
        let mut outcome = Outcome::Fenced;
        for attempt in 0..TRIES {
            let Some(pass) = self.fence.pass() else { return Err(Outcome::Fenced) };
            let answer = tokio::time::timeout(self.fence.call(), call()).await;
            if matches!(answer, Ok(Ok(_) | Err(kube::Error::Api(_)))) {
                pass.answered();
            }
            match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => outcome = classify(&error),
                Err(_) => outcome = Outcome::Unknown(format!("the API server gave no answer within {} ms", self.fence.call().as_millis())),
            }
            if !matches!(outcome, Outcome::Unknown(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        Err(outcome)
    }

    async fn layout(&self, node: &str, uid: &str, spec: &GpuNodeSpec) -> Outcome {
        fault::point("layout.before");
        let nodes: Api<GpuNode> = Api::all(self.client.clone());
        // With a uid the API server refuses to make an object that is not there.
        let metadata = json!({ "name": node, "uid": uid });
        let wish = Patch::Apply(json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": metadata, "spec": spec }));
        let how = PatchParams::apply(MANAGER).force();
        let written = self.call(|| nodes.patch(node, &how, &wish).boxed()).await;
        fault::point("layout.after");
        written.map_or_else(|outcome| outcome, |_| Outcome::Done)
    }

    async fn bind(&self, pod: &PodName, node: &str, grant: Option<&str>) -> Outcome {
        fault::point("bind.before");
        let pods = self.pods(pod);
        let annotations = grant.map(|grant| json!({ keys::GRANT: grant }));
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid, "annotations": annotations },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let how = PostParams::default();
        let bound = self.call(|| pods.create_subresource::<Value, Value>("binding", &pod.name, &how, &binding).boxed()).await;
        fault::point("bind.after");
        match bound {
            Ok(_) => Outcome::Done,
            Err(outcome @ (Outcome::Conflict(_) | Outcome::Unknown(_))) => self.is_bound(pod, node).await.unwrap_or(outcome),
            Err(outcome) => outcome,
        }
    }

    /// What became of a binding; none if nothing did, or nobody can say.
    async fn is_bound(&self, pod: &PodName, node: &str) -> Option<Outcome> {
        let on = match self.node_of(pod).await {
            Ok(on) => on?,
            Err(Outcome::Gone) => return Some(Outcome::Gone),
            Err(_) => return None,
        };
        Some(if on == node { Outcome::Done } else { Outcome::Conflict(format!("it was bound to {on} by somebody else")) })
    }

    /// The node that a pod has. Without a version to read at, the API server asks a majority of etcd.
    async fn node_of(&self, pod: &PodName) -> Result<Option<String>, Outcome> {
        let pods = self.pods(pod);
        let known = self.call(|| pods.get_opt(&pod.name).boxed()).await?;
        let known = known.filter(|known| known.metadata.uid.as_deref() == Some(&pod.uid)).ok_or(Outcome::Gone)?;
        Ok(known.spec.and_then(|spec| spec.node_name))
    }

    async fn evict(&self, pod: &PodName) -> Outcome {
        fault::point("evict.before");
        let pods = self.pods(pod);
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": pod.name, "namespace": pod.namespace },
            "deleteOptions": { "preconditions": { "uid": pod.uid } },
        });
        let how = PostParams::default();
        let evicted = self.call(|| {
            let call = pods.create_subresource::<Value, Value>("eviction", &pod.name, &how, &eviction);
            // 429 is a disruption budget here, unless the API server is busy.
            let blocked = |answer| match answer {
                Err(kube::Error::Api(error)) if is_budget(&error) => Ok(Some(error.message.clone())),
                other => other.map(|_: Value| None),
            };
            call.map(blocked).boxed()
        });
        let evicted = evicted.await;
        fault::point("evict.after");
        match evicted {
            Ok(None) => Outcome::Done,
            Ok(Some(message)) => Outcome::Conflict(message),
            // The precondition: another pod has the name now.
            Err(Outcome::Conflict(_)) => Outcome::Gone,
            Err(outcome) => outcome,
        }
    }

    async fn volumes(&self, pod: &PodName, choices: &[VolumeChoice]) -> Outcome {
        fault::point("volumes.before");
        for choice in choices {
            let how = PatchParams::default();
            let done = match choice {
                VolumeChoice::Provision { claim, node, version } => {
                    let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &pod.namespace);
                    let annotations = json!({ "volume.kubernetes.io/selected-node": node });
                    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version, "annotations": annotations } }));
                    self.call(|| claims.patch(claim, &how, &patch).map_ok(drop).boxed()).await
                }
                VolumeChoice::Take { claim, uid, volume, version } => {
                    let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
                    let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": pod.namespace, "name": claim, "uid": uid });
                    let patch = Patch::Merge(json!({
                        "metadata": { "resourceVersion": version, "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } },
                        "spec": { "claimRef": reference },
                    }));
                    self.call(|| volumes.patch(volume, &how, &patch).map_ok(drop).boxed()).await
                }
            };
            fault::point("volumes.after");
            if let Err(outcome) = done {
                return outcome;
            }
        }
        Outcome::Done
    }

    async fn patch_status(&self, pod: &PodName, status: Value) -> Outcome {
        let pods = self.pods(pod);
        // The uid makes the API server refuse it for another pod of that name.
        let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.uid }, "status": status }));
        let how = PatchParams::default();
        let patched = self.call(|| pods.patch_status(&pod.name, &how, &patch).boxed()).await;
        patched.map_or_else(|outcome| outcome, |_| Outcome::Done)
    }

    /// Leaves an event about a pod, or counts another in the one that is there.
    async fn note(&self, note: Note) {
        let now = Timestamp::now();
        let (uid, reason) = (note.about.uid.clone().unwrap_or_default(), note.reason);
        let say = self.notes.say(&uid, reason, &note.text, now);
        let event = note.event(&self.identity, now);
        let events: Api<Event> = Api::namespaced(self.client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
        let call = async {
            match say {
                Say::Nothing => Ok(None),
                Say::New => events.create(&PostParams::default(), &event).await.map(|event| event.metadata.name),
                Say::Again { event, count } => {
                    let series = EventSeries { count, last_observed_time: MicroTime(now) };
                    let patch = Patch::Merge(json!({ "series": series }));
                    events.patch(&event, &PatchParams::default(), &patch).await.map(|event| event.metadata.name)
                }
            }
        };
        let Some(pass) = self.fence.pass() else { return self.notes.forget(&uid, reason) };
        match tokio::time::timeout(self.fence.call(), call).await {
            Ok(Ok(Some(name))) => self.notes.left(&uid, reason, name),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!("an event was not left: {error}");
                self.notes.forget(&uid, reason);
            }
            Err(_) => self.notes.forget(&uid, reason),
        }
        // Nobody decides anything by events: one that comes late does no harm.
        pass.answered();
    }

    fn pods(&self, pod: &PodName) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }
}

/// What to say about a pod.
fn about(pod: &PodName, kind: EventType, reason: &'static str, action: &'static str, text: String) -> Note {
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    };
    Note { about, kind, reason, action, text }
}

/// What becomes of what could not be begun in time.
fn late() -> Outcome {
    Outcome::Conflict(format!("it was not begun within {} s: the API server is too slow", LATE.as_secs()))
}

/// Whether an eviction was refused by a disruption budget, or because the pod has several.
fn is_budget(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let blocked = status.code == 429 && causes.into_iter().any(|cause| cause.reason == "DisruptionBudget");
    blocked || (status.code == 500 && status.message.contains("more than one PodDisruptionBudget"))
}

/// What an error says of what was done.
fn classify(error: &kube::Error) -> Outcome {
    let words = |status: &Status| format!("the API server answered {}: {}", status.code, status.message);
    match error {
        kube::Error::Api(status) => match status.code {
            404 => Outcome::Gone,
            409 => Outcome::Conflict(words(status)),
            429 | 500..=599 => Outcome::Unknown(words(status)),
            _ => Outcome::Refused(words(status)),
        },
        other => Outcome::Unknown(format!("the API server could not be reached: {other}")),
    }
}

#[cfg(test)]
mod tests;
