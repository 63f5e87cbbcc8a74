//! The files of `tests/mutants`: which line to change, and which test must notice.
//!
//! ```text
//! mutant l1-of-another            a name of its own
//! removes the owner of a frame an L1 entry maps
//! test host hypervisor mm::model::counts_stay_true
//! file hypervisor/src/mm/page_type.rs
//!     if frames_of == DomId::IO {
//! -       return Err(Errno::EBUSY.into());
//! +       {}
//! ```
//!
//! Lines that begin with ` `, `-` or `+` are the change: lines there are, lines that go, lines that come. They are
//! compared without blanks, so a line that was moved, re-indented or broken in two still is the same one; the lines that are
//! there and those that go must follow each other at exactly one place of the file. `#` begins a comment.
//!
//! A test is `host PACKAGE NAME` (a test of the package's library; `PACKAGE/TARGET` for one of its integration tests, `PACKAGE/bins` for its program) or
//! `kernel NAME` (a PV test kernel, on the mutated hypervisor). A mutant may have several: each must notice. `quick` behind a
//! test's line lets `test` without `--long` run the mutant with it, too.

use std::path::{Path, PathBuf};

/// What must notice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// A host test, by package, integration test (or the library) and name.
    Host { package: String, target: Option<String>, name: String },
    /// A PV test kernel.
    Kernel(String),
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Test::Host { package, target: None, name } => write!(f, "host {package} {name}"),
            Test::Host { package, target: Some(t), name } => write!(f, "host {package}/{t} {name}"),
            Test::Kernel(name) => write!(f, "kernel {name}"),
        }
    }
}

/// One mutant.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub name: String,
    pub removes: String,
    /// Each of them must notice; there is at least one.
    pub tests: Vec<Test>,
    /// Those of them that are run without `--long`.
    pub quick: Vec<Test>,
    pub file: PathBuf,
    /// The change, in order.
    lines: Vec<(Mark, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Stays,
    Goes,
    Comes,
}

/// Reads one file of mutants.
pub fn read(path: &Path) -> Result<Vec<Mutant>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|(line, what)| format!("{}:{line}: {what}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Mutant>, (usize, String)> {
    let mut all = Vec::new();
    let mut now: Option<Draft> = None;
    for (i, line) in text.lines().enumerate() {
        let at = |what: String| (i + 1, what);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("mutant ") {
            if let Some(done) = now.replace(Draft::default()) {
                all.push(done.finish().map_err(at)?);
            }
            now = Some(Draft { name: name.trim().into(), ..Draft::default() });
            continue;
        }
        let Some(draft) = now.as_mut() else {
            return Err(at("expected 'mutant NAME'".into()));
        };
        draft.line(line).map_err(at)?;
    }
    if let Some(done) = now {
        all.push(done.finish().map_err(|e| (text.lines().count(), e))?);
    }
    Ok(all)
}

#[derive(Default)]
struct Draft {
    name: String,
    removes: String,
    tests: Vec<Test>,
    quick: Vec<Test>,
    file: PathBuf,
    lines: Vec<(Mark, String)>,
}

