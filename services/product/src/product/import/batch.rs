//! What the lines of a batch make of products, and the few statements that write it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use messaging::NewEvent;
use service::db::Connection;
use uuid::Uuid;

use super::store::{self, Changes, Found};
use super::{
    Applied, ApplyError, DryRun, Line, LineError, MOST_CATEGORIES, MOST_DRY_RUN_PRODUCTS, Sender, Units,
};
use crate::category::MOST_LEVELS;
use crate::image::is_own;
use crate::product::{Form, sku, slug, updated};
use crate::stock::{self, SetError, Wanted};

enum Counted {
    Created,
    Updated,
    Unchanged,
}

/// A product as the batch will leave it.
struct Draft {
    id: Uuid,
    key: String,
    created: bool,
    changed: bool,
    form: Form,
    /// Units on hand, for a product that was there: as last seen, and as wanted.
    on_hand: i32,
    stock: i32,
    /// Whether a line set how many there are; if not, it added or took some.
    counted: bool,
    /// Whether nobody else may have changed them.
    conditional: bool,
}

impl Draft {
    /// The units to be on hand. Orders come and go meanwhile; the changes of the file are on top of that.
    fn wanted(&self) -> Wanted {
        if self.counted || self.conditional {
            Wanted::Exactly { units: self.stock, seen: self.conditional.then_some(self.on_hand) }
        } else {
            Wanted::Change(self.stock - self.on_hand)
        }
    }

    /// Whether a search finds the product by the same words as before.
    fn keeps_words(&self, there: &HashMap<String, Found>) -> bool {
        there.get(&self.key).is_some_and(|Found { form, .. }| {
            (&form.name, &form.description, &form.attributes)
                == (&self.form.name, &self.form.description, &self.form.attributes)
        })
    }
}

/// The changes that lines make to existing products.
pub struct Batch<'a> {
    there: HashMap<String, Found>,
    /// Categories that there are, or will be, with their levels.
    known: HashMap<String, i32>,
    /// Slugs that categories had before, and the ones that they have.
    redirects: HashMap<String, String>,
    made: Vec<store::Category<'a>>,
    /// By the keys of SKUs, so that rows are inserted in that order.
    drafts: BTreeMap<String, Draft>,
    /// The last entries in the ledgers of products for which lines have a condition.
    versions: HashMap<String, i64>,
    /// What lines did when they came with the same key before; `None` without a key.
    changes: Option<Changes>,
    /// To be remembered for when they come again.
    stock_changes: Vec<(u64, String, Units)>,
}

