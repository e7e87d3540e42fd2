//! What goes wrong while partitions come and go.

use std::{fs, os::unix::fs::symlink, time::Duration};

use nvidia_ml::{Fault, What};
use partita_device::{CheckpointError, Driver, Node, PartState};

use crate::support::{Machine, NOBODY, at, truth, why, wish};

const CREATE: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";
const CREATE_COMPUTE: &str = "nvmlGpuInstanceCreateComputeInstance";
const DESTROY: &str = "nvmlGpuInstanceDestroy";
const DESTROY_COMPUTE: &str = "nvmlComputeInstanceDestroy";

#[test]
fn a_partition_that_cannot_be_made_leaves_nothing_behind() {
    let cases = [
        (CREATE, What::Code(23), "INSUFFICIENT_RESOURCES"),
        (CREATE, What::Phantom, "NOT_FOUND"),
        (CREATE_COMPUTE, What::Code(999), "UNKNOWN"),
        (CREATE_COMPUTE, What::Phantom, "although the driver said that it was made"),
        ("nvmlComputeInstanceGetInfo_v2", What::Code(999), "UNKNOWN"),
    ];
    for (function, what, says) in cases {
        let machine = Machine::cut("H100-80GB");
        let gpu = machine.uuid(0);
        let mut node = machine.node();
        machine.fake.fault(Fault::once(function, what)).unwrap();
        let layout = [("2g.20gb", 0), ("1g.10gb", 2)];
        let found = node.apply(&wish(&gpu, 1, &layout), NOBODY);
        assert!(why(at(&found, "2g.20gb", 0)).contains(says), "{function}: {}", why(at(&found, "2g.20gb", 0)));
        assert_eq!(at(&found, "1g.10gb", 2).state, PartState::Ready, "the others are made");
        assert_eq!(machine.truth(0), truth(&[("1g.10gb", 2)]), "{function}");
        let found = node.apply(&wish(&gpu, 1, &layout), NOBODY);
        assert!(found.parts.len() == 2 && found.parts.iter().all(|part| part.state == PartState::Ready), "{found:#?}");
    }
}

#[test]
fn a_partition_that_cannot_be_destroyed_stays_and_is_told_of() {
    let cases = [
        (DESTROY_COMPUTE, What::Code(19), "IN_USE", 1),
        (DESTROY_COMPUTE, What::Phantom, "IN_USE", 1),
        (DESTROY, What::Code(19), "IN_USE", 0),
        (DESTROY, What::Phantom, "although the driver said that it was destroyed", 0),
    ];
    for (function, what, says, computes) in cases {
        let machine = Machine::cut("H100-80GB");
        let gpu = machine.uuid(0);
        let mut node = machine.node();
        node.apply(&wish(&gpu, 1, &[("2g.20gb", 0)]), NOBODY);
        machine.fake.fault(Fault::once(function, what)).unwrap();
        let next = [("1g.10gb", 0), ("1g.10gb", 5)];
        let found = node.apply(&wish(&gpu, 2, &next), NOBODY);
        assert!(why(at(&found, "2g.20gb", 0)).contains(says), "{function}: {}", why(at(&found, "2g.20gb", 0)));
        assert!(why(at(&found, "1g.10gb", 0)).contains("overlaps 2g.20gb at slot 0"));
        assert_eq!(machine.truth(0), [("1g.10gb".to_owned(), 5, 1), ("2g.20gb".to_owned(), 0, computes)], "{function}");
        node.apply(&wish(&gpu, 2, &next), NOBODY);
        assert_eq!(machine.truth(0), truth(&next));
    }
}

#[test]
fn a_monitor_that_keeps_a_handle_only_delays() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    let found = node.apply(&wish(&gpu, 1, &[("7g.80gb", 0)]), NOBODY);
    machine.fake.keep_handle(0, at(&found, "7g.80gb", 0).instance, 9).unwrap();
    let found = node.apply(&wish(&gpu, 2, &[]), NOBODY);
    assert!(why(at(&found, "7g.80gb", 0)).contains("a monitor such as DCGM"), "{found:#?}");
    // Wanted again, it is completed.
    let found = node.apply(&wish(&gpu, 3, &[("7g.80gb", 0)]), NOBODY);
    assert_eq!(at(&found, "7g.80gb", 0).state, PartState::Ready);
}

