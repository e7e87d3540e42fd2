//! GPUs are shared by MPS, and no longer.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use nvidia_ml::{Fault, What as Driver};
use partita_core::model::Cut;
use partita_device::{Installed, Node, Programs, Settings, Simulated, TimeSlice, Wish};
use partita_fake_mps::What;

use crate::{
    mps::{Floor, kill, shares, state, whole},
    support::{Machine, NOBODY, truth, wish},
};

/// NVML's numbers of modes.
const DEFAULT: u32 = 0;
const PROHIBITED: u32 = 2;
const EXCLUSIVE: u32 = 3;
const SET_MODE: &str = "nvmlDeviceSetComputeMode";

#[test]
fn a_gpu_is_shared_and_becomes_what_it_was() {
    for mode in [DEFAULT, PROHIBITED, EXCLUSIVE] {
        let floor = Floor::new("H100-80GB×2");
        let gpu = floor.machine.uuid(0);
        floor.set_compute_mode(mode);
        let mut node = floor.node();
        let found = node.apply(&shares(&gpu, 1, &[10_240, 20_480, 10_240]), NOBODY);
        assert_eq!((state(&found).as_str(), found.cut(), floor.compute_mode()), ("ready", Cut::Mps, EXCLUSIVE), "{found:#?}");
        let sharing = found.sharing.unwrap();
        assert_eq!((sharing.shares, sharing.pipe.is_dir()), (vec![10_240, 20_480, 10_240], true));
        assert!(!node.is_restored(&gpu));
        let asked = floor.fake.journal().unwrap();
        assert_eq!(asked[0], format!("{gpu} -d"), "the daemon sees one GPU");
        assert!(asked.contains(&format!("{gpu} set_default_device_pinned_mem_limit 0 20480M")), "{asked:?}");
        let threads = partita_device::mps::threads(20_480, found.gpu.info.memory_mib);
        assert!(asked.contains(&format!("{gpu} set_default_active_thread_percentage {threads}")), "{asked:?}");
        floor.daemon();
        // Nobody is a user who is only a server.
        let found = node.look(NOBODY).unwrap().remove(0);
        let server = floor.come(&found, 77);
        let found = node.look_at(&gpu, NOBODY);
        assert_eq!((found.users.as_slice(), state(&found).as_str()), (["pid:77".to_owned()].as_slice(), "ready"));
        floor.machine.fake.end(77).unwrap();
        let found = node.apply(&whole(&gpu, 2, false), NOBODY);
        assert_eq!((state(&found).as_str(), found.cut()), ("none", Cut::Shares));
        assert!(floor.is_clean(&gpu, mode) && node.is_restored(&gpu), "{server} {:?}", floor.running());
        assert_eq!(floor.asked().last().unwrap(), "quit");
    }
}

#[test]
fn limits_follow_the_largest_share_and_never_sink_while_somebody_has_one() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    let (daemon, server) = (floor.daemon(), floor.come(&found, 77));
    floor.asked();
    node.apply(&shares(&gpu, 2, &[10_240, 40_960]), NOBODY);
    let asked = floor.asked();
    assert!(asked.contains(&"set_default_device_pinned_mem_limit 0 40960M".to_owned()), "{asked:?}");
    assert!(asked.contains(&format!("set_device_pinned_mem_limit {server} 0 40960M")), "servers that run are told: {asked:?}");
    assert!(asked.contains(&format!("set_active_thread_percentage {server} 100")), "{asked:?}");
    node.apply(&shares(&gpu, 3, &[10_240]), NOBODY);
    assert!(floor.asked().contains(&"set_default_device_pinned_mem_limit 0 40960M".to_owned()));
    floor.machine.fake.end(77).unwrap();
    let found = node.apply(&shares(&gpu, 4, &[10_240]), NOBODY);
    assert!(floor.asked().contains(&"set_default_device_pinned_mem_limit 0 10240M".to_owned()));
    assert_eq!((state(&found).as_str(), floor.running()[0].pid, floor.running()[1].pid), ("ready", daemon, server));
}

