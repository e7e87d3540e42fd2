//! From a wanted layout to steps. No I/O: what is there and who uses it goes in, steps come out.

use partita_core::model::{Cut, Grid, Placement, SlotMask};

use super::{Problem, Spec, Wish};

/// A GPU instance that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its number.
    pub instance: u32,
    /// What it is; none for a profile that the grid does not have.
    pub spec: Option<Spec>,
    /// The slots that it covers.
    pub slots: SlotMask,
    /// How many compute instances it holds, and whether that is the one of a whole partition.
    pub compute: usize,
    /// Whether the compute instance, if there is one, is that of a whole partition.
    pub whole: bool,
    /// Who uses it: pods and processes.
    pub users: Vec<String>,
    /// Others made it, and no layout since then left it out.
    pub adopted: bool,
}

impl Existing {
    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        self.spec.as_ref().map_or_else(|| format!("GPU instance {}", self.instance), ToString::to_string)
    }
}

/// Everything that decides.
#[derive(Clone, Debug)]
pub struct Question<'q> {
    /// The GPU's grid; none if MIG cannot cut it.
    pub grid: Option<&'q Grid>,
    /// Whether MIG is on.
    pub mig: bool,
    /// Whether it will be after the next reset.
    pub pending: bool,
    /// What is there.
    pub existing: &'q [Existing],
    /// Who uses the GPU as a whole.
    pub users: &'q [String],
    /// Why it is not known who uses what, if it is not.
    pub blind: Option<&'q str>,
    /// What shall be.
    pub wish: &'q Wish,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Destroy a GPU instance and what is in it.
    Destroy {
        /// Its number.
        instance: u32,
    },
    /// Switch MIG.
    Switch {
        /// On, or off.
        on: bool,
    },
    /// Let the mode that is there be that after the next reset too: an earlier wish was another.
    Stay {
        /// On, or off.
        on: bool,
    },
    /// Make what computes in a GPU instance that is there without.
    Complete {
        /// Its number.
        instance: u32,
        /// What it is.
        spec: Spec,
    },
    /// Make a partition.
    Create {
        /// What it is, with the grid's name of the profile.
        spec: Spec,
        /// Where it is.
        placement: Placement,
    },
}

/// What is done and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order: what goes, the mode, what is completed and made.
    pub steps: Vec<Step>,
    /// What is wanted and there already.
    pub there: Vec<u32>,
    /// What is wanted and cannot be.
    pub refused: Vec<(Spec, Problem)>,
    /// What is not wanted and stays, by number of the GPU instance.
    pub kept: Vec<(u32, Problem)>,
    /// Why MIG is not switched, if it would have to be.
    pub mode: Option<Problem>,
}

/// The steps from what is there to what is wanted. Nothing that is used or not known goes; what is wanted and there stays; what goes
/// comes before what is made.
#[must_use]
pub fn plan(question: &Question<'_>) -> Plan {
    let mut plan = Plan::default();
    let on = question.wish.cut == Cut::Mig;
    if question.wish.may_switch && question.grid.is_some() && question.mig == on && question.pending != on {
        plan.steps.push(Step::Stay { on });
    }
    if on {
        cut(question, &mut plan);
    } else {
        uncut(question, &mut plan);
    }
    plan
}

fn cut(question: &Question<'_>, plan: &mut Plan) {
    let wanted = resolved(question, plan);
    let Some(grid) = question.grid else { return };
    if !question.mig {
        match may_switch(question, "off") {
            Ok(()) if wanted.is_empty() => plan.steps.push(Step::Switch { on: true }),
            Ok(()) => {
                plan.steps.push(Step::Switch { on: true });
                create(grid, &[], &[], &wanted, plan);
            }
            Err(problem) => {
                plan.refused.extend(wanted.into_iter().map(|(spec, _)| (spec, problem.clone())));
                plan.mode = Some(problem);
            }
        }
        return;
    }
    let mut staying: Vec<&Existing> = Vec::new();
    let mut missing = wanted;
    for one in question.existing {
        let row = missing.iter().position(|(spec, _)| one.spec.as_ref() == Some(spec));
        if let Some(row) = row {
            let (spec, _) = missing.remove(row);
            staying.push(one);
            match (one.compute, one.whole) {
                (0, _) => plan.steps.push(Step::Complete { instance: one.instance, spec }),
                (1, true) => plan.there.push(one.instance),
                _ => plan.refused.push((spec, Problem::Divided(one.name()))),
            }
        } else if let Some(problem) = stays(one, question.blind) {
            staying.push(one);
            plan.kept.push((one.instance, problem));
        } else {
            plan.steps.push(Step::Destroy { instance: one.instance });
        }
    }
    // What goes makes room for the rest.
    plan.steps.sort_by_key(|step| !matches!(step, Step::Stay { .. } | Step::Destroy { .. }));
    let kept = plan.kept.clone();
    create(grid, &staying, &kept, &missing, plan);
}

