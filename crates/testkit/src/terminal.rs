//! A command in a terminal, as a person would run it: what it shows, the keys they press, and how it leaves the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Between two looks at the screen.
const POLL: Duration = Duration::from_millis(10);
/// For everything to be on the screen that was said before the end.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// Wide enough for every line of ours.
const SIZE: Winsize = Winsize { ws_row: 60, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };

/// What the terminal does with keys: what a program that draws may change, and has to put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub echoed: bool,
    pub by_line: bool,
    pub make_signals: bool,
}

pub struct Terminal {
    controller: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs the program in a session and a terminal of its own.
    ///
    /// # Panics
    /// When there is no terminal to be had, or no such program.
    pub fn run(command: &Command) -> Terminal {
        let controller =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("it is ours");
        tcsetwinsize(&controller, SIZE).expect("a terminal has a size");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let terminal = File::from(terminal.expect("its other side"));
        let copy = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        // So that keys reach it as signals, as they do from a shell.
        let mut in_session = Command::new("setsid");
        in_session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => in_session.env(name, value),
                None => in_session.env_remove(name),
            };
        }
        in_session.env("TERM", "xterm").stdin(copy()).stdout(copy()).stderr(copy());
        let child = in_session.spawn().expect("setsid(1) is part of every Linux system");
        let (shown, controller) = (Arc::<Mutex<Vec<u8>>>::default(), File::from(controller));
        let (screen, mut output) = (Arc::clone(&shown), controller.try_clone().expect("a descriptor"));
        // Ends with an error when nobody has the other side open any more.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..read]);
            }
        });
        Terminal { controller, child, shown }
    }

    /// Everything that was written to the terminal so far, what moves the cursor included.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Looks until `is_so` of what was shown.
    ///
    /// # Panics
    /// When it is not so within `limit`, with what was shown.
    pub fn wait_until(&self, what: &str, limit: Duration, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let shown = self.shown();
            if is_so(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "not within {limit:?}: {what}\n{shown}");
            std::thread::sleep(POLL);
        }
    }

    /// As [`Terminal::wait_until`], for a text.
    ///
    /// # Panics
    /// When it is not shown within `limit`.
    pub fn wait_for(&self, text: &str, limit: Duration) {
        self.wait_until(text, limit, |shown| shown.contains(text));
    }

    /// Presses Ctrl-C.
    ///
    /// # Panics
    /// When the terminal takes no keys.
    pub fn interrupt(&mut self) {
        const CTRL_C: u8 = 3;
        self.controller.write_all(&[CTRL_C]).expect("a terminal takes keys");
    }

    /// # Panics
    /// When it cannot be asked.
    pub fn keys(&self) -> Keys {
        let modes = tcgetattr(&self.controller).expect("it is a terminal").local_modes;
        Keys {
            echoed: modes.contains(LocalModes::ECHO),
            by_line: modes.contains(LocalModes::ICANON),
            make_signals: modes.contains(LocalModes::ISIG),
        }
    }

    /// Waits for the end. The exit code, `None` of one that was killed by a signal, and all that was shown.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn ended(&mut self, limit: Duration) -> (Option<i32>, String) {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status;
            }
            assert!(Instant::now() < deadline, "not within {limit:?}: its end\n{}", self.shown());
            std::thread::sleep(POLL);
        };
        let mut shown = self.shown();
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        while !shown.ends_with('\n') && Instant::now() < deadline {
            std::thread::sleep(POLL);
            shown = self.shown();
        }
        (status.code(), shown)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
