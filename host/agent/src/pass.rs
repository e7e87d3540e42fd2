//! One pass: what is, what shall be, and the step from one to the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use partita_device::{CheckpointError, Found, PartState, Wish, gpu::Event};
use partita_kube::crd::{GpuNodeSpec, GpuNodeStatus};
use partita_kubelet::{DevicePlugins, PodResources, ResourceName};

use crate::{
    allocate::Answers,
    cdi::Cdi,
    error::AgentError,
    machine::{Load, Machine, Missing},
    object::{Object, Seen},
    offers::{Layout, Offer, Offers},
    report::{Facts, Standing, report},
    run::{Settings, Shared},
    users::{Kubelet, STARTING, is_of},
    wish::{Rule, follows, wishes},
};

/// How often everything is looked at, whatever happens: others may change GPUs, and not everything that changes is told.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often the kubelet is asked who uses what: it tells nobody by itself.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How soon the kubelet is asked again whether it has what it was handed; doubled each time. It answers a hundred questions a second.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// How far a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// The kubelet, and what waited for it.
    Kubelet,
    /// Every GPU too.
    All,
}

/// The layout that was taken last, and from which object: another object's numbers begin anew.
#[derive(Debug, Default)]
struct Taken {
    uid: Option<String>,
    layout: Option<GpuNodeSpec>,
    /// Why the one that stands there was not taken.
    refused: Option<String>,
}

/// Everything that outlives a pass.
pub(crate) struct Agent {
    settings: Settings,
    load: Load,
    machine: Option<Machine>,
    plugins: DevicePlugins,
    pods: PodResources,
    answers: Arc<Answers>,
    cdi: Option<Cdi>,
    /// What was found last, in the driver's order.
    found: Vec<Found>,
    kubelet: Option<Arc<Kubelet>>,
    offers: Arc<Offers>,
    advertised: BTreeSet<ResourceName>,
    taken: Taken,
    /// The wishes that were carried out as far as they could be, by GPU.
    applied: BTreeMap<String, Wish>,
    status: Option<GpuNodeStatus>,
    /// The operator's label, and the GPUs that were given back since it is off.
    rule: Rule,
    restored: BTreeSet<String>,
    /// How often in a row the kubelet did not have yet what it was handed.
    waits: u32,
    /// When each device was handed over that the kubelet does not have yet, by resource and id.
    handed: BTreeMap<(String, String), Instant>,
    shared: Arc<Shared>,
}

impl Agent {
    /// Nothing is known yet.
    pub(crate) fn new(
        settings: Settings,
        load: Load,
        plugins: DevicePlugins,
        answers: Arc<Answers>,
        cdi: Option<Cdi>,
        shared: Arc<Shared>,
    ) -> Self {
        let pods = PodResources::new(&settings.pod_resources);
        Self {
            settings,
            load,
            machine: None,
            plugins,
            pods,
            answers,
            cdi,
            found: Vec::new(),
            kubelet: None,
            offers: Arc::default(),
            advertised: BTreeSet::new(),
            taken: Taken::default(),
            applied: BTreeMap::new(),
            status: None,
            rule: Rule::default(),
            restored: BTreeSet::new(),
            waits: 0,
            handed: BTreeMap::new(),
            shared,
        }
    }

