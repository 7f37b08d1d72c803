//! Waiting for a condition, with a bound and the last thing seen when it is not met.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Asks until there is an answer. `Ok(Err(text))` says what is the case instead; an error is one more thing that is the case.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> anyhow::Result<Result<T, String>>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        let instead = match ask() {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(instead)) => instead,
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() > limit {
            bail!("waited {} s for {what}; instead: {instead}", limit.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Asks until it is so.
pub fn wait_until(what: &str, limit: Duration, mut ask: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    wait_for(what, limit, || Ok(if ask()? { Ok(()) } else { Err("it is not so".into()) }))
}
