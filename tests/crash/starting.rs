//! Starts that must be refused, each with a reason that helps, and with nothing changed.

use std::{fs, net::TcpListener, path::Path, process::Command};

use anyhow::ensure;
use sluice_tests::store::{Setup, free_port, settings_of_this_run};

/// Runs a command that must fail, and returns what it said.
fn refused(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "it was not refused");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn listing(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_newer_and_used_directories_are_refused() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let foreign = root.path().join("foreign");
    fs::create_dir(&foreign)?;
    fs::write(foreign.join("dump.rdb"), "REDIS0011")?;
    let said = refused(&mut Setup::new(&foreign, &[])?.command()?)?;
    ensure!(said.contains("is not a data directory of Sluice: it holds `dump.rdb`"), "{said}");
    ensure!(listing(&foreign)? == ["dump.rdb"], "a refusal changes nothing");

    let setup = Setup::new(root.path().join("data"), &[])?;
    let store = setup.start().await?;
    let second = Setup { port: free_port()?, admin_port: free_port()?, ..setup.clone() };
    let said = refused(&mut second.command()?)?;
    ensure!(said.contains("is in use by another process"), "{said}");
    ensure!(store.terminate().await?.success(), "{}", store.log());

    fs::write(setup.directory.join("FORMAT"), "sluice-store data format 99\n")?;
    let said = refused(&mut setup.command()?)?;
    ensure!(said.contains("has data format 99, this version reads up to 1"), "{said}");
    Ok(())
}

#[test]
fn used_ports_and_wrong_settings_are_refused() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let mut setup = Setup::new(root.path().join("data"), &[])?;
    setup.port = taken.local_addr()?.port();
    let said = refused(&mut setup.command()?)?;
    ensure!(said.contains(&format!("port {} on 127.0.0.1 is in use by another process", setup.port)), "{said}");
    for (name, value, expected) in [
        ("max-clients", "1", "there is no setting `max-clients`; the nearest is `maxclients`"),
        ("sync", "sometimes", "it has to be always, everysec or no"),
        ("rocksdb.max_background_jobs", "0", "flushes and compactions need one each"),
    ] {
        let said = refused(&mut Setup::new(root.path().join("data"), &[(name, value)])?.command()?)?;
        ensure!(said.contains(expected), "{said}");
    }
    ensure!(!root.path().join("data").exists(), "a refusal changes nothing");
    Ok(())
}

/// Every store of these tests has the settings that the run asks for, or the pass with others would show nothing.
#[tokio::test(flavor = "multi_thread")]
async fn stores_have_the_settings_of_the_run() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let found = async |settings: &[(&str, &str)], name: &str| {
        let store = Setup::new(root.path().join("data"), settings)?.start().await?;
        let mut client = store.client().await?;
        anyhow::Ok(redis::cmd("CONFIG").arg("GET").arg(name).query_async::<Vec<String>>(&mut client).await?)
    };
    let all = [("rocksdb.row_cache_size", "0", "1mb", "1048576"), ("collection-packed-max-bytes", "512", "1kb", "1024")];
    for (name, usual, other, in_bytes) in all {
        let of_run = settings_of_this_run().into_iter().find(|(one, _)| one == name).map_or(usual.to_owned(), |(_, value)| value);
        // Said by the store itself in the one form it has for it.
        ensure!(found(&[], name).await? == found(&[(name, &of_run)], name).await?, "{name} {of_run} is what the run asks for");
        ensure!(found(&[(name, other)], name).await? == [name, in_bytes], "a test that names a {name} has it");
    }
    Ok(())
}