impl Draft {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mark = match line.as_bytes().first() {
            Some(b' ') => Some(Mark::Stays),
            Some(b'-') => Some(Mark::Goes),
            Some(b'+') => Some(Mark::Comes),
            _ => None,
        };
        if let Some(mark) = mark {
            self.lines.push((mark, line[1..].trim().to_string()));
        } else if let Some(what) = line.strip_prefix("removes ") {
            self.removes = what.trim().into();
        } else if let Some(path) = line.strip_prefix("file ") {
            self.file = path.trim().into();
        } else if let Some(test) = line.strip_prefix("test ") {
            let (test, quick) = parse_test(test)?;
            if quick {
                self.quick.push(test.clone());
            }
            self.tests.push(test);
        } else {
            return Err(format!("'{line}' is no line of a mutant"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Mutant, String> {
        let missing = |what: &str| format!("mutant {}: no line '{what}'", self.name);
        if self.tests.is_empty() {
            return Err(missing("test"));
        }
        if self.removes.is_empty() {
            return Err(missing("removes"));
        }
        if self.file.as_os_str().is_empty() {
            return Err(missing("file"));
        }
        if !self.lines.iter().any(|l| l.0 == Mark::Goes) {
            return Err(format!("mutant {}: no line goes (-)", self.name));
        }
        Ok(Mutant {
            name: self.name,
            removes: self.removes,
            tests: self.tests,
            quick: self.quick,
            file: self.file,
            lines: self.lines,
        })
    }
}

fn parse_test(text: &str) -> Result<(Test, bool), String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let quick = words.last() == Some(&"quick");
    if quick {
        words.pop();
    }
    match *words.as_slice() {
        ["host", package, name] => {
            let (package, target) = match package.split_once('/') {
                Some((p, t)) => (p, Some(t.to_string())),
                None => (package, None),
            };
            Ok((Test::Host { package: package.into(), target, name: name.into() }, quick))
        }
        ["kernel", name] => Ok((Test::Kernel(name.into()), quick)),
        _ => Err(format!("'{text}' is no test: 'host PACKAGE NAME' or 'kernel NAME'")),
    }
}

impl Mutant {
    /// The file's text with the change made.
    ///
    /// # Errors
    /// Unless the old lines stand at exactly one place.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        let lines = |without: Mark| -> Vec<&str> {
            let some = self.lines.iter().filter(|l| l.0 != without);
            some.map(|l| l.1.as_str()).collect()
        };
        let (there, mut old) = (squeezed(text), squeezed(&lines(Mark::Comes).join("\n")));
        // A comma at the end may be one of those that formatting decides about.
        let comma = old.pop_if(|c| c.0 == ',').is_some();
        let places: Vec<(usize, usize)> = (0..=there.len().saturating_sub(old.len()))
            .filter(|&i| there.len() >= i + old.len())
            .filter(|&i| old.iter().zip(&there[i..]).all(|(o, t)| o.0 == t.0))
            .map(|i| (there[i].1, there[i + old.len() - 1].1 + 1))
            .map(|(start, end)| (start, end + usize::from(comma && text[end..].starts_with(','))))
            .filter(|&(start, end)| {
                let before = text[..start].rsplit('\n').next();
                let behind = text[end..].split('\n').next();
                before.is_none_or(|l| l.trim().is_empty()) && behind.is_none_or(|l| l.trim().is_empty())
            })
            .collect();
        let [(start, end)] = places[..] else {
            return Err(format!(
                "its old lines stand at {} places of {}, not at one",
                places.len(),
                self.file.display()
            ));
        };
        Ok(format!("{}{}{}", &text[..start], lines(Mark::Goes).join("\n"), &text[end..]))
    }
}

/// The characters of `text` that no formatter adds or removes, and where each stands: no blanks, and no commas before a
/// closing bracket. (Each of them is one byte, or the last of several.)
fn squeezed(text: &str) -> Vec<(char, usize)> {
    let mut all: Vec<(char, usize)> = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| !c.is_whitespace()) {
        if matches!(c, ')' | ']' | '}') && all.last().is_some_and(|l| l.0 == ',') {
            all.pop();
        }
        all.push((c, at + c.len_utf8() - 1));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# why\nmutant a\nremoves the check\ntest host boot/files x::y quick\nfile src/x.rs\n if a {\n-    stop();\n+    go();\n";

    #[test]
    fn a_mutant_changes_one_place_whatever_its_indentation() {
        let m = &parse(ONE).expect("it parses")[0];
        assert_eq!(m.quick, m.tests);
        let tests = |m: &Mutant| m.tests.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(tests(m), ["host boot/files x::y"]);
        let two = ONE.replace("file ", "test kernel k\nfile ");
        let two = &parse(&two).expect("two tests")[0];
        assert_eq!(tests(two), ["host boot/files x::y", "kernel k"]);
        assert_eq!(two.quick, m.tests);
        assert_eq!(m.apply("    if a {\n  stop();\n}\nstop();\n"), Ok("    if a {\ngo();\n}\nstop();\n".into()));
        let broken = "if a\n{\n    stop(\n    );\n}\n";
        assert_eq!(m.apply(broken), Ok("if a {\ngo();\n}\n".into()));
        assert!(m.apply("if a {\n}\n").is_err(), "the old line is gone");
        assert!(m.apply("if a {\nstop(); more();\n").is_err(), "a part of a line");
        assert!(m.apply("if a {\nstop();\n}\nif a {\nstop();\n}\n").is_err(), "it is there twice");
    }

    #[test]
    fn what_is_missing_is_said() {
        for (without, says) in
            [("test ", "'test'"), ("removes ", "'removes'"), ("file ", "'file'"), ("-", "no line goes")]
        {
            let text: String = ONE.lines().filter(|l| !l.starts_with(without)).map(|l| format!("{l}\n")).collect();
            assert!(parse(&text).expect_err("not whole").1.contains(says), "{without}");
        }
        assert!(parse("nonsense\n").is_err());
        assert!(parse(&ONE.replace("host boot/files", "moon")).is_err());
    }
}
