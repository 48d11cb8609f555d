//! nginx with a page of 1 KB, and room for everybody.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bench::ports;
use crate::bench::processes::Program;
use crate::failure::{Failure, Result};
use crate::house;
use crate::http;
use crate::setup;
use crate::shell;

const START_LIMIT: Duration = Duration::from_secs(20);
/// A connection for each of the crowd. nginx has fewer where the system allows fewer, and so has the generator.
const DESCRIPTORS: u32 = 150_000;

pub struct Scene {
    pub port: u16,
    nginx: Option<Program>,
    dir: PathBuf,
}

impl Scene {
    /// # Errors
    /// When nginx does not start or does not answer.
    pub fn set() -> Result<Scene> {
        let dir = house::target().join(format!("bench-generator-{}", std::process::id()));
        let files = dir.join("files");
        std::fs::create_dir_all(&files).map_err(Failure::while_doing(files.display()))?;
        for name in ["index.html", "1k"] {
            std::fs::write(files.join(name), "x".repeat(1_024)).map_err(Failure::while_doing(name))?;
        }
        let port = ports::free(1)?[0];
        let source = house::root().join("bench/generator/nginx.conf.in");
        let mut text = std::fs::read_to_string(&source).map_err(Failure::while_doing(source.display()))?;
        let values = [
            ("DIR", dir.display().to_string()),
            ("USER", if setup::is_root() { "user root;" } else { "" }.to_owned()),
            ("PORT", port.to_string()),
            ("DESCRIPTORS", DESCRIPTORS.to_string()),
        ];
        for (key, value) in &values {
            text = text.replace(&format!("@{key}@"), value);
        }
        let config = dir.join("nginx.conf");
        std::fs::write(&config, text).map_err(Failure::while_doing(config.display()))?;
        let mut command = Command::new(shell::find("nginx").unwrap_or_else(|| "nginx".into()));
        command.arg("-p").arg(&dir).arg("-c").arg(&config).arg("-e").arg(dir.join("nginx.error"));
        let nginx = Program::start(command.stdin(Stdio::null()), &dir.join("nginx.out"))?;
        http::wait_for_200(&format!("127.0.0.1:{port}"), START_LIMIT)?;
        Ok(Scene { port, nginx: Some(nginx), dir })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.nginx = None;
        // What is left of it is in the target folder, where it bothers nobody.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