/// What is wanted, in the grid's names and without what cannot be.
fn resolved(question: &Question<'_>, plan: &mut Plan) -> Vec<(Spec, Placement)> {
    let mut wanted: Vec<(Spec, Placement)> = Vec::new();
    for spec in &question.wish.partitions {
        let Some(grid) = question.grid else {
            plan.refused.push((spec.clone(), Problem::NoMig("its model has no MIG, or its driver tells no profiles".to_owned())));
            continue;
        };
        let row = match grid.resolve(&spec.profile) {
            Ok(row) => row,
            Err(error) => {
                plan.refused.push((spec.clone(), Problem::Impossible { spec: spec.clone(), why: error.to_string() }));
                continue;
            }
        };
        let profile = &grid.profiles[usize::from(row)];
        if !profile.starts.contains(&spec.start) {
            let why = format!("it can start at slots {:?} only", profile.starts);
            plan.refused.push((spec.clone(), Problem::Impossible { spec: spec.clone(), why }));
            continue;
        }
        let one = (Spec { profile: profile.name.clone(), start: spec.start }, Placement { profile: row, start: spec.start });
        if !wanted.contains(&one) {
            wanted.push(one);
        }
    }
    wanted
}

/// What is missing, as far as it fits beside what stays.
fn create(grid: &Grid, staying: &[&Existing], kept: &[(u32, Problem)], missing: &[(Spec, Placement)], plan: &mut Plan) {
    let place = |one: &&Existing| {
        let spec = one.spec.as_ref()?;
        Some(Placement { profile: grid.resolve(&spec.profile).ok()?, start: spec.start })
    };
    let mut placed: Vec<Placement> = staying.iter().filter_map(place).collect();
    for (spec, placement) in missing {
        let slots = grid.slots_of(*placement);
        if let Some(other) = staying.iter().find(|one| one.slots.overlaps(slots)) {
            let why = kept.iter().find(|(instance, _)| *instance == other.instance).map(|(_, problem)| problem.to_string());
            let why = why.unwrap_or_else(|| "it is wanted as well".to_owned());
            plan.refused.push((spec.clone(), Problem::Overlaps { spec: spec.clone(), other: other.name(), why }));
        } else if grid.admits(&placed, *placement) {
            placed.push(*placement);
            plan.steps.push(Step::Create { spec: spec.clone(), placement: *placement });
        } else {
            let why =
                "it overlaps another that is wanted, or exceeds a count, the compute slices or the media engines of the GPU".to_owned();
            plan.refused.push((spec.clone(), Problem::Impossible { spec: spec.clone(), why }));
        }
    }
}

/// Why something that is not wanted stays.
fn stays(one: &Existing, blind: Option<&str>) -> Option<Problem> {
    if !one.users.is_empty() {
        return Some(Problem::Used { what: one.name(), users: one.users.join(", ") });
    }
    if let Some(why) = blind {
        return Some(Problem::Unknown { what: one.name(), why: why.to_owned() });
    }
    one.adopted.then(|| Problem::Adopted(one.name()))
}

fn may_switch(question: &Question<'_>, is: &'static str) -> Result<(), Problem> {
    if !question.wish.may_switch {
        return Err(Problem::MayNotSwitch { is });
    }
    if !question.users.is_empty() {
        return Err(Problem::SwitchUsed { users: question.users.join(", ") });
    }
    question.blind.map_or(Ok(()), |why| Err(Problem::Unknown { what: "the GPU".to_owned(), why: why.to_owned() }))
}

/// A GPU that MIG shall not cut: its partitions go only if all of them can, and the mode after them.
fn uncut(question: &Question<'_>, plan: &mut Plan) {
    if !question.mig {
        return;
    }
    let kept: Vec<(u32, Problem)> = question.existing.iter().filter_map(|one| Some((one.instance, stays(one, question.blind)?))).collect();
    if let Err(problem) = may_switch(question, "on") {
        plan.kept = question.existing.iter().map(|one| (one.instance, problem.clone())).collect();
        plan.mode = Some(problem);
    } else if let Some((_, problem)) = kept.first() {
        plan.mode = Some(problem.clone());
        let with_problem = |one: &Existing| {
            let own = kept.iter().find(|(instance, _)| *instance == one.instance).map(|(_, problem)| problem.clone());
            (one.instance, own.unwrap_or_else(|| problem.clone()))
        };
        plan.kept = question.existing.iter().map(with_problem).collect();
    } else {
        plan.steps.extend(question.existing.iter().map(|one| Step::Destroy { instance: one.instance }));
        plan.steps.push(Step::Switch { on: false });
    }
}

