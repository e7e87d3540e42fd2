//! Simulated GPUs behave as the fake library's do.

use std::sync::Arc;

use partita_core::model::Cut;
use partita_device::{
    Driver, Found, Node, PartState, Settings, Simulated,
    gpu::Process,
    mig::{Spec, Wish},
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
