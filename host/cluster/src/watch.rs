//! What happens in the cluster: one watch a kind, all into one channel.
//!
//! A watch begins with a list. When it ends, by a lost connection, an expired version (410) or a restart of the API server, it is resumed or
//! begun anew, and what vanished in between is reported as gone, so that the receiver only ever learns of differences. [`Seen::Complete`]
//! comes once, after every kind's first list: before it nothing may be decided.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, InitialListStrategy},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc::Sender, task::JoinSet};

use crate::objects::{Budget, Claim, GpuNode, Namespace, Node, NodeDrivers, PersistentVolume, Pod, StorageClass, full_name};

/// Events that wait for the scheduler at most: some rounds' worth. When it is full the watches wait, and the API server's buffers behind
/// them.
pub const INBOX_MAX: usize = 8_192;
/// Kinds that are watched.
const KINDS: usize = 9;

/// What a watch saw: the name of an object (`namespace/name`), and the object, or none if it is gone.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "one for each kind")]
pub enum Seen {
    Node(String, Option<Box<Node>>),
    GpuNode(String, Option<Box<GpuNode>>),
    Pod(String, Option<Box<Pod>>),
    Namespace(String, Option<Box<Namespace>>),
    Budget(String, Option<Box<Budget>>),
    Claim(String, Option<Box<Claim>>),
    Volume(String, Option<Box<PersistentVolume>>),
    Class(String, Option<Box<StorageClass>>),
    Drivers(String, Option<Box<NodeDrivers>>),
    /// Every kind was listed once.
    Complete,
}

/// Whether the watches see the cluster.
#[derive(Debug, Default)]
pub struct Health {
    /// Kinds whose first list is not complete.
    missing: std::sync::Mutex<BTreeSet<String>>,
    /// Kinds whose watch is broken now, with the error.
    broken: std::sync::Mutex<std::collections::BTreeMap<String, String>>,
}

impl Health {
    /// What is not seen.
    ///
    /// # Errors
    /// Kinds that are not listed yet or whose watch is broken, for a person.
    pub fn check(&self) -> Result<(), String> {
        let missing = lock(&self.missing);
        if !missing.is_empty() {
            return Err(format!("not listed yet: {}", missing.iter().cloned().collect::<Vec<_>>().join(", ")));
        }
        let broken = lock(&self.broken);
        match broken.iter().next() {
            Some((kind, error)) => Err(format!("the watch of {kind} is broken: {error}")),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Starts all watches. They end when the tasks are dropped, or when `inbox` is closed.
#[must_use]
pub fn start<T: From<Seen> + Send + 'static>(client: &Client, inbox: &Sender<T>) -> (Arc<Health>, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let health = Arc::new(Health::default());
    let left = Arc::new(AtomicUsize::new(KINDS));
    macro_rules! watch {
        ($($variant:ident: $kind:ty),*) => {
            $(
                let kind = <$kind as Resource>::kind(&()).into_owned();
                lock(&health.missing).insert(kind.clone());
                let watch = Watch { kind, left: left.clone(), health: health.clone(), inbox: inbox.clone() };
                tasks.spawn(watch.run(Api::<$kind>::all(client.clone()), |name, object| Seen::$variant(name, object.map(Box::new))));
            )*
        };
    }
    watch!(
        Node: Node,
        GpuNode: GpuNode,
        Pod: Pod,
        Namespace: Namespace,
        Budget: Budget,
        Claim: Claim,
        Volume: PersistentVolume,
        Class: StorageClass,
        Drivers: NodeDrivers
    );
    (health, tasks)
}

struct Watch<T> {
    kind: String,
    /// Kinds whose first list is not complete.
    left: Arc<AtomicUsize>,
    health: Arc<Health>,
    inbox: Sender<T>,
}

impl<T: From<Seen> + Send + 'static> Watch<T> {
    async fn run<K>(self, api: Api<K>, seen: impl Fn(String, Option<K>) -> Seen + Send + 'static)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
    {
        let mut config = watcher::Config::default().streaming_lists();
        if self.kind == "Pod" {
            // Who ended uses nothing; one that ends is told of as gone.
            config = config.fields("status.phase!=Succeeded,status.phase!=Failed");
        }
        let begin = |config: &watcher::Config| Box::pin(watcher::watcher(api.clone(), config.clone()).default_backoff().into_stream());
        let mut events = begin(&config);
        let mut names: BTreeSet<String> = BTreeSet::new();
        // Names that the list under way has not shown yet.
        let mut unseen: BTreeSet<String> = BTreeSet::new();
        let mut listed = false;
        while let Some(event) = events.next().await {
            let mut tell = Vec::new();
            match event {
                Ok(Event::Init) => unseen.clone_from(&names),
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    let name = full_name(object.meta());
                    unseen.remove(&name);
                    names.insert(name.clone());
                    tell.push(seen(name, Some(object)));
                }
                Ok(Event::Delete(object)) => {
                    let name = full_name(object.meta());
                    names.remove(&name);
                    tell.push(seen(name, None));
                }
                Ok(Event::InitDone) => {
                    for name in std::mem::take(&mut unseen) {
                        names.remove(&name);
                        tell.push(seen(name, None));
                    }
                    if !std::mem::replace(&mut listed, true) {
                        tracing::debug!(kind = self.kind, objects = names.len(), "listed");
                        lock(&self.health.missing).remove(&self.kind);
                        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                            tell.push(Seen::Complete);
                        }
                    }
                }
                Err(error) if config.initial_list_strategy == InitialListStrategy::StreamingList && streams_no_lists(&error) => {
                    tracing::info!(kind = self.kind, "the API server does not stream lists: they are read page by page");
                    config.initial_list_strategy = InitialListStrategy::ListWatch;
                    events = begin(&config);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(kind = self.kind, "the watch is broken and will be begun again: {error}");
                    lock(&self.health.broken).insert(self.kind.clone(), error.to_string());
                    continue;
                }
            }
            lock(&self.health.broken).remove(&self.kind);
            for one in tell {
                if self.inbox.send(one.into()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether an API server refused to stream a list, as those do that cannot: before Kubernetes 1.32, or with `WatchList` turned off.
fn streams_no_lists(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_a_refusal_of_the_question_itself_means_that_lists_are_not_streamed() {
        let refused =
            |code: u16| watcher::Error::WatchStartFailed(kube::Error::Api(Status::failure("no", "because").with_code(code).boxed()));
        assert!(streams_no_lists(&refused(422)) && streams_no_lists(&refused(400)));
        assert!([403, 404, 410, 429, 500, 503].into_iter().all(|code| !streams_no_lists(&refused(code))));
        assert!(!streams_no_lists(&watcher::Error::NoResourceVersion));
    }
}
