//! GPUs become what they were before this program: after everything that it does, and after it was killed anywhere.

use std::{collections::BTreeSet, env, path::Path, process::Command, sync::Arc};

use nvidia_ml::{Fake, Fault, What as Driver, machine::Gpu};
use partita_core::model::Cut;
use partita_device::{Found, Node, Settings, TimeSlice, Wish, fault::SHARING_POINTS, nvml::NvmlDriver};
use partita_fake_mps::{SMI, What};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    mps::{Floor, installed, kill, shares, state, whole},
    support::{Machine, NOBODY, at, truth, why, wish},
};

const PROHIBITED: u32 = 2;

fn mig(gpu: &str, generation: i64, partitions: &[(&str, u8)]) -> Wish {
    Wish { may_switch: true, ..wish(gpu, generation, partitions) }
}

#[test]
fn what_was_made_goes_and_what_others_made_or_use_stays() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    machine.fake.make(0, "1g.10gb", 6, true).unwrap();
    let mut node = machine.node();
    let found = node.apply(&wish(&gpu, 1, &[("1g.10gb", 6), ("2g.20gb", 0), ("1g.10gb", 2)]), NOBODY);
    machine.fake.hold(0, at(&found, "1g.10gb", 2).instance, 7).unwrap();
    let found = node.restore(&gpu, NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 2), ("1g.10gb", 6)]));
    assert!(why(at(&found, "1g.10gb", 2)).contains("pid:7") && why(at(&found, "1g.10gb", 6)).contains("somebody else"));
    assert!(!node.is_restored(&gpu));
    drop(node);
    machine.fake.end(7).unwrap();
    let mut node = machine.node();
    let down = |_: &str, _: Option<&str>| Err("the kubelet does not answer".to_owned());
    assert!(why(at(&node.restore(&gpu, &down), "1g.10gb", 2)).contains("does not answer"));
    for _ in 0..2 {
        node.restore(&gpu, NOBODY);
        assert!(node.is_restored(&gpu) && machine.truth(0) == truth(&[("1g.10gb", 6)]));
    }
    assert!(machine.fake.state().unwrap().gpus[0].mig, "it was on, and stays on");
}

#[test]
fn modes_become_what_they_were_over_boots() {
    // (model, MIG found on, whether the machine is started anew meanwhile)
    let cases = [("H100-80GB", false, false), ("H100-80GB", true, false), ("H100-80GB", false, true), ("A100-40GB", false, true)];
    for (model, on, boots) in cases {
        let machine = Machine::new(model);
        machine.fake.set_mig(0, on).unwrap();
        if !on {
            machine.fake.edit(|state| state.gpus[0].compute_mode = PROHIBITED).unwrap();
        }
        let gpu = machine.uuid(0);
        let mut node = machine.node();
        let other = if on { whole(&gpu, 1, false) } else { mig(&gpu, 1, &[]) };
        node.apply(&other, NOBODY);
        if boots {
            drop(node);
            machine.fake.reboot().unwrap();
            node = machine.node();
        }
        let mut found = node.restore(&gpu, NOBODY);
        if model == "A100-40GB" {
            // It keeps its mode, and another needs a reset.
            assert!(found.notes.iter().any(|note| note.contains("reset")) && !node.is_restored(&gpu), "{found:#?}");
            machine.fake.reset(0).unwrap();
            found = node.restore(&gpu, NOBODY);
        }
        let is = machine.fake.state().unwrap().gpus.remove(0);
        let mode = if on || boots { 0 } else { PROHIBITED };
        assert_eq!((is.mig, is.pending, is.compute_mode), (on, on, mode), "{model} {on} {boots}");
        assert!(node.is_restored(&gpu) && found.notes.is_empty(), "{found:#?}");
    }
}

