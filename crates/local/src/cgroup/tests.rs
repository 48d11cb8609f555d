//! What is promised of control groups: against made-up files for both versions, and real ones where the
//! machine lets us.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::{ByteSize, Cpu, Size};

use super::view::Hierarchy;
use super::*;

fn size(millis: u32, megabytes: u64) -> Size {
    Size { cpu: Cpu::from_millis(millis), memory: Some(ByteSize::from_bytes(megabytes * ByteSize::MB)) }
}

/// A hierarchy of plain files. Unlike the kernel, a file system makes no files in a new folder, so tests lay
/// them out.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Fake {
        Fake { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap()
    }

    /// A group of version 2 as the kernel makes it.
    fn v2(&self, path: &str, subtree_control: &str, procs: &str) {
        self.file(&format!("{path}/cgroup.controllers"), "cpuset cpu io memory pids\n");
        self.file(&format!("{path}/cgroup.subtree_control"), subtree_control);
        self.file(&format!("{path}/cgroup.procs"), procs);
        self.file(&format!("{path}/cpu.max"), "max 100000\n");
        self.file(&format!("{path}/memory.max"), "max\n");
    }

    /// Refuses to hand controllers down, as the kernel does while processes stand there. Made-up files take any write.
    fn shut(&self, path: &str) {
        let file = self.dir.path().join(path).join("cgroup.subtree_control");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
    }

    fn view(&self, cgroup: &str, mounts: &[(&str, &str)]) -> View {
        let root = self.dir.path().display();
        let line = |(point, filesystem): &(&str, &str)| {
            format!("30 20 0:1 / {root}/{point} rw shared:1 - {filesystem}\n")
        };
        View { cgroup: cgroup.to_owned(), mountinfo: mounts.iter().map(line).collect(), movable: Some(42) }
    }
}

const V2: (&str, &str) = ("v2", "cgroup2 cgroup2 rw,nsdelegate");

#[test]
fn version_2_limits_are_written_as_the_kernel_reads_them_and_changed_live() {
    let fake = Fake::new();
    fake.v2("v2", "cpu memory", "1\n");
    fake.v2("v2/app.slice", "cpu memory pids", "");
    fake.v2("v2/app.slice/switchback-shop/web.1", "", "");
    fake.v2("v2/app.slice/switchback-shop", "cpu memory", "");
    let cgroups = Cgroups::detect_in(&fake.view("0::/app.slice\n", &[V2]), "shop");
    assert_eq!(cgroups.unavailable(), None);
    assert_eq!(cgroups.missing(), []);

    let group = cgroups.create("web.1", size(500, 256)).unwrap();
    let at = "v2/app.slice/switchback-shop/web.1";
    assert_eq!(fake.text(&format!("{at}/cpu.max")), "50000 100000");
    assert_eq!(fake.text(&format!("{at}/memory.max")), "268435456");
    group.apply(Size::UNLIMITED).unwrap();
    assert_eq!(fake.text(&format!("{at}/cpu.max")), "max 100000");
    assert_eq!(fake.text(&format!("{at}/memory.max")), "max");
    assert_eq!(cgroups.names(), ["web.1"]);
}

#[test]
fn version_2_usage_is_what_the_group_cannot_give_back() {
    let fake = Fake::new();
    fake.v2("v2", "cpu memory", "");
    fake.v2("v2/switchback-shop", "cpu memory", "");
    let at = "v2/switchback-shop/web.1";
    fake.v2(at, "", "");
    fake.file(
        &format!("{at}/cpu.stat"),
        "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\nnr_periods 8\nnr_throttled 3\n",
    );
    fake.file(&format!("{at}/memory.current"), "300000000\n");
    fake.file(&format!("{at}/memory.stat"), "anon 1\nfile 2\ninactive_anon 7\ninactive_file 100000000\n");
    fake.file(&format!("{at}/memory.events"), "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n");
    let cgroups = Cgroups::detect_in(&fake.view("0::/\n", &[V2]), "shop");
    let group = cgroups.adopt("web.1").unwrap();
    let expected = Usage {
        cpu_us: Some(1234),
        memory_bytes: Some(200_000_000),
        oom_kills: Some(2),
        periods: Some(8),
        throttled_periods: Some(3),
    };
    assert_eq!(group.usage(), expected);
    assert_eq!(group.memory_limit(), None);
    fake.file(&format!("{at}/memory.max"), "268435456\n");
    assert_eq!(group.memory_limit(), Some(ByteSize::from_bytes(256 * ByteSize::MB)));
    fake.file(&format!("{at}/memory.max"), "max\n");

    // Version 2 would take the limit and then kill: so we refuse, and what was set stays.
    let refused = group.apply(size(1000, 100)).unwrap_err();
    assert!(matches!(refused, LimitError::MemoryBusy { .. }), "{refused}");
    assert_eq!(refused.to_string(), "memory cannot shrink to 100MB while 195312kB is in use");
    assert_eq!(fake.text(&format!("{at}/memory.max")), "max\n");
}

