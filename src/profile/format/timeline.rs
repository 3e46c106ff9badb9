//! What the request did, in order, for forms that have a time axis.

use crate::profile::Slice;

/// Returns slices in the order in which they begin. Neighbours with the same stack and state are merged.
pub(super) fn in_order(slices: &[Slice]) -> Vec<Slice> {
    let mut sorted = slices.to_vec();
    sorted.sort_by_key(|slice| slice.start_nanos);
    let mut merged: Vec<Slice> = Vec::with_capacity(sorted.len());
    for slice in sorted {
        match merged.last_mut() {
            Some(last)
                if (last.stack, last.state) == (slice.stack, slice.state)
                    && last.start_nanos.saturating_add(last.nanos) == slice.start_nanos =>
            {
                last.nanos = last.nanos.saturating_add(slice.nanos);
                last.count = last.count.saturating_add(slice.count);
            }
            _ => merged.push(slice),
        }
    }
    merged
}
