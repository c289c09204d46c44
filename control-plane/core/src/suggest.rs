//! Did-you-mean: the known word nearest to an unknown one.

/// The candidate nearest to `word` by edit distance, if it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?`, or `otherwise` when nothing is near.
#[must_use]
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    nearest(word, candidates).map_or_else(otherwise, |found| format!("did you mean `{found}`?"))
}

/// What a word stands for.
///
/// # Errors
/// What to write instead, when it is none of those that are known.
pub(crate) fn one_of<T: Copy>(word: &str, known: &[(&'static str, T)]) -> Result<T, String> {
    let names = || known.iter().map(|(name, _)| *name);
    let meant = known.iter().find(|(name, _)| *name == word).map(|(_, meant)| *meant);
    meant.ok_or_else(|| did_you_mean(word, names(), || format!("use {}", listed(names()))))
}

/// `a, b or c`.
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [all @ .., before, last] => [all, &[&*format!("{before} or {last}")]].concat().join(", "),
        few => few.join(", "),
    }
}
