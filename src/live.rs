//! A value that is replaced as a whole while it is in use.

use std::sync::{Arc, PoisonError, RwLock};

/// Who has taken the current value keeps it, whole, for as long as he needs it; who comes later gets the new one.
#[derive(Debug, Default)]
pub struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, value: T) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(value));
        // Nobody waits while thousands of compiled feeds go.
        drop(current);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_stays_and_what_is_taken_later_is_new() {
        let live = Live::new(1);
        let taken = live.current();
        live.replace(2);
        assert_eq!((*taken, *live.current()), (1, 2));
    }
}
