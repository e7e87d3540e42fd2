//! partita's own objects, as a watch sees them: the same types as in [`crate::crd`], part by part.

use super::{Kind, Lean};
use crate::crd;

macro_rules! custom {
    ($(#[$doc:meta])* $alias:ident, $kind:ident, $typed:ty, $spec:ty, $status:ty) => {
        $(#[$doc])*
        pub type $alias = Lean<$kind>;

        /// Names the kind of object.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $kind;

        impl Kind for $kind {
            type Typed = $typed;
            type Spec = $spec;
            type Status = $status;
        }
    };
}

custom!(
    /// GPUs of a node: what the scheduler wants and what the agent found.
    GpuNode,
    GpuNodeKind,
    crd::GpuNode,
    crd::GpuNodeSpec,
    crd::GpuNodeStatus
);
custom!(
    /// The quota of a namespace.
    Quota,
    QuotaKind,
    crd::ElasticQuota,
    crd::ElasticQuotaSpec,
    crd::QuotaStatus
);
custom!(
    /// The quota of several namespaces.
    CompositeQuota,
    CompositeQuotaKind,
    crd::CompositeElasticQuota,
    crd::CompositeElasticQuotaSpec,
    crd::QuotaStatus
);
custom!(
    /// A revision of a policy.
    PolicyObject,
    PolicyKind,
    crd::Policy,
    crd::PolicySpec,
    crd::PolicyStatus
);
custom!(
    /// Which policies namespaces use.
    SelectionObject,
    SelectionKind,
    crd::PolicySelection,
    crd::PolicySelectionSpec,
    crd::PolicySelectionStatus
);
