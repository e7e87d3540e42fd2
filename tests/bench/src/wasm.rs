//! What the policy host costs and what it stops.
