//! What ptxas says of kernels.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// The path of ptxas.
pub(super) struct Assembler(pub(super) PathBuf);

impl Assembler {
    /// A line a kernel, `sm_90 name: 40 registers`, sorted by name.
    ///
    /// # Errors
    /// If a kernel spills registers to memory.
    pub(super) fn registers(&self, ptx: &Path, device: &str) -> Result<String> {
        let output = Command::new(&self.0)
            .args(["-v", "-arch", device, "--output-file", "/dev/null"])
            .arg(ptx)
            .output()
            .with_context(|| format!("cannot start {}", self.0.display()))?;
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "ptxas refuses {}:\n{said}", ptx.display());
        let mut lines = Vec::new();
        let mut kernel = "";
        for line in said.lines() {
            if let Some(name) = between(line, "Compiling entry function '", "'") {
                kernel = name;
            } else if let Some(count) = between(line, "Used ", " registers") {
                lines.push(format!("{device} {kernel}: {count} registers\n"));
            } else if let Some(bytes) = between(line, "stack frame, ", " bytes spill stores") {
                ensure!(bytes == "0", "{kernel} spills registers on {device}: {}", line.trim());
            }
        }
        ensure!(
            !lines.is_empty(),
            "ptxas says nothing of the kernels in {}:\n{said}",
            ptx.display()
        );
        lines.sort();
        Ok(lines.concat())
    }
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(line.split_once(before)?.1.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn what_ptxas_says() {
        let line = "    0 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads";
        assert_eq!(between(line, "stack frame, ", " bytes spill stores"), Some("8"));
        let line = "ptxas info    : Used 58 registers, used 1 barriers, 656 bytes smem";
        assert_eq!(between(line, "Used ", " registers"), Some("58"));
        assert_eq!(between("ptxas info    : 0 bytes gmem", "Used ", " registers"), None);
    }
}
