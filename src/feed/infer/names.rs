//! Names of output fields, and what a name says of its values.

use std::collections::{HashMap, HashSet};

/// The name in the style of output keys: `EANCode` is `ean_code`, `g:image link` is `image_link`.
pub fn snake_case(name: &str) -> String {
    let local = name.rsplit_once(':').map_or(name, |(_, local)| local);
    let chars: Vec<char> = local.chars().collect();
    let mut snake = String::new();
    for (index, &c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            if !snake.is_empty() && !snake.ends_with('_') {
                snake.push('_');
            }
            continue;
        }
        let before = index.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(index + 1);
        // A word begins at a capital after a small letter, and at the last capital before one.
        let begins_word = c.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || before.is_uppercase() && after.is_some_and(|after| after.is_lowercase())
            });
        if begins_word && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    match snake.trim_end_matches('_') {
        "" => "field".to_owned(),
        snake => snake.to_owned(),
    }
}

/// The name of a feed, after that of a file: its beginning up to a dot, in the characters that a feed's name may have.
pub fn of_feed(file: &str) -> String {
    let stem = file.split('.').find(|part| !part.is_empty());
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = stem
        .unwrap_or_default()
        .chars()
        .map(|c| if is_allowed(c) { c } else { '-' })
        .collect();
    match name.trim_matches('-') {
        "" => "partner".to_owned(),
        name => name.to_owned(),
    }
}

/// Words for what is not calculated with, though it may be all digits.
const IDENTIFIERS: [&str; 48] = [
    "account",
    "article",
    "asin",
    "barcode",
    "category",
    "class",
    "code",
    "ean",
    "fax",
    "group",
    "gtin",
    "iban",
    "id",
    "identifier",
    "ids",
    "isbn",
    "issn",
    "key",
    "mobile",
    "model",
    "mpn",
    "nr",
    "number",
    "nummer",
    "part",
    "phone",
    "plz",
    "postal",
    "postcode",
    "ref",
    "reference",
    "role",
    "scheme",
    "serial",
    "sku",
    "status",
    "style",
    "tax",
    "tel",
    "telephone",
    "type",
    "upc",
    "uuid",
    "variant",
    "vat",
    "version",
    "zip",
    "zipcode",
];

/// The same written together with what they are of.
const IDENTIFIER_ENDS: [&str; 7] = ["code", "gtin", "isbn", "number", "nummer", "phone", "sku"];

/// Whether values of this output name are labels and not quantities, whatever they look like.
pub fn is_identifier(snake: &str) -> bool {
    snake.split('_').any(|word| {
        // `productid`, and not `paid` or `valid`.
        let is_of_something = word.len() >= 6 && word.ends_with("id");
        IDENTIFIERS.contains(&word)
            || IDENTIFIER_ENDS.iter().any(|end| word.ends_with(end))
            || is_of_something
    })
}

/// Whether the name says that a date is meant.
pub fn is_date(snake: &str) -> bool {
    ["date", "datum"].iter().any(|word| snake.contains(word))
}

/// What partners call the one thing their file is a list of, also at the end of longer names; without `_`, in the singular.
const RECORD_ENDS: [&str; 8] = [
    "article", "artikel", "entry", "item", "offer", "product", "produkt", "record",
];

/// The same for words that are something else in longer names.
const RECORDS: [&str; 6] = ["book", "good", "itemin", "listing", "row", "shipment"];

/// Whether an element of this name is likely a record: `item`, `SHOPITEM`, `ORDER_ITEM`.
pub fn is_record(name: &str) -> bool {
    let word = snake_case(name).replace('_', "");
    RECORDS.contains(&&*word) || RECORD_ENDS.iter().any(|end| word.ends_with(end))
}

