//! What is found on GPUs.

use std::time::Duration;

use nvidia_ml::{Fault, What};
use partita_core::model::{catalog, product};
use partita_device::{
    DeviceError, Driver,
    discover::look,
    nvml::{Code, NvmlDriver},
};

use crate::support::{Machine, NOBODY};

const MODELS: &str = "A30,A30-24GB,A100-40GB,A100-80GB,H100-80GB,H800-80GB,H100-NVL-94GB,H100-96GB,GH200-96GB,H20-96GB,H200-141GB,H20-141GB,\
    GH200-144GB,B200-180GB,GB200-186GB,B300-269GB,GB300-278GB,RTX-PRO-6000-Blackwell-96GB,T4";

#[test]
fn every_model_is_found_as_the_core_knows_it() {
    let machine = Machine::new(MODELS);
    let names: Vec<&str> = MODELS.split(',').map(str::trim).collect();
    assert_eq!(names.len(), catalog::names().count(), "a model is missing in the list above");
    let found = machine.node().look(NOBODY).unwrap();
    assert_eq!(found.len(), names.len());
    for (found, name) in found.iter().zip(names) {
        let known = catalog::builtin(name).unwrap();
        let described = product::describe(&found.gpu.info.name, found.gpu.info.memory_mib, None);
        assert_eq!((found.gpu.model.grid.clone(), found.gpu.model.name.as_str()), (known.grid, described.name.as_str()), "{name}");
        assert_eq!((found.gpu.table.from_driver, found.gpu.table.problem.as_ref(), &found.notes), (false, None, &Vec::new()), "{name}");
        assert_eq!((found.parts.len(), found.unusable.as_ref()), (0, None));
        if known.memory_mib > 0 {
            assert_eq!(found.gpu.info.memory_mib, known.memory_mib);
        }
    }
}

#[test]
fn drivers_of_every_age_tell_the_same() {
    for newest in [1, 2, 3] {
        let machine = Machine::new("H100-80GB,A30");
        machine.fake.edit(|state| state.profile_struct = newest).unwrap();
        machine.fake.edit(|state| state.gpus[1].miscounts = true).unwrap();
        for (found, name) in machine.node().look(NOBODY).unwrap().iter().zip(["H100-80GB", "A30"]) {
            assert_eq!(found.gpu.model.grid, catalog::builtin(name).unwrap().grid, "struct {newest}");
        }
    }
}

#[test]
fn a_driver_that_differs_is_believed_and_told_of() {
    let machine = Machine::new("H100-80GB");
    // No 1g.10gb+me.
    machine.fake.edit(|state| state.gpus[0].untold.push(7)).unwrap();
    let gpu = look(&machine.nvml(), &machine.uuid(0)).unwrap();
    assert!(gpu.table.from_driver && gpu.model.grid.as_ref().is_some_and(|grid| grid.profiles.len() == 6));
    assert_eq!(gpu.model.name, "H100-80GB");
    assert!(gpu.model.grid.unwrap().resolve("1g.10gb+me").is_err());
}

#[test]
fn what_keeps_a_gpu_from_being_cut_is_said_with_what_to_do() {
    let machine = Machine::new("A100-40GB×3");
    machine.fake.edit(|state| (state.gpus[0].virtual_gpu, state.gpus[1].pending) = (true, true)).unwrap();
    let found = machine.node().look(NOBODY).unwrap();
    assert!(found[0].gpu.model.grid.is_none() && found[0].notes[0].contains("cut it on the host"), "{:?}", found[0].notes);
    assert!(found[1].notes[0].contains("nvidia-smi --gpu-reset"), "{:?}", found[1].notes);
    assert!(found[2].notes.is_empty());
}

#[test]
fn a_gpu_whose_profiles_are_not_told_is_whole() {
    let machine = Machine::new("H100-80GB×2");
    machine.fake.set_mig(1, true).unwrap();
    machine.fake.fault(Fault::always("nvmlDeviceGetGpuInstanceProfileInfoV", What::Code(4))).unwrap();
    let found = machine.node().look(NOBODY).unwrap();
    assert!(found[0].unusable.is_none() && found[0].gpu.model.grid.is_none() && found[0].notes[0].contains("run as root"), "{found:#?}");
    assert!(found[1].unusable.as_ref().unwrap().contains("run as root"), "what is on it is not known");
}

