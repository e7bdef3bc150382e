//! What the process takes of the machine, read from `/proc` at each scrape.

use std::{fs, sync::OnceLock};

use prometheus::Registry;

use super::{list, register::Registrar};

/// What Linux counts processor time in towards programs, on every architecture of today (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what can be read; what can't is left out.
pub fn describe(registry: &Registry) {
    let registrar = Registrar(registry);
    if let Some(bytes) = resident_bytes() {
        registrar.fraction(&list::RESIDENT_BYTES).set(bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        registrar.seconds(&list::CPU_SECONDS).inc_by(seconds);
    }
    registrar.fraction(&list::STARTED_AT).set(started_at());
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may have spaces in it; the fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// When this was asked first, which the start of a process does.
pub fn started_at() -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    *STARTED.get_or_init(|| jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_memory_and_its_time() {
        assert!(resident_bytes().unwrap() > 1e6);
        assert!(cpu_seconds().unwrap() >= 0.0);
        assert!(started_at() > 1.7e9);
    }
}
