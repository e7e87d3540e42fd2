//! What happens in the cluster: one watch a kind, all into one channel.
//!
//! A watch begins with a list. When it ends, by a lost connection, an expired version (410) or a restart of the API server, it is resumed or
//! begun anew, and what vanished in between is reported as gone, so that the receiver only ever learns of differences. [`Seen::Complete`]
//! comes once, after every kind's first list: before it nothing may be decided.
//!
//! A watch may lag, by any time: API servers answer from caches, and a quiet kind does not tell how old what it tells is. So one who begins
//! to lead lists everything anew, from what etcd has ([`Watches::anew`]): what was done before its lease began is in these lists, and
//! [`Fresh`] comes after them. Objects that are known in that version are not told again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, TryStreamExt};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, InitialListStrategy},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc::Sender, watch},
    task::JoinSet,
};

use crate::objects::{Budget, Claim, GpuNode, Namespace, Node, NodeDrivers, PersistentVolume, Pod, StorageClass, full_name};

/// Events that wait for the scheduler at most: some rounds' worth. When it is full the watches wait, and the API server's buffers behind
/// them.
pub const INBOX_MAX: usize = 8_192;
/// Kinds that are watched.
const KINDS: usize = 9;
/// A watch in which nothing failed for so long after an error goes on: tries follow each other faster, and one that succeeds is silent until
/// something happens to an object.
const CURED: Duration = Duration::from_mins(2);

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

/// Every kind was listed anew since [`Watches::anew`], and all of it was told before.
#[derive(Clone, Copy, Debug)]
pub struct Fresh;

/// Whether the watches see the cluster.
#[derive(Debug, Default)]
pub struct Health {
    /// Kinds whose first list is not complete.
    missing: Mutex<BTreeSet<String>>,
    /// Kinds whose watch failed last time, with the error and when.
    broken: Mutex<BTreeMap<String, (String, Instant)>>,
}

impl Health {
    /// What is not seen.
    ///
    /// # Errors
    /// Kinds that are not listed yet or whose watch is broken, for a person.
    pub fn check(&self) -> Result<(), String> {
        self.check_at(Instant::now())
    }

    fn check_at(&self, now: Instant) -> Result<(), String> {
        let missing = lock(&self.missing);
        if !missing.is_empty() {
            return Err(format!("not listed yet: {}", missing.iter().cloned().collect::<Vec<_>>().join(", ")));
        }
        let broken = lock(&self.broken);
        match broken.iter().find(|(_, (_, at))| now.duration_since(*at) < CURED) {
            Some((kind, (error, _))) => Err(format!("the watch of {kind} is broken: {error}")),
            None => Ok(()),
        }
    }

    fn fails(&self, kind: &str, error: String) {
        lock(&self.broken).insert(kind.to_owned(), (error, Instant::now()));
    }