#[cfg(test)]
mod tests {
    use partita_core::model::catalog;
    use proptest::{prelude::*, sample};

    use super::*;

    fn grid() -> Grid {
        catalog::builtin("H100-80GB").unwrap().grid.unwrap()
    }

    fn spec(profile: &str, start: u8) -> Spec {
        Spec { profile: profile.to_owned(), start }
    }

    fn there(grid: &Grid, instance: u32, placement: Placement) -> Existing {
        let profile = grid.profiles[usize::from(placement.profile)].name.clone();
        Existing {
            instance,
            spec: Some(Spec { profile, start: placement.start }),
            slots: grid.slots_of(placement),
            compute: 1,
            whole: true,
            users: Vec::new(),
            adopted: false,
        }
    }

    fn wish(cut: Cut, may_switch: bool, partitions: Vec<Spec>) -> Wish {
        Wish { gpu: "GPU-1".to_owned(), generation: (1, 1), cut, partitions, may_switch }
    }

    fn ask(grid: &Grid, mig: bool, existing: &[Existing], wish: &Wish) -> Plan {
        plan(&Question { grid: Some(grid), mig, pending: mig, existing, users: &[], blind: None, wish })
    }

    #[test]
    fn what_goes_comes_before_what_is_made() {
        let grid = grid();
        let existing = [
            there(&grid, 7, Placement { profile: 0, start: 0 }),
            there(&grid, 8, Placement { profile: 0, start: 6 }),
            Existing { compute: 0, whole: false, ..there(&grid, 3, Placement { profile: 3, start: 4 }) },
        ];
        let wanted = wish(Cut::Mig, false, vec![spec("mig-4g.40gb", 0), spec("2g.20gb", 4), spec("1g.10gb", 6)]);
        let plan = ask(&grid, true, &existing, &wanted);
        let made = Step::Create { spec: spec("4g.40gb", 0), placement: Placement { profile: 5, start: 0 } };
        let completed = Step::Complete { instance: 3, spec: spec("2g.20gb", 4) };
        assert_eq!(plan.steps, [Step::Destroy { instance: 7 }, completed, made]);
        assert_eq!((plan.there, plan.refused, plan.kept), (vec![8], vec![], vec![]));
    }

    #[test]
    fn a_gpu_is_uncut_whole_or_not_at_all() {
        let grid = grid();
        let mut existing = [there(&grid, 7, Placement { profile: 0, start: 0 }), there(&grid, 8, Placement { profile: 0, start: 1 })];
        let whole = wish(Cut::Shares, true, Vec::new());
        let plan = ask(&grid, true, &existing, &whole);
        assert_eq!(plan.steps, [Step::Destroy { instance: 7 }, Step::Destroy { instance: 8 }, Step::Switch { on: false }]);
        assert_eq!(ask(&grid, false, &[], &whole), Plan::default());
        existing[1].users.push("ns/pod".to_owned());
        let plan = ask(&grid, true, &existing, &whole);
        assert!(plan.steps.is_empty() && plan.kept.len() == 2 && plan.mode.unwrap().to_string().contains("ns/pod"));
        let plan = ask(&grid, true, &existing[..1], &wish(Cut::Shares, false, Vec::new()));
        assert!(plan.steps.is_empty() && matches!(plan.mode, Some(Problem::MayNotSwitch { is: "on" })));
    }

    #[test]
    fn a_mode_that_would_change_at_the_next_reset_is_kept() {
        let grid = grid();
        for (cut, on) in [(Cut::Mig, true), (Cut::Shares, false)] {
            let wish = wish(cut, true, Vec::new());
            let question = Question { grid: Some(&grid), mig: on, pending: !on, existing: &[], users: &[], blind: None, wish: &wish };
            assert_eq!(plan(&question).steps, [Step::Stay { on }]);
        }
    }

    /// A legal layout, as a random walk finds it.
    fn layout(grid: &Grid, draws: &[(sample::Index, bool)]) -> Vec<Placement> {
        let starts = |row: usize| grid.profiles[row].starts.iter().map(move |&start| Placement { profile: row as u8, start });
        let all: Vec<Placement> = (0..grid.profiles.len()).flat_map(starts).collect();
        let mut layout = Vec::new();
        for (draw, _) in draws {
            let placement = *draw.get(&all);
            if grid.admits(&layout, placement) {
                layout.push(placement);
            }
        }
        layout
    }

