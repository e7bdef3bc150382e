//! Which of the lists in a document is the list of records.
//!
//! The one that holds the most bytes, a name that partners use for records counting three times. Without a list worth the name, the
//! document is one record.

use super::names;
use super::tree::{DOCUMENT, NodeId, Tree};

/// How much more a usual name for records counts.
const NAME_BONUS: u64 = 3;

/// How many more records than groups make the groups groups: `<category><product/><product/> ...</category>`.
const GROUP_SIZE: u64 = 10;

/// Lists that are mentioned besides the chosen one.
const MAX_OTHERS: usize = 3;

#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub record: NodeId,
    /// Other lists, the heaviest first.
    pub others: Vec<NodeId>,
}

struct Candidate {
    id: NodeId,
    weight: u64,
    score: u64,
}

/// The node whose instances are the records; `None` where nothing was read.
pub fn find(tree: &Tree) -> Option<Found> {
    let mut candidates = Vec::new();
    search(tree, DOCUMENT, &mut candidates);
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
    let whole = whole_document(tree)?;
    let best = candidates.first().map(|best| best.id);
    // A single record has lists, too.
    let are_light = 2 * candidates.iter().map(|list| list.weight).sum::<u64>() < tree.weight(whole);
    let record = match best {
        Some(best) if !are_light || has_singular_name(tree, best) => best,
        _ => whole,
    };
    let others = candidates
        .iter()
        .map(|candidate| candidate.id)
        .filter(|&other| other != record && tree.node(other).repeats());
    Some(Found {
        record,
        others: others.take(MAX_OTHERS).collect(),
    })
}

/// The heaviest root.
fn whole_document(tree: &Tree) -> Option<NodeId> {
    let roots = tree.node(DOCUMENT).children.iter().copied();
    roots.max_by_key(|&root| tree.weight(root))
}

fn has_singular_name(tree: &Tree, id: NodeId) -> bool {
    names::is_record(tree.node(id).name().text)
}

/// Adds what may be records inside `parent`: repeated elements, arrays of objects, and single elements of a usual name.
fn search(tree: &Tree, parent: NodeId, found: &mut Vec<Candidate>) {
    for &id in &tree.node(parent).children {
        let node = tree.node(id);
        let is_list = node.repeats() && node.objects > 0;
        let is_single = node.objects > 0 && has_singular_name(tree, id);
        let mut inside = Vec::new();
        search(tree, id, &mut inside);
        match (is_list || is_single) && !holds_records(tree, id, &inside) {
            true => found.push(candidate(tree, id)),
            false => found.append(&mut inside),
        }
    }
}

fn candidate(tree: &Tree, id: NodeId) -> Candidate {
    let node = tree.node(id);
    let name = node.name().text;
    let is_usual = names::is_record(name) || node.repeats() && names::is_list_of_records(name);
    let weight = tree.weight(id);
    Candidate {
        id,
        weight,
        score: weight * if is_usual { NAME_BONUS } else { 1 },
    }
}

/// Whether what looks like records are groups of them, or the one element around them.
fn holds_records(tree: &Tree, id: NodeId, inside: &[Candidate]) -> bool {
    let outer = tree.node(id);
    let fewest = match outer.repeats() {
        true => GROUP_SIZE * outer.count,
        false => 2 * outer.count,
    };
    inside.iter().any(|list| {
        let inner = tree.node(list.id);
        inner.repeats()
            && inner.count >= fewest
            && 2 * list.weight >= tree.weight(id)
            && names::is_list_of_records(inner.name().text)
    })
}
