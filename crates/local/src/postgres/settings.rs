//! Settings that follow from a node's size: a pure function, so that a plan can say what a change costs.

use model::{ByteSize, Size};

const MB: u64 = ByteSize::MB;

/// For every size the same: a standby refuses to follow a primary that allows more than itself, and nodes of one cluster
/// get another size one after the other. An idle place costs some kilobytes; how many should
/// work at once is [`Settings::busy_connections`].
const MAX_CONNECTIONS: u32 = 400;
/// Of those, for who does not come through the proxy.
const KEPT_CONNECTIONS: u32 = 20;
/// An app whose transactions wait for something needs a few at once, however small its database.
const FEWEST_BUSY: u64 = 5;

/// What depends on size. Everything else about a node's configuration is the same for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub max_connections: u32,
    /// How many the proxy opens at most. No setting of PostgreSQL's.
    pub busy_connections: u32,
    pub shared_buffers: ByteSize,
    /// What the planner may assume to be cached, here and in the page cache.
    pub effective_cache_size: ByteSize,
    /// For each sort or hash of each query.
    pub work_mem: ByteSize,
    pub maintenance_work_mem: ByteSize,
    pub max_parallel_workers: u32,
    pub max_parallel_workers_per_gather: u32,
}

/// What it takes to go from one [`Settings`] to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    None,
    /// SIGHUP: no session notices.
    Reload,
    /// Open sessions end; new ones wait at the proxy.
    Restart,
}

/// The settings for a node of this size. An unlimited node shares the machine with the app, so it stays modest.
///
/// `machine_memory` and `machine_cores` are what the daemon sees, its own control group considered.
pub fn memory_settings(size: &Size, machine_memory: ByteSize, machine_cores: u32) -> Settings {
    let cores = match size.cpu {
        // Part of a core is still one worker.
        Some(cpu) => cpu.millis().div_ceil(1_000).min(machine_cores.max(1)),
        None => machine_cores.max(1),
    };
    let parallel = (cores, (cores / 2).min(4));
    match size.memory {
        Some(memory) => limited(memory.bytes().min(machine_memory.bytes().max(64 * MB)), parallel),
        None => Settings {
            max_connections: MAX_CONNECTIONS,
            busy_connections: 100,
            shared_buffers: megabytes(128 * MB),
            effective_cache_size: megabytes((machine_memory.bytes() / 2).max(256 * MB)),
            work_mem: megabytes(4 * MB),
            maintenance_work_mem: megabytes(64 * MB),
            max_parallel_workers: parallel.0,
            max_parallel_workers_per_gather: parallel.1,
        },
    }
}

fn limited(memory: u64, (max_parallel_workers, max_parallel_workers_per_gather): (u32, u32)) -> Settings {
    let shared_buffers = (memory / 4).clamp(8 * MB, 16 * ByteSize::GB);
    let busy_connections = busy_connections(memory);
    // A quarter of what is left, if every connection sorts at once.
    let work_mem =
        ((memory - shared_buffers.min(memory)) / 4 / u64::from(busy_connections)).clamp(MB, 64 * MB);
    Settings {
        max_connections: MAX_CONNECTIONS,
        busy_connections,
        shared_buffers: megabytes(shared_buffers),
        effective_cache_size: megabytes((memory / 4 * 3).max(16 * MB)),
        work_mem: megabytes(work_mem),
        maintenance_work_mem: megabytes((memory / 16).clamp(8 * MB, 2 * ByteSize::GB)),
        max_parallel_workers,
        max_parallel_workers_per_gather,
    }
}

/// A backend that does something takes some megabytes of its own: 10 MB of memory for each keeps the sum of them below the
/// limit, over which the kernel kills one and PostgreSQL ends all. Some places are left for the daemon, the standbys and an
/// operator.
fn busy_connections(memory: u64) -> u32 {
    (memory / (10 * MB)).clamp(FEWEST_BUSY, u64::from(MAX_CONNECTIONS - KEPT_CONNECTIONS)) as u32
}

fn megabytes(bytes: u64) -> ByteSize {
    ByteSize::from_bytes(bytes / MB * MB)
}

impl Settings {
    /// What it takes to bring a node that runs with these settings to `wanted`.
    pub fn change_to(&self, wanted: &Settings) -> Change {
        // Spelled out, so that a new setting must be classified to compile.
        let Settings {
            max_connections,
            busy_connections: _,
            shared_buffers,
            effective_cache_size,
            work_mem,
            maintenance_work_mem,
            max_parallel_workers,
            max_parallel_workers_per_gather,
        } = self;
        let restart = *max_connections != wanted.max_connections || *shared_buffers != wanted.shared_buffers;
        let reload = *effective_cache_size != wanted.effective_cache_size
            || *work_mem != wanted.work_mem
            || *maintenance_work_mem != wanted.maintenance_work_mem
            || *max_parallel_workers != wanted.max_parallel_workers
            || *max_parallel_workers_per_gather != wanted.max_parallel_workers_per_gather;
        match (restart, reload) {
            (true, _) => Change::Restart,
            (false, true) => Change::Reload,
            (false, false) => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 8 * ByteSize::GB;

    fn settings(size: &str) -> Settings {
        let (cpu, memory) = size.split_once(' ').unwrap();
        let size = Size { cpu: cpu.parse().ok(), memory: memory.parse().ok() };
        memory_settings(&size, ByteSize::from_bytes(MACHINE), 4)
    }

    #[test]
    fn memory_is_shared_out_within_the_limit() {
        for memory in ["64MB", "256MB", "512MB", "1GB", "4GB", "8GB"] {
            let settings = settings(&format!("1 {memory}"));
            let limit = memory.parse::<ByteSize>().unwrap().bytes();
            let sorts = settings.work_mem.bytes() * u64::from(settings.busy_connections);
            assert!(settings.shared_buffers.bytes() + sorts <= limit * 3 / 4, "{memory}: {settings:?}");
            assert!(settings.effective_cache_size.bytes() <= limit, "{memory}: {settings:?}");
            let backends = u64::from(settings.busy_connections) * 8 * MB;
            assert!(backends <= limit, "{memory}: {settings:?}");
        }
        assert_eq!(settings("1 1GB").shared_buffers.to_string(), "256MB");
    }

    #[test]
    fn a_node_without_limits_leaves_the_machine_to_the_app() {
        let settings = settings("- -");
        assert_eq!(settings.shared_buffers.to_string(), "128MB");
        assert_eq!(settings.effective_cache_size.to_string(), "4GB");
    }

    /// A standby with fewer places than its primary refuses to start.
    #[test]
    fn every_size_allows_as_many_connections() {
        assert_eq!(settings("1 64MB").max_connections, settings("- -").max_connections);
        assert_eq!(settings("1 64MB").max_connections, settings("1 8GB").max_connections);
    }

    #[test]
    fn a_limit_above_the_machine_is_the_machine() {
        assert_eq!(settings("1 64GB"), settings("1 8GB"));
    }

    #[test]
    fn more_cpu_is_live_and_more_memory_is_a_restart() {
        let small = settings("1 1GB");
        assert_eq!(small.change_to(&settings("1 1GB")), Change::None);
        assert_eq!(small.change_to(&settings("4 1GB")), Change::Reload);
        assert_eq!(small.change_to(&settings("1 2GB")), Change::Restart);
    }
}