#[test]
fn a_mode_that_others_need_stays_and_says_so() {
    let machine = Machine::new("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.apply(&mig(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    machine.fake.make(0, "2g.20gb", 4, true).unwrap();
    let found = node.restore(&gpu, NOBODY);
    assert_eq!(machine.truth(0), truth(&[("2g.20gb", 4)]));
    assert!(found.notes.iter().any(|note| note.contains("somebody else")) && !node.is_restored(&gpu), "{found:#?}");
    machine.fake.edit(|state| state.gpus[0].instances.clear()).unwrap();
    assert!(!node.restore(&gpu, NOBODY).gpu.is_cut() && node.is_restored(&gpu));
}

/// Name the folders of the GPUs, of the programs and of the agent for the program that is killed.
const FOLDERS: [&str; 3] = ["PARTITA_TEST_SHARED_GPUS", "PARTITA_TEST_PROGRAMS", "PARTITA_TEST_SHARED_AGENT"];

/// What runs in the program that is killed: only there it finds its folders.
#[test]
fn the_program_that_is_killed() {
    let [Some(gpus), Some(programs), Some(agent)] = FOLDERS.map(env::var_os) else { return };
    let driver = NvmlDriver::load(Some(&Path::new(&gpus).join("libnvidia_ml.so"))).unwrap();
    let settings = Settings::new(&Path::new(&agent).join("state.json"), "boot-0");
    let settings = Settings { time_slice: TimeSlice::Long, ..installed(settings, Path::new(&programs), Path::new(&agent)) };
    let (mut node, _) = Node::open(Arc::new(driver), &settings).unwrap();
    let gpu = Fake::open(Path::new(&gpus)).state().unwrap().gpus[0].uuid.clone();
    node.apply(&mig(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    node.apply(&shares(&gpu, 2, &[10_240]), NOBODY);
    node.apply(&whole(&gpu, 3, true), NOBODY);
    node.restore(&gpu, NOBODY);
}

/// Runs the program above. Returns whether it came to its end.
fn run(floor: &Floor, fault: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    let folders = FOLDERS.into_iter().zip([floor.machine.folder.path(), floor.programs.path(), floor.machine.agent.path()]);
    command.args(["--exact", "restoring::the_program_that_is_killed"]).envs(folders).env("PARTITA_FAULT", fault);
    command.output().unwrap().status.success()
}

/// After any crash the GPU can become what it shall be, and what it was.
fn repaired(floor: &Floor, fault: &str, first: bool) {
    let gpu = floor.machine.uuid(0);
    let mut node = floor.node();
    if first {
        let found = node.apply(&shares(&gpu, 4, &[20_480]), NOBODY);
        assert_eq!(state(&found), "ready", "{fault}: {found:#?}");
        floor.daemon();
        assert!(!node.is_restored(&gpu));
    }
    node.restore(&gpu, NOBODY);
    assert!(floor.is_clean(&gpu, PROHIBITED) && node.is_restored(&gpu), "{fault}: {:?}", floor.machine.fake.state().unwrap().gpus);
    let is = floor.machine.fake.state().unwrap().gpus.remove(0);
    assert!(!is.mig && !is.pending && is.instances.is_empty(), "{fault}");
    assert_eq!(floor.fake.time_slice(&gpu), 0, "{fault}");
}

#[test]
fn killed_at_every_point_it_is_repaired() {
    let mut crashes = 0;
    for point in SHARING_POINTS.iter().chain(&["checkpoint-written", "checkpoint-renamed"]) {
        for count in 1.. {
            let floor = Floor::new("H100-80GB");
            floor.set_compute_mode(PROHIBITED);
            let fault = format!("{point}:{count}");
            if run(&floor, &fault) {
                assert!(count > 1, "{point} is never passed");
                repaired(&floor, &fault, false);
                break;
            }
            crashes += 1;
            repaired(&floor, &fault, count % 2 == 1);
        }
    }
    assert!(crashes >= 2 * SHARING_POINTS.len(), "only {crashes} crashes");
}

/// What happens.
#[derive(Clone, Debug)]
enum Happening {
    /// Shares are wanted, GiB each.
    Mps(Vec<u32>),
    /// Partitions are wanted.
    Mig(Vec<Index>),
    /// All of the GPU is, or parts in turn.
    Whole(bool),
    /// The same as last time.
    Again,
    /// The GPU is let go of.
    Restore,
    /// A process computes: through a server, if the GPU is shared.
    Begin(Index),
    /// A pod gets the GPU or a share.
    Pod,
    /// All end.
    End,
    /// The daemon dies.
    Death,
    /// A command or a call goes wrong.
    Fault(Index, Index),
    /// Nothing goes wrong any more.
    Heal,
    /// The agent begins anew.
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        5 => vec(1u32..40, 0..4).prop_map(Happening::Mps),
        3 => vec(any::<Index>(), 0..3).prop_map(Happening::Mig),
        3 => any::<bool>().prop_map(Happening::Whole),
        1 => Just(Happening::Again),
        2 => Just(Happening::Restore),
        3 => any::<Index>().prop_map(Happening::Begin),
        2 => Just(Happening::Pod),
        3 => Just(Happening::End),
        1 => Just(Happening::Death),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(what, how)| Happening::Fault(what, how)),
        2 => Just(Happening::Heal),
        1 => Just(Happening::Restart),
    ]
}

const COMMANDS: [&str; 6] =
    ["-d", "quit", "get_server_list", "set_default_device_pinned_mem_limit", SMI, "get_default_active_thread_percentage"];
const HOW: [What; 3] = [What::Refuse, What::Die, What::Ignore];
const CALLS: [&str; 4] =
    ["nvmlDeviceSetComputeMode", "nvmlDeviceGetComputeMode", "nvmlDeviceSetMigMode", "nvmlDeviceGetComputeRunningProcesses_v3"];

struct World {
    floor: Floor,
    gpu: String,
    node: Option<Node>,
    wanted: Wish,
    pods: bool,
    pid: u32,
    /// A daemon may die of what it is asked.
    is_mortal: bool,
}

/// What must not change while somebody computes: the modes, the processes of MPS, and the partitions that are used.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    modes: (bool, u32),
    daemons: BTreeSet<u32>,
    servers: BTreeSet<u32>,
    partitions: Vec<u64>,
}