#[test]
fn a_gpu_whose_call_hangs_is_set_aside_and_the_others_go_on() {
    let machine = Machine::cut("H100-80GB×2");
    let (first, second) = (machine.uuid(0), machine.uuid(1));
    let mut node = machine.impatient(Duration::from_secs(5));
    machine.fake.fault(Fault::always(CREATE, What::Block).on(0)).unwrap();
    let found = node.apply(&wish(&first, 1, &[("1g.10gb", 0)]), NOBODY);
    assert!(found.unusable.as_ref().unwrap().contains("create has not come back for 5 s"), "{found:#?}");
    // It is not asked again meanwhile, and so this takes no time.
    assert!(node.apply(&wish(&first, 2, &[]), NOBODY).unusable.is_some());
    assert_eq!(node.apply(&wish(&second, 1, &[("1g.10gb", 0)]), NOBODY).parts[0].state, PartState::Ready);
    let found = node.look(NOBODY).unwrap();
    assert_eq!(found.iter().map(|one| one.unusable.is_some()).collect::<Vec<_>>(), [true, false]);
    machine.fake.heal().unwrap();
    // The call comes back, and what it made is found and taken for what it is.
    while node.look_at(&first, NOBODY).unusable.is_some() {}
    let found = node.apply(&wish(&first, 3, &[("1g.10gb", 0)]), NOBODY);
    assert_eq!(at(&found, "1g.10gb", 0).state, PartState::Ready);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0)]));
}

#[test]
fn while_the_list_of_gpus_hangs_the_known_go_on() {
    let machine = Machine::cut("H100-80GB×2");
    let mut node = machine.impatient(Duration::from_secs(5));
    machine.fake.fault(Fault::always("nvmlDeviceGetCount_v2", What::Block)).unwrap();
    assert!(node.look(NOBODY).unwrap_err().to_string().contains("list has not come back"));
    machine.fake.heal().unwrap();
    while node.look(NOBODY).is_err() {}
    machine.fake.fault(Fault::always("nvmlDeviceGetCount_v2", What::Block)).unwrap();
    assert_eq!(node.look(NOBODY).unwrap().iter().filter(|found| found.unusable.is_none()).count(), 2);
    machine.fake.heal().unwrap();
}

#[test]
fn events_of_the_others_are_heard_while_a_gpu_is_lost() {
    let machine = Machine::cut("H100-80GB×2");
    let gpus: Vec<String> = (0..2).map(|gpu| machine.uuid(gpu)).collect();
    let driver = machine.nvml();
    machine.fake.edit(|state| state.gpus[0].lost = true).unwrap();
    assert_eq!(driver.next_event(&gpus, Duration::ZERO).unwrap(), None);
    machine.fake.xid(1, 48, None).unwrap();
    assert_eq!(
        driver.next_event(&gpus, Duration::from_secs(10)).unwrap().map(|event| (event.uuid, event.xid)),
        Some((gpus[1].clone(), 48))
    );
}

#[test]
fn with_a_full_disk_nothing_is_begun() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    let new = machine.settings().checkpoint.with_extension("new");
    symlink("/dev/full", &new).unwrap();
    let found = node.apply(&wish(&gpu, 2, &[("1g.10gb", 1)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0)]));
    for start in [0, 1] {
        assert!(why(at(&found, "1g.10gb", start)).contains("make room"), "{}", why(at(&found, "1g.10gb", start)));
    }
    fs::remove_file(new).unwrap();
    node.apply(&wish(&gpu, 2, &[("1g.10gb", 1)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 1)]));
}

#[test]
fn a_damaged_checkpoint_costs_nobody_a_partition() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    machine.node().apply(&wish(&gpu, 1, &[("1g.10gb", 0), ("1g.10gb", 1)]), NOBODY);
    fs::write(machine.settings().checkpoint, "{").unwrap();
    let (mut node, damage) = Node::open(std::sync::Arc::new(machine.nvml()), &machine.settings()).unwrap();
    assert!(damage.unwrap().contains("adopted"));
    let found = node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0), ("1g.10gb", 1)]));
    assert!(!at(&found, "1g.10gb", 0).ours);
    node.apply(&wish(&gpu, 2, &[("1g.10gb", 0)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0)]));
}

#[test]
fn two_agents_are_one_too_many() {
    let machine = Machine::cut("H100-80GB");
    let _first = machine.node();
    let error = Node::open(std::sync::Arc::new(machine.nvml()), &machine.settings()).err().unwrap();
    assert!(matches!(error, CheckpointError::Locked(_)) && error.to_string().contains("end one of them"));
}

#[test]
fn an_unhealthy_gpu_is_left_alone_until_the_agent_is_started_anew() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.hear(&partita_device::gpu::Event { uuid: gpu.clone(), xid: 95, instance: None });
    let found = node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    assert!(why(at(&found, "1g.10gb", 0)).starts_with("XID 95") && machine.truth(0).is_empty());
    drop(node);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0)]));
}