    type Draws = Vec<(sample::Index, bool)>;

    /// What is there, some of it used, half or of others, and what is wanted.
    #[derive(Debug)]
    struct Case {
        grid: Grid,
        before: Vec<Placement>,
        existing: Vec<Existing>,
        wanted: Vec<Placement>,
        blind: bool,
    }

    impl Case {
        fn new(name: &str, old: &Draws, new: &Draws, (adopted, half): (u16, u16), blind: bool) -> Option<Self> {
            let grid = catalog::builtin(name)?.grid?;
            let before = layout(&grid, old);
            let rare = |mask: u16, row: usize| mask >> row & 3 == 3;
            let one = |(row, &placement): (usize, &Placement)| Existing {
                users: if old[row].1 { vec![format!("pid:{row}")] } else { Vec::new() },
                adopted: rare(adopted, row),
                compute: usize::from(!rare(half, row)),
                whole: !rare(half, row),
                ..there(&grid, row as u32, placement)
            };
            let existing = before.iter().enumerate().map(one).collect();
            let wanted = layout(&grid, new);
            Some(Self { grid, before, existing, wanted, blind })
        }

        fn spec(&self, placement: Placement) -> Spec {
            spec(&self.grid.profiles[usize::from(placement.profile)].name, placement.start)
        }

        fn wants(&self, one: &Existing) -> bool {
            self.wanted.iter().any(|&placement| Some(self.spec(placement)) == one.spec)
        }

        /// Does the steps; every one must be safe and legal. Returns what is there then.
        fn done(&self, steps: &[Step]) -> Result<Vec<Placement>, TestCaseError> {
            let mut now: Vec<(Option<u32>, Placement)> = (0..).map(Some).zip(self.before.iter().copied()).collect();
            let mut made = false;
            for step in steps {
                match step {
                    Step::Destroy { instance } => {
                        let one = &self.existing[*instance as usize];
                        prop_assert!(!made && one.users.is_empty() && !one.adopted && !self.blind && !self.wants(one), "{:?}", one);
                        now.retain(|(row, _)| *row != Some(*instance));
                    }
                    Step::Complete { instance, .. } => {
                        let one = &self.existing[*instance as usize];
                        prop_assert!(one.compute == 0 && self.wants(one));
                    }
                    Step::Create { spec, placement } => {
                        made = true;
                        let others: Vec<Placement> = now.iter().map(|one| one.1).collect();
                        prop_assert!(self.grid.admits(&others, *placement) && *spec == self.spec(*placement));
                        prop_assert!(self.wanted.contains(placement));
                        now.push((None, *placement));
                    }
                    Step::Switch { .. } | Step::Stay { .. } => prop_assert!(false, "MIG is on already"),
                }
            }
            Ok(now.into_iter().map(|one| one.1).collect())
        }
    }

    fn draws() -> impl Strategy<Value = Draws> {
        prop::collection::vec((any::<sample::Index>(), any::<bool>()), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Done step by step, a plan touches nothing that is used, unknown or wanted, is legal at every step, and ends in what is wanted as
        /// far as what stays lets it.
        #[test]
        fn plans_are_safe_legal_and_complete(
            name in sample::select(catalog::names().collect::<Vec<_>>()),
            old in draws(),
            new in draws(),
            masks in any::<(u16, u16)>(),
            blind in prop::bool::weighted(0.1),
        ) {
            let Some(case) = Case::new(name, &old, &new, masks, blind) else { return Ok(()) };
            let wish = wish(Cut::Mig, false, case.wanted.iter().map(|&one| case.spec(one)).collect());
            let why = blind.then_some("nobody knows");
            let question = Question { grid: Some(&case.grid), mig: true, pending: true, existing: &case.existing, users: &[], blind: why, wish: &wish };
            let plan = plan(&question);
            let now = case.done(&plan.steps)?;
            // All that is wanted is there, or refused because something stays that is not wanted.
            let stays = case.existing.iter().any(|one| !case.wants(one) && plan.kept.iter().any(|kept| kept.0 == one.instance));
            for placement in &case.wanted {
                let refused = plan.refused.iter().any(|(refused, _)| *refused == case.spec(*placement));
                prop_assert!(now.contains(placement) != refused && (!refused || stays), "{:?} of {:?}", placement, plan);
            }
            // What is not wanted is gone, or kept with a reason.
            for (row, placement) in case.before.iter().enumerate().filter(|(_, one)| !case.wanted.contains(one)) {
                let kept = plan.kept.iter().any(|one| one.0 as usize == row);
                prop_assert_eq!(kept, now.contains(placement));
            }
        }
    }
}
