//! `/products` and `/categories/{slug}`: search, facets, sorting and pages, all as links.

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

use crate::api::Refused;
use crate::api::types::{Category, CategoryPlace, Facets, Money, Product, Products};
use crate::app::App;
use crate::page::{Failed, Frame, Holds, Shown, show};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/products", get(search))
        .route("/search", get(search))
        .route("/categories/{slug}", get(category))
}

/// What API and page understand alike; names of attributes start with `attributes.`.
const FILTERS: [&str; 7] = ["q", "category", "currency", "min_price", "max_price", "in_stock", "sort"];
const SORTS: [&str; 5] = ["relevance", "newest", "price", "-price", "name"];
const PAGE: &str = "24";

/// What is looked for, as the address has it.
#[derive(Clone)]
struct Wanted {
    /// The address's path: a category has one of its own.
    path: String,
    category: Option<String>,
    filters: Vec<(String, String)>,
}

impl Wanted {
    fn new(category: Option<String>, query: Vec<(String, String)>) -> Self {
        let known = |name: &str| FILTERS.contains(&name) || name.starts_with("attributes.");
        let filters = query.into_iter().filter(|(name, value)| known(name) && !value.trim().is_empty());
        let path = match &category {
            Some(slug) => format!("/categories/{}", escaped(slug)),
            None => "/products".to_owned(),
        };
        Self { path, category, filters: filters.take(20).collect() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.filters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As the API asks for it.
    fn query<'a>(&'a self, cursor: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let filters = self.filters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let place = self.category.iter().map(|slug| ("category", slug.as_str()));
        let place = place.chain(cursor.map(|cursor| ("cursor", cursor)));
        filters.chain(place).chain([("facets", "attributes"), ("limit", PAGE)]).collect()
    }

    /// The page's address with other filters: `None` takes one away.
    fn link(&self, changes: &[(&str, Option<&str>)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.filters {
            if !changes.iter().any(|(changed, _)| changed == name) {
                query.append_pair(name, value);
            }
        }
        for (name, value) in changes {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let query = query.finish();
        if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) }
    }
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A choice of a facet, as a link that chooses it or takes it back.
struct Choice {
    label: String,
    count: i64,
    link: String,
    on: bool,
}

struct Group {
    name: String,
    choices: Vec<Choice>,
}

#[derive(Template)]
#[template(path = "products.html")]
struct List {
    p: Frame,
    heading: String,
    /// From the top down, without the category itself.
    above: Vec<(String, String)>,
    below: Vec<Choice>,
    groups: Vec<Group>,
    chosen: Vec<Choice>,
    stock: Choice,
    sorts: Vec<Choice>,
    products: Vec<Product>,
    did_you_mean: Option<String>,
    next: Option<String>,
    /// The first page again, on one that is not.
    first: Option<String>,
    nothing_chosen: String,
}

async fn search(visitor: Visitor, Query(query): Query<Vec<(String, String)>>) -> Shown {
    list(&visitor, None, query).await
}

async fn category(
    visitor: Visitor,
    Path(slug): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Shown {
    list(&visitor, Some(slug), query).await
}

async fn list(visitor: &Visitor, category: Option<String>, query: Vec<(String, String)>) -> Shown {
    let cursor = query.iter().find(|(name, _)| name == "cursor").map(|(_, value)| value.clone());
    let wanted = Wanted::new(category.clone(), query);
    let found = visitor.call(Method::GET, &["products"]).query(&wanted.query(cursor.as_deref()));
    let place = async {
        match &category {
            Some(slug) => {
                visitor.call(Method::GET, &["categories", slug]).get::<CategoryPlace>().await.map(Some)
            }
            None => Ok(None),
        }
    };
    let (found, place) = tokio::join!(found.get::<Products>(), place);
    let place = match place {
        Err(Refused::Moved(to)) => {
            let slug = to.rsplit('/').next().unwrap_or_default();
            return Ok(Redirect::permanent(&format!("/categories/{slug}")).into_response());
        }
        Err(refused) if refused.is_not_found() => return Err(Failed::NotFound),
        Err(Refused::Away) => None,
        other => other?,
    };
    let found = found?;
    let mut page = view(visitor, &wanted, found, place);
    page.first = cursor.map(|_| wanted.link(&[]));
    Ok(show(StatusCode::OK, &page, Holds::Public))
}

fn view(visitor: &Visitor, wanted: &Wanted, found: Products, place: Option<CategoryPlace>) -> List {
    let lang = visitor.lang();
    let text = |key: &str| lang.text(key, &[]);
    let facets = found.facets;
    let tree = facets.as_ref().map_or(&[][..], |facets| &facets.categories);
    let slug = wanted.category.as_deref().or_else(|| wanted.get("category"));
    let path = slug.map(|slug| Category::path(tree, slug)).unwrap_or_default();
    let name = place.map(|place| place.name).or_else(|| path.last().map(|own| own.name.clone()));
    let q = wanted.get("q").unwrap_or_default();
    let heading = match (name, q) {
        (Some(name), _) => name,
        (None, "") => text("products-title"),
        (None, q) => lang.text("products-found", &[("value", q.into())]),
    };
    let of_category = |category: &Category| {
        let other = Wanted { path: format!("/categories/{}", escaped(&category.slug)), ..wanted.clone() };
        let link = other.link(&[("category", None)]);
        Choice { label: category.name.clone(), count: category.count, link, on: false }
    };
    let next_down = if slug.is_some() { path.last().map_or(&[][..], |own| &own.children) } else { tree };
    let above = path.iter().rev().skip(1).rev();
    let groups = facets.as_ref().map(|facets| groups(visitor, wanted, facets)).unwrap_or_default();
    let in_stock = wanted.get("in_stock") == Some("true");
    let sort = wanted.get("sort").unwrap_or(if q.is_empty() { "newest" } else { "relevance" });
    let sorts = SORTS.iter().filter(|sort| !q.is_empty() || **sort != "relevance").map(|name| Choice {
        label: text(&format!("sort-{}", name.replace("-price", "price-down"))),
        count: 0,
        link: wanted.link(&[("sort", Some(name))]),
        on: *name == sort,
    });
    let mut frame = visitor.frame(&heading).searched(q);
    frame.canonical = format!("{}{}", visitor.app().origin, wanted.path);
    List {
        p: frame,
        above: above.map(|up| (up.name.clone(), format!("/categories/{}", escaped(&up.slug)))).collect(),
        below: next_down.iter().map(of_category).collect(),
        chosen: groups
            .iter()
            .flat_map(|group| &group.choices)
            .filter(|choice| choice.on)
            .map(again)
            .collect(),
        groups,
        stock: Choice {
            label: text("filter-in-stock"),
            count: 0,
            link: wanted.link(&[("in_stock", if in_stock { None } else { Some("true") })]),
            on: in_stock,
        },
        sorts: sorts.collect(),
        next: found.next_cursor.map(|cursor| wanted.link(&[("cursor", Some(&cursor))])),
        first: None,
        products: found.items,
        did_you_mean: found.did_you_mean,
        nothing_chosen: match q {
            "" => wanted.path.clone(),
            q => format!("{}?q={}", wanted.path, escaped(q)),
        },
        heading,
    }
}

fn again(choice: &Choice) -> Choice {
    Choice { label: choice.label.clone(), count: choice.count, link: choice.link.clone(), on: true }
}

fn groups(visitor: &Visitor, wanted: &Wanted, facets: &Facets) -> Vec<Group> {
    let lang = visitor.lang();
    let mut groups = Vec::new();
    if let Some(currency) = &facets.price_currency {
        let money = |amount| lang.money(&Money { amount, currency: currency.clone() });
        let (from, to) = (wanted.get("min_price"), wanted.get("max_price"));
        let bands = facets.price_bands.iter().map(|band| {
            let min = band.min_price.to_string();
            let max = band.max_price.map(|max| max.to_string());
            let on = from == Some(&min) && to == max.as_deref();
            // The next band begins with the next minor unit.
            let label = match band.max_price {
                Some(max) => format!("{} – {}", money(band.min_price), money(max)),
                None => lang.text("filter-from", &[("value", money(band.min_price).into())]),
            };
            let link = match on {
                true => wanted.link(&[("min_price", None), ("max_price", None), ("currency", None)]),
                false => wanted.link(&[
                    ("min_price", Some(&min)),
                    ("max_price", max.as_deref()),
                    ("currency", Some(currency)),
                ]),
            };
            Choice { label, count: band.count, link, on }
        });
        let choices = bands.filter(|band| band.count > 0 || band.on).collect();
        groups.push(Group { name: lang.text("filter-price", &[]), choices });
    }
    for facet in facets.attributes.iter().take(5) {
        let key = format!("attributes.{}", facet.name);
        let chosen = wanted.get(&key);
        let values = facet.values.iter().filter_map(|value| {
            let count = value.get("count")?.as_i64()?;
            let text = match value.get("value")? {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Number(number) => number.to_string(),
                _ => return None,
            };
            let on = chosen.is_some_and(|chosen| chosen.eq_ignore_ascii_case(&text));
            let link = wanted.link(&[(&key, if on { None } else { Some(&text) })]);
            Some(Choice { label: text, count, link, on })
        });
        let choices: Vec<_> = values.take(8).collect();
        if choices.len() > 1 || choices.iter().any(|choice| choice.on) {
            groups.push(Group { name: attribute(&facet.name), choices });
        }
    }
    groups
}

/// An attribute's name as people read it: `weight_g` becomes `Weight (g)`.
pub fn attribute(name: &str) -> String {
    let (words, unit) = match name.rsplit_once('_') {
        Some((words, unit)) if unit.len() <= 2 => (words, format!(" ({unit})")),
        _ => (name, String::new()),
    };
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{unit}", letters.as_str().replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &[(&str, &str)]) -> Wanted {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Wanted::new(None, query.collect())
    }

    #[test]
    fn a_link_keeps_what_was_chosen_and_begins_at_the_first_page() {
        let wanted = wanted(&[("q", "rope & rig"), ("sort", "price"), ("cursor", "x"), ("evil", "1")]);
        assert_eq!(wanted.link(&[]), "/products?q=rope+%26+rig&sort=price");
        assert_eq!(wanted.link(&[("sort", Some("name"))]), "/products?q=rope+%26+rig&sort=name");
        assert_eq!(wanted.link(&[("sort", None), ("q", None)]), "/products");
    }

    #[test]
    fn a_categorys_address_has_no_way_out() {
        let up = Wanted::new(Some("../admin?x=<y>".to_owned()), Vec::new());
        assert_eq!(up.link(&[]), "/categories/..%2Fadmin%3Fx%3D%3Cy%3E");
    }

    #[test]
    fn an_attribute_is_named_as_people_read_it() {
        assert_eq!(attribute("weight_g"), "Weight (g)");
        assert_eq!(attribute("blade_length_mm"), "Blade length (mm)");
        assert_eq!(attribute("color"), "Color");
        assert_eq!(attribute(""), "");
    }
}
