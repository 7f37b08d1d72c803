//! What the fuzz targets do with bytes. Each is run over its seeds by the ordinary tests, and by libFuzzer with `make fuzz`.
//!
//! A target panics where a promise is broken; libFuzzer notices panics of whatever thread, and what takes too long or too much memory.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is said by a panic")]

mod node;
mod payload;
mod reader;
mod script;

pub use payload::payload;
pub use reader::reader;
pub use script::script;

#[cfg(test)]
mod tests {
    /// What the fuzzer begins with, and what it has found wrong before.
    fn each_seed(target: &str, run: fn(&[u8])) {
        let folder = format!("{}/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> = std::fs::read_dir(folder).expect("seeds").map(|file| file.expect("a seed").path()).collect();
        files.sort();
        assert!(files.len() > 5, "the seeds are missing");
        for path in files {
            println!("{}", path.display());
            let seed = std::fs::read(path).expect("a seed");
            run(&seed);
            // Cut and bent, they are what the fuzzer looks at next.
            run(&seed[..seed.len() / 2]);
            let bent: Vec<u8> = seed.iter().enumerate().map(|(at, byte)| if at % 13 == 7 { !byte } else { *byte }).collect();
            run(&bent);
        }
    }

    #[test]
    fn requests_are_read_as_the_oracle_reads_them() {
        each_seed("reader", super::reader);
    }

    #[test]
    fn payloads_are_restored_whole_or_refused() {
        each_seed("payload", super::payload);
    }

    #[test]
    fn scripts_end_and_leave_nothing_behind() {
        each_seed("script", super::script);
    }
}
