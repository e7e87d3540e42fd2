//! The agents at work: what they see, and what they tell the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::Status,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use partita_kube::crd::{GpuNode, GpuNodeSpec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::state::{Signals, State, Suspicion, is_finished};

/// Our name as a writer of fields.
const MANAGER: &str = "partita-agent";
/// Requests under way at once, of all agents together.
const AT_ONCE: usize = 64;
/// How long it takes an agent to notice who uses its GPUs.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);
/// How long an agent waits after a request that failed.
const RETRY: Duration = Duration::from_millis(200);

/// What the tasks of all agents share.
pub(super) struct Shared {
    client: Client,
    state: Mutex<State>,
    calls: Semaphore,
}

/// Something seen.
enum Seen {
    Node(Box<Event<Node>>),
    Object(Box<Event<GpuNode>>),
    Pod(Box<Event<Pod>>),
}

impl Shared {
    pub(super) fn new(client: Client, state: State) -> Self {
        Self { client, state: Mutex::new(state), calls: Semaphore::new(AT_ONCE) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches nodes, their objects and the pods on them, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let config = watcher::Config::default;
        let nodes = watcher::watcher(Api::all(self.client.clone()), config())
            .default_backoff()
            .map(|event| event.map(Box::new).map(Seen::Node))
            .boxed();
        let objects = watcher::watcher(Api::all(self.client.clone()), config()).default_backoff();
        let mut events = stream::select_all([nodes, objects.map(|event| event.map(Box::new).map(Seen::Object)).boxed()]);
        let mut tasks = JoinSet::new();
        let [mut nodes_left, mut objects_left, mut pods_left] = [const { BTreeSet::new() }; 3];
        let mut pods_are_watched = false;
        let mut first = true;
        while let Some(event) = events.next().await {
            while tasks.try_join_next().is_some() {}
            // The watch begins anew by itself.
            let Ok(seen) = event else { continue };
            match seen {
                Seen::Node(event) => {
                    let listed = matches!(*event, Event::InitDone);
                    let known = || self.state().nodes.keys().cloned().collect();
                    self.clone().see(*event, &mut nodes_left, known, |shared, name, node| shared.see_node(name, node, &mut tasks));
                    if listed && !std::mem::replace(&mut pods_are_watched, true) {
                        // Later than the nodes, so that it is known what the pods use.
                        let pods = watcher::watcher(Api::all(self.client.clone()), config().fields("spec.nodeName!=")).default_backoff();
                        events.push(pods.map(|event| event.map(Box::new).map(Seen::Pod)).boxed());
                    }
                }
                Seen::Object(event) => {
                    let known = || self.state().nodes.iter().filter(|(_, node)| node.has_object).map(|(name, _)| name.clone()).collect();
                    self.clone().see(*event, &mut objects_left, known, |shared, name, object| {
                        shared.state().see_object(name, object.as_ref());
                    });
                }
                Seen::Pod(event) => {
                    let (listed, was_first) = (matches!(*event, Event::InitDone), first);
                    let known = || self.state().ledger.all().cloned().collect();
                    self.clone().see(*event, &mut pods_left, known, |shared, name, pod| {
                        let suspicions = shared.state().see_pod(name, pod.as_ref(), was_first);
                        for suspicion in suspicions {
                            tasks.spawn(shared.clone().confirm(suspicion));
                        }
                    });
                    first &= !listed;
                }
            }
        }
    }

    /// Tells `tell` of an event by the name of the object. `left` are names that a list under way has not shown yet, out of `known`.
    fn see<K: ResourceExt>(
        self: Arc<Self>,
        event: Event<K>,
        left: &mut BTreeSet<String>,
        known: impl FnOnce() -> BTreeSet<String>,
        mut tell: impl FnMut(&Arc<Self>, &str, Option<K>),
    ) {
        let name =
            |object: &K| object.namespace().map_or_else(|| object.name_any(), |namespace| format!("{namespace}/{}", object.name_any()));
        match event {
            Event::Init => *left = known(),
            Event::InitApply(object) | Event::Apply(object) => {
                let name = name(&object);
                left.remove(&name);
                tell(&self, &name, Some(object));
            }
            Event::Delete(object) => tell(&self, &name(&object), None),
            Event::InitDone => std::mem::take(left).iter().for_each(|name| tell(&self, name, None)),
        }
    }

    fn see_node(self: &Arc<Self>, name: &str, node: Option<Node>, tasks: &mut JoinSet<()>) {
        let mut state = self.state();
        match node {
            None => state.lose_node(name),
            Some(node) if state.see_node(&node) => {
                if let Some(node) = state.nodes.get_mut(name) {
                    node.task = Some(tasks.spawn(self.clone().look_after(name.to_owned(), node.signals.clone())));
                }
            }
            Some(_) => {}
        }
    }

    /// A violation counts if the pod is really there: what was seen may be older than what somebody else saw.
    async fn confirm(self: Arc<Self>, suspicion: Suspicion) {
        if self.is_there(&suspicion.pod.0, &suspicion.pod.1).await {
            self.state().violations.push(suspicion.violation);
        }
    }

    /// Whether a pod is there now and not finished. One of which nothing can be learned counts as there.
    async fn is_there(&self, pod: &str, uid: &str) -> bool {
        let Some((namespace, name)) = pod.split_once('/') else { return false };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let _permit = self.calls.acquire().await;
        match pods.get_opt(name).await {
            Ok(pod) => pod.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid) && !is_finished(&pod)),
            Err(_) => true,
        }
    }

    /// The agent of one node.
    async fn look_after(self: Arc<Self>, name: String, signals: Arc<Signals>) {
        loop {
            tokio::select! {
                () = signals.work.notified() => {}
                () = signals.users.notified() => {
                    // A layout that comes meanwhile does not wait.
                    let _ = tokio::time::timeout(NOTICED_WITHIN, signals.work.notified()).await;
                }
            }
            while let Err(error) = self.turn(&name).await {
                if let kube::Error::Api(status) = &error
                    && is_refusal(status)
                {
                    self.state().refusals.push((name.clone(), status.message.clone()));
                    break;
                }
                self.forget(&name, &error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// What was said may not have arrived.
    fn forget(&self, name: &str, error: &kube::Error) {
        if let Some(node) = self.state().nodes.get_mut(name) {
            node.said.forget();
            node.has_object &= !matches!(error, kube::Error::Api(status) if status.code == 404);
        }
    }

    /// Does and says all that there is to do and to say.
    async fn turn(&self, name: &str) -> Result<(), kube::Error> {
        if self.state().behaviour(name).silent {
            return Ok(());
        }
        let owner = self.state().nodes.get(name).filter(|node| !node.has_object).map(|node| node.owner.clone());
        if let Some(owner) = owner {
            let object = self.object(name, owner).await?;
            let mut state = self.state();
            state.meet(name, &object);
            state.see_object(name, Some(&object));
        }
        let spec = self.state().take(name);
        if let Some(spec) = spec {
            self.carry_out(name, &spec).await;
        }
        // It may have fallen silent meanwhile.
        if self.state().behaviour(name).silent {
            return Ok(());
        }
        let news = self.state().news(name);
        // The kubelet first: what is ready can be used.
        if let Some(counts) = news.counts {
            let counts: BTreeMap<String, String> = counts.into_iter().map(|(name, count)| (name, count.to_string())).collect();
            let status = json!({ "capacity": counts, "allocatable": counts });
            self.apply::<Node>(name, status).await?;
        }
        if let Some(status) = news.status {
            self.apply::<GpuNode>(name, json!(status)).await?;
            if let Some(node) = self.state().nodes.get_mut(name) {
                node.said.arrived = true;
            }
        }
        Ok(())
    }

    async fn carry_out(&self, name: &str, spec: &GpuNodeSpec) {
        let in_the_way = self.state().in_the_way(name, spec);
        for (pod, uid) in in_the_way {
            // As the driver would know: whoever asks for the destruction may have seen the pod's end before we did.
            if !self.is_there(&pod, &uid).await {
                self.state().ledger.is_gone(&pod, &uid);
            }
        }
        let missing = self.state().clear(name, spec);
        for (gpu, part) in missing {
            let delay = self.state().behaviour(name).delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.state().make(name, &gpu, part);
        }
        self.state().done(name, spec);
    }

    /// The object of a node, made if it is not there.
    async fn object(&self, name: &str, owner: OwnerReference) -> Result<GpuNode, kube::Error> {
        let all: Api<GpuNode> = Api::all(self.client.clone());
        let mut object = GpuNode::new(name, GpuNodeSpec::default());
        object.metadata.owner_references = Some(vec![owner.clone()]);
        let _permit = self.calls.acquire().await;
        match all.create(&PostParams::default(), &object).await {
            // Of an earlier agent, or of an earlier node of that name.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = Patch::Merge(json!({ "metadata": { "ownerReferences": [owner] } }));
                all.patch(name, &PatchParams::default(), &patch).await
            }
            other => other,
        }
    }

    /// Writes the status of an object, as ours alone.
    async fn apply<K>(&self, name: &str, status: Value) -> Result<(), kube::Error>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + DeserializeOwned,
    {
        let all: Api<K> = Api::all(self.client.clone());
        let object = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": { "name": name }, "status": status });
        let _permit = self.calls.acquire().await;
        all.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.map(drop)
    }
}

/// Whether the API server would refuse it again. Two entries of one key it calls an internal error.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400..=403 | 405..=408 | 410..=428) || status.message.starts_with("failed to create typed patch object")
}