/// Whether `plural` is what several of `name` are called: `images`, `categories`, `boxes`.
pub fn is_plural(plural: &str, name: &str) -> bool {
    let (plural, name) = (snake_case(plural), snake_case(name));
    let stem = name.strip_suffix('y').unwrap_or(&name);
    let rest = plural.strip_prefix(stem);
    plural
        .strip_prefix(&*name)
        .is_some_and(|rest| matches!(rest, "s" | "es"))
        || stem.len() < name.len() && rest == Some("ies")
}

/// The same for a list of them: `offers`, `entries`.
pub fn is_list_of_records(name: &str) -> bool {
    is_record(name)
        || name.strip_suffix('s').is_some_and(is_record)
        || name
            .strip_suffix("ies")
            .is_some_and(|stem| is_record(&format!("{stem}y")))
}

/// Gives out names, each once.
#[derive(Clone, Default)]
pub struct Unique {
    taken: HashSet<String>,
    /// The number that is next after each name that was asked for twice.
    numbers: HashMap<String, usize>,
}

impl Unique {
    pub fn is_taken(&self, name: &str) -> bool {
        self.taken.contains(name)
    }

    /// `name`, or with a number after it the first one that is not taken yet.
    pub fn take(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        while !self.taken.insert(unique.clone()) {
            let number = self.numbers.entry(name.to_owned()).or_insert(1);
            *number += 1;
            unique = format!("{name}_{number}");
        }
        unique
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_snake_case() {
        for (name, snake) in [
            ("id", "id"),
            ("g:image_link", "image_link"),
            ("EANCode", "ean_code"),
            ("ProductID", "product_id"),
            ("ORDER_ITEM", "order_item"),
            ("titleElement2Text", "title_element2_text"),
            ("Google Shopping / Gender", "google_shopping_gender"),
            ("UDX.UGE.LEVEL", "udx_uge_level"),
            ("søkOrd", "søk_ord"),
            ("#text", "text"),
            ("4711", "4711"),
            ("_a_", "a"),
            ("***", "field"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn a_feed_is_named_after_its_file() {
        for (file, name) in [
            ("acme.xml.gz", "acme"),
            ("Acme Products 2026.csv", "Acme-Products-2026"),
            (".hidden", "hidden"),
            ("-", "partner"),
            ("søk.xml", "s-k"),
            ("..", "partner"),
        ] {
            assert_eq!(of_feed(file), name);
        }
    }

    #[test]
    fn identifiers_are_told_by_words_and_not_by_letters() {
        for name in [
            "id",
            "product_id",
            "productid",
            "ean_code",
            "artikelnummer",
            "vat_number",
        ] {
            assert!(is_identifier(name), "{name}");
        }
        for name in [
            "paid", "valid", "price", "mean", "width", "stock", "quantity",
        ] {
            assert!(!is_identifier(name), "{name}");
        }
    }

    #[test]
    fn records_are_told_by_their_names() {
        for name in ["item", "SHOPITEM", "ORDER_ITEM", "ns:Product", "ItemIn"] {
            assert!(is_record(name), "{name}");
        }
        for name in ["items", "category", "ProductForm", "param", "Message"] {
            assert!(!is_record(name), "{name}");
        }
        for name in ["items", "offers", "entries", "lineItems", "product"] {
            assert!(is_list_of_records(name), "{name}");
        }
        assert!(!is_list_of_records("categories"));
    }

    #[test]
    fn plurals_are_told_from_other_names() {
        for (plural, name) in [
            ("Images", "g:image"),
            ("CATEGORIES", "CATEGORY"),
            ("boxes", "box"),
        ] {
            assert!(is_plural(plural, name), "{plural}");
        }
        for (other, name) in [
            ("price", "value"),
            ("images", "images"),
            ("image", "images"),
            ("days", "da"),
        ] {
            assert!(!is_plural(other, name), "{other}");
        }
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let mut unique = Unique::default();
        let names = ["a", "a_2", "a", "a", "b", "a_2"].map(|name| unique.take(name));
        assert_eq!(names, ["a", "a_2", "a_3", "a_4", "b", "a_2_2"]);
        assert!(unique.is_taken("a_4") && !unique.is_taken("a_5"));
    }
}
