//! What the process takes of the machine, and what its runtime does.

use std::time::Instant;

use tokio::runtime::Handle;

use super::metrics::{label, meter, observed};

/// Places of the fields behind the name in `/proc/self/stat`: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// Shows them from now on. To be called in the runtime.
pub(super) fn observe() {
    let (meter, begun, runtime) = (meter(), Instant::now(), Handle::current().metrics());
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Processor time used.")
        .with_callback(|observer| {
            if let Some([user, system]) = cpu_seconds() {
                observer.observe(user, &[label("cpu.mode", "user")]);
                observer.observe(system, &[label("cpu.mode", "system")]);
            }
        })
        .build();
    meter
        .f64_observable_gauge("process.uptime")
        .with_unit("s")
        .with_description("Time since the process began.")
        .with_callback(move |observer| observer.observe(begun.elapsed().as_secs_f64(), &[]))
        .build();
    observed("process.memory.usage", "By", "Memory that is resident.", &[], resident);
    let description = "Files, sockets and pipes that are open.";
    observed("process.unix.file_descriptor.count", "{file_descriptor}", description, &[], open_files);

    let tokio = runtime.clone();
    observed("tokio.runtime.workers", "{thread}", "Threads that run tasks.", &[], move || {
        Some(tokio.num_workers())
    });
    let tokio = runtime.clone();
    observed("tokio.runtime.alive_tasks", "{task}", "Tasks that have not ended.", &[], move || {
        Some(tokio.num_alive_tasks())
    });
    let (tokio, description) = (runtime.clone(), "Tasks that wait in the queue that all threads share.");
    observed("tokio.runtime.global_queue_depth", "{task}", description, &[], move || {
        Some(tokio.global_queue_depth())
    });
    #[cfg(target_has_atomic = "64")]
    meter
        .f64_observable_counter("tokio.runtime.busy_time")
        .with_unit("s")
        .with_description("Time that threads have run tasks, all threads together.")
        .with_callback(move |observer| {
            let busy = (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker));
            observer.observe(busy.sum::<std::time::Duration>().as_secs_f64(), &[]);
        })
        .build();
}

/// In user and in system mode; `None` where there is no procfs.
fn cpu_seconds() -> Option<[f64; 2]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may have spaces and brackets in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let seconds = |place: usize| Some(fields.get(place)?.parse::<u64>().ok()? as f64 / ticks);
    Some([seconds(USER_TIME)?, seconds(SYSTEM_TIME)?])
}

fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

fn open_files() -> Option<usize> {
    // One of them is the folder itself, which is closed again.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_what_the_process_takes() {
        let mut sum = 0_u64;
        while cpu_seconds().expect("there is procfs").iter().sum::<f64>() < 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(resident().expect("there is procfs") > 100_000);
        assert!((3..10_000).contains(&open_files().expect("there is procfs")));
    }
}
