//! What the errors that GPUs report (XIDs) mean for their health.
//!
//! Sources: NVIDIA's "XID Errors" for the meaning, and what NVIDIA's device plugin and DRA driver ignore.

use std::collections::BTreeMap;

use crate::gpu::Event;

/// Errors of programs, not of GPUs: the program that made them is killed, and the GPU is as good as before.
pub const OF_PROGRAMS: [(u64, &str); 6] = [
    (13, "a program's graphics engine exception"),
    (31, "a program touched memory that is not its own"),
    (43, "a program was stopped"),
    (45, "a program was ended before it was done"),
    (68, "a program's video decoder exception"),
    (109, "a program's context switch took too long"),
];

/// Errors after which a GPU is not to be used, and what to do. Any other that is not a program's counts as well.
const OF_GPUS: [(u64, &str); 10] = [
    (48, "memory had an error that could not be corrected: reset the GPU"),
    (62, "its microcontroller halted: reset the GPU"),
    (63, "a row of memory is to be remapped: reset the GPU when it is idle"),
    (64, "a row of memory could not be remapped: have the GPU replaced"),
    (74, "NVLink had an error: look at the links, then reset the GPU"),
    (79, "it fell off the bus: restart the node"),
    (94, "memory had an error, of which only the programs that used it know: restart them, reset the GPU when it is idle"),
    (95, "memory had an error that may reach all programs: reset the GPU"),
    (119, "its system processor does not answer: restart the node"),
    (140, "memory had an error that was not repaired: reset the GPU"),
];

/// What an error means: none if it was a program's.
#[must_use]
pub fn meaning(xid: u64) -> Option<String> {
    if OF_PROGRAMS.iter().any(|row| row.0 == xid) {
        return None;
    }
    let known = OF_GPUS.iter().find(|row| row.0 == xid).map(|row| row.1);
    let known = known.unwrap_or("an error of the GPU; look at the kernel's log (dmesg) and reset the GPU");
    Some(format!("XID {xid}: {known}; until this agent is started anew the GPU counts as ill"))
}

/// What is wrong with GPUs, from their errors since this program started.
#[derive(Clone, Debug, Default)]
pub struct Health {
    gpus: BTreeMap<String, String>,
    /// By GPU and GPU instance, of which the number is given again once it is destroyed.
    instances: BTreeMap<(String, u32), String>,
}

impl Health {
    /// An error was reported. Returns whether something is unhealthy that was not.
    pub fn hear(&mut self, event: &Event) -> bool {
        let Some(meaning) = meaning(event.xid) else {
            tracing::debug!(gpu = event.uuid, xid = event.xid, "an error of a program");
            return false;
        };
        tracing::warn!(gpu = event.uuid, instance = event.instance, "{meaning}");
        match event.instance {
            None => self.gpus.insert(event.uuid.clone(), meaning).is_none(),
            Some(instance) => self.instances.insert((event.uuid.clone(), instance), meaning).is_none(),
        }
    }

    /// What is wrong with a GPU as a whole.
    #[must_use]
    pub fn of_gpu(&self, gpu: &str) -> Option<&str> {
        self.gpus.get(gpu).map(String::as_str)
    }

    /// What is wrong with a GPU instance.
    #[must_use]
    pub fn of_instance(&self, gpu: &str, instance: u32) -> Option<&str> {
        self.instances.get(&(gpu.to_owned(), instance)).map(String::as_str)
    }

    /// A GPU instance is gone; the next of its number is another.
    pub(crate) fn forget_instance(&mut self, gpu: &str, instance: u32) {
        self.instances.remove(&(gpu.to_owned(), instance));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(xid: u64, instance: Option<u32>) -> Event {
        Event { uuid: "GPU-1".to_owned(), xid, instance }
    }

    #[test]
    fn errors_of_programs_are_no_illness() {
        let mut health = Health::default();
        for (xid, _) in OF_PROGRAMS {
            assert!(!health.hear(&event(xid, None)));
        }
        assert_eq!(health.of_gpu("GPU-1"), None);
    }

    #[test]
    fn an_error_is_of_the_gpu_or_of_an_instance() {
        let mut health = Health::default();
        assert!(health.hear(&event(94, Some(3))) && !health.hear(&event(94, Some(3))));
        assert_eq!(health.of_gpu("GPU-1"), None);
        assert!(health.of_instance("GPU-1", 3).is_some_and(|why| why.starts_with("XID 94")));
        assert!(health.hear(&event(4711, None)));
        assert!(health.of_gpu("GPU-1").is_some_and(|why| why.contains("dmesg")));
        health.forget_instance("GPU-1", 3);
        assert_eq!(health.of_instance("GPU-1", 3), None);
    }
}
