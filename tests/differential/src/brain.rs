//! partita's side: the live scheduler's brain, and what the API server and the volume controllers would do with its effects.

use partita_core::{
    Config,
    policy::{Candidates, Fault, Partitioner, Reads, Revision, View},
};
use partita_kube::{
    scheduler::{
        Metrics, Scheduler,
        effect::{Done, Effect, Outcome, PodName, VolumeChoice},
    },
    watch::Seen,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::{
    draw::Step,
    world::{World, full_name, tell},
};

/// The `schedulerName` of the pods that wait.
pub const SCHEDULER: &str = "partita";

/// A policy to which every place is alike: what is allowed decides, and nothing else.
struct Alike;

impl Partitioner for Alike {
    fn revision(&self) -> Revision {
        Revision(0)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, _view: &View<'_>, _demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.clear();
        scores.resize(candidates.node.len(), 0);
        Ok(())
    }

    fn refused(&mut self, _fault: &Fault) {}
}

/// The brain over a world that changes as the brain wishes.
#[derive(Debug)]
pub struct Brain {
    scheduler: Scheduler,
    /// What the API server has.
    pub world: World,
    now_ms: u64,
}

/// What became of the pod that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was bound to this node.
    Bound(String),
    /// It waits, for what it was told.
    Waits(String),
}

impl Brain {
    /// A brain that leads and knows all of `world`.
    ///
    /// # Errors
    /// If an object of the world is not of its kind.
    pub fn new(world: World) -> Result<Self, serde_json::Error> {
        let mut brain =
            Self { scheduler: Scheduler::new(SCHEDULER, Config::DEFAULT, false, Metrics::new(&mut Registry::default())), now_ms: 1, world };
        for seen in brain.world.seen()? {
            brain.scheduler.see(brain.now_ms, seen);
        }
        brain.scheduler.see(brain.now_ms, Seen::Complete);
        brain.scheduler.lead(1);
        Ok(brain)
    }

    /// Something happens. True if a pod came.
    ///
    /// # Errors
    /// If an object is not of its kind.
    pub fn step(&mut self, step: Step) -> Result<bool, serde_json::Error> {
        let world = &mut self.world;
        let row = |row: usize, of: &[Value]| row.checked_rem(of.len());
        match step {
            Step::Arrives(pod) => {
                // Who found no place gives up.
                let before = std::mem::replace(&mut world.pod, pod.clone());
                if !before.is_null() && !world.pods.iter().any(|bound| full_name(bound) == full_name(&before)) {
                    self.scheduler.see(self.now_ms, Seen::Pod(full_name(&before), None));
                }
                self.see(&[pod], Seen::Pod)?;
                return Ok(true);
            }
            Step::Leaves(pod) => {
                if let Some(row) = row(pod, &world.pods) {
                    let name = full_name(&world.pods.remove(row));
                    self.scheduler.see(self.now_ms, Seen::Pod(name, None));
                }
            }
            Step::Stops(pod) => self.change_pod(pod, "deletionTimestamp", "2026-01-02T00:00:00Z".into())?,
            Step::Relabelled(pod, labels) => self.change_pod(pod, "labels", labels)?,
            Step::Node(node) => {
                world.nodes.retain(|other| full_name(other) != full_name(&node));
                world.nodes.push(node.clone());
                self.see(&[node], Seen::Node)?;
            }
            Step::NodeGone(node) => {
                // One stays.
                if let Some(row) = row(node, &world.nodes).filter(|_| world.nodes.len() > 1) {
                    let name = full_name(&world.nodes.remove(row));
                    self.scheduler.see(self.now_ms, Seen::Node(name, None));
                }
            }
            Step::Namespace(namespace) => {
                world.namespaces.retain(|other| full_name(other) != full_name(&namespace));
                world.namespaces.push(namespace.clone());
                self.see(&[namespace], Seen::Namespace)?;
            }
        }
        Ok(false)
    }

    /// A pod that has a node changes.
    fn change_pod(&mut self, pod: usize, key: &str, value: Value) -> Result<(), serde_json::Error> {
        let Some(row) = pod.checked_rem(self.world.pods.len()) else { return Ok(()) };
        self.world.pods[row]["metadata"][key] = value;
        self.see(&[self.world.pods[row].clone()], Seen::Pod)
    }

    /// The nodes where the waiting pod may go now, sorted by name.
    #[must_use]
    pub fn feasible(&self) -> Vec<String> {
        let planner = self.scheduler.planner();
        let ours =
            |(_, pod): &(_, &partita_core::state::Pod)| format!("{}/{}", pod.spec.namespace, pod.spec.name) == full_name(&self.world.pod);
        let waits = planner.queue().lanes().flat_map(|lane| planner.queue().pods(lane));
        let Some((_, pod)) = waits.filter_map(|id| Some((id, planner.cluster().pod(id)?))).find(ours) else { return Vec::new() };
        let nodes = planner.feasible(pod.demand).into_iter().filter_map(|id| planner.cluster().node(id));
        let mut names: Vec<String> = nodes.map(|node| node.spec.name.clone()).collect();
        names.sort();
        names
    }

