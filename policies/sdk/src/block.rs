//! From the block of a question, which the host packs, to its columns. `wit/policy.wit` (`types.block`, `types.column`) says how they lie.

use crate::columns::{Candidates, Demands, Gpus, Models, Nodes, Profiles, Shapes, View};
use crate::partitioner::Movable;
use crate::policy::Refusal;

/// The columns of one question.
pub(crate) struct Columns<'a> {
    pub(crate) view: View<'a>,
    pub(crate) candidates: Candidates<'a>,
    pub(crate) movable: Movable<'a>,
}

/// What stays the same from question to question, kept by an instance: the columns of the outlook, in the order of the package. The rows that a
/// question adds to the demands lie behind those of the mix until the next question.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// How often there was a new one.
    number: u64,
    /// `models`, `shapes` and `profiles`.
    tables: [Vec<u32>; 12],
    demands: [Vec<u32>; 9],
    /// Values of each column of the demands that belong to the mix.
    mix: [usize; 9],
}

/// Columns of `demands` that hold offsets, and the values that they point to.
const RAGGED: [(usize, usize); 2] = [(5, 6), (7, 8)];

impl Outlook {
    /// Takes in a new outlook.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for a list that is no block.
    pub(crate) fn renew(&mut self, block: &[u32]) -> Result<(), Refusal> {
        let mut reader = Reader::of(block)?;
        let _seed = reader.next();
        let keep = |kept: &mut Vec<u32>, column: &[u32]| {
            kept.clear();
            kept.extend_from_slice(column);
        };
        self.tables.iter_mut().for_each(|kept| keep(kept, reader.next()));
        // Nodes and GPUs are no part of it.
        reader.skip(12);
        self.demands.iter_mut().for_each(|kept| keep(kept, reader.next()));
        for (mix, column) in self.mix.iter_mut().zip(&self.demands) {
            *mix = column.len();
        }
        self.number += 1;
        Ok(())
    }

    /// Puts the demands of a question behind those of the mix.
    fn ask(&mut self, asked: [&[u32]; 9]) {
        for ((column, &mix), asked) in self.demands.iter_mut().zip(&self.mix).zip(asked) {
            column.truncate(mix);
            column.extend_from_slice(asked);
        }
        for (starts, values) in RAGGED {
            // The offsets of the question begin at 0, which stands for the end of the mix.
            let (mix, base) = (self.mix[starts], self.mix[values] as u32);
            if mix > 0 && self.demands[starts].len() > mix {
                self.demands[starts].remove(mix);
                self.demands[starts][mix..].iter_mut().for_each(|start| *start += base);
            }
        }
    }
}

/// Columns yet to be read.
struct Reader<'a> {
    block: &'a [u32],
    /// Where each column starts, and where the last one ends.
    starts: &'a [u32],
}

impl<'a> Reader<'a> {
    /// The columns of `block`, or nothing if it is no block.
    fn new(block: &'a [u32]) -> Option<Self> {
        let (&count, rest) = block.split_first()?;
        let starts = rest.get(..(count as usize).checked_add(1)?)?;
        let in_order = starts.windows(2).all(|pair| pair[0] <= pair[1]);
        (in_order && *starts.last()? as usize <= block.len()).then_some(Self { block, starts })
    }

    /// The columns of `block`.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for a list that is no block.
    fn of(block: &'a [u32]) -> Result<Self, Refusal> {
        Self::new(block).ok_or_else(|| Refusal::Unsupported("the question is no block of columns".into()))
    }

    /// Passes over some columns.
    fn skip(&mut self, columns: usize) {
        self.starts = self.starts.get(columns..).unwrap_or_default();
    }

    /// The next column; an empty one where an older host has none.
    fn next(&mut self) -> &'a [u32] {
        let &[start, end, ..] = self.starts else { return &[] };
        self.starts = &self.starts[1..];
        &self.block[start as usize..end as usize]
    }
}

