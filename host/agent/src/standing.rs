//! How the agent is, in one sentence.

use std::collections::BTreeSet;

use partita_kube::{crd::GpuNodeSpec, translate::keys::PARTITIONING};

use crate::{object::Seen, pass::Agent, report::Standing, wish::Rule};

/// Why an agent that has left its node does nothing: the end of its work there.
pub(crate) const RESTORED: &str = "Restored";

impl Agent {
    /// What is told where nothing keeps the agent from working.
    pub(crate) fn standing(&self, seen: &Seen) -> Standing {
        let said = |ready, reason, message: String| Standing { ready, reason, message };
        if let Some(why) = &self.taken.refused {
            return said(false, "LayoutRefused", why.clone());
        }
        if Self::rule(seen) == Rule::Off {
            return self.leaving();
        }
        if self.found.is_empty() {
            return said(true, "NoGpus", "the driver lists no GPU; look at nvidia-smi on the node if it should".to_owned());
        }
        if let Some(label) = seen.node.as_ref().and_then(|node| node.nonsense.as_ref()) {
            let known = Rule::NAMES;
            let message = format!(
                "the node's label {PARTITIONING} is {label:?}, so no GPU is cut or shared otherwise than it is: make it {known}, or remove it"
            );
            return said(true, "LabelUnknown", message);
        }
        if let Some(damage) = self.machine.as_ref().and_then(|machine| machine.damage.as_ref()) {
            return said(true, "CheckpointWasDamaged", damage.clone());
        }
        if let Some(strangers) = self.taken.layout.as_ref().and_then(|layout| self.strangers(layout)) {
            let message = format!("the layout names GPUs that this node's driver does not list, and they are left out: {strangers}");
            return said(true, "UnknownGpus", message);
        }
        said(true, "Works", String::new())
    }

    fn leaving(&self) -> Standing {
        let off = format!("the node's label {PARTITIONING} is off");
        if self.is_left() {
            return Standing { ready: true, reason: RESTORED, message: format!("{off}, and its GPUs are as they were found") };
        }
        let left = self.found.iter().filter(|one| !self.restored.contains(&one.gpu.info.uuid)).count();
        let what = if left == 0 { "pods still use its GPUs".to_owned() } else { format!("{left} GPUs are not as they were found yet") };
        let message = format!(
            "{off}; {what}: it goes on when the pods that use them have ended, and each GPU's message says what else is in the way"
        );
        Standing { ready: true, reason: "Restoring", message }
    }

    /// The GPUs of a layout that nobody knows here.
    fn strangers(&self, layout: &GpuNodeSpec) -> Option<String> {
        let known: BTreeSet<&str> = self.found.iter().map(|one| one.gpu.info.uuid.as_str()).collect();
        let strangers: Vec<&str> = layout.gpus.iter().map(|gpu| gpu.uuid.as_str()).filter(|uuid| !known.contains(uuid)).collect();
        (!strangers.is_empty()).then(|| strangers.join(", "))
    }
}