#[test]
fn a_daemon_outlives_the_agent_and_is_taken_for_what_it_is() {
    for (lost, used) in [(false, false), (false, true), (true, false), (true, true)] {
        let floor = Floor::new("H100-80GB");
        let gpu = floor.machine.uuid(0);
        let mut node = floor.node();
        let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
        let daemon = floor.daemon();
        if used {
            floor.come(&found, 77);
        }
        drop(node);
        if lost {
            fs::write(floor.settings().checkpoint, "{").unwrap();
        }
        let mut node = floor.node();
        let found = node.look(NOBODY).unwrap().remove(0);
        assert_eq!(state(&found), if lost { "none" } else { "ready" });
        let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
        assert_eq!((state(&found).as_str(), floor.running()[0].pid), ("ready", daemon), "lost {lost}, used {used}");
        assert_eq!(floor.asked().iter().filter(|what| *what == "-d").count(), 1, "none was started");
        floor.machine.fake.end(77).unwrap();
        drop(node);
        if lost {
            fs::write(floor.settings().checkpoint, "{").unwrap();
        }
        // It may also be let go of at once.
        let mut node = floor.node();
        assert!(!node.is_restored(&gpu));
        node.restore(&gpu, NOBODY);
        assert!(floor.is_clean(&gpu, DEFAULT) && node.is_restored(&gpu));
    }
}

#[test]
fn a_daemon_that_died_is_started_anew_where_its_clients_find_it() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    let pipe = found.sharing.unwrap().pipe;
    let (first, folder) = (floor.daemon(), fs::metadata(&pipe).unwrap().ino());
    kill(first);
    let found = node.look_at(&gpu, NOBODY);
    assert!(state(&found).contains("does not run"), "{}", state(&found));
    // A pod has a share: it can do nothing without a daemon, so it is no reason to wait.
    let kubelet = |_: &str, _: Option<&str>| Ok(vec!["ns/pod".to_owned()]);
    let found = node.apply(&shares(&gpu, 1, &[10_240]), &kubelet);
    assert_eq!(state(&found), "ready");
    assert!(floor.daemon() != first);
    assert_eq!(fs::metadata(&pipe).unwrap().ino(), folder, "containers have the folder");
}

#[test]
fn who_computes_through_a_lost_server_is_waited_for() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    let daemon = floor.daemon();
    let server = floor.come(&found, 77);
    kill(daemon);
    let found = node.apply(&shares(&gpu, 2, &[10_240]), NOBODY);
    assert!(state(&found).contains("started anew when pid:77 have ended"), "{}", state(&found));
    assert_eq!(floor.running().iter().map(|one| one.pid).collect::<Vec<_>>(), [server]);
    // Nobody knows who computes.
    floor.machine.fake.fault(Fault::always("nvmlDeviceGetComputeRunningProcesses_v3", Driver::Code(4))).unwrap();
    let found = node.apply(&shares(&gpu, 3, &[10_240]), NOBODY);
    assert!(state(&found).contains("is not known"), "{}", state(&found));
    floor.machine.fake.heal().unwrap();
    floor.machine.fake.end(77).unwrap();
    assert_eq!(state(&node.apply(&shares(&gpu, 4, &[10_240]), NOBODY)), "ready");
    assert!(floor.daemon() != daemon, "the server is gone too");
}

#[test]
fn a_daemon_that_hangs_is_a_problem_and_then_another_daemon() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let found = floor.node().apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    let daemon = floor.daemon();
    let server = floor.come(&found, 77);
    floor.fake.fault("get_server_list", What::Hang).unwrap();
    let mut node = floor.impatient();
    assert!(state(&node.look_at(&gpu, NOBODY)).contains("was ended after"));
    let found = node.apply(&shares(&gpu, 2, &[10_240]), NOBODY);
    assert!(state(&found).contains("when pid:77 have ended"), "{}", state(&found));
    assert_eq!(floor.running().iter().map(|one| one.pid).collect::<Vec<_>>(), [daemon, server]);
    floor.machine.fake.end(77).unwrap();
    let found = node.apply(&shares(&gpu, 3, &[10_240]), NOBODY);
    assert!(state(&found).contains("was ended after"), "the next one hangs too: {}", state(&found));
    drop(node);
    floor.fake.heal().unwrap();
    let found = floor.node().apply(&shares(&gpu, 4, &[10_240]), NOBODY);
    assert_eq!(state(&found), "ready");
    assert!(floor.daemon() != daemon);
}

