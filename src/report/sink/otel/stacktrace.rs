//! Stacks as text, as Rust's own backtraces print them.

use std::fmt::Write as _;

use crate::report::{Report, Stack, StackKind};

/// The most text that backends get, in bytes. They cut or refuse long attributes.
const MAX: usize = 32 * 1024;

/// Returns the stacks of the capture, innermost frame first, or `None` if there are none.
pub(super) fn stacktrace(report: &Report) -> Option<String> {
    let stacks: Vec<&Stack> = report.stacks.iter().filter(|stack| stack.current && !stack.frames.is_empty()).collect();
    let mut text = String::new();
    for stack in &stacks {
        if stacks.len() > 1 {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&title(stack));
        }
        for (index, frame) in stack.frames.iter().enumerate() {
            let before = text.len();
            let name = frame.function.as_deref().unwrap_or(&frame.address);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{index:>4}: {name}");
            if let Some(file) = &frame.file {
                let line = frame.line.map_or(String::new(), |line| format!(":{line}"));
                let _ = writeln!(text, "             at {file}{line}");
            }
            if text.len() > MAX {
                text.truncate(before);
                text.push_str("      and more\n");
                return Some(text);
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Returns a title that tells one of several stacks from the others.
fn title(stack: &Stack) -> String {
    let mut title = match stack.kind {
        StackKind::Await => "await point".to_owned(),
        StackKind::Thread => "thread".to_owned(),
        StackKind::Culprit => "thread that holds a worker".to_owned(),
    };
    if let Some(thread) = &stack.thread {
        let _ = write!(title, " {} ({})", thread.name, thread.id);
    }
    if let Some(child) = &stack.child {
        let _ = write!(title, ", of child work ({child})");
    }
    if let Some(work) = &stack.work {
        let _ = write!(title, ", busy with {work}");
    }
    if stack.truncated {
        title.push_str(", cut");
    }
    title.push_str(":\n");
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, culprit, own, report};

    #[test]
    fn stacks_look_like_backtraces() {
        let mut report = report();
        report.stacks = vec![await_stack(&[own("photos::inner", 3), own("photos::outer", 9)])];
        let one =
            "   0: photos::inner\n             at src/app.rs:3\n   1: photos::outer\n             at src/app.rs:9\n";
        assert_eq!(stacktrace(&report).unwrap(), one);
        report.stacks.push(culprit(&[own("photos::tags", 5)]));
        let two = stacktrace(&report).unwrap();
        assert!(two.starts_with("await point:\n   0: photos::inner\n"), "{two}");
        let second = "\nthread that holds a worker tokio-rt-worker (4243), busy with POST /tags:\n   0: photos::tags\n";
        assert!(two.contains(second), "{two}");
        report.stacks.clear();
        assert_eq!(stacktrace(&report), None);
    }

    /// Guards: the attribute stays within its bound, whatever is on the stack.
    #[test]
    fn long_stacks_are_cut() {
        let mut report = report();
        report.stacks = vec![await_stack(&vec![own(&"ä".repeat(400), 3); 200])];
        let text = stacktrace(&report).unwrap();
        assert!(text.len() <= MAX + 20 && text.ends_with("      and more\n"), "{}", text.len());
    }
}
