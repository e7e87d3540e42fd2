//! What a test does to the GPUs behind the back of the program.

use std::{fs, io, path::Path};

use partita_core::model::catalog;
use thiserror::Error;

use crate::{
    faults::Fault,
    geometry,
    machine::{Code, Gpu, Hold, State, Xid, uuid},
    shared::Shared,
};

/// Why the GPUs cannot be made or changed.
#[derive(Debug, Error)]
pub enum FakeError {
    /// The text names no GPUs.
    #[error("{0:?} names no GPUs that can be faked; write it like H100-80GB×2, several with commas; models: {1}")]
    Spec(String, String),
    /// The folder cannot be read or written.
    #[error("the folder of the GPUs: {0}; make it, and let this program write to it")]
    Folder(#[from] io::Error),
    /// A driver would not do it either.
    #[error("a driver would answer {0}")]
    Code(Code),
}

/// A machine with GPUs that do not exist.
#[derive(Debug)]
pub struct Fake {
    shared: Shared,
}

impl Fake {
    /// Puts GPUs into a folder: `H100-80GB×2`, or several such with commas. MIG is off.
    ///
    /// # Errors
    /// If the text names none, or the folder cannot be written.
    pub fn create(folder: &Path, spec: &str) -> Result<Self, FakeError> {
        fs::create_dir_all(folder)?;
        let mut state = State { driver: "580.65.06".to_owned(), profile_struct: 3, ..State::default() };
        for part in spec.split(',') {
            let bad = || FakeError::Spec(spec.to_owned(), catalog::names().collect::<Vec<_>>().join(", "));
            let (name, count) = part.trim().rsplit_once(['×', 'x', '*']).unwrap_or((part.trim(), "1"));
            let count: u32 = count.trim().parse().map_err(|_| bad())?;
            geometry::model(name.trim()).filter(|_| (1..=64).contains(&count)).ok_or_else(bad)?;
            for _ in 0..count {
                let number = state.gpus.len() as u32;
                let serial = state.next();
                state.gpus.push(Gpu {
                    model: name.trim().to_owned(),
                    product: format!("NVIDIA {}", name.trim().replace('-', " ")),
                    uuid: uuid("GPU", serial, 0),
                    index: number,
                    minor: number,
                    ..Gpu::default()
                });
            }
        }
        let fake = Self { shared: Shared::new(folder) };
        fake.shared.create(&state)?;
        Ok(fake)
    }

    /// The GPUs that are in a folder.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self { shared: Shared::new(folder) }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.shared.folder()
    }

    /// Everything as it is.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn state(&self) -> Result<State, FakeError> {
        Ok(self.shared.read(State::clone)?)
    }

    /// Changes anything.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn edit(&self, edit: impl FnOnce(&mut State)) -> Result<(), FakeError> {
        self.shared
            .change(|state| {
                edit(state);
                Ok::<(), Code>(())
            })?
            .map_err(FakeError::Code)
    }

    /// Switches MIG, whatever the driver would need for it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn set_mig(&self, gpu: usize, on: bool) -> Result<(), FakeError> {
        self.edit(|state| (state.gpus[gpu].mig, state.gpus[gpu].pending) = (on, on))
    }

    /// Somebody else makes a partition, with or without something that computes. Returns the id of the GPU instance.
    ///
    /// # Errors
    /// If a driver would refuse.
    pub fn make(&self, gpu: usize, profile: &str, start: u8, computes: bool) -> Result<u32, FakeError> {
        let made = self.shared.change(|state| {
            let grid = state.gpu(gpu)?.grid()?;
            let row = grid.resolve(profile).map_err(|_| crate::machine::INVALID_ARGUMENT)?;
            let kind = &grid.profiles[usize::from(row)];
            let serial = state.create(gpu, geometry::numbers(&grid, kind).1, (start.into(), kind.size.into()), false)?;
            if computes {
                let (id, _) = geometry::COMPUTE.iter().find(|one| one.1 == u32::from(kind.compute)).ok_or(crate::machine::NOT_SUPPORTED)?;
                state.create_compute(gpu, serial, *id, false)?;
            }
            Ok(state.gpu(gpu)?.by_serial(serial)?.id)
        })?;
        made.map_err(FakeError::Code)
    }

    /// A process uses a GPU, or one of its instances.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn hold(&self, gpu: usize, instance: Option<u32>, pid: u32) -> Result<(), FakeError> {
        self.edit(|state| state.gpus[gpu].holds.push(Hold { pid, instance, hidden: false, real: false }))
    }

    /// A monitor keeps a handle, which no list shows.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn keep_handle(&self, gpu: usize, instance: Option<u32>, pid: u32) -> Result<(), FakeError> {
        self.edit(|state| state.gpus[gpu].holds.push(Hold { pid, instance, hidden: true, real: false }))
    }

    /// A process of this machine uses a GPU as a whole, until it ends.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn hold_process(&self, gpu: usize, pid: u32) -> Result<(), FakeError> {
        self.edit(|state| state.gpus[gpu].holds.push(Hold { pid, instance: None, hidden: false, real: true }))
    }

    /// A process ends.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn end(&self, pid: u32) -> Result<(), FakeError> {
        self.edit(|state| state.gpus.iter_mut().for_each(|gpu| gpu.holds.retain(|hold| hold.pid != pid)))
    }

    /// Something goes wrong from now on.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn fault(&self, fault: Fault) -> Result<(), FakeError> {
        self.edit(|state| state.faults.push(fault))
    }

    /// Nothing goes wrong any more.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn heal(&self) -> Result<(), FakeError> {
        self.edit(|state| state.faults.clear())
    }

    /// A GPU reports an error.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn xid(&self, gpu: usize, xid: u64, instance: Option<u32>) -> Result<(), FakeError> {
        self.edit(|state| {
            let serial = state.next();
            state.events.push(Xid { serial, gpu, xid, instance });
        })
    }

    /// The GPUs get other indices and minor numbers.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn renumber(&self) -> Result<(), FakeError> {
        self.edit(|state| {
            let last = state.gpus.len() as u32 - 1;
            for gpu in &mut state.gpus {
                (gpu.index, gpu.minor) = (last - gpu.index, last - gpu.index);
            }
        })
    }

    /// A GPU is taken out and another of its model put in.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn replace(&self, gpu: usize) -> Result<(), FakeError> {
        self.edit(|state| {
            let serial = state.next();
            state.gpus[gpu].uuid = uuid("GPU", serial, state.boots);
            state.gpus[gpu].reset(true);
        })
    }

    /// A GPU is reset, which its driver allows only when nobody uses it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn reset(&self, gpu: usize) -> Result<(), FakeError> {
        self.edit(|state| state.gpus[gpu].reset(false))
    }

    /// The machine is started anew.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn reboot(&self) -> Result<(), FakeError> {
        self.edit(|state| {
            state.boots += 1;
            state.events.clear();
            state.gpus.iter_mut().for_each(|gpu| gpu.reset(true));
        })
    }
}
