//! The program is killed at every step of making and destroying, and begins anew.

use std::{env, path::Path, process::Command, sync::Arc};

use nvidia_ml::{Fake, Fault, What};
use partita_device::{Node, PartState, Settings, fault::POINTS, nvml::NvmlDriver};

use crate::support::{Machine, NOBODY, at, truth, wish};

/// Name the folder of the GPUs and that of the checkpoint for the program that is killed.
const FOLDERS: [&str; 2] = ["PARTITA_TEST_GPUS", "PARTITA_TEST_AGENT"];
const BEFORE: &[(&str, u8)] = &[("1g.10gb", 0), ("1g.10gb", 1), ("2g.20gb", 2), ("3g.40gb", 4)];
/// Keeps one that is used and one that is not, destroys two, makes two.
const AFTER: &[(&str, u8)] = &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2), ("2g.20gb", 4)];

/// What runs in the program that is killed: only there it finds its folder.
#[test]
fn the_program_that_is_killed() {
    let [Some(folder), Some(agent)] = FOLDERS.map(env::var_os) else { return };
    let folder = Path::new(&folder);
    let driver = NvmlDriver::load(Some(&folder.join("libnvidia_ml.so"))).unwrap();
    let settings = Settings::new(&Path::new(&agent).join("state.json"), "boot-0");
    let (mut node, _) = Node::open(Arc::new(driver), &settings).unwrap();
    let gpu = Fake::open(folder).state().unwrap().gpus[0].uuid.clone();
    node.apply(&wish(&gpu, 2, AFTER), NOBODY);
}

/// Runs the program above on a machine. Returns whether it came to its end.
fn run(machine: &Machine, fault: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    let folders = FOLDERS.into_iter().zip([machine.folder.path(), machine.agent.path()]);
    command.args(["--exact", "crash::the_program_that_is_killed"]).envs(folders).env("PARTITA_FAULT", fault);
    command.output().unwrap().status.success()
}

/// A machine with a layout, one of whose partitions is used.
fn prepared() -> (Machine, String, Option<String>) {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let found = machine.node().apply(&wish(&gpu, 1, BEFORE), NOBODY);
    let used = at(&found, "1g.10gb", 0);
    machine.fake.hold(0, used.instance, 4711).unwrap();
    (machine, gpu, used.uuid.clone())
}

/// After any crash: what is used is as it was, and the layout becomes what it should be, with nothing left over.
fn repaired(machine: &Machine, gpu: &str, used: Option<&String>, what: &str) {
    let mut node = machine.node();
    let found = node.look(NOBODY).unwrap().remove(0);
    assert_eq!(at(&found, "1g.10gb", 0).uuid.as_ref(), used, "{what}: what is used was touched");
    assert!(found.parts.iter().all(|part| part.state == PartState::Ready), "{what}: a half partition is left: {found:#?}");
    let found = node.apply(&wish(gpu, 2, AFTER), NOBODY);
    assert_eq!(machine.truth(0), truth(AFTER), "{what}: {found:#?}");
    assert!(found.parts.iter().all(|part| part.state == PartState::Ready && part.ours), "{what}: {found:#?}");
    assert_eq!(at(&found, "1g.10gb", 0).uuid.as_ref(), used, "{what}: what is used was touched");
    // Everything of ours can still go, and what is used cannot.
    node.apply(&wish(gpu, 3, &[]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0)]), "{what}");
}

#[test]
fn killed_at_every_point_it_goes_on_where_it_was() {
    let mut crashes = 0;
    for point in POINTS {
        for count in 1.. {
            let (machine, gpu, used) = prepared();
            let what = format!("{point}:{count}");
            if run(&machine, &what) {
                assert!(count > 1, "{point} is never passed");
                break;
            }
            crashes += 1;
            repaired(&machine, &gpu, used.as_ref(), &what);
        }
    }
    assert!(crashes > 2 * POINTS.len(), "only {crashes} crashes");
}

#[test]
fn killed_in_the_driver_it_goes_on_where_it_was() {
    let functions = [
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
        "nvmlGpuInstanceDestroy",
        "nvmlComputeInstanceDestroy",
    ];
    for function in functions {
        for (skip, what) in [(0, What::Kill), (0, What::KillAfter), (1, What::Kill), (1, What::KillAfter)] {
            let (machine, gpu, used) = prepared();
            machine.fake.fault(Fault { skip, ..Fault::once(function, what.clone()) }).unwrap();
            assert!(!run(&machine, ""), "{function} was not called");
            machine.fake.heal().unwrap();
            repaired(&machine, &gpu, used.as_ref(), &format!("{what:?} in {function} after {skip}"));
        }
    }
}
