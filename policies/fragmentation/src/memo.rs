//! What is derived from the expected mix, kept from question to question.
//!
//! The mix changes rarely and questions are often about one node, so deriving tables from the mix would cost more than the answer. The
//! columns that they come from are compared, not trusted to stay: an answer depends on the question alone, whatever was asked before.

use partita_sdk::View;

/// The rows of the view that belong to the mix: up to the last with a weight.
pub(crate) fn mix_rows(view: &View<'_>) -> usize {
    view.demands.weight.iter().rposition(|&weight| weight > 0).map_or(0, |last| last + 1)
}

/// A value derived from the mix, and the columns it was derived from.
#[derive(Debug)]
pub(crate) struct Memo<T> {
    columns: [Vec<u32>; COLUMNS],
    value: Option<T>,
}

const COLUMNS: usize = 17;

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { columns: Default::default(), value: None }
    }
}

/// Every column that describes the mix and what the cluster is made of.
fn columns<'a>(view: &View<'a>) -> [&'a [u32]; COLUMNS] {
    let rows = mix_rows(view);
    let (demands, profiles) = (&view.demands, &view.profiles);
    let ragged = |start: &'a [u32], values: &'a [u32]| {
        let start = &start[..start.len().min(rows + 1)];
        (start, &values[..start.last().map_or(0, |&end| end as usize)])
    };
    let (model_start, models) = ragged(demands.model_start, demands.models);
    let (profile_start, served) = ragged(demands.profile_start, demands.profiles);
    [
        &demands.weight[..rows],
        &demands.cpu[..rows],
        &demands.count[..rows],
        &demands.milli[..rows],
        model_start,
        models,
        profile_start,
        served,
        view.models.gpus,
        view.models.slots,
        view.shapes.model,
        view.shapes.gpus,
        view.shapes.cpu_capacity,
        view.shapes.nodes,
        profiles.model,
        profiles.size,
        profiles.starts,
    ]
}

impl<T> Memo<T> {
    /// The value for the mix of `view`: the kept one if nothing changed, else `derive`d anew.
    pub(crate) fn of(&mut self, view: &View<'_>, derive: impl FnOnce(&View<'_>) -> T) -> &mut T {
        let columns = columns(view);
        if self.columns.iter().zip(columns).any(|(kept, asked)| !equal(kept, asked)) {
            for (kept, asked) in self.columns.iter_mut().zip(columns) {
                kept.clear();
                kept.extend_from_slice(asked);
            }
            self.value = None;
        }
        self.value.get_or_insert_with(|| derive(view))
    }
}

/// Equality word by word: that of slices compares bytes, which takes four times as long in WebAssembly.
fn equal(kept: &[u32], asked: &[u32]) -> bool {
    kept.len() == asked.len() && kept.iter().zip(asked).fold(0, |differ, (kept, asked)| differ | (kept ^ asked)) == 0
}

#[cfg(test)]
mod tests {
    use partita_sdk::Demands;

    use super::*;

    #[test]
    fn a_change_of_the_mix_derives_anew_and_the_asked_demand_does_not_count() {
        let mut memo = Memo::default();
        let mut derived = 0;
        let mut ask = |weight: &[u32], cpu: &[u32]| {
            let start = vec![0; weight.len() + 1];
            let demands = Demands {
                weight,
                cpu,
                count: &[1, 1, 1],
                milli: &[500, 1000, 300],
                model_start: &start,
                profile_start: &start,
                ..Demands::default()
            };
            memo.of(&View { demands, ..View::default() }, |_| {
                derived += 1;
            });
            derived
        };
        assert_eq!(ask(&[3, 1, 0], &[10, 20, 30]), 1);
        assert_eq!(ask(&[3, 1, 0], &[10, 20, 99]), 1);
        assert_eq!(ask(&[3, 2, 0], &[10, 20, 99]), 2);
        assert_eq!(ask(&[3, 2, 0], &[10, 21, 99]), 3);
    }
}
