//! The commands that README and docs show.

use std::fs;
use std::path::Path;

/// First words of blocks that show something else: what comes back, a picture, a path through the code.
const NO_COMMANDS: [&str; 10] = [
    "clients",
    "HTTP",
    "http/routes",
    "outbox",
    "event:",
    "error:",
    "READY",
    "data:",
    "t_j",
    "{",
];
/// Beginnings of words in prose that make them a command.
const PROGRAMS: [&str; 14] = [
    "make ",
    "curl ",
    "cargo ",
    "python3 ",
    "sudo ",
    "systemctl ",
    "journalctl ",
    "worker-orcd -",
    "cuda-worker -",
    "bench_engine ",
    "tools/",
    "tests/run-on-gpu",
    "target/release/",
    "gpu-bundle/",
];

/// README and everything under docs/, by their names in the repository.
pub fn documents(repository: &Path) -> Vec<(String, String)> {
    let mut names = vec![
        "README.md".to_owned(),
        "fuzz/README.md".to_owned(),
        "tools/haiku-nano/README.md".to_owned(),
    ];
    let docs = fs::read_dir(repository.join("docs")).into_iter().flatten();
    let docs = docs.flatten().map(|entry| entry.file_name());
    names.extend(docs.map(|name| format!("docs/{}", name.to_string_lossy())));
    names.retain(|name| name.ends_with(".md"));
    names.sort();
    let text = |name: &String| fs::read_to_string(repository.join(name)).ok();
    names
        .into_iter()
        .filter_map(|name| Some((name.clone(), text(&name)?)))
        .collect()
}

/// The commands of a document: lines of its code blocks, and code in its prose that begins like one.
pub fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Vec<&str> = Vec::new();
    let mut fenced = None;
    let mut after_blank = true;
    let mut prose = String::new();
    for line in text.lines().chain([""]) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            match fenced.take() {
                None => fenced = Some(language),
                Some(language) if ["", "sh", "bash", "console"].contains(&language) => {
                    found.extend(of_block(&std::mem::take(&mut block)));
                }
                Some(_) => block.clear(),
            }
            continue;
        }
        let indented = line.strip_prefix("    ");
        let in_block = indented.filter(|_| after_blank || !block.is_empty());
        if fenced.is_some() {
            block.push(line);
        } else if let Some(line) = in_block {
            block.push(line);
        } else {
            found.extend(of_block(&std::mem::take(&mut block)));
            prose.push_str(line);
            prose.push('\n');
            after_blank = line.is_empty();
        }
    }
    found.extend(of_prose(&prose));
    found
}

fn of_block(lines: &[&str]) -> Vec<String> {
    let first = lines
        .first()
        .and_then(|line| line.split_whitespace().next());
    if first.is_none_or(|first| NO_COMMANDS.iter().any(|other| first.starts_with(other))) {
        return Vec::new();
    }
    let mut commands = Vec::new();
    let mut open = String::new();
    for line in lines {
        let line = line.split(" # ").next().unwrap_or(line).trim();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                open.push_str(part.trim_end());
                open.push(' ');
            }
            None => commands.push(std::mem::take(&mut open) + line),
        }
    }
    commands
}

fn of_prose(text: &str) -> Vec<String> {
    // Code that goes on in the next line is one piece.
    let pieces = text.split('`').skip(1).step_by(2);
    let joined = pieces.map(|piece| piece.split_whitespace().collect::<Vec<_>>().join(" "));
    joined
        .filter(|piece| {
            piece.contains(' ') && PROGRAMS.iter().any(|start| piece.starts_with(start))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_blocks_and_prose_are_found_and_nothing_else() {
        let text = "Try `make test`, see `tools/demo/demo.py` and `tools/x --y\n1`.\n\n    make run   # all\n    \
                    curl -d '{}' \\\n      there\n\n    event: started\n    id: 0\n\n```json\n{\"a\": 1}\n```\n\
                    ```sh\n# why\ndocker run x\n```\n";
        let found = commands(text);
        assert_eq!(
            found,
            [
                "make run",
                "curl -d '{}' there",
                "docker run x",
                "make test",
                "tools/x --y 1"
            ]
        );
    }
}
