//! Plans by hand, and thousands at random.

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
    let (gpu, shares) = ("GPU-1".to_owned(), Vec::new());
    Wish { gpu, generation: (1, 1), cut, partitions, shares, time_sliced: false, may_switch }
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
