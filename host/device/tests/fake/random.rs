//! Random layouts, users, faults of the driver, foreigners and boots; after every step what must always hold.

use std::collections::BTreeSet;

use nvidia_ml::{Fault, What, machine::Instance};
use partita_core::{
    layout::Layouts,
    model::{Cut, Grid, Placement, catalog},
};
use partita_device::{Found, Node, PartState, Wish, mig::Spec};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::{Machine, wish};

/// What happens.
#[derive(Clone, Debug)]
enum Happening {
    /// A layout is wanted: a random walk over placements.
    Wish(Vec<Index>),
    /// The last layout is wanted again.
    Again,
    /// The GPU shall be whole.
    Whole,
    /// A process takes a partition, if there is one.
    Begin(Index),
    /// A pod gets one, of which only the kubelet knows.
    Pod(Index),
    /// A monitor keeps a handle of one.
    Keep(Index),
    /// All processes, pods and monitors end.
    End,
    /// Somebody else makes something, with or without what computes.
    Foreign(Index, bool),
    /// Something goes wrong: where, what, and how often it goes well before.
    Fault(Index, Index, u32),
    /// The agent begins anew.
    Restart,
    /// The machine does.
    Boot,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => vec(any::<Index>(), 0..8).prop_map(Happening::Wish),
        2 => Just(Happening::Again),
        1 => Just(Happening::Whole),
        3 => any::<Index>().prop_map(Happening::Begin),
        3 => any::<Index>().prop_map(Happening::Pod),
        1 => any::<Index>().prop_map(Happening::Keep),
        2 => Just(Happening::End),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(place, computes)| Happening::Foreign(place, computes)),
        4 => (any::<Index>(), any::<Index>(), 0u32..3).prop_map(|(function, what, skip)| Happening::Fault(function, what, skip)),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Boot),
    ]
}

const FUNCTIONS: [&str; 9] = [
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceDestroy",
    "nvmlComputeInstanceDestroy",
    "nvmlDeviceSetMigMode",
    "nvmlDeviceGetGpuInstances",
    "nvmlGpuInstanceGetInfo",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetMigMode",
];
const FAULTS: [What; 5] = [What::Phantom, What::Code(19), What::Code(999), What::Code(23), What::Code(2)];

/// A partition that is used: its number, and what tells it and its insides from later ones.
type Used = (u32, u64, Vec<u64>);

struct World {
    machine: Machine,
    grid: Grid,
    layouts: Layouts,
    node: Option<Node>,
    generation: i64,
    wanted: Wish,
    pid: u32,
    /// UUIDs of the MIG devices that pods have.
    pods: BTreeSet<String>,
}

impl World {
    fn new(model: &str) -> Self {
        let machine = Machine::cut(model);
        let grid = catalog::builtin(model).unwrap().grid.unwrap();
        let wanted = Wish { may_switch: true, ..wish(&machine.uuid(0), 0, &[]) };
        let node = Some(machine.node());
        Self { layouts: Layouts::of(&grid).unwrap(), machine, grid, node, generation: 0, wanted, pid: 0, pods: BTreeSet::new() }
    }

    fn all(&self) -> Vec<Placement> {
        let starts = |row: usize| self.grid.profiles[row].starts.iter().map(move |&start| Placement { profile: row as u8, start });
        (0..self.grid.profiles.len()).flat_map(starts).collect()
    }

    fn spec(&self, placement: Placement) -> Spec {
        Spec { profile: self.grid.profiles[usize::from(placement.profile)].name.clone(), start: placement.start }
    }

    fn used(&self) -> Vec<Used> {
        let state = self.machine.fake.state().unwrap();
        let gpu = &state.gpus[0];
        let held = |id: u32| gpu.holds.iter().any(|hold| hold.instance == Some(id) && !hold.hidden);
        let given = |one: &Instance| one.compute.iter().any(|compute| self.pods.contains(&compute.uuid));
        let used = gpu.instances.iter().filter(|one| !one.phantom && (held(one.id) || given(one)));
        used.map(|one| (one.id, one.serial, one.compute.iter().map(|compute| compute.serial).collect())).collect()
    }

    fn partition(&self, index: Index) -> Option<u32> {
        let state = self.machine.fake.state().unwrap();
        let computes = |one: &&Instance| !one.phantom && one.compute.iter().any(|compute| !compute.phantom);
        let ids: Vec<u32> = state.gpus[0].instances.iter().filter(computes).map(|one| one.id).collect();
        if ids.is_empty() { None } else { Some(*index.get(&ids)) }
    }

    fn apply(&mut self) -> Option<Found> {
        let wanted = self.wanted.clone();
        let pods = &self.pods;
        let kubelet = |_: &str, mig: Option<&str>| Ok(mig.filter(|&mig| pods.contains(mig)).map(str::to_owned).into_iter().collect());
        self.node.as_mut().map(|node| node.apply(&wanted, &kubelet))
    }

    /// Something else is wanted from now on.
    fn want(&mut self, cut: Cut, partitions: Vec<Spec>) -> Option<Found> {
        self.generation += 1;
        self.wanted = Wish { generation: (1, self.generation), cut, partitions, ..self.wanted.clone() };
        self.apply()
    }