    /// Lets the brain place the waiting pod, and does as it says until the pod is bound or waits.
    ///
    /// # Errors
    /// If something that was made is not of its kind.
    ///
    /// # Panics
    /// If the brain wishes for what makes no sense here, where nobody has a GPU and all pods have one priority.
    pub fn place(&mut self) -> Result<Fate, serde_json::Error> {
        let mut told = String::new();
        loop {
            self.now_ms += 10;
            let effects = self.scheduler.turn(self.now_ms, &mut [&mut Alike]);
            let mut quiet = true;
            for effect in effects {
                match effect {
                    Effect::Explain { pod, message } if self.is_asked(&pod) => told = message,
                    Effect::Explain { .. } => {}
                    Effect::Volumes { pod, node, choices } => {
                        assert!(self.is_asked(&pod), "volumes of {pod:?} are chosen, which nobody asked for");
                        self.choose(&choices)?;
                        self.scheduler.done(self.now_ms, Done::Volumes { pod, node, outcome: Outcome::Done });
                        quiet = false;
                    }
                    Effect::Bind { pod, node, grant } => {
                        assert!(self.is_asked(&pod) && grant.is_none(), "{pod:?} is bound with {grant:?}");
                        self.bind(pod, &node)?;
                        return Ok(Fate::Bound(node));
                    }
                    other => panic!("nobody should want {other:?}"),
                }
            }
            if quiet {
                return Ok(Fate::Waits(told));
            }
        }
    }

    fn is_asked(&self, pod: &PodName) -> bool {
        format!("{}/{}", pod.namespace, pod.name) == full_name(&self.world.pod)
    }

    fn see<T: serde::de::DeserializeOwned>(
        &mut self,
        objects: &[Value],
        kind: fn(String, Option<Box<T>>) -> Seen,
    ) -> Result<(), serde_json::Error> {
        let mut seen = Vec::new();
        tell(objects, kind, &mut seen)?;
        for seen in seen {
            self.scheduler.see(self.now_ms, seen);
        }
        Ok(())
    }

    /// The pod gets its node, and is seen there.
    fn bind(&mut self, pod: PodName, node: &str) -> Result<(), serde_json::Error> {
        self.scheduler.done(self.now_ms, Done::Bind { pod, node: node.to_owned(), outcome: Outcome::Done });
        let mut bound = self.world.pod.clone();
        bound["spec"]["nodeName"] = node.into();
        self.see(std::slice::from_ref(&bound), Seen::Pod)?;
        self.world.pods.push(bound);
        Ok(())
    }

    /// What provisioner and volume controller do.
    fn choose(&mut self, choices: &[VolumeChoice]) -> Result<(), serde_json::Error> {
        for choice in choices {
            let (claim, volume) = match choice {
                VolumeChoice::Take { claim, volume, .. } => (claim, volume.clone()),
                VolumeChoice::Provision { claim, node, .. } => (claim, self.make_volume(claim, node)),
            };
            let Some(held) = self.world.claim(claim) else { panic!("there is no claim {claim}") };
            held["spec"]["volumeName"] = volume.clone().into();
            held["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
            held["status"]["phase"] = "Bound".into();
            let held = held.clone();
            let meta = &held["metadata"];
            let Some(given) = self.world.pvs.iter_mut().find(|pv| pv["metadata"]["name"] == volume.as_str()) else {
                panic!("there is no volume {volume}")
            };
            assert_ne!(given["status"]["phase"], "Bound", "volume {volume} is given away twice");
            given["spec"]["claimRef"] = json!({"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]});
            given["status"]["phase"] = "Bound".into();
            let given = given.clone();
            self.see(&[given], Seen::Volume)?;
            self.see(&[held], Seen::Claim)?;
        }
        Ok(())
    }

    /// A new volume for a claim, which the node's host reaches and no other.
    fn make_volume(&mut self, claim: &str, node: &str) -> String {
        let name = format!("made-for-{claim}");
        let Some(held) = self.world.claim(claim) else { panic!("there is no claim {claim}") };
        let spec = held["spec"].clone();
        let host = self.world.nodes.iter().find(|other| other["metadata"]["name"] == node);
        let host = host.map_or(Value::Null, |node| node["metadata"]["labels"]["kubernetes.io/hostname"].clone());
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
        let mut volume = json!({
            "metadata": {"name": name},
            "spec": {
                "accessModes": spec["accessModes"], "capacity": spec["resources"]["requests"], "storageClassName": spec["storageClassName"],
                "volumeMode": spec["volumeMode"], "hostPath": {"path": "/made"},
            },
            "status": {"phase": "Pending"},
        });
        if !host.is_null() {
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
        }
        self.world.pvs.push(volume);
        name
    }
}
