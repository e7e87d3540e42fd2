//! Simulated GPUs behave as the fake library's do.

use std::{sync::Arc, time::Duration};

use partita_core::model::Cut;
use partita_device::{
    DeviceError, Driver, Found, Node, PartState, Settings, Simulated, Wish,
    gpu::{Activation, ComputeMode, DriverProfile, Event, GpuInfo, Instance, Process},
    mig::Spec,
};

use crate::support::{Machine, NOBODY, at, wish};

/// What people see of a GPU, without numbers and UUIDs.
fn seen(found: &Found) -> Vec<(Option<Spec>, bool, bool, Vec<String>)> {
    let one = |part: &partita_device::Part| (part.spec.clone(), part.state == PartState::Ready, part.ours, part.users.clone());
    let mut parts: Vec<_> = found.parts.iter().map(one).collect();
    parts.sort();
    parts
}

#[test]
fn the_same_layouts_come_about() {
    for model in ["H100-80GB", "A30", "RTX-PRO-6000-Blackwell-96GB", "T4"] {
        let machine = Machine::cut(model);
        let folder = tempfile::tempdir().unwrap();
        let driver = Arc::new(Simulated::new(model, "node").unwrap());
        let (mut simulated, _) = Node::open(driver, &Settings::new(&folder.path().join("state.json"), "boot")).unwrap();
        let mut fake = machine.node();
        let (one, other) = (simulated.look(NOBODY).unwrap().remove(0), fake.look(NOBODY).unwrap().remove(0));
        assert_eq!((&one.gpu.model, &one.gpu.table.from_driver), (&other.gpu.model, &false), "{model}");
        let Some(grid) = &one.gpu.model.grid else { continue };
        let gpus = (one.gpu.info.uuid.clone(), other.gpu.info.uuid.clone());
        let (small, large) = (grid.profiles[0].name.as_str(), grid.profiles[grid.profiles.len() - 1].name.as_str());
        let layouts: [&[(&str, u8)]; 4] =
            [&[(small, 0), (small, grid.profiles[0].size)], &[(large, 0)], &[(small, 0), (small, 0)], &[("1g.1gb", 0)]];
        for (row, layout) in (1..).zip(layouts) {
            let on = |gpu: &str| Wish { may_switch: true, ..wish(gpu, row, layout) };
            let (one, other) = (simulated.apply(&on(&gpus.0), NOBODY), fake.apply(&on(&gpus.1), NOBODY));
            assert_eq!(seen(&one), seen(&other), "{model}: {layout:?}");
        }
        let off = |gpu: &str| Wish { cut: Cut::Shares, may_switch: true, ..wish(gpu, 9, &[]) };
        assert!(!simulated.apply(&off(&gpus.0), NOBODY).gpu.is_cut());
    }
}

#[test]
fn what_is_used_stays() {
    let folder = tempfile::tempdir().unwrap();
    let driver = Arc::new(Simulated::new("A30×2", "node").unwrap());
    let (mut node, _) = Node::open(driver.clone(), &Settings::new(&folder.path().join("state.json"), "boot")).unwrap();
    let gpu = driver.list().unwrap().remove(1).unwrap();
    let found = node.apply(&Wish { may_switch: true, ..wish(&gpu, 1, &[("2g.12gb", 0), ("2g.12gb", 2)]) }, NOBODY);
    driver.begin(&gpu, Process { pid: 12, instance: at(&found, "2g.12gb", 2).instance });
    let found = node.apply(&wish(&gpu, 2, &[]), NOBODY);
    assert_eq!(found.parts.len(), 1);
    assert_eq!(at(&found, "2g.12gb", 2).users, ["pid:12"]);
    driver.end(12);
    assert_eq!(node.apply(&wish(&gpu, 3, &[]), NOBODY).parts, []);
}

/// A driver that somebody else asks too, and always first.
struct Crowded(Simulated);

impl Driver for Crowded {
    fn version(&self) -> Result<String, DeviceError> {
        self.0.version()
    }

    fn list(&self) -> Result<Vec<Result<String, DeviceError>>, DeviceError> {
        self.0.list()
    }

    fn info(&self, gpu: &str) -> Result<GpuInfo, DeviceError> {
        self.0.info(gpu)
    }

    fn profiles(&self, gpu: &str) -> Result<Vec<DriverProfile>, DeviceError> {
        self.0.profiles(gpu)
    }

    fn instances(&self, gpu: &str) -> Result<Vec<Instance>, DeviceError> {
        self.0.instances(gpu)
    }

    fn create(&self, gpu: &str, profile_id: u32, place: (u32, u32)) -> Result<u32, DeviceError> {
        self.0.create(gpu, profile_id, place).and_then(|theirs| self.0.create_compute(gpu, theirs)).unwrap();
        self.0.create(gpu, profile_id, place)
    }

    fn create_compute(&self, gpu: &str, instance: u32) -> Result<u32, DeviceError> {
        self.0.create_compute(gpu, instance)
    }

    fn destroy_compute(&self, gpu: &str, instance: u32, compute: u32) -> Result<(), DeviceError> {
        self.0.destroy_compute(gpu, instance, compute)
    }

    fn destroy(&self, gpu: &str, instance: u32) -> Result<(), DeviceError> {
        self.0.destroy(gpu, instance)
    }

    fn set_mode(&self, gpu: &str, on: bool) -> Result<Activation, DeviceError> {
        self.0.set_mode(gpu, on)
    }

    fn compute_mode(&self, gpu: &str) -> Result<ComputeMode, DeviceError> {
        self.0.compute_mode(gpu)
    }

    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), DeviceError> {
        self.0.set_compute_mode(gpu, mode)
    }

    fn processes(&self, gpu: &str) -> Result<Vec<Process>, DeviceError> {
        self.0.processes(gpu)
    }

    fn next_event(&self, gpus: &[String], within: Duration) -> Result<Option<Event>, DeviceError> {
        self.0.next_event(gpus, within)
    }
}

#[test]
fn what_others_make_at_the_same_time_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let driver = Arc::new(Crowded(Simulated::new("H100-80GB", "node").unwrap()));
    let (mut node, _) = Node::open(driver.clone(), &Settings::new(&folder.path().join("state.json"), "boot")).unwrap();
    let gpu = driver.list().unwrap().remove(0).unwrap();
    let found = node.apply(&Wish { may_switch: true, ..wish(&gpu, 1, &[("1g.10gb", 0)]) }, NOBODY);
    let theirs = driver.instances(&gpu).unwrap();
    assert_eq!((theirs.len(), theirs[0].compute.len()), (1, 1), "it is still there");
    assert!(!at(&found, "1g.10gb", 0).ours && at(&found, "1g.10gb", 0).state == PartState::Ready);
    assert_eq!(node.apply(&wish(&gpu, 1, &[]), NOBODY).parts.len(), 1, "and stays until a later layout");
    assert_eq!(node.apply(&wish(&gpu, 2, &[]), NOBODY).parts, []);
}
