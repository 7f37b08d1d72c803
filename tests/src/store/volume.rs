//! Small file systems that can be filled, broken and mended. They need root and mount(8): without, the test that wants one fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// Bytes of a block of ext4, as it is made here.
const BLOCK: u64 = 4096;

/// A mounted file system. Dropped, it is unmounted.
pub struct Volume {
    path: PathBuf,
    image: Option<PathBuf>,
    mounted: bool,
}

impl Volume {
    /// A file system in memory of that size, mounted at `path`.
    pub fn memory(path: impl Into<PathBuf>, size: &str) -> anyhow::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path))?;
        Ok(Self { path, image: None, mounted: true })
    }

    /// An ext4 file system in an image file of that size, mounted at `path`. It turns read-only at its first error.
    pub fn ext4(path: impl Into<PathBuf>, image: impl Into<PathBuf>, bytes: u64) -> anyhow::Result<Self> {
        let (path, image) = (path.into(), image.into());
        fs::create_dir_all(&path)?;
        fs::File::create(&image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-J", "size=4", "-m", "0", "-b", "4096", "-N", "1024"]).arg(&image))?;
        let mut volume = Self { path, image: Some(image), mounted: false };
        volume.mount()?;
        Ok(volume)
    }

    /// An ext4 file system whose own records, and the first `backed` of its `bytes`, have blocks behind them on `below`, and nothing
    /// else has: files that grow past it are found out when they are synced. More room on `below` mends that.
    pub fn thin(path: impl Into<PathBuf>, below: &Volume, bytes: u64, backed: u64) -> anyhow::Result<Self> {
        let image = below.path.join("image");
        let mut volume = Self::ext4(path, &image, bytes)?;
        volume.unmount()?;
        // What mkfs left as holes gets blocks; then what no record of the file system needs loses them.
        run(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(&image))?;
        let found = Command::new("dumpe2fs").arg(&image).output()?;
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        // The first such line counts them, the others are of the groups and name them.
        for range in found.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")).flat_map(|line| line.split(", ")) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let Ok(first) = first.parse::<u64>() else { continue };
            let (first, last) = (first.max(backed / BLOCK), last.parse::<u64>()?);
            if first <= last {
                let [offset, length] = [first * BLOCK, (last + 1 - first) * BLOCK].map(|number| number.to_string());
                run(Command::new("fallocate").args(["-p", "-o", &offset, "-l", &length]).arg(&image))?;
            }
        }
        let used = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image)?) * 512;
        below.remount(&format!("size={}", used + (1 << 20)))?;
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts an image again, mended first.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        let image = self.image.as_ref().context("a file system in memory is gone once it is unmounted")?;
        // 1 and 2: it was mended.
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(image).output()?;
        ensure!(checked.status.code().is_some_and(|code| code < 4), "e2fsck: {}", String::from_utf8_lossy(&checked.stdout));
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(&self.path))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it. Nothing may have a file open.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.path))?;
        self.mounted = false;
        Ok(())
    }

    /// Changes mount options, such as `ro` or `size=64m`.
    pub fn remount(&self, options: &str) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.path))
    }

    /// Has ext4 find an error, so that it turns read-only under whoever is writing.
    pub fn break_it(&self) -> anyhow::Result<()> {
        let device = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.path).output()?;
        let device = String::from_utf8(device.stdout)?;
        let name = device.trim().rsplit('/').next().context("the mount has no device")?;
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(&trigger, "1").with_context(|| format!("{trigger} cannot be written"))
    }

    /// Fills it with a file until that many bytes are left.
    pub fn fill(&self, left: u64) -> anyhow::Result<PathBuf> {
        let ballast = self.path.join("ballast");
        // In one go: what is given up because of it is not taken as well. Others may take some of it meanwhile.
        let mut spare = 0;
        loop {
            let size = self.free()?.saturating_sub(left + spare);
            ensure!(size > 0, "{} cannot be filled", self.path.display());
            if allocate(&ballast, size)? {
                return Ok(ballast);
            }
            spare = (spare * 2).max(BLOCK);
        }
    }

    /// Bytes free.
    pub fn free(&self) -> anyhow::Result<u64> {
        let output = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&self.path).output()?;
        let text = String::from_utf8(output.stdout)?;
        let (blocks, size) = text.trim().split_once(' ').context("stat -f says nothing")?;
        Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
    }
}

fn allocate(path: &Path, bytes: u64) -> anyhow::Result<bool> {
    Ok(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(path).output()?.status.success())
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            // A store that is being killed may hold it for a moment: detached, it goes with the last file.
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed; this test needs root and the right to mount: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
