//! The memory that the container lets this process have: the smallest limit of its control group and of those above it.

use std::{fs, path::Path};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The limit in bytes; `None`: there is none.
pub(super) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit(Path::new(ROOT), &groups)
}

/// The limit of the groups that `/proc/self/cgroup` names. In a container the mount may begin at the container's own group, while the
/// names still begin at the host's: then what they name is not there, and the mount's first group is the one.
fn limit(root: &Path, groups: &str) -> Option<u64> {
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.is_empty() {
            smallest(root, group, "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            smallest(&root.join("memory"), group, "memory.limit_in_bytes")
        } else {
            None
        }
    };
    groups.lines().filter_map(of).min()
}

fn smallest(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok();
    let own = mount.join(group.trim_start_matches('/'));
    // Version 1 says "none" as a number no machine has.
    own.ancestors().take_while(|path| path.starts_with(mount)).filter_map(read).filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_holds() {
        let v2 = tree(&[("memory.max", "max\n"), ("pod/memory.max", "512\n"), ("pod/store/memory.max", "1024\n")]);
        assert_eq!(limit(v2.path(), "0::/pod/store\n"), Some(512));
        assert_eq!(limit(v2.path(), "0::/elsewhere\n"), None);
        let v1 = tree(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/job/memory.limit_in_bytes", "4096\n"),
            ("cpu/job/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(limit(v1.path(), "5:cpu:/job\n4:memory:/job\n0::/\n"), Some(4096));
        assert_eq!(limit(v1.path(), "4:cpu,memory:/\n"), None);
    }

    #[test]
    fn a_container_that_sees_its_own_group_alone_finds_it() {
        let v2 = tree(&[("memory.max", "2048\n")]);
        assert_eq!(limit(v2.path(), "0::/kubepods/pod1/store\n"), Some(2048));
        assert_eq!(limit(v2.path(), ""), None);
    }
}