#[test]
fn a_share_in_use_keeps_everything() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    let daemon = floor.daemon();
    let server = floor.come(&found, 77);
    let partition = Wish { may_switch: true, ..wish(&gpu, 3, &[("1g.10gb", 0)]) };
    let both = [daemon, server];
    let running = || floor.running().iter().map(|one| one.pid).collect::<Vec<_>>();
    for wish in [&whole(&gpu, 2, true), &partition] {
        let found = node.apply(wish, NOBODY);
        assert!(state(&found).starts_with("kept: ") && state(&found).contains("used by pid:77"), "{}", state(&found));
        assert!(found.parts.iter().all(|part| crate::support::why(part).contains("pid:77")), "{found:#?}");
        assert_eq!((running().as_slice(), floor.compute_mode(), found.gpu.is_cut()), (both.as_slice(), EXCLUSIVE, false));
    }
    assert!(state(&node.restore(&gpu, NOBODY)).contains("pid:77") && !node.is_restored(&gpu));
    floor.machine.fake.end(77).unwrap();
    // The kubelet knows of a pod, or does not answer.
    let pod = |_: &str, _: Option<&str>| Ok(vec!["ns/pod".to_owned()]);
    let down = |_: &str, _: Option<&str>| Err("the kubelet does not answer".to_owned());
    assert!(state(&node.apply(&partition, &pod)).contains("ns/pod"));
    assert!(state(&node.apply(&partition, &down)).contains("does not answer"));
    assert!(state(&node.restore(&gpu, &down)).contains("does not answer"));
    assert_eq!((running().as_slice(), floor.compute_mode()), (both.as_slice(), EXCLUSIVE));
    let found = node.apply(&partition, NOBODY);
    assert_eq!((state(&found).as_str(), found.cut(), floor.machine.truth(0)), ("none", Cut::Mig, truth(&[("1g.10gb", 0)])));
    assert!(floor.is_clean(&gpu, DEFAULT));
}

#[test]
fn a_gpu_in_use_is_not_begun_to_be_shared() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    floor.machine.fake.hold(0, None, 5).unwrap();
    let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    assert!(state(&found).contains("used by pid:5") && floor.is_clean(&gpu, DEFAULT), "{}", state(&found));
    floor.machine.fake.end(5).unwrap();
    let down = |_: &str, _: Option<&str>| Err("the kubelet does not answer".to_owned());
    assert!(state(&node.apply(&shares(&gpu, 2, &[10_240]), &down)).contains("does not answer") && floor.is_clean(&gpu, DEFAULT));
    // Cut by MIG: switched only where it may be.
    node.apply(&Wish { may_switch: true, ..wish(&gpu, 3, &[("1g.10gb", 0)]) }, NOBODY);
    let found = node.apply(&Wish { may_switch: false, ..shares(&gpu, 4, &[10_240]) }, NOBODY);
    assert!(state(&found).contains("does not let partita switch it") && found.cut() == Cut::Mig, "{}", state(&found));
    assert_eq!(state(&node.apply(&shares(&gpu, 5, &[10_240]), NOBODY)), "ready");
}

#[test]
fn what_does_not_fit_or_is_not_installed_is_refused_before_anything_is_done() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    let memory = node.look(NOBODY).unwrap()[0].gpu.info.memory_mib;
    let most = memory - partita_core::model::node::MPS_RESERVED_MIB;
    let cases: [(&[u32], &str); 4] =
        [(&[most, 1], "512 MiB for MPS itself"), (&[1; 49], "49 MPS shares"), (&[0], "0 MiB"), (&[memory], "leave one out")];
    for (layout, says) in cases {
        let found = node.apply(&shares(&gpu, 1, layout), NOBODY);
        assert!(state(&found).contains(says) && floor.is_clean(&gpu, DEFAULT) && node.is_restored(&gpu), "{}", state(&found));
    }
    assert_eq!(state(&node.apply(&shares(&gpu, 2, &[most - 1, 1]), NOBODY)), "ready");
    drop(node);
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    for control in ["nvidia-cuda-mps-control-that-nobody-has", "/nowhere/nvidia-cuda-mps-control"] {
        let own = Installed { control: control.into(), ..Installed::new(floor.machine.agent.path()) };
        let settings = Settings { programs: Programs::Installed(own), ..floor.settings() };
        let mut node = Node::open(Arc::new(floor.machine.nvml()), &settings).unwrap().0;
        let found = node.apply(&shares(&gpu, 1, &[1024]), NOBODY);
        let said = state(&found);
        assert!(said.contains(&format!("{control} was not found")) && said.contains("partita.dev/partitioning=mig"), "{said}");
        assert!(floor.is_clean(&gpu, DEFAULT) && node.is_restored(&gpu));
    }
}

