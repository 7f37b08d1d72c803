//! The data directory: `FORMAT` says whose it is and which format, `db/` is the RocksDB database. Checked before anything is opened, so
//! that a foreign or newer directory is refused untouched.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use super::EngineError;

/// Newest data format this version reads and writes.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_NAME: &str = "sluice-store data format";

/// Checks the directory, makes it ours when it is new, and returns where the database is.
pub(crate) fn prepare(path: &Path) -> Result<PathBuf, EngineError> {
    fs::create_dir_all(path).map_err(EngineError::directory(path))?;
    let format_path = path.join(FORMAT_FILE);
    match fs::read_to_string(&format_path) {
        Ok(text) => check_format(path, &text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(found) = first_entry(path)? {
                return Err(EngineError::Foreign { path: path.into(), found });
            }
            write_format(path, &format_path).map_err(EngineError::directory(&format_path))?;
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(EngineError::Foreign { path: path.into(), found: FORMAT_FILE.into() });
        }
        Err(error) => return Err(EngineError::directory(&format_path)(error)),
    }
    Ok(path.join("db"))
}

fn check_format(path: &Path, text: &str) -> Result<(), EngineError> {
    let foreign = || EngineError::Foreign { path: path.into(), found: FORMAT_FILE.into() };
    let number = text.strip_prefix(FORMAT_NAME).ok_or_else(foreign)?;
    let found: u32 = number.trim().parse().map_err(|_| foreign())?;
    if found > FORMAT {
        return Err(EngineError::Newer { path: path.into(), found, known: FORMAT });
    }
    Ok(())
}

/// What stands in the directory that is not ours; `lost+found` is part of a fresh volume.
fn first_entry(path: &Path) -> Result<Option<String>, EngineError> {
    for entry in fs::read_dir(path).map_err(EngineError::directory(path))? {
        let name = entry.map_err(EngineError::directory(path))?.file_name().to_string_lossy().into_owned();
        let interrupted = name == format!("{FORMAT_FILE}.new");
        if name != "lost+found" && !interrupted {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn write_format(directory: &Path, path: &Path) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    writeln!(file, "{FORMAT_NAME} {FORMAT}")?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_or_own_directory_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let fresh = root.path().join("fresh");
        assert_eq!(prepare(&fresh).unwrap(), fresh.join("db"));
        assert_eq!(prepare(&fresh).unwrap(), fresh.join("db"));

        let foreign = root.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("dump.rdb"), "REDIS0011").unwrap();
        assert!(matches!(prepare(&foreign), Err(EngineError::Foreign { found, .. }) if found == "dump.rdb"));
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "a refusal changes nothing");

        fs::write(fresh.join(FORMAT_FILE), format!("{FORMAT_NAME} 2\n")).unwrap();
        assert!(matches!(prepare(&fresh), Err(EngineError::Newer { found: 2, known: 1, .. })));
        fs::write(fresh.join(FORMAT_FILE), "something else").unwrap();
        assert!(matches!(prepare(&fresh), Err(EngineError::Foreign { .. })));
    }
}
