//! The agent is killed: at every step, and at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    time::Duration,
};

use partita_core::model::{Cut, Placement, catalog};
use partita_device::fault::{POINTS, SHARING_POINTS};
use partita_fake_kubelet::Pod;
use partita_kube::crd::{FoundGpu, GpuNodeStatus, PartitionState};
use serde_json::json;

use crate::{programs::Floor, stage::Stage};

/// Somebody else's partition that a process uses, and one that a pod uses: both stay, whatever happens.
const FOREIGN: (&str, u8) = ("1g.10gb", 0);
const OF_POD: (&str, u8) = ("1g.10gb", 1);
/// From one to the other two are destroyed and two made.
const LAYOUTS: [[(&str, u8); 4]; 2] =
    [[FOREIGN, OF_POD, ("2g.20gb", 2), ("3g.40gb", 4)], [FOREIGN, OF_POD, ("1g.10gb", 2), ("2g.20gb", 4)]];
const PID: u32 = 4711;

/// A GPU with both, whose pod is `default/p`. Returns their UUIDs too.
async fn inhabited() -> (Stage, [String; 2]) {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    stage.fake.set_mig(0, true).unwrap();
    let foreign = stage.fake.make(0, FOREIGN.0, FOREIGN.1, true).unwrap();
    stage.fake.hold(0, Some(foreign), PID).unwrap();
    let agent = stage.agent();
    want(&stage, 1, 0).await;
    let uuids = stage.settled(0, &LAYOUTS[0]).await;
    let made = stage.kubelet.healthy("nvidia.com/mig-1g.10gb");
    assert_eq!(made, [uuids[1].clone()], "what a process uses is not given to pods");
    stage.kubelet.admit(&Pod::new("p", "nvidia.com/mig-1g.10gb")).await.unwrap();
    stage.gpu(0, "its pod is named", |gpu| gpu.partitions.iter().any(|one| one.users == ["default/p"])).await;
    agent.kill();
    (stage, [uuids[0].clone(), uuids[1].clone()])
}