#[test]
fn what_cannot_be_begun_leaves_nothing_behind() {
    let driver = [(Driver::Code(4), "run as root"), (Driver::Code(3), "NOT_SUPPORTED"), (Driver::Phantom, "compute mode is Default")];
    for (what, says) in driver {
        let floor = Floor::new("H100-80GB");
        let gpu = floor.machine.uuid(0);
        let mut node = floor.node();
        floor.machine.fake.fault(Fault::once(SET_MODE, what)).unwrap();
        let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
        assert!(state(&found).contains(says), "{}", state(&found));
        assert!(floor.is_clean(&gpu, DEFAULT) && node.is_restored(&gpu));
        assert_eq!(state(&node.apply(&shares(&gpu, 1, &[10_240]), NOBODY)), "ready");
    }
    let programs = [
        ("-d", What::Refuse, "refused"),
        ("-d", What::Hang, "was ended after"),
        ("-d", What::Die, "does not run"),
        ("-d", What::Ignore, "does not run"),
        ("get_server_list", What::Die, "the daemon ended"),
        ("set_default_device_pinned_mem_limit", What::Refuse, "refused"),
        ("set_default_active_thread_percentage", What::Ignore, "100.0"),
        ("set_default_active_thread_percentage", What::Die, "the daemon ended"),
        ("set_default_active_thread_percentage", What::Hang, "was ended after"),
    ];
    for (command, what, says) in programs {
        let floor = Floor::new("H100-80GB");
        let gpu = floor.machine.uuid(0);
        floor.fake.fault(command, what).unwrap();
        let mut node = floor.impatient();
        let found = node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
        assert!(state(&found).contains(says) || state(&found).contains("does not run"), "{command} {what:?}: {}", state(&found));
        assert!(floor.is_clean(&gpu, DEFAULT), "{command} {what:?}: {:?}", floor.running());
        drop(node);
        floor.fake.heal().unwrap();
        assert_eq!(state(&floor.node().apply(&shares(&gpu, 1, &[10_240]), NOBODY)), "ready");
    }
}

#[test]
fn a_daemon_that_does_not_quit_is_killed() {
    for what in [What::Hang, What::Refuse, What::Ignore, What::Die] {
        let floor = Floor::new("H100-80GB");
        let gpu = floor.machine.uuid(0);
        let found = floor.node().apply(&shares(&gpu, 1, &[10_240]), NOBODY);
        floor.come(&found, 77);
        floor.machine.fake.end(77).unwrap();
        floor.fake.fault("quit", what).unwrap();
        let mut node = floor.impatient();
        let found = node.apply(&whole(&gpu, 2, false), NOBODY);
        assert_eq!(state(&found), "none", "{what:?}");
        assert!(floor.is_clean(&gpu, DEFAULT) && node.is_restored(&gpu), "{what:?}: {:?}", floor.running());
    }
}

#[test]
fn a_mode_that_cannot_be_restored_is_tried_again() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    node.apply(&shares(&gpu, 1, &[10_240]), NOBODY);
    floor.machine.fake.fault(Fault::once(SET_MODE, Driver::Code(999))).unwrap();
    let found = node.apply(&whole(&gpu, 2, false), NOBODY);
    assert!(state(&found).contains("UNKNOWN") && !node.is_restored(&gpu) && floor.compute_mode() == EXCLUSIVE);
    // The agent begins anew, and remembers what it was.
    drop(node);
    let mut node = floor.node();
    node.apply(&whole(&gpu, 2, false), NOBODY);
    assert!(floor.is_clean(&gpu, DEFAULT) && node.is_restored(&gpu));
}

