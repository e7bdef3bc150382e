//! Pauses between tries.

use std::time::Duration;

/// Half the pause at least, so that workers that failed together do not come back together.
pub fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1000;
    pause / 2 + pause.mul_f64(random as f64 / 2000.0)
}
