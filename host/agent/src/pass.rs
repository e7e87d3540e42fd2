//! One pass: what is, what shall be, and the step from one to the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use partita_device::{CheckpointError, Found, Wish, gpu::Event};
use partita_kube::{crd::GpuNodeStatus, translate::keys};
use partita_kubelet::{DevicePlugins, PodResources, ResourceName, written_down};
use tokio::task::spawn_blocking;

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
    standing::RESTORED,
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

/// How often in a row a driver may fail to list its GPUs before it is loaded anew.
const FAILURES_MAX: u32 = 3;

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
    /// What the kubelet said last.
    known: Option<Arc<Kubelet>>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) advertised: BTreeSet<ResourceName>,
    pub(crate) taken: Taken,
    /// The wishes that were carried out as far as they could be, by GPU.
    pub(crate) applied: BTreeMap<String, Wish>,
    pub(crate) status: Option<GpuNodeStatus>,
    /// The operator's label, and the GPUs that were given back since it is off.
    pub(crate) rule: Rule,
    pub(crate) restored: BTreeSet<String>,
    /// Other GPUs are to be changed at once: what became of one is told before the next is begun.
    pub(crate) more: bool,
    /// How often in a row the driver did not even list its GPUs.
    failures: u32,
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
            known: None,
            offers: Arc::default(),
            advertised: BTreeSet::new(),
            taken: Taken::default(),
            applied: BTreeMap::new(),
            status: None,
            rule: Rule::default(),
            restored: BTreeSet::new(),
            more: false,
            failures: 0,
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
        self.known = self.kubelet.clone().or(self.known.take());
        let users = UsedBy { kubelet: asked.clone(), answers: self.answers.clone() };
        let mut trouble = asked.err().map(|message| Standing { ready: false, reason: "KubeletSilent", message });
        // While nobody says who uses what, what was known of that is told on.
        let blind = self.kubelet.is_none() && !self.found.is_empty();
        if (depth == Depth::All || changed || self.found.is_empty())
            && !blind
            && let Err(standing) = self.look(&users).await?
        {
            trouble = Some(standing);
        }
        let unwritable = |error: AgentError| Standing { ready: false, reason: "FilesUnwritable", message: error.to_string() };
        let again = depth == Depth::All || changed || self.rule != Self::rule(seen);
        let mut draining = false;
        if let Err(error) = self.hand_over(seen) {
            // What goes was not taken from the kubelet, so it must not go.
            trouble = Some(unwritable(error));
        } else if self.kubelet.is_some() {
            self.rule = Self::rule(seen);
            let off = self.rule == Rule::Off;
            draining = if off { self.restore(&users, again).await? } else { self.apply(seen, &users, again).await? };
            if let Err(error) = self.hand_over(seen) {
                trouble = Some(unwritable(error));
            }
            if depth == Depth::All {
                self.write_anew();
            }
        }
        let standing = trouble.unwrap_or_else(|| self.standing(seen));
        let waiting = self.is_waiting() || draining;
        self.shared.metrics.passed(start.elapsed(), self.kubelet.is_some());
        self.waits = if waiting { self.waits.saturating_add(1) } else { 0 };
        let soon = ASK_AGAIN.saturating_mul(1 << self.waits.min(6));
        let next = if waiting { soon.min(ASK_EVERY) } else { ASK_EVERY };
        let next = if self.more { Duration::ZERO } else { next };
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
        let folder = self.settings.device_plugins.clone();
        let written = spawn_blocking(move || written_down(&folder)).await.map_err(|error| error.to_string())?;
        match (held, users) {
            (Ok(held), Ok(users)) => {
                let kubelet = Kubelet::new(&users, held).and_written(written.map_err(|error| error.to_string())?);
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
                (self.found, self.failures) = (found, 0);
                Ok(Ok(()))
            }
            Err(error) => {
                let message = error.to_string();
                self.found.iter_mut().for_each(|one| one.unusable = Some(message.clone()));
                self.failures += 1;
                if self.failures >= FAILURES_MAX {
                    // The driver may have been replaced: it is loaded anew.
                    (self.machine, self.failures) = (None, 0);
                }
                Ok(Err(Standing { ready: false, reason: "DriverFails", message }))
            }
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
        let by_cdi = self.cdi.as_mut().map_or(Ok(false), |cdi| cdi.write(&offers))?;
        self.offers = Arc::new(offers);
        self.answers.offer(self.offers.clone(), by_cdi);
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

    /// Has the kubelet write down anew who has which device, where only that keeps something that shall go: it writes all of it when it is
    /// sent a list of any resource. This one is nobody else's.
    fn write_anew(&mut self) {
        let Some(kubelet) = &self.kubelet else { return };
        let of = |one: &Found| one.parts.iter().filter_map(|part| part.uuid.clone()).chain([one.gpu.info.uuid.clone()]).collect::<Vec<_>>();
        let mut written = self.found.iter().flat_map(of).filter_map(|id| {
            let free = |(resource, device): &(&str, &str)| self.offers.find(resource, device).is_none() && !kubelet.holds(resource, device);
            kubelet.written(&id).filter(free).count().checked_sub(1)
        });
        let Some(resource) = written.next().and_then(|_| ResourceName::new(keys::GPU).ok()) else { return };
        if self.advertised.insert(resource.clone()) {
            self.advertise(&resource, Vec::new());
        } else {
            self.plugins.repeat(&resource);
        }
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
            (_, _, Some(layout)) => Layout::Some(layout, &self.taken.unnamed),
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
        let of_pods = self.processes_of_pods();
        let facts = Facts {
            of_pods: &of_pods,
            found: &self.found,
            layout: self.taken.layout.as_ref(),
            observed: self.taken.numbers(),
            rule: Self::rule(seen),
            offers: &self.offers,
            kubelet: self.kubelet.as_deref(),
            known: self.known.as_deref(),
            unnamed: &self.taken.unnamed,
            driver: self.machine.as_ref().map(|machine| machine.version.as_str()),
            boot_id: &self.settings.device.boot_id,
            standing,
        };
        let status = report(&facts, &before, Timestamp::now());
        self.status = Some(status.clone());
        Some(status)
    }

    /// The processes that use GPUs and are pods': those are told by their pods' names.
    fn processes_of_pods(&self) -> BTreeSet<String> {
        let users = self.found.iter().flat_map(|one| one.users.iter().chain(one.parts.iter().flat_map(|part| &part.users)));
        let is_a_pods = |user: &&String| {
            let pid = user.strip_prefix("pid:").and_then(|pid| pid.parse::<u32>().ok());
            // The kubelet's control groups have this name, with any driver.
            let groups = pid.and_then(|pid| fs::read_to_string(self.settings.proc.join(pid.to_string()).join("cgroup")).ok());
            groups.is_some_and(|groups| groups.contains("kubepods"))
        };
        users.filter(is_a_pods).cloned().collect()
    }

    /// Closes the sockets, and returns what is to be told last. Everything else stays as it is: who comes after finds it so, and of a node
    /// that it has left it goes on to be said that it was left well.
    pub(crate) async fn stop(mut self, seen: &Seen) -> Option<GpuNodeStatus> {
        let message = "the agent was ended; until it runs again, pods that start on this node get no GPU".to_owned();
        let stopped = Standing { ready: false, reason: "Stopped", message };
        let has_left = |status: &GpuNodeStatus| Self::rule(seen) == Rule::Off && status.conditions.iter().any(|one| one.reason == RESTORED);
        let last = match self.status.take_if(|status| has_left(status)) {
            Some(status) => Some(status),
            None => self.report(seen, &stopped),
        };
        self.plugins.stop().await;
        last
    }
}
