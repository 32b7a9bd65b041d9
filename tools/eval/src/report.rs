//! What was measured, in words and as a table.

use crate::measure::{Beside, Measured};
use crate::quality::Quality;
use crate::text::Windows;

/// Heads of the tables.
const BESIDE: &str = "\
| file | positions | perplexity: ours / peer | ours / peer | KL from peer | argmax as peer | greedy as peer | close / not close \
| at most, nats |
|---|---|---|---|---|---|---|---|---|";
const EXACT: &str = "\
| file | positions | perplexity: float activations / ours / peer | KL: ours / peer | argmax as float activations: ours / peer |
|---|---|---|---|---|";

/// A file's paragraph.
pub(crate) fn paragraph(name: &str, text: &Windows, measured: &Measured) -> String {
    let begin = match text.begin.first() {
        Some(id) => format!(", each window after token {id}"),
        None => String::new(),
    };
    let mut lines = vec![format!(
        "{name}: {} positions{begin}",
        measured.quality.rows
    )];
    lines.extend(of_exact(&measured.quality));
    lines.extend(measured.beside.iter().flat_map(of_peer));
    lines.join("\n")
}

fn of_exact(quality: &Quality) -> [String; 3] {
    [
        format!(
            "KL divergence    {:.6} nats (± {:.6}, largest {:.4})",
            quality.divergence(),
            quality.divergence_error(),
            quality.largest_divergence()
        ),
        format!(
            "perplexity       {:.5} (exact {:.5})",
            quality.perplexity(),
            quality.exact_perplexity()
        ),
        format!("argmax the same  {:.2} %", quality.agreement() * 100.0),
    ]
}

fn of_peer(beside: &Beside) -> [String; 6] {
    let (its, of_its, partings) = (&beside.its_quality, &beside.of_its, &beside.partings);
    let (parted, close) = (partings.parted.len(), partings.close());
    [
        format!("beside {}: {} positions", beside.peer, of_its.rows),
        format!(
            "KL divergence    {:.6} nats from its logits to ours; {:.6} from the exact ones to its own",
            of_its.divergence(),
            its.divergence()
        ),
        format!(
            "perplexity       {:.5}, its {:.5}: {:.5} of it (± {:.5})",
            of_its.perplexity(),
            of_its.exact_perplexity(),
            of_its.ratio(),
            of_its.ratio_error()
        ),
        format!(
            "argmax the same  {:.2} %; its own as the exact one {:.2} %",
            of_its.agreement() * 100.0,
            its.agreement() * 100.0
        ),
        format!(
            "greedy           {} of {} prompts give the same tokens; {close} part at its second token, less than 0.3 nats \
             behind its first; {} part otherwise, where float activations have our token {} times and its {} times",
            partings.prompts - parted,
            partings.prompts,
            parted - close,
            partings.ours_exact,
            partings.its_exact
        ),
        format!(
            "                 from its first token to its second at most {:.3} nats, to ours at most {:.3}",
            partings.largest_margin(),
            partings.largest_gap()
        ),
    ]
}

/// Tables of all files that another engine has read too; `None` if there is none.
pub(crate) fn tables(files: &[(String, Measured)]) -> Option<String> {
    let mut beside = vec![BESIDE.to_owned()];
    let mut exact = vec![EXACT.to_owned()];
    for (name, measured) in files {
        if let Some(peer) = &measured.beside {
            beside.push(row(name, &beside_cells(peer)));
            exact.push(row(
                name,
                &exact_cells(&measured.quality, &peer.its_quality),
            ));
        }
    }
    let any = beside.len() > 1;
    any.then(|| format!("{}\n\n{}", beside.join("\n"), exact.join("\n")))
}

fn row(name: &str, cells: &[String]) -> String {
    format!("| {name} | {} |", cells.join(" | "))
}

fn beside_cells(beside: &Beside) -> [String; 8] {
    let (of_its, partings) = (&beside.of_its, &beside.partings);
    let (parted, close) = (partings.parted.len(), partings.close());
    [
        grouped(of_its.rows),
        format!(
            "{:.4} / {:.4}",
            of_its.perplexity(),
            of_its.exact_perplexity()
        ),
        format!("{:.4} ± {:.4}", of_its.ratio(), of_its.ratio_error()),
        format!("{:.4}", of_its.divergence()),
        format!("{:.1} %", of_its.agreement() * 100.0),
        format!("{} of {}", partings.prompts - parted, partings.prompts),
        format!("{close} / {}", parted - close),
        format!("{:.3}", partings.largest_gap()),
    ]
}

fn exact_cells(ours: &Quality, its: &Quality) -> [String; 4] {
    [
        grouped(ours.rows),
        format!(
            "{:.4} / {:.4} / {:.4}",
            ours.exact_perplexity(),
            ours.perplexity(),
            its.perplexity()
        ),
        format!("{:.4} / {:.4}", ours.divergence(), its.divergence()),
        format!(
            "{:.1} / {:.1} %",
            ours.agreement() * 100.0,
            its.agreement() * 100.0
        ),
    ]
}

/// "4 088" of 4088.
fn grouped(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{} {:03}", grouped(number / 1000), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_space_in_front_of_each_three_digits() {
        assert_eq!(
            [0, 999, 4088, 1_002_003].map(grouped),
            ["0", "999", "4 088", "1 002 003"]
        );
    }
}