#[test]
fn time_slices_are_set_where_several_use_a_gpu_in_turn() {
    let floor = Floor::new("H100-80GB");
    let gpu = floor.machine.uuid(0);
    let sliced = |slice| Settings { time_slice: slice, ..floor.settings() };
    let open = |slice| Node::open(Arc::new(floor.machine.nvml()), &sliced(slice)).unwrap().0;
    let set = |number: u8| vec![format!("nvidia-smi compute-policy --set-timeslice={number} -i {gpu}")];
    let smi = || floor.fake.journal().unwrap().into_iter().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let mut node = open(TimeSlice::Short);
    node.apply(&whole(&gpu, 1, false), NOBODY);
    assert!(smi().is_empty() && node.is_restored(&gpu));
    let found = node.apply(&whole(&gpu, 2, true), NOBODY);
    assert_eq!((smi(), found.notes.as_slice()), (set(1), [].as_slice()));
    node.apply(&whole(&gpu, 3, true), NOBODY);
    assert!(smi().is_empty() && !node.is_restored(&gpu), "once is enough");
    drop(node);
    let mut node = open(TimeSlice::Long);
    node.apply(&whole(&gpu, 3, true), NOBODY);
    assert_eq!(smi(), set(3));
    // In use or not: what runs goes on.
    floor.machine.fake.hold(0, None, 5).unwrap();
    node.apply(&whole(&gpu, 4, false), NOBODY);
    assert!(smi() == set(0) && node.is_restored(&gpu));
    // Where it cannot be, the GPU is used in turn all the same.
    floor.fake.fault("nvidia-smi", What::Refuse).unwrap();
    let found = node.apply(&whole(&gpu, 5, true), NOBODY);
    assert!(found.notes.len() == 1 && found.notes[0].contains("time slices could not be set") && node.is_restored(&gpu), "{found:#?}");
    floor.fake.heal().unwrap();
    node.apply(&whole(&gpu, 6, true), NOBODY);
    floor.fake.fault("nvidia-smi", What::Refuse).unwrap();
    assert!(node.restore(&gpu, NOBODY).notes.len() == 1 && !node.is_restored(&gpu));
    floor.fake.heal().unwrap();
    smi();
    node.restore(&gpu, NOBODY);
    assert!(smi() == set(0) && node.is_restored(&gpu));
    drop(node);
    let own = Installed { smi: "/nowhere/nvidia-smi".into(), ..Installed::new(floor.machine.agent.path()) };
    let settings = Settings { programs: Programs::Installed(own), ..sliced(TimeSlice::Medium) };
    let mut node = Node::open(Arc::new(floor.machine.nvml()), &settings).unwrap().0;
    let found = node.apply(&whole(&gpu, 7, true), NOBODY);
    assert!(found.notes[0].contains("/nowhere/nvidia-smi was not found") && node.is_restored(&gpu));
}

#[test]
fn simulated_gpus_are_shared_alike() {
    let machine = Machine::new("H100-80GB");
    let driver = Arc::new(Simulated::new("H100-80GB", "node").unwrap());
    let settings = Settings { time_slice: TimeSlice::Short, ..machine.settings().simulated() };
    let open = || Node::open(driver.clone(), &settings).unwrap().0;
    let mut node = open();
    let gpu = node.look(NOBODY).unwrap().remove(0).gpu.info.uuid;
    let partition = Wish { may_switch: true, ..wish(&gpu, 1, &[("1g.10gb", 0)]) };
    node.apply(&partition, NOBODY);
    let found = node.apply(&shares(&gpu, 2, &[10_240]), NOBODY);
    assert_eq!((state(&found).as_str(), found.cut()), ("ready", Cut::Mps));
    drop(node);
    let mut node = open();
    let found = node.look(NOBODY).unwrap().remove(0);
    assert_eq!((state(&found).as_str(), found.sharing.unwrap().shares), ("ready", vec![10_240]));
    driver.begin(&gpu, partita_device::gpu::Process { pid: 5, instance: None });
    assert!(state(&node.apply(&partition, NOBODY)).contains("pid:5"));
    driver.end(5);
    assert!(node.apply(&whole(&gpu, 3, true), NOBODY).notes.is_empty() && !node.is_restored(&gpu));
    node.restore(&gpu, NOBODY);
    assert!(node.is_restored(&gpu));
    assert_eq!(node.apply(&partition, NOBODY).cut(), Cut::Mig);
    assert_eq!(node.restore(&gpu, NOBODY).cut(), Cut::Shares);
    assert!(node.is_restored(&gpu));
}