/// Our group is shut, so the one above it is used.
fn looks_upwards(own: &str, procs: &str, movable: Option<u32>) {
    let above = "v2/above";
    let fake = Fake::new();
    fake.v2("v2", "cpu memory", "");
    fake.v2(above, "cpu memory", "");
    fake.v2(&format!("{above}/{own}"), "", procs);
    fake.shut(&format!("{above}/{own}"));
    let view = fake.view(&format!("0::/above/{own}\n"), &[V2]);
    let cgroups = Cgroups::detect_in(&View { movable, ..view }, "shop");
    fake.v2(&format!("{above}/switchback-shop"), "cpu memory", "");
    fake.v2(&format!("{above}/switchback-shop/web.1"), "", "");
    cgroups.create("web.1", size(250, 64)).unwrap();
    assert_eq!(fake.text(&format!("{above}/switchback-shop/web.1/cpu.max")), "25000 100000");
    assert!(!fake.dir.path().join(format!("{above}/{own}/switchback-daemon")).exists());
}

#[test]
fn version_2_looks_upwards_when_others_share_our_group() {
    looks_upwards("session", "42\n43\n", Some(42));
}

#[test]
fn version_2_leaves_the_group_of_a_service_to_its_manager() {
    looks_upwards("shop.service", "42\n", None);
}