#[test]
fn no_library_no_driver_and_no_permission_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let error = NvmlDriver::load(Some(&folder.path().join("none.so"))).err().unwrap();
    assert!(matches!(&error, DeviceError::NoLibrary { .. }) && error.to_string().contains("install the driver"), "{error}");
    let machine = Machine::new("T4");
    std::fs::remove_file(machine.folder.path().join("state.json")).unwrap();
    let error = NvmlDriver::load(Some(&machine.library())).err().unwrap();
    assert!(error.code() == Some(Code::DRIVER_NOT_LOADED) && error.to_string().contains("modprobe nvidia"), "{error}");
    let machine = Machine::new("H100-80GB");
    machine.fake.fault(Fault::always("nvmlInit_v2", What::Code(4))).unwrap();
    let error = NvmlDriver::load(Some(&machine.library())).err().unwrap();
    assert!(error.to_string().contains("run as root"), "{error}");
}

#[test]
fn partitions_and_users_of_others_are_found() {
    let machine = Machine::cut("H100-80GB×2");
    let whole = machine.fake.make(0, "3g.40gb", 4, true).unwrap();
    let half = machine.fake.make(0, "1g.10gb", 0, false).unwrap();
    machine.fake.hold(0, Some(whole), 77).unwrap();
    machine.fake.hold(1, None, 78).unwrap();
    let found = machine.node().look(NOBODY).unwrap();
    let [big, small] = found[0].parts.as_slice() else { panic!("{:#?}", found[0].parts) };
    assert_eq!((big.instance, big.users.as_slice(), big.ours), (Some(whole), ["pid:77".to_owned()].as_slice(), false));
    assert!(big.uuid.as_ref().is_some_and(|uuid| uuid.starts_with("MIG-")));
    assert_eq!((small.instance, small.uuid.as_ref(), small.compute), (Some(half), None, None));
    assert_eq!(found[1].users, ["pid:78"]);
}

#[test]
fn gpu_numbers_may_change_and_uuids_do_not() {
    let machine = Machine::cut("H100-80GB×2,A30");
    machine.fake.make(2, "1g.6gb", 3, true).unwrap();
    let mut node = machine.node();
    let before = node.look(NOBODY).unwrap();
    machine.fake.renumber().unwrap();
    let mut after = node.look(NOBODY).unwrap();
    after.reverse();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.gpu.info.uuid, &before.parts), (&after.gpu.info.uuid, &after.parts));
        assert_eq!(after.gpu.info.index, 2 - before.gpu.info.index);
    }
}

#[test]
fn a_lost_gpu_is_told_of_and_the_others_go_on() {
    let machine = Machine::cut("H100-80GB×2");
    machine.fake.make(0, "1g.10gb", 0, true).unwrap();
    let mut node = machine.node();
    let uuid = machine.uuid(0);
    assert_eq!(node.look(NOBODY).unwrap().len(), 2);
    machine.fake.edit(|state| state.gpus[0].lost = true).unwrap();
    let found = node.look(NOBODY).unwrap();
    assert_eq!(found.iter().map(|one| one.unusable.is_some()).collect::<Vec<_>>(), [false, true]);
    assert!(found[1].gpu.info.uuid == uuid && found[1].unusable.as_ref().unwrap().contains("drain the node"), "{found:?}");
    assert_eq!(found[1].parts.len(), 1, "pods may still have its partitions");
}

#[test]
fn another_gpu_in_the_slot_is_another_gpu() {
    let machine = Machine::new("H100-80GB");
    let mut node = machine.node();
    let before = machine.uuid(0);
    node.look(NOBODY).unwrap();
    machine.fake.replace(0).unwrap();
    let found = node.look(NOBODY).unwrap();
    assert_eq!((found.len(), found[0].unusable.as_ref()), (2, None));
    assert!(found[1].gpu.info.uuid == before && found[1].unusable.as_ref().unwrap().contains("no longer lists"));
}

#[test]
fn errors_are_told_with_their_gpu_and_instance() {
    let machine = Machine::cut("H100-80GB×2");
    let instance = machine.fake.make(1, "1g.10gb", 2, true).unwrap();
    let mut node = machine.node();
    let gpus: Vec<String> = (0..2).map(|gpu| machine.uuid(gpu)).collect();
    let driver = node.driver();
    assert_eq!(driver.next_event(&gpus, Duration::ZERO).unwrap(), None);
    machine.fake.xid(1, 94, Some(instance)).unwrap();
    machine.fake.xid(0, 31, None).unwrap();
    machine.fake.xid(0, 79, None).unwrap();
    for new in [true, false, true] {
        let event = driver.next_event(&gpus, Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(node.hear(&event), new, "{event:?}");
    }
    let found = node.look(NOBODY).unwrap();
    assert!(found[0].unusable.as_ref().unwrap().starts_with("XID 79"));
    assert!(found[1].unusable.is_none() && crate::support::why(&found[1].parts[0]).starts_with("XID 94"));
}
