//! Counts the words of a chunk, like ../c/wordcount.c. Build: make -C sdk rust
#[path = "../../../sdk/rust/wasm_jobs.rs"]
mod wasm_jobs;

use std::collections::BTreeMap;
use wasm_jobs::{AnyString, Failure, Id, Items, Raw};

wasm_jobs::guest! { exec: exec, aggregate: aggregate, merge: merge }

type Counts = BTreeMap<String, u64>;

fn exec(chunk: Raw) -> Result<Counts, Failure> {
    let text: AnyString = chunk.field("text").or_else(|_| chunk.decode()).map_err(|_| "no text")?;
    let mut counts = Counts::new();
    for word in text.0.to_ascii_lowercase().split(|c| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()) {
        add(&mut counts, std::str::from_utf8(word).map_err(|e| e.to_string())?, 1)?;
    }
    Ok(counts)
}

fn aggregate(outputs: Items<(Id, Counts)>) -> Result<Counts, Failure> {
    sum(outputs.map(|entry| Ok(entry?.1)))
}

fn merge(partials: Items<Counts>) -> Result<Counts, Failure> {
    sum(partials.map(|counts| Ok(counts?)))
}

fn sum(all: impl Iterator<Item = Result<Counts, Failure>>) -> Result<Counts, Failure> {
    let mut total = Counts::new();
    for counts in all {
        counts?.into_iter().try_for_each(|(word, n)| add(&mut total, &word, n))?;
    }
    Ok(total)
}

fn add(counts: &mut Counts, word: &str, n: u64) -> Result<(), Failure> {
    match counts.get_mut(word) {
        Some(count) => *count = count.checked_add(n).ok_or("overflow")?,
        None => drop(counts.insert(word.to_string(), n)),
    }
    Ok(())
}
