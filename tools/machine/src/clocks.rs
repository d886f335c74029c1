//! Clocks that can be made to jump, for runs with faults: libfaketime, loaded into a process before its own libraries,
//! adds what a file says to the time of day. <https://github.com/wolfcw/libfaketime>

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::layout::Layout;
use crate::spec::Spec;
use crate::state::service_of;
use crate::system::enters;

/// The processes whose clocks jump: those that decide by the time of day.
const JUMPERS: [&str; 5] = ["user", "product", "order", "payment-sandbox", "postgres"];

/// The library, where the system's package manager puts it. The variant for threads.
pub fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let files = folders.map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.is_file())
}

/// Forgets what the library keeps in shared memory for processes that are no more: killed ones leave it behind.
pub fn sweep() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("faketime_shm_").or_else(|| name.strip_prefix("sem.faketime_sem_"));
        if pid.is_some_and(|pid| !PathBuf::from("/proc").join(pid).exists()) {
            // Somebody else's is not ours to remove.
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub struct Clocks {
    library: PathBuf,
    /// A file for each clock, named like its process: how many seconds it is ahead, as in `+10` or `-3600`.
    folder: PathBuf,
}

impl Clocks {
    /// `None` without the library.
    pub fn new(layout: &Layout) -> Result<Option<Clocks>> {
        let Some(library) = library() else { return Ok(None) };
        let folder = layout.dir.join("clocks");
        fs::create_dir_all(&folder)?;
        Ok(Some(Clocks { library, folder }))
    }

    /// Makes the clock of a process one that can jump.
    pub fn attach(&self, spec: &mut Spec) -> Result<()> {
        let reachable = spec.run_as.as_ref().is_none_or(|user| enters(user, &self.folder));
        if spec.container.is_some() || !JUMPERS.contains(&service_of(&spec.name)) || !reachable {
            return Ok(());
        }
        let file = self.folder.join(&spec.name);
        fs::write(&file, "+0\n")?;
        let settings = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            // Seconds until the file is read again.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            // Timers go by the clock that never jumps.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        spec.env.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        Ok(())
    }
}
