//! What goes wrong, and when.

use serde::{Deserialize, Serialize};

use crate::machine::State;

/// Something that goes wrong in one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The function, as `nvml.h` names it.
    pub function: String,
    /// The GPU that it is called for, by its place in the folder; none for any.
    pub gpu: Option<usize>,
    /// How often it goes well before.
    pub skip: u32,
    /// How often it goes wrong then; none for always.
    pub times: Option<u32>,
    /// What happens.
    pub what: What,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// It answers this code and does nothing.
    Code(u32),
    /// It answers after so many milliseconds.
    Delay(u64),
    /// It does not come back until the fault is taken away.
    Block,
    /// It says that it was done, and it was not.
    Phantom,
    /// The process ends as if killed, before anything is done.
    Kill,
    /// The process ends as if killed, after it was done and before it answers.
    KillAfter,
}

impl Fault {
    /// A fault of every call of a function.
    #[must_use]
    pub fn always(function: &str, what: What) -> Self {
        Self { function: function.to_owned(), gpu: None, skip: 0, times: None, what }
    }

    /// A fault of the next call of a function.
    #[must_use]
    pub fn once(function: &str, what: What) -> Self {
        Self { times: Some(1), ..Self::always(function, what) }
    }

    /// The same, of one GPU only.
    #[must_use]
    pub fn on(self, gpu: usize) -> Self {
        Self { gpu: Some(gpu), ..self }
    }

    fn is_of(&self, function: &str, gpu: Option<usize>) -> bool {
        self.function == function && (self.gpu.is_none() || self.gpu == gpu)
    }
}

/// What goes wrong in this call, if anything. It counts as one call.
pub(crate) fn draw(state: &mut State, function: &str, gpu: Option<usize>) -> Option<What> {
    let row = state.faults.iter().position(|fault| fault.is_of(function, gpu))?;
    let fault = &mut state.faults[row];
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    let what = fault.what.clone();
    match &mut fault.times {
        // It blocks for as long as the fault is there.
        Some(_) if what == What::Block => {}
        Some(1) => drop(state.faults.remove(row)),
        Some(times) => *times -= 1,
        None => {}
    }
    Some(what)
}

/// Whether a call that blocks still does.
pub(crate) fn blocks(state: &State, function: &str, gpu: Option<usize>) -> bool {
    state.faults.iter().any(|fault| fault.is_of(function, gpu) && fault.what == What::Block)
}
