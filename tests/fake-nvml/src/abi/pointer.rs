//! What programs hand over: places to write to, and handles.

use std::ffi::{CStr, c_char};

use super::INSUFFICIENT_SIZE;
use crate::{
    handles::Handle,
    machine::{Code, INVALID_ARGUMENT},
};

/// A place to write to, null or valid: only callers of the C functions make one, and those functions demand it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// Writes.
    pub(super) fn put(self, value: T) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the contract of every function here says that it is valid for a write then.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Reads what the caller wrote there.
    pub(super) fn get(self) -> Result<T, Code> {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the contract of every function here says that it holds a value then.
        Ok(unsafe { self.0.read() })
    }

    /// The same place, as another struct that begins alike. The caller has told by its version which one it is.
    pub(super) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes a list, if `count` says that there is room for it, and how long it is in any case.
    pub(super) fn list(self, count: Out<u32>, values: &[T]) -> Result<(), Code> {
        let room = count.get()? as usize;
        count.put(values.len() as u32)?;
        if room < values.len() {
            return Err(INSUFFICIENT_SIZE);
        }
        if self.0.is_null() && !values.is_empty() {
            return Err(INVALID_ARGUMENT);
        }
        for (row, &value) in values.iter().enumerate() {
            // SAFETY: the caller told that there is room for `room` values, and `row` is below.
            unsafe { self.0.add(row).write(value) };
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes a text with its end, if there is room.
    pub(super) fn text(self, room: u32, text: &str) -> Result<(), Code> {
        let bytes: Vec<c_char> = text.bytes().chain([0]).map(u8::cast_signed).collect();
        if bytes.len() > room as usize {
            return Err(INSUFFICIENT_SIZE);
        }
        for (row, &byte) in bytes.iter().enumerate() {
            // SAFETY: the caller told that there is room for `room` bytes, and `row` is below.
            unsafe { self.0.add(row).write(byte) };
        }
        Ok(())
    }
}

/// A text that is handed over, null or ended by a zero.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(super) fn read(self) -> Result<String, Code> {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the contract of the functions that take one says that it ends with a zero then.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| INVALID_ARGUMENT)
    }
}

/// A handle as it is handed over.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Ref(usize);

impl Ref {
    pub(super) fn to(handle: Handle) -> Self {
        Self(handle.encode())
    }

    pub(super) fn handle(self) -> Result<Handle, Code> {
        Handle::decode(self.0).ok_or(INVALID_ARGUMENT)
    }
}

/// The first bytes of a text, for a field of a struct.
pub(super) fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, byte) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = byte.cast_signed();
    }
    field
}
