//! Pure decisions: what to change, in which order.
