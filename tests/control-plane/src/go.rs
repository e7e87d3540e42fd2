//! Go, as far as it is needed to build programs.

use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Doing, Error},
    process,
    programs::KUBERNETES_VERSION,
    progress::Progress,
};

/// A program to build.
#[derive(Debug)]
pub(crate) struct Target {
    /// The package that is its `main`.
    pub(crate) package: &'static str,
    /// What the program is called.
    pub(crate) name: &'static str,
}

/// Lines of the compiler that an error shows.
const LAST_LINES: usize = 20;

/// Arguments of the build of every program. Without the version in it, Kubernetes calls itself v0.0.0.
fn arguments() -> Vec<String> {
    let mut numbers = KUBERNETES_VERSION.split('.');
    let [major, minor] = [numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()];
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let version = set("gitVersion", &format!("v{KUBERNETES_VERSION}")) + &set("gitMajor", major) + &set("gitMinor", minor);
    ["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags"].map(str::to_owned).into_iter().chain([format!("-s -w{version}")]).collect()
}

/// Everything that decides what is built, besides the module and the sources.
pub(crate) fn recipe(targets: &[Target]) -> String {
    format!("{:?} {targets:?}", arguments())
}

fn go(module: &Path) -> Command {
    let mut command = process::dying_with_us(Path::new("go"));
    // Without C the programs are the same on every machine, and need no compiler for it.
    command.current_dir(module).env("CGO_ENABLED", "0").env("GOWORK", "off").stdin(Stdio::null());
    command
}

/// Compiles `target`, for which Go was [checked](check), of the module in the folder `module` to the file `to`. Packages that were compiled
/// before, for another target, lie in the folder `compiled`.
pub(crate) fn build(module: &Path, target: &Target, compiled: &Path, to: &Path, progress: &Progress) -> Result<(), Error> {
    progress.begin(target.name);
    let mut command = go(module);
    command.env("GOCACHE", compiled).args(arguments()).arg("-o").arg(to).arg(target.package).stdout(Stdio::null()).stderr(Stdio::piped());
    let shown = format!("go build {} (in {})", target.package, module.display());
    let mut child = process::spawn(command).doing(|| format!("could not run `{shown}`"))?;
    let mut last = VecDeque::new();
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(BufReader::lines).map_while(io::Result::ok) {
        progress.package(&line);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().doing(|| format!("could not wait for `{shown}`"))?;
    if !status.success() {
        let last_lines = last.make_contiguous().join("\n");
        return Err(Error::Build { program: target.name.to_owned(), command: shown, last_lines });
    }
    progress.end(target.name);
    Ok(())
}

/// The folder where Go keeps the module `named`, which the module in `module` needs.
pub(crate) fn module_folder(module: &Path, named: &str) -> Result<PathBuf, Error> {
    answer(module, &["list", "-m", "-f", "{{.Dir}}", named]).map(PathBuf::from)
}

/// What Go prints on standard output.
fn answer(module: &Path, arguments: &[&str]) -> Result<String, Error> {
    let output = match go(module).args(arguments).output() {
        Ok(output) if output.status.success() => return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Go(format!("`go {}` failed in {}:\n{}", arguments.join(" "), module.display(), output.trim())))
}

/// That Go is there and new enough for the module.
pub(crate) fn check(module: &Path) -> Result<(), Error> {
    let path = module.join("go.mod");
    let text = fs::read_to_string(&path).doing(|| format!("could not read {}", path.display()))?;
    let wanted = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1").trim().to_owned();
    let remedy = || format!("the programs of the control plane are built from source: install Go {wanted} or newer");
    let found = Command::new("go").arg("version").stdin(Stdio::null()).output();
    if found.is_err() {
        return Err(Error::Go(format!("`go` was not found in PATH; {}", remedy())));
    }
    // Asked inside the module, since a Go that may fetch the version that a module wants answers with that.
    let found = answer(module, &["env", "GOVERSION"]).map_err(|error| Error::Go(format!("{error}\n{}", remedy())))?;
    if numbers(&found) < numbers(&wanted) {
        return Err(Error::Go(format!("`go` is {found}; {}", remedy())));
    }
    Ok(())
}

/// The numbers of a version such as `go1.26.8` or `1.26rc1`.
fn numbers(version: &str) -> Vec<u32> {
    let parts = version.trim_start_matches("go").split('.');
    parts.map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("go1.26.8") > numbers("1.26.0"));
        assert!(numbers("go1.9.1") < numbers("1.26.0"));
        assert!(numbers("go1.26rc1") < numbers("1.26.0"));
        assert!(numbers("go2.0") > numbers("1.26.0"));
    }
}
