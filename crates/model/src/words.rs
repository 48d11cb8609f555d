//! Words for people.

/// `1 instance`, `2 instances`, `3 copies`, `4 processes`: of a noun that forms its plural by the rule.
pub fn counted(count: usize, noun: &str) -> String {
    let vowel_before_y = |stem: &str| stem.ends_with(['a', 'e', 'o', 'u']);
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !vowel_before_y(stem) => format!("{count} {stem}ies"),
        _ if noun.ends_with('s') => format!("{count} {noun}es"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural_and_the_rule_is_kept() {
        let said = |noun| [0, 1, 2].map(|count| counted(count, noun)).join(", ");
        assert_eq!(said("step"), "0 steps, 1 step, 2 steps");
        assert_eq!(said("copy"), "0 copies, 1 copy, 2 copies");
        assert_eq!(said("day"), "0 days, 1 day, 2 days");
        assert_eq!(said("process"), "0 processes, 1 process, 2 processes");
    }
}