    /// Errors of GPUs.
    pub(crate) async fn event(&mut self) -> Event {
        match &mut self.machine {
            Some(machine) => match machine.events.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// A GPU reported an error. Returns whether there is something new to tell.
    pub(crate) async fn hear(&mut self, event: Event) -> Result<bool, AgentError> {
        let new = match &mut self.machine {
            Some(machine) => machine.with(move |node| node.hear(&event)).await?,
            None => false,
        };
        if new {
            self.shared.metrics.gpu_error();
        }
        Ok(new)
    }

    /// Looks, acts and hands over. Returns what is to be told of the node, and how soon the next pass should be and how deep.
    pub(crate) async fn pass(&mut self, seen: &Seen, depth: Depth) -> Result<(Option<GpuNodeStatus>, Duration, Depth), AgentError> {
        let start = Instant::now();
        self.take(seen);
        if let Err(standing) = self.open().await? {
            return Ok((self.report(seen, &standing), LOOK_EVERY, Depth::All));
        }
        let (asked, starting) = self.ask().await;
        let changed = self.kubelet.as_deref() != asked.as_ref().ok().map(|kubelet| &**kubelet);
        self.kubelet = asked.as_ref().ok().cloned();
        let users = UsedBy { kubelet: asked.clone(), starting };
        let mut trouble = asked.err().map(|message| Standing { ready: false, reason: "KubeletSilent", message });
        if (depth == Depth::All || changed || self.found.is_empty())
            && let Err(standing) = self.look(&users).await?
        {
            trouble = Some(standing);
        }
        if let Err(error) = self.hand_over(seen) {
            trouble = Some(Standing { ready: false, reason: "FilesUnwritable", message: error.to_string() });
        }
        let again = depth == Depth::All || changed || self.rule != Self::rule(seen);
        self.rule = Self::rule(seen);
        let draining = if self.rule == Rule::Off { self.restore(&users, again).await? } else { self.apply(seen, &users, again).await? };
        if let Err(error) = self.hand_over(seen) {
            trouble = Some(Standing { ready: false, reason: "FilesUnwritable", message: error.to_string() });
        }
        let standing = trouble.unwrap_or_else(|| self.standing(seen));
        let waiting = self.is_waiting() || draining;
        self.shared.metrics.passed(start.elapsed(), self.kubelet.is_some());
        self.waits = if waiting { self.waits.saturating_add(1) } else { 0 };
        let soon = ASK_AGAIN.saturating_mul(1 << self.waits.min(6));
        let next = if waiting { soon.min(ASK_EVERY) } else { ASK_EVERY };
        Ok((self.report(seen, &standing), next, Depth::Kubelet))
    }

    /// Takes the layout that stands there, unless it is older than the one taken last.
    fn take(&mut self, seen: &Seen) {
        let object = match &seen.object {
            Object::Unknown => return,
            Object::None => {
                // Whoever deleted it wants no layout; the next object begins anew.
                self.taken = Taken::default();
                return;
            }
            Object::Some(object) => object,
        };
        let status = object.status.clone().unwrap_or_default();
        if self.status.is_none() {
            // What the last run of this program told.
            self.status = Some(status.clone());
        }
        let uid = object.metadata.uid.clone();
        if self.taken.uid != uid {
            self.taken = Taken { uid, ..Taken::default() };
        }
        // One that was taken by an earlier run of this program is known by its numbers only.
        let last =
            self.taken.layout.as_ref().map_or((status.observed_term, status.observed_generation), |last| (last.term, last.generation));
        if follows(&object.spec, last) {
            self.taken.refused = None;
            self.taken.layout = Some(object.spec.clone());
        } else {
            self.taken.refused = Some(format!(
                "the layout of term {}, generation {} is refused: {}, {} was taken before; a scheduler that no longer leads wrote it, or somebody by hand: \
                 the next layout of the leader replaces it",
                object.spec.term, object.spec.generation, last.0, last.1,
            ));
        }
    }

    async fn open(&mut self) -> Result<Result<(), Standing>, CheckpointError> {
        if self.machine.is_some() {
            return Ok(Ok(()));
        }
        match Machine::open(self.load.clone(), self.settings.device.clone()).await {
            Ok(machine) => {
                self.machine = Some(machine);
                Ok(Ok(()))
            }
            Err(Missing::Now(standing)) => Ok(Err(standing)),
            Err(Missing::Taken(error)) => Err(error),
        }
    }

    /// What the kubelet says, and what was given away so lately that it does not say it yet. What it could give away is asked first: what it
    /// could no longer give away then, its list of users names if somebody got it before.
    async fn ask(&self) -> (Result<Arc<Kubelet>, String>, BTreeSet<String>) {
        let held = self.pods.allocatable().await;
        let users = self.pods.users().await;
        let kubelet = match (held, users) {
            (Ok(held), Ok(users)) => Kubelet::new(&users, held),
            (Err(error), _) | (_, Err(error)) => {
                let why = format!("{error}; is the kubelet running, and is its folder pod-resources mounted?");
                return (Err(why), BTreeSet::new());
            }
        };
        let starting = self.answers.given().starting(&kubelet, Instant::now());
        (Ok(Arc::new(kubelet)), starting)
    }

    async fn look(&mut self, users: &UsedBy) -> Result<Result<(), Standing>, AgentError> {
        let Some(machine) = &mut self.machine else { return Ok(Ok(())) };
        let users = users.clone();
        match machine.with(move |node| node.look(&|gpu: &str, mig: Option<&str>| users.of(gpu, mig))).await? {
            Ok(found) => {
                machine.listen_to(found.iter().map(|one| one.gpu.info.uuid.clone()).collect());
                self.found = found;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(Standing { ready: false, reason: "DriverFails", message: error.to_string() })),
        }
    }

    /// Tells the kubelet and container runtimes what there is.
    fn hand_over(&mut self, seen: &Seen) -> Result<(), AgentError> {
        let nobody = Kubelet::default();
        let kubelet = self.kubelet.as_deref().unwrap_or(&nobody);
        // While the kubelet does not say who uses what, what it was handed stays as it is.
        if self.kubelet.is_none() && self.offers.all().next().is_some() {
            return Ok(());
        }
        if Self::rule(seen) == Rule::Off && self.is_left() {
            return Ok(());
        }
        let offers = Offers::of(&self.found, self.layout(seen), kubelet, &self.offers);
        // First the files: a container may start as soon as the kubelet knows of its device.
        if let Some(cdi) = &self.cdi {
            cdi.write(&offers)?;
        }
        self.offers = Arc::new(offers);
        self.answers.offer(self.offers.clone());
        let mut gone = std::mem::take(&mut self.advertised);
        for (resource, devices) in self.offers.lists() {
            gone.remove(&resource);
            self.advertise(&resource, devices);
            self.advertised.insert(resource);
        }
        // A name that is taken back is known to the kubelet for minutes all the same, and registering it anew takes time.
        for resource in gone {
            self.advertise(&resource, Vec::new());
            self.advertised.insert(resource);
        }
        Ok(())
    }

    fn advertise(&self, resource: &ResourceName, devices: Vec<partita_kubelet::Device>) {
        if let Err(error) = self.plugins.advertise(resource, devices) {
            tracing::error!(%resource, "cannot be handed to the kubelet: {error}");
        }
    }

    fn layout(&self, seen: &Seen) -> Layout<'_> {
        match (&seen.node, &seen.object, &self.taken.layout) {
            (Some(node), ..) if node.rule == Rule::Off => Layout::Off,
            (None, ..) | (_, Object::Unknown, _) => Layout::Unknown,
            (_, _, None) => Layout::None,
            (_, _, Some(layout)) => Layout::Some(layout),
        }
    }

    fn rule(seen: &Seen) -> Rule {
        seen.node.as_ref().map(|node| node.rule).unwrap_or_default()
    }

    /// Makes GPUs what they shall be; what could not be done before is tried again if there is a reason to. Returns whether something waits
    /// until the kubelet has let go of it.
    async fn apply(&mut self, seen: &Seen, users: &UsedBy, again: bool) -> Result<bool, AgentError> {
        self.restored.clear();
        let Some(layout) = &self.taken.layout else { return Ok(false) };
        let wishes = wishes(layout, Self::rule(seen));
        let mut draining = false;
        for wish in wishes {
            let Some(row) = self.found.iter().position(|one| one.gpu.info.uuid == wish.gpu) else { continue };
            let known = self.applied.get(&wish.gpu).is_some_and(|known| same(known, &wish));
            if known && (!again || is_done(&self.found[row])) {
                continue;
            }
            if self.is_held(&self.found[row]) {
                draining = true;
                continue;
            }
            let Some(machine) = &mut self.machine else { break };
            let (users, asked) = (users.clone(), wish.clone());
            let start = Instant::now();
            self.found[row] = machine.with(move |node| node.apply(&asked, &|gpu: &str, mig: Option<&str>| users.of(gpu, mig))).await?;
            self.shared.metrics.changed(start.elapsed());
            self.applied.insert(wish.gpu.clone(), wish);
        }
        Ok(draining)
    }

    /// Gives GPUs back as they were found. Returns whether something waits until the kubelet has let go of it.
    async fn restore(&mut self, users: &UsedBy, again: bool) -> Result<bool, AgentError> {
        self.applied.clear();
        let mut draining = false;
        for row in 0..self.found.len() {
            let uuid = self.found[row].gpu.info.uuid.clone();
            if self.is_held(&self.found[row]) {
                draining = true;
            } else if again && let Some(machine) = &mut self.machine {
                let users = users.clone();
                let asked = uuid.clone();
                let restored = machine.with(move |node| {
                    let found = node.restore(&asked, &|gpu: &str, mig: Option<&str>| users.of(gpu, mig));
                    (found, node.is_restored(&asked))
                });
                let (found, done) = restored.await?;
                self.found[row] = found;
                if done {
                    self.restored.insert(uuid)
                } else {
                    self.restored.remove(&uuid)
                };
            }
        }
        if self.is_left() {
            for resource in std::mem::take(&mut self.advertised) {
                self.plugins.withdraw(&resource).await;
            }
            self.cdi.iter().for_each(Cdi::remove);
        }
        Ok(draining)
    }

    /// Whether nothing of this agent is left on the node, and nobody has anything of it.
    fn is_left(&self) -> bool {
        let restored = self.found.iter().all(|one| self.restored.contains(&one.gpu.info.uuid));
        restored && self.offers.all().next().is_none()
    }

    /// Whether the kubelet could still give away something of a GPU that is not offered any more.
    fn is_held(&self, one: &Found) -> bool {
        let Some(kubelet) = &self.kubelet else { return false };
        let uuid = &one.gpu.info.uuid;
        let is_its = |device: &str| is_of(device, uuid) || one.parts.iter().any(|part| part.uuid.as_deref() == Some(device));
        let mut held = kubelet.held().filter(|(_, device)| is_its(device));
        held.any(|(resource, device)| self.offers.find(resource, device).is_none())
    }

    /// Whether the kubelet does not have yet what it was handed.
    fn is_waiting(&mut self) -> bool {
        let Some(kubelet) = &self.kubelet else { return false };
        let missing = |offer: &&Offer| offer.healthy && !offer.used && !kubelet.holds(&offer.resource, &offer.id);
        let missing: BTreeSet<(String, String)> =
            self.offers.all().filter(missing).map(|offer| (offer.resource.clone(), offer.id.clone())).collect();
        for (_, since) in self.handed.extract_if(.., |device, _| !missing.contains(device)) {
            self.shared.metrics.handed_over(since.elapsed());
        }
        let now = Instant::now();
        let waiting = !missing.is_empty();
        for device in missing {
            self.handed.entry(device).or_insert(now);
        }
        waiting
    }

    fn standing(&self, seen: &Seen) -> Standing {
        let bad = |reason, message: &str| Standing { ready: false, reason, message: message.to_owned() };
        let good = |reason, message: &str| Standing { ready: true, reason, message: message.to_owned() };
        if let Some(why) = &self.taken.refused {
            return bad("LayoutRefused", why);
        }
        let damage = self.machine.as_ref().and_then(|machine| machine.damage.as_deref());
        match Self::rule(seen) {
            Rule::Off if self.is_left() => {
                good("Restored", "the node's label partita.dev/partitioning is off, and its GPUs are as they were found")
            }
            Rule::Off => {
                let left = self.found.iter().filter(|one| !self.restored.contains(&one.gpu.info.uuid)).count();
                good(
                    "Restoring",
                    &format!(
                        "the node's label partita.dev/partitioning is off; {left} GPUs are not as they were found yet, or pods use them"
                    ),
                )
            }
            _ if self.found.is_empty() => good("NoGpus", "the driver lists no GPU"),
            _ => damage.map_or_else(|| good("Works", ""), |damage| good("CheckpointWasDamaged", damage)),
        }
    }

    /// What is to be told; none while nobody knows what was told before.
    fn report(&mut self, seen: &Seen, standing: &Standing) -> Option<GpuNodeStatus> {
        if matches!(seen.object, Object::Unknown) {
            return None;
        }
        let before = self.status.take().unwrap_or_default();
        let facts = Facts {
            found: &self.found,
            layout: self.taken.layout.as_ref(),
            rule: Self::rule(seen),
            offers: &self.offers,
            kubelet: self.kubelet.as_deref(),
            driver: self.machine.as_ref().map(|machine| machine.version.as_str()),
            boot_id: &self.settings.device.boot_id,
            standing,
        };
        let status = report(&facts, &before, Timestamp::now());
        self.status = Some(status.clone());
        Some(status)
    }

    /// Closes the sockets. Everything else stays as it is: who comes after finds it so.
    pub(crate) async fn stop(self) {
        self.plugins.stop().await;
    }
}

/// Whether two wishes are for the same, whatever their numbers.
fn same(one: &Wish, other: &Wish) -> bool {
    Wish { generation: other.generation, ..one.clone() } == *other
}

/// Whether nothing is left to do on a GPU, as far as can be seen.
fn is_done(found: &Found) -> bool {
    let shared = found.sharing.as_ref().is_none_or(|sharing| sharing.state == PartState::Ready);
    shared && found.unusable.is_none() && found.notes.is_empty() && found.parts.iter().all(|part| part.state == PartState::Ready)
}

/// Who uses what, as far as anybody knows.
#[derive(Clone)]
struct UsedBy {
    kubelet: Result<Arc<Kubelet>, String>,
    starting: BTreeSet<String>,
}

impl UsedBy {
    /// For [`partita_device::Users`].
    fn of(&self, gpu: &str, mig: Option<&str>) -> Result<Vec<String>, String> {
        let kubelet = self.kubelet.as_ref().map_err(Clone::clone)?;
        let (mut users, starts) = match mig {
            Some(mig) => (kubelet.users(mig), self.starting.contains(mig)),
            None => (kubelet.users_of_gpu(gpu), self.starting.iter().any(|device| is_of(device, gpu))),
        };
        if starts && users.is_empty() {
            users.push(STARTING.to_owned());
        }
        Ok(users)
    }
}
