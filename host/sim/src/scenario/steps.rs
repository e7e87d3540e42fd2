//! What happens in a scenario after its start.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Happening, STEPS_MAX, ScenarioPod,
    keys::{Keys, Value},
    pods,
    read::{LineOf, beyond},
};
use crate::{amount, error::Fault, models::Placed};

/// Pods named in a list, by row.
type Rows<'t, 'i> = Vec<(usize, Value<'t, 'i>)>;

/// The lists of a step.
struct Lists<'t, 'i> {
    arrives: Rows<'t, 'i>,
    ends: Rows<'t, 'i>,
    stops: Rows<'t, 'i>,
}

/// All steps, with the start before them.
pub(super) fn steps(
    tables: Vec<Keys<'_, '_>>,
    pods: &[ScenarioPod],
    budgets: &[(String, u32)],
    find: &dyn Fn(&str) -> Result<usize, Fault>,
    line: LineOf<'_>,
) -> Result<Vec<Happening>, Placed> {
    let mut steps = vec![Happening::default()];
    let mut lists = Vec::new();
    for keys in tables {
        if steps.len() > STEPS_MAX {
            return Err(beyond("steps", STEPS_MAX, keys.span));
        }
        let begin = Happening { line: Some(line(keys.span.clone())), at_ms: steps[steps.len() - 1].at_ms, ..Happening::default() };
        let (step, list) = step(keys, begin, budgets, find)?;
        steps.push(step);
        lists.push(list);
    }
    let later = arrivals(&lists, &steps, pods)?;
    let at_start = (0..pods.len()).filter(|row| !later.contains_key(row));
    let mut present: BTreeSet<usize> = at_start.clone().collect();
    steps[0].arrives = at_start.filter(|&row| pods[row].runs.is_none()).collect();
    for (step, list) in steps.iter_mut().skip(1).zip(lists) {
        let absent = |value: &Value<'_, '_>| blame(value, "is not there then", "let it arrive before, and end once");
        for (row, value) in list.ends.iter().chain(&list.stops) {
            if !present.contains(row) {
                return Err(absent(value));
            }
        }
        for (row, value) in &list.ends {
            if !present.remove(row) {
                return Err(absent(value));
            }
        }
        present.extend(list.arrives.iter().map(|one| one.0));
        [step.arrives, step.ends, step.stops] =
            [list.arrives, list.ends, list.stops].map(|rows| rows.into_iter().map(|one| one.0).collect());
    }
    Ok(steps)
}

/// One `[[step]]`.
fn step<'t, 'i>(
    mut keys: Keys<'t, 'i>,
    mut step: Happening,
    budgets: &[(String, u32)],
    find: &dyn Fn(&str) -> Result<usize, Fault>,
) -> Result<(Happening, Lists<'t, 'i>), Placed> {
    if let Some(at) = keys.maybe("at") {
        let at_ms = at.read(amount::seconds_ms)?;
        if at_ms < step.at_ms {
            return Err(blame(&at, "is before the step above", "put steps in the order of time"));
        }
        step.at_ms = at_ms;
    }
    if let Some(value) = keys.maybe("budgets") {
        let one = |entry: &Value<'_, '_>| {
            pods::budget(entry.key(), budgets).map_err(|fault| entry.blame(fault))?;
            Ok((entry.key().to_owned(), entry.read(|text| amount::count32(text, u32::MAX, "pods"))?))
        };
        step.budgets = value.entries()?.iter().map(one).collect::<Result<_, Placed>>()?;
    }
    let mut rows =
        |key| -> Result<Rows<'t, 'i>, Placed> { keys.names(key)?.into_iter().map(|value| Ok((value.read(find)?, value))).collect() };
    let lists = Lists { arrives: rows("arrives")?, ends: rows("ends")?, stops: rows("stops")? };
    step.lingers = rows("lingers")?.into_iter().map(|one| one.0).collect();
    keys.finish(&[])?;
    Ok((step, lists))
}

/// Pods that come after the start, with the line of the step in which they do.
fn arrivals(lists: &[Lists<'_, '_>], steps: &[Happening], pods: &[ScenarioPod]) -> Result<BTreeMap<usize, u64>, Placed> {
    let mut later = BTreeMap::new();
    for (list, step) in lists.iter().zip(&steps[1..]) {
        for (row, value) in &list.arrives {
            if pods[*row].runs.is_some() {
                return Err(blame(value, "runs from the start", "take it from arrives, or take on from the pod"));
            }
            if let Some(first) = later.insert(*row, step.line.unwrap_or(0)) {
                return Err(blame(value, &format!("arrives in the step of line {first} too"), "let it come once"));
            }
        }
    }
    Ok(later)
}

fn blame(value: &Value<'_, '_>, problem: &str, remedy: &str) -> Placed {
    value.blame(Fault::new(problem, remedy).value(value.text().unwrap_or_default()))
}
