//! What the files say, entry by entry, and what of it was told. Pure: it is given texts and gives updates. A file whose newest
//! text cannot be used keeps its last good entries, and so does an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_core::config::Place;
use tidegate_core::instance::{Discovered, Hint};
use tidegate_core::instances_file::{self, Entry, EntryId, Reading, Unclear};
use tidegate_core::{Problem, Timestamp, Update};

/// All files.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: BTreeMap<String, Page>,
    /// The files that an entry stands in; the first one's word counts.
    holders: BTreeMap<EntryId, Vec<String>>,
    /// What was told of each entry, and since when it is there.
    told: BTreeMap<EntryId, (Arc<Entry>, Timestamp)>,
    /// Entries that changed since anything was told.
    touched: BTreeSet<EntryId>,
}

/// One file.
#[derive(Debug, Default)]
struct Page {
    entries: Entries,
    problems: Vec<Problem>,
}

/// Each with its place when it was last good.
type Entries = BTreeMap<EntryId, (Place, Arc<Entry>)>;

impl Book {
    /// A file's text now.
    pub(super) fn write(&mut self, file: &str, text: &str) {
        match instances_file::read(file, text) {
            Err(problem) => self.spoil(file, problem),
            Ok(Reading { entries, unclear, problems }) => {
                let old = self.pages.remove(file).unwrap_or_default().entries;
                let mut new: Entries =
                    entries.into_iter().map(|(place, entry)| (entry.id.clone(), (place, Arc::new(entry)))).collect();
                let meant = Meant::by(unclear);
                for (id, known) in &old {
                    if !new.contains_key(id) && meant.includes(id) {
                        new.insert(id.clone(), known.clone());
                    }
                }
                self.turn(file, &old, &new);
                self.pages.insert(file.to_owned(), Page { entries: new, problems });
            }
        }
    }

    /// A file cannot be used: what it held stays.
    pub(super) fn spoil(&mut self, file: &str, problem: Problem) {
        self.pages.entry(file.to_owned()).or_default().problems = vec![problem];
    }

    /// A file is gone, and its entries with it.
    pub(super) fn remove(&mut self, file: &str) {
        if let Some(page) = self.pages.remove(file) {
            self.turn(file, &page.entries, &Entries::new());
        }
    }

    /// Notes who holds what, and what changed.
    fn turn(&mut self, file: &str, old: &Entries, new: &Entries) {
        for (id, (_, entry)) in old {
            match new.get(id) {
                Some((_, now)) if now == entry => {}
                Some(_) => {
                    self.touched.insert(id.clone());
                }
                None => {
                    self.touched.insert(id.clone());
                    if let Some(holders) = self.holders.get_mut(id) {
                        holders.retain(|holder| holder != file);
                        if holders.is_empty() {
                            self.holders.remove(id);
                        }
                    }
                }
            }
        }
        for id in new.keys().filter(|id| !old.contains_key(*id)) {
            self.touched.insert(id.clone());
            self.holders.entry(id.clone()).or_default().push(file.to_owned());
        }
    }

    /// What changed since the last time, as updates: what is there before what is gone, so that a service that moves is never
    /// without instances. `created` is the age of what is new.
    pub(super) fn news(&mut self, created: Timestamp, now: Timestamp) -> Vec<Update> {
        let mut updates = Vec::new();
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let Some((hint, entry)) = self.in_force(&id, now) else {
                if self.told.remove(&id).is_some() {
                    gone.push(Update::Remove(instances_file::discovered_id(&id)));
                }
                continue;
            };
            let created = match self.told.get(&id) {
                Some((known, _)) if *known == entry => continue,
                Some((_, since)) => *since,
                None => created,
            };
            updates.push(Update::Upsert(Box::new(entry.discovered(created, hint, now))));
            self.told.insert(id, (entry, created));
        }
        updates.append(&mut gone);
        updates
    }

    /// Everything that was told.
    pub(super) fn everything(&self, now: Timestamp) -> Vec<Discovered> {
        let all = self.told.iter().filter_map(|(id, (_, created))| {
            let (hint, entry) = self.in_force(id, now)?;
            Some(entry.discovered(*created, hint, now))
        });
        all.collect()
    }

    fn in_force(&self, id: &EntryId, now: Timestamp) -> Option<(Hint, Arc<Entry>)> {
        let file = self.holders.get(id)?.first()?;
        let (place, entry) = self.pages.get(file)?.entries.get(id)?;
        Some((Hint { action: format!("{file}:{place}"), at: now }, Arc::clone(entry)))
    }

    /// Everything that is wrong in the files.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.pages.values().flat_map(|page| &page.problems).cloned().collect();
        for (id, holders) in self.holders.iter().filter(|(_, holders)| holders.len() > 1) {
            let place = |file: &String| Some(self.pages.get(file)?.entries.get(id)?.0);
            let Some((first, others)) = holders.split_first() else { continue };
            let Some(at) = place(first) else { continue };
            let twice = others
                .iter()
                .filter_map(|file| Some(instances_file::duplicate(file, place(file)?, id, &format!("{first}:{at}"))));
            problems.extend(twice);
        }
        problems
    }

    /// The files that say anything, or cannot be used.
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.pages.keys()
    }

    /// Entries in force.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }
}

/// The entries that could not be read, for what they may be meant to be.
struct Meant {
    known: BTreeSet<EntryId>,
    partly: Vec<Unclear>,
}

impl Meant {
    fn by(unclear: Vec<Unclear>) -> Self {
        let mut meant = Self { known: BTreeSet::new(), partly: Vec::new() };
        for entry in unclear {
            match entry {
                Unclear { service: Some(service), version: Some(version), address: Some(address) } => {
                    meant.known.insert(EntryId { service, version, address });
                }
                partly => {
                    if !meant.partly.contains(&partly) {
                        meant.partly.push(partly);
                    }
                }
            }
        }
        meant
    }