async fn want(stage: &Stage, generation: i64, layout: usize) {
    let partitions: Vec<_> = LAYOUTS[layout].iter().map(|&(profile, start)| (profile, start, None)).collect();
    stage.layout(1, generation, json!([stage.mig(0, &partitions)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_it_goes_on_where_it_was() {
    let (stage, used) = inhabited().await;
    let mut generation = 1;
    for point in POINTS {
        // Later steps are passed more than once: two are destroyed, two are made.
        for count in [1, 2] {
            generation += 1;
            let layout = (generation as usize + 1) % 2;
            let what = format!("{point}:{count}");
            want(&stage, generation, layout).await;
            let mut doomed = stage.agent_with(&[], &[("PARTITA_FAULT", &what)]);
            assert!(!doomed.ended().await.success(), "{what}");
            assert!(doomed.log().contains(&format!("PARTITA_FAULT={what}")), "{what}: {}", doomed.log());
            let agent = stage.agent();
            let uuids = stage.settled(0, &LAYOUTS[layout]).await;
            assert_eq!(uuids[..2], used, "{what}: what is used was touched");
            let status = stage.until("the layout was taken", |status| status.observed_generation == generation).await;
            assert_eq!(status.conditions[0].reason, "Works", "{what}");
            agent.kill();
        }
    }
    // Everything of ours can still go, and what is used cannot.
    let _agent = stage.agent();
    stage.layout(1, generation + 1, json!([stage.mig(0, &[])])).await;
    let left = |gpu: &FoundGpu| gpu.partitions.len() == 2;
    stage.gpu(0, "what nobody uses is gone", left).await;
    assert_eq!(stage.truth(0).into_iter().map(|one| one.2[0].clone()).collect::<Vec<_>>(), used);
}

/// What a GPU becomes at each step of sharing: from what, to what.
fn change(point: &str) -> [&'static str; 2] {
    match point.split('-').next() {
        Some("mode") => ["whole", "mig"],
        Some("share") => ["whole", "mps"],
        Some("unshare") => ["mps", "whole"],
        _ => ["whole", "turns"],
    }
}

async fn share(stage: &Stage, generation: i64, how: &str) {
    let gpu = match how {
        "mig" => stage.mig(0, &[("1g.10gb", 0, None)]),
        "mps" => stage.mps(0, &[8192, 4096]),
        "turns" => stage.shares(0, &[(500, "p", "partita.dev/gpu"), (500, "q", "partita.dev/gpu")]),
        _ => stage.shares(0, &[(1000, "w", "nvidia.com/gpu")]),
    };
    stage.layout(1, generation, json!([gpu])).await;
}

/// Waits until the GPU is so, and looks at it from all sides.
async fn is_shared(stage: &Stage, floor: &Floor, generation: i64, how: &str, what: &str) {
    let (cut, parts) = match how {
        "mig" => (Cut::Mig, 1),
        "mps" => (Cut::Mps, 2),
        "turns" => (Cut::Shares, 2),
        _ => (Cut::Shares, 1),
    };
    let taken = |status: &GpuNodeStatus| status.observed_generation == generation;
    stage.until(&format!("{what}: the layout is taken"), taken).await;
    let is_so = |gpu: &FoundGpu| {
        gpu.cut == cut && gpu.partitions.len() == parts && gpu.partitions.iter().all(|one| one.state == PartitionState::Ready)
    };
    stage.gpu(0, &format!("{what}: it is {how}"), is_so).await;
    let gpu = stage.fake.state().unwrap().gpus.remove(0);
    let (daemons, mode) = if how == "mps" { (1, 3) } else { (0, 0) };
    assert_eq!((floor.running(), gpu.compute_mode, gpu.mig), (daemons, mode, how == "mig"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_gpu_begins_or_ends_to_be_shared_it_goes_on_where_it_was() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let floor = Floor::new();
    let slices = ["--time-slice", "short"];
    let mut generation = 0;
    let mut crashes = 0;
    for point in SHARING_POINTS {
        let [from, to] = change(point);
        generation += 2;
        let agent = floor.agent(&stage, &slices, &[]);
        share(&stage, generation - 1, from).await;
        is_shared(&stage, &floor, generation - 1, from, point).await;
        agent.kill();
        share(&stage, generation, to).await;
        let mut doomed = floor.agent(&stage, &slices, &[("PARTITA_FAULT", point)]);
        assert!(!doomed.ended().await.success() && doomed.log().contains("PARTITA_FAULT"), "{point}: {}", doomed.log());
        crashes += 1;
        let agent = floor.agent(&stage, &slices, &[]);
        is_shared(&stage, &floor, generation, to, point).await;
        agent.kill();
    }
    assert_eq!(crashes, SHARING_POINTS.len());
}

/// Pods that come and go, by the devices that they got.
struct Crowd {
    dice: fastrand::Rng,
    pods: BTreeMap<String, String>,
    born: usize,
}

impl Crowd {
    /// Some end, one may come.
    async fn live(&mut self, stage: &Stage) {
        let ended: Vec<String> = self.pods.keys().filter(|_| self.dice.u8(..3) == 0).cloned().collect();
        for pod in ended {
            stage.kubelet.terminate("default", &pod);
            self.pods.remove(&pod);
        }
        let resources = ["1g.10gb", "2g.20gb", "3g.40gb"].map(|profile| format!("nvidia.com/mig-{profile}"));
        let used: BTreeSet<&String> = self.pods.values().collect();
        let is_free = |resource: &&String| stage.kubelet.healthy(resource).iter().any(|device| !used.contains(device));
        let free: Vec<&String> = resources.iter().filter(is_free).collect();
        let Some(resource) = self.dice.choice(free) else { return };
        let name = format!("r{}", self.born);
        self.born += 1;
        // The agent may have taken it back meanwhile.
        if let Ok(admitted) = stage.kubelet.admit(&Pod::new(&name, resource)).await {
            self.pods.insert(name, admitted.devices[0].clone());
        }
    }

    /// Every pod still has what it got, and nobody else has it.
    fn is_unharmed(&self, stage: &Stage, what: &str) {
        let there: BTreeSet<String> = stage.truth(0).into_iter().flat_map(|one| one.2).collect();
        let devices: BTreeSet<&String> = self.pods.values().collect();
        assert_eq!(devices.len(), self.pods.len(), "{what}: two pods have one device: {:?}", self.pods);
        for (pod, device) in &self.pods {
            assert!(there.contains(device), "{what}: {pod} lost {device}; there is {there:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_no_pod_loses_anything() {
    let seed = env::var("PARTITA_SEED").ok().map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    let what = format!("PARTITA_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    stage.fake.set_mig(0, true).unwrap();
    let mut crowd = Crowd { dice: dice.fork(), pods: BTreeMap::new(), born: 0 };
    let mut generation = 0;
    for round in 0..12 {
        let what = format!("{what}, round {round}");
        let agent = stage.agent();
        for _ in 0..dice.usize(1..4) {
            generation += 1;
            let wanted = drawn(&mut dice);
            let partitions: Vec<_> = wanted.iter().map(|&(profile, start)| (profile, start, None)).collect();
            stage.layout(1, generation, json!([stage.mig(0, &partitions)])).await;
            tokio::time::sleep(Duration::from_millis(dice.u64(..150))).await;
            crowd.live(&stage).await;
            crowd.is_unharmed(&stage, &what);
        }
        agent.kill();
        crowd.is_unharmed(&stage, &what);
    }
    let _agent = stage.agent();
    for pod in crowd.pods.keys() {
        stage.kubelet.terminate("default", pod);
    }
    stage.layout(1, generation + 1, json!([stage.mig(0, &[("3g.40gb", 0, None), ("1g.10gb", 6, None)])])).await;
    eprintln!("{what}: {} pods came", crowd.born);
    stage.settled(0, &[("3g.40gb", 0), ("1g.10gb", 6)]).await;
}

/// A layout.
fn drawn(dice: &mut fastrand::Rng) -> Vec<(&'static str, u8)> {
    let grid = catalog::lookup("H100-80GB").unwrap().grid.unwrap();
    let all = [("1g.10gb", 0..7), ("2g.20gb", 0..6), ("3g.40gb", 0..5)];
    let mut layout: Vec<Placement> = Vec::new();
    let mut named = Vec::new();
    for _ in 0..6 {
        let (profile, starts) = all[dice.usize(..all.len())].clone();
        let start = dice.u8(starts);
        let row = grid.resolve(profile).unwrap();
        let placement = Placement { profile: row, start };
        if grid.profiles[usize::from(row)].starts.contains(&start) && grid.admits(&layout, placement) {
            layout.push(placement);
            named.push((profile, start));
        }
    }
    named
}
