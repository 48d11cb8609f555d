//! A process that outlives the test's, and cleans up after it when it was killed and could not do so itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, which is the end of the test. Then does what `Drop` would have done.
const SCRIPT: &str = r#"
cat > /dev/null
grep -o " $2/[^ ]*" /proc/self/mounts | xargs -r -n1 fsfreeze --unfreeze > /dev/null 2>&1
timeout 20 "$1" -C "$2/app" --state-dir "$2/state" down --now > /dev/null 2>&1
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" = $$ ] && continue
    case "$(readlink "$process/cwd") $(tr '\0' ' ' < "$process/cmdline")" in
        *"$2"*) kill -KILL "$pid" ;;
    esac
done 2> /dev/null
umount -l "$2/state" 2> /dev/null
rm -rf "$2"
"#;

pub(crate) struct Guardian {
    child: Child,
}

impl Guardian {
    /// Guards the folder `root` of an app that `program` runs.
    pub(crate) fn of(program: &Path, root: &Path) -> Guardian {
        // In a session of its own: a test runner that gives up on a test kills the test's whole process group.
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", SCRIPT, "guardian"]).arg(program).arg(root).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Guardian { child: command.spawn().expect("setsid(1) is part of every Linux system") }
    }

    /// The test cleans up itself. Must come before its folder is looked at: the guardian names it, too.
    pub(crate) fn dismiss(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