    fn includes(&self, id: &EntryId) -> bool {
        self.known.contains(id) || self.partly.iter().any(|unclear| unclear.could_be(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn line(service: &str, port: u16) -> String {
        format!("- {{ service: {service}, host: {service}.localhost, address: \"127.0.0.1:{port}\" }}\n")
    }

    fn news(book: &mut Book) -> Vec<String> {
        let updates = book.news(NOW, NOW).into_iter().map(|update| match update {
            Update::Upsert(discovered) => format!("+ {} {}", discovered.name, discovered.hint.action),
            Update::Remove(id) => format!("- {id}"),
            other => panic!("{other:?}"),
        });
        updates.collect()
    }

    fn codes(book: &Book) -> Vec<String> {
        book.problems().iter().map(|problem| format!("{} {}", problem.code, problem.subject)).collect()
    }

    fn book(files: &[(&str, String)]) -> Book {
        let mut book = Book::default();
        for (file, text) in files {
            book.write(file, text);
        }
        news(&mut book);
        book
    }

    #[test]
    fn only_entries_that_changed_are_told() {
        let mut book = book(&[("a.yaml", line("shop", 1) + &line("shop", 2))]);
        assert_eq!(book.len(), 2);
        book.write("a.yaml", &format!("# moved\n\n{}{}", line("shop", 2), line("shop", 1)));
        assert_eq!(news(&mut book), Vec::<String>::new(), "the place is no part of it");
        book.write("a.yaml", &(line("shop", 2) + &line("shop", 3)));
        let told = ["+ shop/default@127.0.0.1:3 a.yaml:2:3", "- file:shop/default@127.0.0.1:1"];
        assert_eq!(news(&mut book), told, "what is there before what is gone");
        book.write(
            "a.yaml",
            &(line("shop", 2).replace("127.0.0.1:2\"", "127.0.0.1:2\", drain: 1s") + &line("shop", 3)),
        );
        assert_eq!(news(&mut book), ["+ shop/default@127.0.0.1:2 a.yaml:1:3"]);
        book.remove("a.yaml");
        assert_eq!(news(&mut book).len(), 2);
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn a_bad_entry_stays_as_it_was_and_a_new_bad_one_is_left_out() {
        let good = line("shop", 1) + &line("shop", 2) + &line("cart", 3);
        for bad in [
            line("shop", 2).replace("host:", "hots:"),
            line("shop", 2).replace("127.0.0.1:2", "localhost:2"),
            line("shop", 2).replace("service: shop", "service: ''"),
            "- shop\n".to_owned(),
        ] {
            let mut book = book(&[("a.yaml", good.clone())]);
            book.write("a.yaml", &(line("shop", 1) + &bad + &line("cart", 3)));
            assert_eq!(news(&mut book), Vec::<String>::new(), "{bad}");
            assert_eq!(codes(&book).len(), 1, "{bad}");
            book.write("a.yaml", &(line("shop", 1) + &line("cart", 3)));
            assert_eq!(news(&mut book), ["- file:shop/default@127.0.0.1:2"], "an explicit removal");
        }
        let mut fresh = book(&[("a.yaml", line("shop", 1) + &line("shop", 2).replace("host:", "hots:"))]);
        assert_eq!(fresh.len(), 1);
        fresh.write("a.yaml", &line("shop", 2).replace("host:", "hots:"));
        assert_eq!(news(&mut fresh), ["- file:shop/default@127.0.0.1:1"], "what the bad one cannot be is gone");
    }

    #[test]
    fn a_file_that_cannot_be_used_keeps_its_last_good_entries() {
        let mut book = book(&[("a.yaml", line("shop", 1)), ("b.yaml", line("cart", 2))]);
        book.write("a.yaml", "- { service: [");
        assert_eq!((news(&mut book), codes(&book).len(), book.len()), (Vec::new(), 1, 2));
        assert!(codes(&book)[0].starts_with("TG0121 a.yaml:"), "{:?}", codes(&book));
        book.write("a.yaml", &line("shop", 1));
        assert_eq!((news(&mut book), codes(&book)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_same_entry_in_two_files_is_that_of_the_first_until_it_is_gone() {
        let mut book = book(&[("b.yaml", line("shop", 1))]);
        book.write("a.yaml", &line("shop", 1).replace("shop.localhost", "other.localhost"));
        assert_eq!(news(&mut book), Vec::<String>::new(), "the incumbent stays, whatever the files are called");
        assert_eq!(codes(&book), ["TG0123 a.yaml:1:3"]);
        book.remove("b.yaml");
        assert_eq!(news(&mut book), ["+ shop/default@127.0.0.1:1 a.yaml:1:3"]);
        assert_eq!(codes(&book), Vec::<String>::new());
    }

    #[test]
    fn an_entry_that_moves_to_another_file_is_the_same() {
        let mut book = book(&[("a.yaml", line("shop", 1))]);
        book.write("z.yaml", &line("shop", 1));
        book.remove("a.yaml");
        assert_eq!(news(&mut book), Vec::<String>::new());
    }

    #[test]
    fn the_age_of_an_entry_is_that_of_its_first_sight() {
        let mut book = book(&[("a.yaml", line("shop", 1))]);
        book.write("a.yaml", &line("shop", 1).replace("shop.localhost", "www.localhost"));
        let later = Timestamp::from_millis(9_000);
        let [Update::Upsert(discovered)] = &book.news(later, later)[..] else { panic!("one update") };
        assert_eq!((discovered.created, discovered.observed_at), (NOW, later));
        assert_eq!(book.everything(later).as_slice(), [(**discovered).clone()]);
    }
}
