//! The page of refusals is the table in the code.

use keyturn_vault::refusal::Refusal;

const PAGE: &str = include_str!("../../../docs/REFUSALS.md");

#[test]
fn the_page_lists_every_refusal_as_the_code_has_it() {
    let row =
        |refusal: &Refusal| format!("| `{}` | {refusal} | {} |", refusal.code(), refusal.hint());
    let rows: Vec<String> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(str::to_owned)
        .collect();
    let want: Vec<String> = Refusal::ALL.iter().map(row).collect();
    assert_eq!(
        rows,
        want,
        "write the rows of docs/REFUSALS.md anew:\n{}",
        want.join("\n")
    );
}
