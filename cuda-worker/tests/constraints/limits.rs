//! Bounds are counts: where one is reached is a function of constraint and tokens.

use cuda_worker::constraint::{Compiler, Matcher};
use orcd_shared::constraint::Constraint;

use crate::sampler::vocabulary;

/// Tokens that are tried.
const MOST: usize = 2000;

/// How many tokens `matcher` takes of an endless text, and what it says then.
fn endurance(mut matcher: Matcher, text: impl Fn(usize) -> u8) -> (usize, String) {
    for at in 0..MOST {
        if let Err(reason) = matcher.mask() {
            return (at, reason);
        }
        matcher.accept(text(at).into());
    }
    (MOST, String::new())
}

#[test]
fn a_bound_is_reached_at_the_same_token_whatever_was_done_before() {
    let ambiguous = "start: x\nx: \"a\" x \"a\" | \"b\" x \"b\" | x x | \"a\" | \"b\"";
    // States multiply with each character: which of the last thirteen were which has to be remembered.
    let windows = "start: A\nA: /.*a.{12}/ & /.*b.{13}/ & /.*a.{6}/";
    let mixed = |at: usize| [b'a', b'b'][(at * at / 7 + at / 3) % 2];
    for grammar in [ambiguous, windows] {
        let constraint = Constraint::Lark(grammar.to_owned());
        let compiler = Compiler::new(&vocabulary()).unwrap();
        let fresh = compiler.compile(&constraint).unwrap();
        let first = endurance(fresh.clone(), mixed);
        println!("{first:?}");
        assert!(first.0 < MOST, "no bound is reached");
        // One that has come to its bound is no burden to others, what others have found out no help, and a process that is
        // new makes no difference.
        let again = || {
            let compiler = Compiler::new(&vocabulary()).unwrap();
            compiler.compile(&constraint).unwrap()
        };
        let calm = |_| b'z';
        assert_eq!(endurance(fresh.clone(), calm), endurance(again(), calm));
        assert_eq!(endurance(fresh.clone(), mixed), first);
        assert_eq!(endurance(again(), mixed), first);
    }
}
