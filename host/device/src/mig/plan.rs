//! From a wanted layout to steps. No I/O: what is there and who uses it goes in, steps come out.

use partita_core::model::{Cut, Grid, Placement, SlotMask};

use super::{Problem, Spec};
use crate::wish::Wish;

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
mod tests;
