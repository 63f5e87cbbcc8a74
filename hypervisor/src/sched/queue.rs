//! A queue sorted by a number: run queues (by virtual time) and timer queues (by deadline).
//!
//! Room is reserved when a vCPU is created ([`SortedQueue::try_reserve`]), so that inserting, which happens on paths
//! that may not fail, never allocates. Queues are short (vCPUs waiting on one CPU); a sorted vector beats anything
//! with pointers there.

use crate::fallible::OutOfMemory;
use alloc::vec::Vec;

/// Entries sorted by key; equal keys come out in the order they went in.
pub struct SortedQueue<T> {
    /// Largest key first, so that the smallest is popped off the end.
    entries: Vec<(u64, T)>,
}

impl<T> SortedQueue<T> {
    /// An empty queue without room.
    pub const fn new() -> Self {
        SortedQueue { entries: Vec::new() }
    }

    /// Makes room for `total` entries.
    pub fn try_reserve(&mut self, total: usize) -> Result<(), OutOfMemory> {
        let more = total.saturating_sub(self.entries.len());
        self.entries.try_reserve(more).map_err(|_| OutOfMemory)
    }

    /// Inserts; gives the entry back when the queue has no room (never, if room was reserved).
    pub fn insert(&mut self, key: u64, value: T) -> Result<(), T> {
        if self.entries.len() == self.entries.capacity() {
            return Err(value);
        }
        let at = self.entries.partition_point(|(k, _)| *k > key);
        self.entries.insert(at, (key, value));
        Ok(())
    }

    /// Smallest key.
    pub fn first_key(&self) -> Option<u64> {
        self.entries.last().map(|(k, _)| *k)
    }

    /// Takes the entry with the smallest key.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        self.entries.pop()
    }

    /// Takes the first entry (smallest key first) that `pick` accepts.
    pub fn take(&mut self, mut pick: impl FnMut(&T) -> bool) -> Option<(u64, T)> {
        let at = self.entries.iter().rposition(|(_, v)| pick(v))?;
        Some(self.entries.remove(at))
    }

    /// Takes an entry of known key that `pick` accepts.
    pub fn remove(&mut self, key: u64, mut pick: impl FnMut(&T) -> bool) -> Option<T> {
        let from = self.entries.partition_point(|(k, _)| *k > key);
        let same = self.entries.iter().skip(from).take_while(|(k, _)| *k == key).position(|(_, v)| pick(v))?;
        Some(self.entries.remove(from + same).1)
    }

    /// The entries, smallest key first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().rev().map(|(_, v)| v)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for SortedQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pops_in_order_and_is_fair_among_equals() {
        let mut q = SortedQueue::new();
        q.try_reserve(5).unwrap();
        for (k, v) in [(3, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (9, 'e')] {
            q.insert(k, v).unwrap();
        }
        assert_eq!(q.first_key(), Some(1));
        assert_eq!(q.take(|v| *v == 'c'), Some((2, 'c')));
        let order: std::string::String = core::iter::from_fn(|| q.pop().map(|(_, v)| v)).collect();
        // Equal keys: the later insert lands nearer the large end, so the earlier one comes out first.
        assert_eq!(order, "bdae");
    }

    #[test]
    fn removes_by_key() {
        let mut q = SortedQueue::new();
        q.try_reserve(4).unwrap();
        for (k, v) in [(3, 'a'), (1, 'b'), (1, 'c'), (2, 'd')] {
            q.insert(k, v).unwrap();
        }
        assert_eq!(q.remove(2, |v| *v == 'b'), None, "another key");
        assert_eq!(q.remove(1, |v| *v == 'b'), Some('b'));
        assert_eq!(q.remove(1, |v| *v == 'b'), None);
        assert_eq!(q.remove(3, |_| true), Some('a'));
        assert_eq!(q.len(), 2);
    }

    #[test]
    fn refuses_to_grow() {
        let mut q: SortedQueue<u8> = SortedQueue::new();
        assert_eq!(q.insert(1, 7), Err(7));
    }
}