    /// Something came of a kind.
    fn works(&self, kind: &str) {
        lock(&self.broken).remove(kind);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All watches. They end when this goes, or when the inbox is closed.
#[derive(Debug)]
pub struct Watches {
    health: Arc<Health>,
    tasks: JoinSet<()>,
    anew: watch::Sender<bool>,
}

impl Watches {
    /// Starts them all.
    #[must_use]
    pub fn start<T: From<Seen> + From<Fresh> + Send + 'static>(client: &Client, inbox: &Sender<T>) -> Self {
        let mut tasks = JoinSet::new();
        let health = Arc::new(Health::default());
        let all = Arc::new(Left { listed: AtomicUsize::new(KINDS), anew: AtomicUsize::new(KINDS) });
        let anew = watch::Sender::new(false);
        macro_rules! watch {
            ($($variant:ident: $kind:ty),*) => {
                $(
                    let kind = <$kind as Resource>::kind(&()).into_owned();
                    lock(&health.missing).insert(kind.clone());
                    let watch = Watch { kind, left: all.clone(), health: health.clone(), inbox: inbox.clone(), names: BTreeMap::new() };
                    let seen = |name, object: Option<$kind>| Seen::$variant(name, object.map(Box::new));
                    tasks.spawn(watch.run(Api::<$kind>::all(client.clone()), seen, anew.subscribe()));
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
        Self { health, tasks, anew }
    }

    /// Whether they see the cluster.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Lists everything anew, once, from what etcd has now or later; [`Fresh`] tells when all of it was told.
    pub fn anew(&self) {
        self.anew.send_if_modified(|anew| !std::mem::replace(anew, true));
    }

    /// Returns when one of them ends, which none does by itself, and says why.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => format!("a watch failed: {error}"),
            _ => "a watch ended".into(),
        }
    }
}

/// How many kinds are still to come.
#[derive(Debug)]
struct Left {
    /// Kinds that were not listed.
    listed: AtomicUsize,
    /// Kinds that were not listed anew.
    anew: AtomicUsize,
}

struct Watch<T> {
    kind: String,
    left: Arc<Left>,
    health: Arc<Health>,
    inbox: Sender<T>,
    /// The version of each object that was told of.
    names: BTreeMap<String, String>,
}

impl<T: From<Seen> + From<Fresh> + Send + 'static> Watch<T> {
    /// Watches until the inbox is closed. When `anew` becomes true, it begins anew.
    async fn run<K>(mut self, api: Api<K>, seen: impl Fn(String, Option<K>) -> Seen + Send + 'static, mut anew: watch::Receiver<bool>)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
    {
        let mut config = watcher::Config::default().streaming_lists();
        if self.kind == "Pod" {
            // Who ended uses nothing; one that ends is told of as gone.
            config = config.fields("status.phase!=Succeeded,status.phase!=Failed");
        }
        let mut events = begin(&api, &config);
        // Names that the list under way has not shown yet.
        let mut unseen: BTreeSet<String> = BTreeSet::new();
        let (mut listed, mut began_anew, mut listed_anew) = (false, false, false);
        loop {
            let event = tokio::select! {
                biased;
                Ok(()) = anew.changed(), if !began_anew => {
                    // A streamed list may be as old as the API server's cache; one that is read is as new as etcd.
                    config.initial_list_strategy = InitialListStrategy::ListWatch;
                    events = begin(&api, &config);
                    began_anew = true;
                    continue;
                }
                event = events.next() => event,
            };
            let Some(event) = event else { return };
            let event = match event {
                // Nothing was answered yet.
                Ok(Event::Init) => {
                    unseen = self.names.keys().cloned().collect();
                    continue;
                }
                Ok(event) => event,
                Err(error) if config.initial_list_strategy == InitialListStrategy::StreamingList && streams_no_lists(&error) => {
                    tracing::info!(kind = self.kind, "the API server does not stream lists: they are read page by page");
                    config.initial_list_strategy = InitialListStrategy::ListWatch;
                    events = begin(&api, &config);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(kind = self.kind, "the watch is broken and will be begun again: {error}");
                    self.health.fails(&self.kind, error.to_string());
                    continue;
                }
            };
            let done = matches!(event, Event::InitDone);
            let tell = self.take(event, &mut unseen, &seen);
            self.health.works(&self.kind);
            // What a list showed is told before it is said that it is complete.
            let mut all: Vec<T> = tell.into_iter().map(T::from).collect();
            if done && !std::mem::replace(&mut listed, true) {
                all.extend(self.is_listed());
            }
            let open = self.send(all).await;
            let last =
                done && began_anew && !std::mem::replace(&mut listed_anew, true) && self.left.anew.fetch_sub(1, Ordering::AcqRel) == 1;
            if !open || (last && !self.send(vec![T::from(Fresh)]).await) {
                return;
            }
        }
    }

    /// What to tell of an event.
    fn take<K: Resource<DynamicType = ()>>(
        &mut self,
        event: Event<K>,
        unseen: &mut BTreeSet<String>,
        seen: &impl Fn(String, Option<K>) -> Seen,
    ) -> Vec<Seen> {
        match event {
            Event::Init => Vec::new(),
            Event::InitApply(object) | Event::Apply(object) => {
                let name = full_name(object.meta());
                unseen.remove(&name);
                let version = object.meta().resource_version.clone().unwrap_or_default();
                if self.names.get(&name) == Some(&version) {
                    return Vec::new();
                }
                self.names.insert(name.clone(), version);
                vec![seen(name, Some(object))]
            }
            Event::Delete(object) => {
                let name = full_name(object.meta());
                self.names.remove(&name);
                vec![seen(name, None)]
            }
            Event::InitDone => {
                self.names.retain(|name, _| !unseen.contains(name));
                std::mem::take(unseen).into_iter().map(|name| seen(name, None)).collect()
            }
        }
    }

    /// The first list is complete. Returns what to say of it.
    fn is_listed(&self) -> Option<T> {
        tracing::debug!(kind = self.kind, objects = self.names.len(), "listed");
        lock(&self.health.missing).remove(&self.kind);
        (self.left.listed.fetch_sub(1, Ordering::AcqRel) == 1).then(|| T::from(Seen::Complete))
    }

    /// Sends; false if nobody listens any more.
    async fn send(&self, all: Vec<T>) -> bool {
        for one in all {
            if self.inbox.send(one).await.is_err() {
                return false;
            }
        }
        true
    }
}

type Events<K> = std::pin::Pin<Box<dyn Stream<Item = Result<Event<K>, watcher::Error>> + Send>>;

fn begin<K>(api: &Api<K>, config: &watcher::Config) -> Events<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
{
    Box::pin(watcher::watcher(api.clone(), config.clone()).default_backoff().into_stream())
}

/// Whether an API server refused to stream a list, as those do that cannot: before Kubernetes 1.32, or with `WatchList` turned off.
fn streams_no_lists(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

#[cfg(test)]
mod tests;