#[test]
fn version_1_with_controllers_mounted_apart_is_written_in_each() {
    let fake = Fake::new();
    for (path, text) in [
        ("cpu/switchback-shop/web.1/cpu.cfs_period_us", ""),
        ("cpu/switchback-shop/web.1/cpu.cfs_quota_us", ""),
        ("cpu/switchback-shop/web.1/cgroup.procs", "7\n"),
        ("cpuacct/switchback-shop/web.1/cpuacct.usage", "5000000\n"),
        ("cpuacct/switchback-shop/web.1/cgroup.procs", "7\n"),
        ("cpu/switchback-shop/web.1/cpu.stat", "nr_periods 8\nnr_throttled 3\nthrottled_time 5\n"),
        ("memory/daemons/switchback-shop/web.1/memory.limit_in_bytes", ""),
        ("memory/daemons/switchback-shop/web.1/memory.usage_in_bytes", "5000\n"),
        ("memory/daemons/switchback-shop/web.1/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n"),
        (
            "memory/daemons/switchback-shop/web.1/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        ),
        ("memory/daemons/switchback-shop/web.1/cgroup.procs", "7\n8\n"),
    ] {
        fake.file(path, text);
    }
    let mounts = [
        ("cpu", "cgroup cgroup rw,cpu"),
        ("cpuacct", "cgroup cgroup rw,cpuacct"),
        ("memory", "cgroup cgroup rw,memory"),
    ];
    let own = "4:memory:/daemons\n2:cpuacct:/\n1:cpu:/\n0::/\n";
    let cgroups = Cgroups::detect_in(&fake.view(own, &mounts), "shop");
    assert_eq!(cgroups.missing(), []);
    let group = cgroups.create("web.1", size(200, 64)).unwrap();
    assert_eq!(fake.text("cpu/switchback-shop/web.1/cpu.cfs_quota_us"), "20000");
    assert_eq!(group.cpu_limit(), Some(200));
    assert_eq!(fake.text("memory/daemons/switchback-shop/web.1/memory.limit_in_bytes"), "67108864");
    let expected = Usage {
        cpu_us: Some(5000),
        memory_bytes: Some(4000),
        oom_kills: Some(4),
        periods: Some(8),
        throttled_periods: Some(3),
    };
    assert_eq!(group.usage(), expected);
    assert_eq!(group.procs().unwrap(), [7, 8]);
    group.apply(Size::UNLIMITED).unwrap();
    assert_eq!(fake.text("cpu/switchback-shop/web.1/cpu.cfs_quota_us"), "-1");
}

#[test]
fn in_a_container_the_mount_shows_only_our_part_of_the_hierarchy() {
    let fake = Fake::new();
    let point = fake.dir.path().join("a b");
    fs::create_dir(&point).unwrap();
    let escaped = point.display().to_string().replace(' ', "\\040");
    let view = View {
        cgroup: "3:cpu:/docker/abc\n".to_owned(),
        mountinfo: format!("30 20 0:1 /docker/abc {escaped} rw - cgroup cgroup rw,cpu\n"),
        movable: Some(42),
    };
    let cgroups = Cgroups::detect_in(&view, "shop");
    assert_eq!(cgroups.missing(), [Missing::Memory]);
    assert_eq!(cgroups.app_dirs(), [point.join("switchback-shop")]);
}

#[test]
fn without_control_groups_the_reason_and_the_remedy_are_told() {
    let fake = Fake::new();
    fake.file("v2/cgroup.controllers", "\n");
    for mounts in [&[][..], &[V2][..]] {
        let cgroups = Cgroups::detect_in(&fake.view("0::/\n", mounts), "shop");
        let why = cgroups.unavailable().expect("there are none");
        assert!(!why.reason.is_empty() && !why.hint.is_empty());
        assert!(matches!(cgroups.create("web.1", Size::UNLIMITED), Err(LimitError::Unavailable(_))));
        assert!(cgroups.adopt("web.1").is_none() && cgroups.names().is_empty());
    }
}

/// Real groups of the machine, emptied and removed at the end of a test, however it ends.
struct Real {
    cgroups: Cgroups,
    children: Vec<Child>,
}

impl Real {
    fn new(tag: &str) -> Option<Real> {
        let cgroups = Cgroups::detect(&format!("{tag}-{}", std::process::id()));
        if let Some(why) = cgroups.unavailable() {
            eprintln!("skipped: {why}");
            return None;
        }
        if let [missing, ..] = cgroups.missing()[..] {
            eprintln!("skipped: no controller for {missing:?}");
            return None;
        }
        Some(Real { cgroups, children: Vec::new() })
    }

    /// Runs the program once it stands in the group, and returns when it says that it is under way.
    fn run_in(&mut self, group: &Group, program: &str) -> u32 {
        let program = format!("import os, time\nos.read(0, 1)\n{program}");
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        group.join(child.id()).unwrap();
        child.stdin.as_mut().unwrap().write_all(b".").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.cgroups.remove_empty();
    }
}

/// Groups in the machine's own hierarchy of version 2, also where it has no controllers: what needs none is the same.
fn real_version_2(tag: &str) -> Option<Real> {
    let place = View::of_this_process().ok().and_then(|view| view.place(&Hierarchy::V2));
    let Some(place) = place else {
        eprintln!("skipped: version 2 is not mounted");
        return None;
    };
    let tag = format!("{tag}-{}", std::process::id());
    let cgroups = Cgroups { tag, base: Base::V2(place.dir.clone()) };
    if let Err(error) = fs::create_dir(&cgroups.app_dirs()[0]) {
        eprintln!("skipped: no group can be made in {}: {error}", place.dir.display());
        return None;
    }
    Some(Real { cgroups, children: Vec::new() })
}

#[test]
fn version_2_kills_everyone_at_once_and_says_when_nobody_is_left() {
    let Some(mut real) = real_version_2("v2test") else { return };
    let group = real.cgroups.group("web.1").unwrap();
    let folder = real.cgroups.app_dirs()[0].join("web.1");
    fs::create_dir(&folder).unwrap();
    let populated = || fs::read_to_string(folder.join("cgroup.events")).unwrap().contains("populated 1");
    assert!(!populated());

    // The second leaves the session and the process group of the first, and not the control group.
    let program =
        "if os.fork() == 0:\n    os.setsid()\n    os.write(1, b'.')\n    time.sleep(600)\ntime.sleep(600)";
    let pid = real.run_in(&group, program);
    let procs = group.procs().unwrap();
    assert!(procs.len() == 2 && procs.contains(&pid), "{procs:?}");
    assert!(populated() && group.usage().cpu_us.is_some());
    assert!(group.remove().is_err(), "a group in use was removed");

    fs::write(folder.join("cgroup.kill"), "1").expect("Linux 5.14 and newer can");
    real.children[0].wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while populated() {
        assert!(Instant::now() < deadline, "somebody survived: {:?}", group.procs());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(group.procs().unwrap(), Vec::<u32>::new());
    group.remove().unwrap();
    assert!(!folder.exists());
}

/// CPU used per second over the next half second: a quota is renewed five times in it.
fn cores_used(group: &Group) -> f64 {
    let (begun, before) = (Instant::now(), group.usage().cpu_us.unwrap());
    std::thread::sleep(Duration::from_millis(500));
    (group.usage().cpu_us.unwrap() - before) as f64 / begun.elapsed().as_micros() as f64
}

const BUSY_LOOP: &str = "os.write(1, b'.')\nwhile True: pass";

#[test]
fn a_busy_loop_gets_what_its_size_says_and_no_more_and_the_change_is_live() {
    let Some(mut real) = Real::new("cputest") else { return };
    let group = real.cgroups.create("web.1", size(200, 256)).unwrap();
    real.run_in(&group, BUSY_LOOP);
    // The machine may be too busy to give it even that, never more (one more period's quota apart).
    let used = cores_used(&group);
    assert!((0.02..0.27).contains(&used), "{used} cores at a limit of 0.2");
    group.apply(size(60, 256)).unwrap();
    let used = cores_used(&group);
    assert!((0.005..0.10).contains(&used), "{used} cores at a limit of 0.06");
    assert_eq!(group.cpu_limit(), Some(60));
    let Usage { periods, throttled_periods, .. } = group.usage();
    assert!(
        throttled_periods > Some(0) && throttled_periods <= periods,
        "{throttled_periods:?} of {periods:?}"
    );
    group.apply_cpu(None).unwrap();
    assert_eq!(group.cpu_limit(), None);
    assert!(cores_used(&group) > 0.10, "it is not held back any more");
}

#[test]
fn memory_shrinks_live_but_never_below_what_is_in_use() {
    let Some(mut real) = Real::new("memtest") else { return };
    let group = real.cgroups.create("web.1", size(1000, 256)).unwrap();
    let hold = "held = bytearray(os.urandom(1 << 20) * 64)\nos.write(1, b'.')\ntime.sleep(600)";
    real.run_in(&group, hold);
    let used = group.usage().memory_bytes.unwrap();
    assert!(used > 60 * ByteSize::MB, "{used} bytes held");
    group.apply(size(1000, 160)).unwrap();
    let refused = group.apply(size(1000, 16)).unwrap_err();
    assert!(matches!(refused, LimitError::MemoryBusy { .. }), "{refused}");
    assert_eq!(group.usage().oom_kills, Some(0));
}

#[test]
fn everyone_in_a_group_is_killed_and_an_empty_group_goes_away() {
    let Some(mut real) = Real::new("killtest") else { return };
    let group = real.cgroups.create("web.1", Size::UNLIMITED).unwrap();
    let pid = real.run_in(&group, BUSY_LOOP);
    assert_eq!(group.procs().unwrap(), [pid]);
    assert!(group.remove().is_err(), "a group in use was removed");
    let found = real.cgroups.of_process(pid, "web.1").expect("found by its process");
    assert_eq!(found.procs().unwrap(), [pid]);
    group.kill().unwrap();
    for child in &mut real.children {
        child.wait().unwrap();
    }
    assert_eq!(group.procs().unwrap(), Vec::<u32>::new());
    real.cgroups.remove_empty();
    assert!(real.cgroups.adopt("web.1").is_none());
    let left: Vec<PathBuf> = real.cgroups.app_dirs().into_iter().filter(|dir| Path::exists(dir)).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn whom_the_kernel_killed_because_memory_ran_out_is_counted() {
    let Some(mut real) = Real::new("oomtest") else { return };
    let group = real.cgroups.create("web.1", size(1000, 64)).unwrap();
    assert_eq!(group.memory_limit(), Some(ByteSize::from_bytes(64 * ByteSize::MB)));
    assert_eq!(group.oom_kills(), Some(0));
    // The child takes more than there is; its parent goes on.
    let greedy = "if os.fork() == 0:\n    held = bytearray(os.urandom(1 << 20) * 256)\n    os._exit(0)\n\
                  pid, status = os.wait()\nassert os.WTERMSIG(status) == 9, status\nos.write(1, b'.')\n\
                  time.sleep(600)";
    real.run_in(&group, greedy);
    assert_eq!(group.oom_kills(), Some(1));
}
