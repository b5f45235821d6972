//! File systems of their own, for what can go wrong with a disk. Making one needs root.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;

/// A file system of its own: an ext4 image on a loop device. It can be full, and it can lose its power.
pub(crate) struct Disk {
    temp: TempDir,
    mounted: bool,
}

impl Disk {
    /// One of this size, or `None` where there can be none; but under CI there must be one.
    pub(crate) fn new(size_mib: u64) -> Option<Self> {
        match Self::make(size_mib << 20) {
            Ok(disk) => Some(disk),
            Err(reason) => {
                super::skip(&format!(
                    "no disk: {reason}; root, loop devices, mkfs.ext4, mount and python3 are needed"
                ));
                None
            }
        }
    }

    /// Makes and mounts one, or says why this machine cannot.
    fn make(size_bytes: u64) -> Result<Self, String> {
        let temp = TempDir::new().map_err(|e| e.to_string())?;
        fs::create_dir(temp.path().join("mnt")).map_err(|e| e.to_string())?;
        let mut disk = Self { temp, mounted: false };
        let image = disk.image();
        let file = fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(size_bytes).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", "-F", path(&image)])?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.temp.path().join("disk.img")
    }

    /// Where it is mounted.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.temp.path().join("mnt")
    }

    /// Mounts it (again).
    pub(crate) fn mount(&mut self) -> Result<(), String> {
        run("mount", &["-o", "loop", path(&self.image()), path(&self.mount_point())])?;
        self.mounted = true;
        Ok(())
    }

    /// Makes everything ready for [`Switch::cut_power`].
    pub(crate) fn switch(&self) -> Switch {
        let script = "import fcntl,os,struct,sys\n\
                      fd=os.open(sys.argv[1],os.O_RDONLY)\n\
                      print('ready',flush=True)\n\
                      sys.stdin.read(1)\n\
                      fcntl.ioctl(fd,0x8004587d,struct.pack('I',2))";
        let mut child = Command::new("python3")
            .args(["-c", script, path(&self.mount_point())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut ready = [0; 5];
        child.stdout.as_mut().expect("it was piped").read_exact(&mut ready).expect("python3 opens the disk");
        Switch { child }
    }

    /// Unmounts it; nothing may use it any more.
    pub(crate) fn unmount(&mut self) {
        eventually("the disk is unmounted", || run("umount", &[path(&self.mount_point())]).ok());
        self.mounted = false;
    }
}

/// A helper that waits for the word. Unsafe code is forbidden in this workspace, so the ioctl is made in another
/// language: EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (2).
pub(crate) struct Switch {
    child: Child,
}

impl Switch {
    /// From now on nothing reaches the disk, and what had not is lost.
    pub(crate) fn cut_power(mut self) {
        self.child.stdin.take().expect("it was piped").write_all(b"!").expect("the helper listens");
        assert!(self.child.wait().expect("it is our child").success(), "the power was not cut");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run("umount", &["-l", path(&self.mount_point())]);
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