impl<'a> Columns<'a> {
    /// Reads the block of a question that is put after `outlook` was told.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for a list that is no block.
    pub(crate) fn of(block: &'a [u32], outlook: &'a mut Outlook) -> Result<Self, Refusal> {
        let mut reader = Reader::of(block)?;
        let seed = reader.next().first().copied().unwrap_or(0);
        // The tables of the outlook are left out of a question.
        reader.skip(12);
        let mut next = || reader.next();
        // Fields are evaluated in the order in which they are written here, which is that of the package.
        let nodes = Nodes {
            cpu_free: next(),
            cpu_capacity: next(),
            memory_free: next(),
            memory_capacity: next(),
            gpu_pods: next(),
            like_pods: next(),
            gpu_start: next(),
        };
        let gpus = Gpus { model: next(), free: next(), used_slots: next(), warm_slots: next(), mig: next() };
        outlook.ask(std::array::from_fn(|_| next()));
        let [cpu, memory, count, milli, weight, model_start, models, profile_start, profiles] = &outlook.demands;
        let demands = Demands { cpu, memory, count, milli, weight, model_start, models, profile_start, profiles };
        let [
            gpus_of,
            memory_of,
            slots,
            shape_model,
            shape_gpus,
            cpu_capacity,
            shape_nodes,
            profile_model,
            size,
            compute,
            profile_memory,
            starts,
        ] = &outlook.tables;
        let view = View {
            seed,
            outlook: outlook.number,
            models: Models { gpus: gpus_of, memory: memory_of, slots },
            shapes: Shapes { model: shape_model, gpus: shape_gpus, cpu_capacity, nodes: shape_nodes },
            profiles: Profiles { model: profile_model, size, compute, memory: profile_memory, starts },
            nodes,
            gpus,
            demands,
        };
        let [node, gpu, profile, slot] = [next(), next(), next(), next()];
        let movable = Movable { demand: next(), node: next(), gpu: next(), slot: next() };
        let candidates = Candidates {
            node,
            gpu,
            profile,
            slot,
            kind: next(),
            milli: next(),
            tier: next(),
            use_start: next(),
            use_gpu: next(),
            use_profile: next(),
            use_slot: next(),
        };
        Ok(Self { view, candidates, movable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of `count` columns, the column number i holding i ten times over.
    fn block(count: u32) -> Vec<u32> {
        let mut words = vec![count];
        words.extend((0..=count).map(|column| 2 + count + 10 * column));
        words.extend((0..count).flat_map(|column| [column; 10]));
        words
    }

    #[test]
    fn columns_are_read_in_the_order_of_the_package() {
        let words = block(60);
        let mut outlook = Outlook::default();
        outlook.renew(&words).unwrap();
        let columns = Columns::of(&words, &mut outlook).unwrap();
        assert_eq!((columns.view.seed, columns.view.outlook), (0, 1));
        assert_eq!((columns.view.models.gpus, columns.view.profiles.starts), (&[1; 10][..], &[12; 10][..]));
        assert_eq!((columns.view.nodes.cpu_free, columns.view.gpus.mig), (&[13; 10][..], &[24; 10][..]));
        assert_eq!((columns.view.demands.cpu, columns.view.demands.profiles), (&[25; 20][..], &[33; 20][..]));
        assert_eq!(columns.candidates.slot, [37; 10]);
        assert_eq!(columns.movable.slot, [41; 10]);
        assert_eq!((columns.candidates.kind, columns.candidates.use_slot), (&[42; 10][..], &[48; 10][..]));
    }

    #[test]
    fn columns_that_an_older_host_does_not_have_are_empty() {
        let words = block(15);
        let mut outlook = Outlook::default();
        let columns = Columns::of(&words, &mut outlook).unwrap();
        assert_eq!(columns.view.nodes.cpu_capacity, [14; 10]);
        assert_eq!((columns.view.nodes.memory_free, columns.candidates.node), (&[][..], &[][..]));
    }

    /// A block whose columns from number 25 on, the demands, are these.
    fn demands(columns: [&[u32]; 9]) -> Vec<u32> {
        let mut words = vec![34];
        let mut end = 36;
        for column in 0..34 {
            words.push(end);
            end += if column < 25 { 0 } else { columns[column - 25].len() as u32 };
        }
        words.push(end);
        words.extend(columns.into_iter().flatten());
        words
    }

    #[test]
    fn the_demands_of_a_question_lie_behind_the_mix() {
        let none: &[u32] = &[];
        let mut outlook = Outlook::default();
        outlook.renew(&demands([&[1, 2], none, none, none, &[5, 6], &[0, 1, 3], &[7, 8, 9], none, none])).unwrap();
        for (cpu, model) in [(3, 10), (4, 11)] {
            let words = demands([&[cpu], none, none, none, &[0], &[0, 1], &[model], &[0, 1], &[2]]);
            let columns = Columns::of(&words, &mut outlook).unwrap();
            let demands = columns.view.demands;
            assert_eq!((demands.cpu, demands.weight), (&[1, 2, cpu][..], &[5, 6, 0][..]));
            assert_eq!((demands.model_start, demands.models), (&[0, 1, 3, 4][..], &[7, 8, 9, model][..]));
            // The mix has no such column, so the question's own offsets stand.
            assert_eq!((demands.profile_start, demands.profiles), (&[0, 1][..], &[2][..]));
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let mut late = block(3);
        late[4] = 10_000;
        let mut backwards = block(3);
        backwards[2] = 0;
        for words in [&[][..], &[0][..], &[u32::MAX, 1][..], &[5, 1, 1][..], &late, &backwards] {
            assert!(Columns::of(words, &mut Outlook::default()).is_err() && Outlook::default().renew(words).is_err(), "{words:?}");
        }
    }
}