impl<'a> Batch<'a> {
    /// The lines' existing products and categories, the products' rows locked.
    pub async fn find(
        connection: &mut Connection,
        lines: &[Line],
        sender: Sender<'_>,
    ) -> sqlx::Result<Batch<'a>> {
        let keys = lines.iter().flat_map(|line| [line.key.clone(), sku::exact_key(&line.form.sku)]);
        let there = store::lock(connection, &keys.collect::<Vec<_>>()).await?;
        let mut named: Vec<String> = lines.iter().flat_map(Line::categories).cloned().collect();
        let redirects = store::redirects(connection, &named).await?;
        named.extend(redirects.values().cloned());
        let known = store::categories(connection, &named).await?;
        let versions = if lines.iter().any(|line| line.if_version.is_some()) {
            store::stock_versions(connection, &there).await?
        } else {
            HashMap::new()
        };
        let changing = lines.iter().filter(|line| line.units.is_some());
        let changing: Vec<u64> = changing.map(|line| line.place).collect();
        let changes = match sender.key {
            Some(key) if !changing.is_empty() => {
                Some(store::changes(connection, sender.id, key, &changing).await?)
            }
            _ => None,
        };
        let (made, drafts, stock_changes) = (Vec::new(), BTreeMap::new(), Vec::new());
        Ok(Self { there, known, redirects, made, drafts, versions, changes, stock_changes })
    }

    /// Adds the lines, and counts what comes of them.
    pub fn add_all(&mut self, lines: &'a [Line]) -> Applied {
        let mut applied = Applied::default();
        for line in lines {
            match self.add(line) {
                Ok(Counted::Created) => applied.created += 1,
                Ok(Counted::Updated) => applied.updated += 1,
                Ok(Counted::Unchanged) => {
                    applied.updated += 1;
                    applied.unchanged += 1;
                }
                Err(error) => applied.errors.push(error),
            }
        }
        applied
    }

    /// Treats as existing what the batches before it would have made.
    pub fn follow(&mut self, lines: &[Line], before: &DryRun) {
        let named = lines.iter().flat_map(Line::categories);
        let made = named.filter_map(|slug| Some((slug.clone(), *before.categories.get(slug)?)));
        self.known.extend(made);
    }

    /// Adds what this batch would make; returns how many of the products the batches before it would have
    /// made already.
    pub fn lead(self, before: &mut DryRun) -> u64 {
        let made = self.made.iter().filter_map(|made| self.known.get_key_value(made.slug));
        let left = MOST_CATEGORIES.saturating_sub(before.categories.len());
        before.categories.extend(made.take(left).map(|(slug, level)| (slug.clone(), *level)));
        let mut again = 0;
        for draft in self.drafts.values().filter(|draft| draft.created) {
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&draft.key);
            if before.created.contains(&hash) {
                again += 1;
            } else if before.created.len() < MOST_DRY_RUN_PRODUCTS {
                before.created.insert(hash);
            }
        }
        again
    }

    fn add(&mut self, line: &'a Line) -> Result<Counted, LineError> {
        let refuse =
            |pointer: &str, code: &str, detail: &str| Err(LineError::at(line.number, pointer, code, detail));
        let exact = sku::exact_key(&line.form.sku);
        let key = if self.there.contains_key(&exact) { exact } else { line.key.clone() };
        let found = self.there.get(&key);
        let before = self.drafts.get(&key).map(|draft| (&draft.form, draft.stock));
        let before = before.or_else(|| found.map(|found| (&found.form, found.on_hand)));
        if before.is_some_and(|(form, _)| form.price.currency != line.form.price.currency) {
            let detail = "A product keeps its currency; create another product.";
            return refuse("/price/currency", "currency_fixed", detail);
        }
        let done = self.is_done(line)?;
        let moved = self.drafts.get(&key).is_some_and(|draft| draft.stock != draft.on_hand);
        if let (Some(_), Some(version), false) = (found, line.if_version, done)
            && (moved || self.versions.get(&key).copied().unwrap_or(0) != version)
        {
            let detail = "The stock has changed since: somebody bought some, or counted anew.";
            return refuse("/stock_if_version", "stock_changed", detail);
        }
        let units = before.map_or(0, |(_, units)| units);
        let (reserved, change) = (found.map_or(0, |found| found.reserved), line.units.filter(|_| !done));
        let (stock, field) = match change {
            None => (units, ""),
            Some(Units::Exactly(units)) => (units, "/stock"),
            Some(Units::Change(more)) => (units + more, "/stock_change"),
        };
        if stock < reserved && !field.is_empty() {
            let detail = "Less would be left than is reserved for orders.";
            return refuse(field, "insufficient_stock", detail);
        }
        if stock > stock::MAX_ON_HAND {
            return refuse(field, "out_of_range", "Too many on hand.");
        }
        let has = |image: &String| before.is_some_and(|(form, _)| form.images.contains(image));
        if let Some(place) = line.form.images.iter().position(|image| is_own(image) && !has(image)) {
            return refuse(&format!("/images/{place}"), "unknown_image", "Not an image of this product.");
        }
        let category = self.category(line)?;

        let mut form = line.form.clone();
        form.category = self.now(&form.category).to_owned();
        let counted = match before {
            None => Counted::Created,
            Some((held, units)) => {
                // In any spelling of the line.
                form.sku.clone_from(&held.sku);
                if !line.attributes {
                    form.attributes.clone_from(&held.attributes);
                }
                // Uploaded images stay, and move to where the line names them; they are changed by uploads
                // only.
                let stays =
                    |image: &&String| !line.images || (is_own(image) && !form.images.contains(*image));
                let kept: Vec<String> = held.images.iter().filter(stays).cloned().collect();
                drop(form.images.splice(..0, kept));
                if form.images.len() > crate::schema::MAX_IMAGES {
                    let detail = "Too many together with those that were uploaded.";
                    return refuse("/images", "too_many", detail);
                }
                let same = form == *held && stock == units;
                if same { Counted::Unchanged } else { Counted::Updated }
            }
        };
        if let Some((category, level)) = category {
            self.known.insert(category.slug.to_owned(), level);
            self.made.push(category);
        }
        let draft = self.drafts.entry(key.clone()).or_insert_with(|| Draft {
            key,
            id: found.map_or_else(Uuid::now_v7, |found| found.id),
            created: found.is_none(),
            changed: false,
            form: form.clone(),
            on_hand: found.map_or(0, |found| found.on_hand),
            stock,
            counted: false,
            conditional: false,
        });
        draft.changed |= !matches!(counted, Counted::Unchanged);
        draft.counted |= matches!(change, Some(Units::Exactly(_)));
        draft.conditional |= line.if_version.is_some() && !done;
        (draft.form, draft.stock) = (form, stock);
        if let (Some(units), Some(_)) = (change, &self.changes) {
            self.stock_changes.push((line.place, line.key.clone(), units));
        }
        Ok(counted)
    }

    /// Whether the line came with the key before, and its change of stock is done.
    fn is_done(&self, line: &Line) -> Result<bool, LineError> {
        let before = self.changes.as_ref().and_then(|changes| changes.get(&line.place));
        match (line.units, before) {
            (None, _) | (_, None) => Ok(false),
            (Some(units), Some((sku, done))) if *sku == line.key && *done == units => Ok(true),
            _ => {
                let detail = "The line came with this Idempotency-Key before, and was another one.";
                Err(LineError::at(line.number, "/stock", "idempotency_key_reused", detail))
            }
        }
    }

    /// The slug of the category that has, or had, this one.
    fn now<'b>(&'b self, slug: &'b str) -> &'b str {
        self.redirects.get(slug).map_or(slug, String::as_str)
    }

    /// The category to make for the line and its level, if it has to be.
    fn category(&self, line: &'a Line) -> Result<Option<(store::Category<'a>, i32)>, LineError> {
        let slug = line.form.category.as_str();
        if self.known.contains_key(self.now(slug)) {
            return Ok(None);
        }
        let refuse =
            |pointer: &str, code: &str, detail: &str| Err(LineError::at(line.number, pointer, code, detail));
        let Some(name) = line.more.category_name.as_deref() else {
            let detail = "There is no such category; category_name would make it.";
            return refuse("/category", "unknown_category", detail);
        };
        if !(1..=64).contains(&slug.len()) || crate::product::slug(slug) != slug {
            let detail = "1 to 64 of letters and digits in lower case, and '-' between them.";
            return refuse("/category", "invalid_value", detail);
        }
        let parent = line.more.category_parent.as_deref().map(|parent| self.now(parent).to_owned());
        // So it stays a tree: a parent exists before its children.
        let above = match parent.as_ref().map(|parent| self.known.get(parent)) {
            None => 0,
            Some(Some(level)) => *level,
            Some(None) => {
                return refuse("/category_parent", "unknown_category", "There is no such category.");
            }
        };
        if above >= MOST_LEVELS {
            let detail = format!("Categories have {MOST_LEVELS} levels at most.");
            return refuse("/category_parent", "too_deep", &detail);
        }
        Ok(Some((store::Category { slug, name, parent }, above + 1)))
    }

    /// Writes the drafts with their events, and returns how many changed.
    pub async fn write(self, connection: &mut Connection, sender: Sender<'_>) -> Result<usize, ApplyError> {
        store::add_categories(connection, &self.made).await?;
        let (new, mut there): (Vec<&Draft>, Vec<&Draft>) =
            self.drafts.values().partition(|draft| draft.created);
        there.retain(|draft| draft.changed);

        let mut slugs: Vec<String> = new.iter().map(|draft| slug(&draft.form.name)).collect();
        let mut taken = store::slugs(connection, &slugs).await?;
        for (slug, draft) in slugs.iter_mut().zip(&new) {
            if !taken.insert(slug.clone()) {
                // As for a POST: the end of a UUIDv7 is random.
                *slug = format!("{slug}-{}", &draft.id.simple().to_string()[20..]);
            }
        }
        if store::insert(connection, &rows(&new), &slugs).await? < new.len() as u64 {
            return Err(ApplyError::Raced);
        }
        let (reworded, rest): (Vec<&Draft>, Vec<&Draft>) =
            there.iter().copied().partition(|draft| !draft.keeps_words(&self.there));
        store::update(connection, &rows(&reworded)).await?;
        store::update_all_but_words(connection, &rows(&rest)).await?;

        // Stock rows last, as orders wait for them.
        let opened: Vec<(Uuid, i32)> = new.iter().map(|draft| (draft.id, draft.stock)).collect();
        stock::open(connection, &opened).await?;
        let set = there.iter().filter(|draft| draft.stock != draft.on_hand);
        let set: BTreeMap<Uuid, Wanted> = set.map(|draft| (draft.id, draft.wanted())).collect();
        stock::set(connection, &set, "import", sender.id).await.map_err(|error| match error {
            SetError::Database(error) => error.into(),
            SetError::Changed => ApplyError::Raced,
        })?;
        if let Some(key) = sender.key {
            store::record_changes(connection, sender.id, key, &self.stock_changes).await?;
        }

        let ids: Vec<Uuid> = new.iter().chain(&there).map(|draft| draft.id).collect();
        let products = crate::product::store::by_ids(connection, &ids).await?;
        let events: Vec<NewEvent> = products.iter().map(updated).collect();
        messaging::outbox::enqueue(connection, &events).await?;
        Ok(events.len())
    }
}

fn rows<'a>(drafts: &[&'a Draft]) -> store::Rows<'a> {
    store::Rows::new(drafts.iter().map(|draft| (draft.id, &draft.form)))
}
