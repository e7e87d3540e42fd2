//! One pass: what is, what shall be, and the step from one to the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use partita_device::{CheckpointError, Found, Wish, gpu::Event};
use partita_kube::crd::GpuNodeStatus;
use partita_kubelet::{DevicePlugins, PodResources, ResourceName};

use crate::{
    act::UsedBy,
    allocate::Answers,
    cdi::Cdi,
    error::AgentError,
    machine::{Load, Machine, Missing},
    object::{Object, Seen},
    offers::{Layout, Offers},
    report::{Facts, Standing, report},
    run::{Settings, Shared},
    taken::Taken,
    users::Kubelet,
    wish::Rule,
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

/// Everything that outlives a pass.
pub(crate) struct Agent {
    pub(crate) settings: Settings,
    pub(crate) load: Load,
    pub(crate) machine: Option<Machine>,
    pub(crate) plugins: DevicePlugins,
    pub(crate) pods: PodResources,
    pub(crate) answers: Arc<Answers>,
    pub(crate) cdi: Option<Cdi>,
    /// What was found last, in the driver's order.
    pub(crate) found: Vec<Found>,
    pub(crate) kubelet: Option<Arc<Kubelet>>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) advertised: BTreeSet<ResourceName>,
    pub(crate) taken: Taken,
    /// The wishes that were carried out as far as they could be, by GPU.
    pub(crate) applied: BTreeMap<String, Wish>,
    pub(crate) status: Option<GpuNodeStatus>,
    /// The operator's label, and the GPUs that were given back since it is off.
    pub(crate) rule: Rule,
    pub(crate) restored: BTreeSet<String>,
    /// How often in a row the kubelet did not have yet what it was handed.
    pub(crate) waits: u32,
    /// When each device was handed over that the kubelet does not have yet, by resource and id.
    pub(crate) handed: BTreeMap<(String, String), Instant>,
    pub(crate) shared: Arc<Shared>,
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
        let asked = self.ask().await;
        let changed = self.kubelet.as_deref() != asked.as_ref().ok().map(|kubelet| &**kubelet);
        self.kubelet = asked.as_ref().ok().cloned();
        let users = UsedBy { kubelet: asked.clone(), answers: self.answers.clone() };
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
        if let Object::Some(object) = &seen.object
            && self.status.is_none()
        {
            // What the last run of this program told.
            self.status = Some(object.status.clone().unwrap_or_default());
            self.taken = Taken::again(object);
        }
        self.taken.take(&seen.object);
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
    async fn ask(&self) -> Result<Arc<Kubelet>, String> {
        let held = self.pods.allocatable().await;
        let users = self.pods.users().await;
        match (held, users) {
            (Ok(held), Ok(users)) => {
                let kubelet = Kubelet::new(&users, held);
                let starting = self.answers.given().starting(&kubelet, Instant::now());
                Ok(Arc::new(kubelet.with(starting)))
            }
            (Err(error), _) | (_, Err(error)) => Err(format!("{error}; is the kubelet running, and is its folder pod-resources mounted?")),
        }
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
        // While the kubelet does not say who uses what, what it was handed stays as it is: a device that looks free may be used under
        // another name.
        let Some(kubelet) = self.kubelet.as_deref() else { return Ok(()) };
        if Self::rule(seen) == Rule::Off && self.is_left() {
            return Ok(());
        }
        let offers = Offers::of(&self.found, self.layout(seen), Self::rule(seen), kubelet, &self.offers);
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
            // What the one before it wanted is not known any more.
            (_, _, None) if self.taken.refused.is_some() => Layout::Unknown,
            (_, _, None) => Layout::None,
            (_, _, Some(layout)) => Layout::Some(layout),
        }
    }

    pub(crate) fn rule(seen: &Seen) -> Rule {
        seen.node.as_ref().map(|node| node.rule).unwrap_or_default()
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
            observed: self.taken.numbers(),
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