    fn happen(&mut self, what: &Happening) -> Option<Found> {
        let fake = &self.machine.fake;
        match what {
            Happening::Wish(draws) => {
                let mut layout = Vec::new();
                for draw in draws {
                    let placement = *draw.get(&self.all());
                    if self.grid.admits(&layout, placement) {
                        layout.push(placement);
                    }
                }
                let partitions = layout.into_iter().map(|placement| self.spec(placement)).collect();
                return self.want(Cut::Mig, partitions);
            }
            Happening::Again => return self.apply(),
            Happening::Whole => return self.want(Cut::Shares, Vec::new()),
            Happening::Begin(index) | Happening::Keep(index) => {
                let hidden = matches!(what, Happening::Keep(_));
                if let Some(id) = self.partition(*index) {
                    self.pid += 1;
                    let taken = if hidden { fake.keep_handle(0, Some(id), self.pid) } else { fake.hold(0, Some(id), self.pid) };
                    taken.unwrap();
                }
            }
            Happening::Pod(index) => {
                if let Some(id) = self.partition(*index) {
                    let state = fake.state().unwrap();
                    let given = state.gpus[0].instances.iter().filter(|one| one.id == id && !one.phantom).flat_map(|one| &one.compute);
                    self.pods.extend(given.map(|compute| compute.uuid.clone()));
                }
            }
            Happening::End => {
                self.pods.clear();
                fake.edit(|state| state.gpus[0].holds.clear()).unwrap();
            }
            Happening::Foreign(index, computes) => {
                let spec = self.spec(*index.get(&self.all()));
                // Where it cannot be, it is not made.
                drop(fake.make(0, &spec.profile, spec.start, *computes));
            }
            Happening::Fault(function, what, skip) => {
                let fault = Fault::once(FUNCTIONS[function.index(FUNCTIONS.len())], what.get(&FAULTS).clone());
                fake.fault(Fault { skip: *skip, ..fault }).unwrap();
            }
            Happening::Restart => {
                self.node = None;
                self.node = Some(self.machine.node());
            }
            Happening::Boot => {
                self.node = None;
                self.pods.clear();
                fake.reboot().unwrap();
                self.node = Some(self.machine.node());
            }
        }
        None
    }

    /// What is on the GPU is a layout, and what is said of it is true.
    fn holds(&self, found: Option<&Found>) {
        let truth = self.machine.truth(0);
        let placement =
            |(profile, start, _): &(String, u8, usize)| Placement { profile: self.grid.resolve(profile).unwrap(), start: *start };
        self.layouts.state(truth.iter().map(placement)).unwrap();
        let Some(found) = found.filter(|found| found.unusable.is_none()) else { return };
        let mut told: Vec<(String, u8, usize)> = Vec::new();
        for part in found.parts.iter().filter(|part| part.instance.is_some()) {
            let spec = part.spec.clone().unwrap();
            told.push((spec.profile, spec.start, usize::from(part.uuid.is_some())));
        }
        told.sort();
        assert_eq!(told, truth, "what is told of is what there is");
        let mut ready = found.parts.iter().filter(|part| part.state == PartState::Ready);
        assert!(ready.all(|part| part.uuid.is_some()), "who is given a partition can use it");
        for spec in &self.wanted.partitions {
            assert!(found.parts.iter().any(|part| part.spec.as_ref() == Some(spec)), "{spec} is wanted and not told of");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_in_use_goes_and_in_the_end_all_is_as_wanted(
        model in prop::sample::select(vec!["H100-80GB", "A30", "RTX-PRO-6000-Blackwell-96GB"]),
        happenings in vec(happening(), 1..30),
    ) {
        let mut world = World::new(model);
        for what in &happenings {
            let before = world.used();
            let found = world.happen(what);
            // Processes end with the machine, or when they end.
            if !matches!(what, Happening::Boot | Happening::End) {
                let after = world.used();
                prop_assert!(before.iter().all(|one| after.contains(one)), "{:?}: {:?} became {:?}", what, before, after);
            }
            world.holds(found.as_ref());
        }
        // Nobody uses anything any more, nothing goes wrong, and two later layouts say what to do with what others made.
        world.machine.fake.heal().unwrap();
        world.happen(&Happening::End);
        let (cut, partitions) = (world.wanted.cut, world.wanted.partitions.clone());
        world.want(cut, partitions.clone());
        // A GPU whose mode is kept in itself was reset meanwhile.
        let gpu = world.machine.fake.state().unwrap().gpus.remove(0);
        if gpu.mig != gpu.pending {
            world.machine.fake.reset(0).unwrap();
        }
        let found = world.want(cut, partitions.clone());
        world.holds(found.as_ref());
        let mut wanted: Vec<(String, u8, usize)> = partitions.into_iter().map(|spec| (spec.profile, spec.start, 1)).collect();
        wanted.sort();
        prop_assert_eq!(world.machine.truth(0), wanted, "{:#?}", found);
        let mig = world.machine.fake.state().unwrap().gpus[0].mig;
        prop_assert!(model == "A30" || mig == (cut == Cut::Mig));
    }
}