impl World {
    fn new(model: &str, on: bool, mode: u32) -> Self {
        let floor = Floor::new(model);
        floor.machine.fake.set_mig(0, on).unwrap();
        floor.set_compute_mode(if on { 0 } else { mode });
        let gpu = floor.machine.uuid(0);
        let mut world = Self { wanted: whole(&gpu, 0, false), floor, gpu, node: None, pods: false, pid: 4_000_000, is_mortal: false };
        world.open();
        world
    }

    fn open(&mut self) {
        self.node = None;
        let settings = Settings { time_slice: TimeSlice::Medium, ..self.floor.quick(300) };
        self.node = Some(Node::open(Arc::new(self.floor.machine.nvml()), &settings).unwrap().0);
    }

    fn is(&self) -> Gpu {
        self.floor.machine.fake.state().unwrap().gpus.remove(0)
    }

    fn with(&mut self, what: impl FnOnce(&mut Node, partita_device::Users<'_>) -> Found) -> Found {
        let (pods, is_cut) = (self.pods, self.is().mig);
        // A pod has the GPU, or every partition of it.
        let kubelet = |_: &str, mig: Option<&str>| Ok(if pods && mig.is_some() == is_cut { vec!["ns/pod".to_owned()] } else { Vec::new() });
        what(self.node.as_mut().unwrap(), &kubelet)
    }

    /// What is held by who computes or by a pod; none if nobody does.
    fn held(&self) -> Option<Held> {
        let gpu = self.is();
        let running = self.floor.running();
        let clients: Vec<_> = gpu.holds.iter().filter(|hold| !hold.real).collect();
        if clients.is_empty() && !self.pods {
            return None;
        }
        let is_used = |id: u32| self.pods || clients.iter().any(|hold| hold.instance.is_none() || hold.instance == Some(id));
        let partitions = gpu.instances.iter().filter(|one| is_used(one.id) && !one.compute.is_empty()).map(|one| one.serial).collect();
        // A daemon that does not serve may be replaced while pods only have its shares.
        let of = |server| running.iter().filter(|one| one.server == server && !clients.is_empty()).map(|one| one.pid).collect();
        Some(Held { modes: (gpu.mig, gpu.compute_mode), daemons: of(false), servers: of(true), partitions })
    }

    fn happen(&mut self, what: &Happening) {
        let generation = self.wanted.generation.1 + 1;
        let wanted = match what {
            Happening::Mps(gib) => shares(&self.gpu, generation, &gib.iter().map(|gib| gib << 10).collect::<Vec<_>>()),
            Happening::Mig(draws) => {
                let partitions: Vec<(&str, u8)> =
                    draws.iter().map(|draw| *draw.get(&[("1g.10gb", 0), ("2g.20gb", 2), ("3g.40gb", 4)])).collect();
                mig(&self.gpu, generation, &partitions)
            }
            Happening::Whole(in_turn) => whole(&self.gpu, generation, *in_turn),
            _ => self.wanted.clone(),
        };
        let gpu = self.gpu.clone();
        match what {
            Happening::Mps(_) | Happening::Mig(_) | Happening::Whole(_) | Happening::Again => {
                self.wanted = wanted.clone();
                let found = self.with(|node, users| node.apply(&wanted, users));
                let is_shared = state(&found) == "ready";
                assert!(!is_shared || (found.cut() == Cut::Mps && !self.floor.running().is_empty()), "{found:#?}");
            }
            Happening::Restore => drop(self.with(|node, users| node.restore(&gpu, users))),
            Happening::Begin(index) => self.begin(*index),
            Happening::Pod => {
                let is = self.is();
                self.pods = !is.mig || is.instances.iter().any(|one| !one.compute.is_empty());
            }
            Happening::End => self.end(),
            Happening::Death => self.floor.running().iter().filter(|one| !one.server).for_each(|one| kill(one.pid)),
            Happening::Fault(which, how) => match which.index(COMMANDS.len() + CALLS.len()) {
                // One that says that it did what it did not do cannot be found out: time slices are not told.
                row if COMMANDS.get(row) == Some(&SMI) => self.floor.fake.fault(SMI, *how.get(&HOW[..2])).unwrap(),
                row if row < COMMANDS.len() => {
                    self.is_mortal |= *how.get(&HOW) == What::Die;
                    self.floor.fake.fault(COMMANDS[row], *how.get(&HOW)).unwrap();
                }
                row => self.floor.machine.fake.fault(Fault::once(CALLS[row - COMMANDS.len()], Driver::Code(999))).unwrap(),
            },
            Happening::Heal => {
                self.is_mortal = false;
                self.floor.fake.heal().unwrap();
                self.floor.machine.fake.heal().unwrap();
            }
            Happening::Restart => self.open(),
        }
    }

    fn begin(&mut self, index: Index) {
        self.pid += 1;
        let (fake, gpu) = (&self.floor.machine.fake, self.is());
        let computing: Vec<u32> = gpu.instances.iter().filter(|one| !one.compute.is_empty()).map(|one| one.id).collect();
        let serves = self.floor.running().iter().any(|one| !one.server);
        if gpu.mig && !computing.is_empty() {
            fake.hold(0, Some(*index.get(&computing)), self.pid).unwrap();
        } else if !gpu.mig && serves {
            self.floor.serve(&self.gpu);
            fake.hold(0, None, self.pid).unwrap();
        } else if !gpu.mig && gpu.compute_mode == 0 {
            fake.hold(0, None, self.pid).unwrap();
        }
    }

    fn end(&mut self) {
        self.pods = false;
        self.floor.machine.fake.edit(|state| state.gpus[0].holds.retain(|hold| hold.real)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_in_use_changes_and_in_the_end_all_is_as_it_was(
        on in any::<bool>(),
        mode in prop::sample::select(vec![0u32, 2, 3]),
        model in prop::sample::select(vec!["H100-80GB", "A100-80GB"]),
        happenings in vec(happening(), 1..20),
    ) {
        let mut world = World::new(model, on, mode);
        let before = world.is();
        for what in &happenings {
            let held = world.held();
            world.happen(what);
            if let Some(held) = held.filter(|_| !matches!(what, Happening::End | Happening::Death)) {
                let is = world.held().unwrap();
                prop_assert_eq!(is.modes, held.modes, "{:?}", what);
                let stay = is.servers.is_superset(&held.servers) && (world.is_mortal || is.daemons.is_superset(&held.daemons));
                prop_assert!(stay, "{:?}: {:?} became {:?}", what, held, is);
                prop_assert!(held.partitions.iter().all(|one| is.partitions.contains(one)), "{:?}", what);
            }
        }
        world.happen(&Happening::End);
        world.happen(&Happening::Heal);
        let gpu = world.gpu.clone();
        world.happen(&Happening::Restore);
        // A GPU whose mode is kept in itself was reset meanwhile.
        let is = world.is();
        if is.mig != is.pending {
            world.floor.machine.fake.reset(0).unwrap();
            // Which makes the compute mode the default.
            world.happen(&Happening::Restore);
        }
        // A machine that is busy does not end processes in time: then it is tried again.
        for _ in 0..100 {
            if !world.node.as_ref().unwrap().is_restored(&gpu) {
                world.happen(&Happening::Restore);
            }
        }
        prop_assert!(world.node.as_ref().unwrap().is_restored(&gpu));
        let is = world.is();
        prop_assert!(world.floor.running().is_empty() && !world.floor.folder(&gpu).exists());
        prop_assert_eq!((is.mig, is.pending, is.instances), (before.mig, before.pending, before.instances));
        let reset = model == "A100-80GB" && is.compute_mode == 0;
        prop_assert!(is.compute_mode == before.compute_mode || reset, "{} became {}", before.compute_mode, is.compute_mode);
        prop_assert_eq!(world.floor.fake.time_slice(&gpu), 0);
    }
}
