//! Lists of products: searched, filtered, counted and walked through.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Shop, answer as answer_of, id, names, pointers, shop, shop_with};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn a_walk_over_equal_values_meets_each_product_once() {
    let shop = shop().await;
    for n in 0..25 {
        let (price, name) = (if n < 20 { 500 } else { n }, format!("Lamp {}", n / 10));
        shop.product(json!({"name": name, "price": {"amount": price, "currency": "EUR"}})).await;
    }
    for query in
        ["", "?sort=price", "?sort=-price", "?sort=name", "?q=lamp", "?q=lamp&sort=newest&category=t-sea"]
    {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for _ in 0..5 {
            let joint = if query.is_empty() { "?" } else { "&" };
            let (status, page) = shop.get(&format!("/products{query}{joint}limit=7{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            seen.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // A product that comes in between shifts nothing.
            if query.is_empty() && seen.len() == 7 {
                shop.product(json!({"name": "Latecomer"})).await;
            }
        }
        let ids: BTreeSet<String> = seen.iter().map(id).collect();
        assert_eq!((seen.len(), ids.len()), (25, 25), "{query}");
        let prices = seen.iter().map(|item| item["price"]["amount"].as_i64().unwrap());
        match query {
            "?sort=price" => assert!(prices.is_sorted()),
            "?sort=-price" => assert!(prices.rev().is_sorted()),
            "?sort=name" => assert!(seen.iter().map(|item| item["name"].as_str().unwrap()).is_sorted()),
            "" => assert!(seen.iter().map(|item| item["created_at"].as_str().unwrap()).rev().is_sorted()),
            _ => {}
        }
        if query.is_empty() {
            let late = shop.get("/products?limit=1").await.1["items"][0].clone();
            let archive =
                shop.staff(Method::DELETE, &format!("/products/{}", id(&late))).header("if-match", "*");
            assert_eq!(archive.send().await.unwrap().status(), 204);
        }
    }
}

#[tokio::test]
async fn a_search_finds_what_it_names() {
    let shop = shop().await;
    let eur = |amount: i64| json!({"amount": amount, "currency": "EUR"});
    shop.product(json!({"name": "Waxed Jacket", "description": "For rain.", "price": eur(9000), "stock": 1,
        "sku": "DKS-CLO-0001", "attributes": {"color": "vermilion"}}))
        .await;
    shop.product(json!({"name": "Mooring Rope", "description": "Goes with a jacket.", "price": eur(3000),
        "category": "t-rope"}))
        .await;
    shop.product(json!({"name": "blanket", "price": eur(5000), "category": "t-home"})).await;
    for name in ["Mug", "Mug -Navy", "Mug Navy Rim"] {
        shop.product(json!({"name": name, "description": "", "category": "t-home", "price": eur(100)})).await;
    }
    let long = format!("?q=jackets{}zzz", "%20".repeat(200));
    for (query, found) in [
        // Pasted text is no error.
        ("?q=waxed%09%00jacket%0D%0A", &["Waxed Jacket"][..]),
        (&long, &["Waxed Jacket", "Mooring Rope"]),
        // Though it reads as a wish without the last word.
        ("?q=mug%20-navy", &["Mug -Navy", "Mug"]),
        ("?q=mug%20-navy&sort=name", &["Mug", "Mug -Navy"]),
        ("?q=jackets", &["Waxed Jacket", "Mooring Rope"]),
        ("?q=jaket", &["Waxed Jacket", "Mooring Rope"]),
        ("?q=waxed%20jakcet&category=t-sea&in_stock=true", &["Waxed Jacket"]),
        ("?q=morring%20rop", &["Mooring Rope"]),
        ("?q=vermillon", &["Waxed Jacket"]),
        ("?q=%22jaket%22", &[]),
        ("?q=jaket%20-rope", &[]),
        ("?q=the", &[]),
        ("?q=vermilion", &["Waxed Jacket"]),
        ("?q=DKS-CLO-0001", &["Waxed Jacket"]),
        ("?q=waxed%20-jacket", &[]),
        ("?q=zzzzzz", &[]),
        ("?q=%27%22%5C%28%26%7C%21", &[]),
        ("?category=t-sea", &["Mooring Rope", "Waxed Jacket"]),
        ("?category=t-rope", &["Mooring Rope"]),
        ("?min_price=3000&max_price=5000&sort=price", &["Mooring Rope", "blanket"]),
        ("?in_stock=true", &["Waxed Jacket"]),
        ("?in_stock=false&sort=name&min_price=1000", &["blanket", "Mooring Rope"]),
        ("?q=jacket&sort=-price&facets=true", &["Waxed Jacket", "Mooring Rope"]),
        ("?q=&sort=name&min_price=1000", &["blanket", "Mooring Rope", "Waxed Jacket"]),
    ] {
        assert_eq!(names(&shop, query).await, found, "{query}");
    }
}

#[tokio::test]
async fn a_search_that_can_not_be_is_refused() {
    let shop = shop().await;
    shop.stocked(1).await;
    shop.stocked(1).await;
    for (query, pointer) in [
        ("sort=rating", "/sort"),
        ("sort=relevance", "/sort"),
        ("min_price=-1", "/min_price"),
        ("max_price=1.5", "/max_price"),
        ("max_price=99999999999999999999", "/max_price"),
        ("min_price=2&max_price=1", "/min_price"),
        ("in_stock=yes", "/in_stock"),
        ("facets=1", "/facets"),
        ("category=nowhere", "/category"),
        ("category=", "/category"),
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
    ] {
        let (status, problem) = shop.get(&format!("/products?{query}")).await;
        assert_eq!((status, pointers(&problem)), (422, vec![pointer]), "{query}");
    }
    let cursor = shop.get("/products?limit=1&sort=price").await.1["next_cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    let tampered = |query: &str, place: Value, respelt: Value| {
        let mut filters = json!({"q": null, "category": null, "min_price": null, "max_price": null,
            "in_stock": null, "sort": "newest"});
        filters.as_object_mut().unwrap().extend(match query {
            "" => json!({}).as_object().unwrap().clone(),
            _ => json!({"q": "lamp", "sort": "relevance"}).as_object().unwrap().clone(),
        });
        let id = "019aaaaa-0000-7000-8000-000000000000";
        let cursor = json!({"filters": filters, "respelt": respelt, "place": place, "id": id});
        format!("{query}&cursor={}", BASE64.encode(cursor.to_string()))
    };
    let sane = tampered("q=lamp", json!({"relevance": ["name", 5]}), json!(["o'l\\amp"]));
    assert_eq!(shop.get(&format!("/products?{sane}")).await.0, 200);
    for query in [
        "cursor=nonsense".to_owned(),
        format!("cursor={cursor}"),
        format!("sort=-price&cursor={cursor}"),
        format!("sort=price&q=lamp&cursor={cursor}"),
        format!("sort=price&category=t-sea&cursor={cursor}"),
        format!("sort=price&min_price=1&cursor={cursor}"),
        format!("sort=price&in_stock=true&cursor={cursor}"),
        tampered("", json!({"newest": i64::MAX}), json!(null)),
        tampered("", json!({"price": 5}), json!(null)),
        tampered("q=lamp", json!({"relevance": ["name", i64::MIN]}), json!(null)),
        tampered("q=lamp", json!({"relevance": ["name", 5]}), json!(["a\u{0}b"])),
        tampered("q=lamp", json!({"relevance": ["name", 5]}), json!([])),
        tampered("q=lamp", json!({"relevance": ["name", 5]}), json!(["x".repeat(201)])),
    ] {
        let (status, problem) = shop.get(&format!("/products?{query}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_cursor")), "{query}");
    }
    for path in ["/products/nothing", "/products/%00", "/products/019aaaaa-0000-7000-8000-000000000000"] {
        assert_eq!(shop.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn words_in_a_name_go_before_those_in_attributes_and_descriptions() {
    let shop = shop().await;
    for n in 0..4 {
        let lamp = ["", " lamp"][n % 2];
        shop.product(json!({"name": format!("Brass{lamp} {n}"), "description": "Burns oil, as a lamp."}))
            .await;
        shop.product(json!({"name": format!("Lantern {n}"), "attributes": {"like": "brass lamp"}})).await;
        shop.product(json!({"name": format!("Wick {n}"), "description": "For a lamp of brass."})).await;
    }
    let order = [
        "Brass lamp 3",
        "Brass lamp 1",
        "Lantern 3",
        "Lantern 2",
        "Lantern 1",
        "Lantern 0",
        "Wick 3",
        "Wick 2",
        "Brass 2",
        "Wick 1",
        "Wick 0",
        "Brass 0",
    ];
    for (q, respelt) in [("brass%20lamp", false), ("bras%20lampp", true)] {
        assert_eq!(names(&shop, &format!("?q={q}")).await, order, "{q}");
        for limit in [1, 2, 5] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            for _ in 0..13 {
                let (_, page) = shop.get(&format!("/products?q={q}&limit={limit}{cursor}")).await;
                let items = page["items"].as_array().unwrap().iter();
                seen.extend(items.map(|item| item["name"].as_str().unwrap().to_owned()));
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
                // From now on the shop knows the words as they were spelt; the walk goes on as it began.
                if respelt && limit == 5 {
                    shop.product(json!({"name": "bras lampp"})).await;
                }
            }
            assert_eq!(seen, order, "{q} by {limit}");
        }
    }
}

#[tokio::test]
async fn in_stock_is_as_of_now() {
    let shop = shop().await;
    let product = shop.stocked(2).await;
    let found = async |query: &str| names(&shop, query).await.len();
    let order = Uuid::now_v7();
    for (in_stock, sold_out) in [(1, 0), (0, 1), (1, 0)] {
        assert_eq!((found("?in_stock=true").await, found("?in_stock=false").await), (in_stock, sold_out));
        let (_, answer) = shop.get("/products?in_stock=false&facets=true").await;
        assert_eq!(answer["facets"]["price_bands"][1]["count"], sold_out);
        if in_stock == 1 {
            shop.reserve(order, &[(&product, 2)]).await;
        } else {
            shop.release(order).await;
        }
    }
    let adjust = json!({"delta": -2, "reason": "lost"});
    assert_eq!(shop.post(&format!("/products/{product}/stock-adjustments"), &adjust).await.0, 201);
    assert_eq!(found("?in_stock=true").await, 0);
}

#[tokio::test]
async fn facets_count_by_all_filters_but_their_own() {
    let shop = shop().await;
    for (category, amount, stock, name) in [
        ("t-sea", 500, 1, "Lamp"),
        ("t-rope", 999, 1, "Rope"),
        ("t-rope", 1000, 0, "Rope lamp"),
        ("t-rope", 30_000, 1, "Rope"),
        ("t-home", 2499, 1, "Lamp"),
    ] {
        let price = json!({"amount": amount, "currency": "EUR"});
        shop.product(json!({"category": category, "price": price, "stock": stock, "name": name,
            "description": "Good."}))
            .await;
    }
    // Sea with what is below it, Rope, Home; then the bands.
    for (query, categories, bands) in [
        ("", [4, 3, 1], [2, 2, 0, 0, 0, 1]),
        ("&category=t-rope", [4, 3, 1], [1, 1, 0, 0, 0, 1]),
        ("&category=t-sea&max_price=999", [2, 1, 0], [2, 1, 0, 0, 0, 1]),
        ("&in_stock=true", [3, 2, 1], [2, 1, 0, 0, 0, 1]),
        ("&in_stock=false", [1, 1, 0], [0, 1, 0, 0, 0, 0]),
        ("&q=lamp", [2, 1, 1], [1, 2, 0, 0, 0, 0]),
        ("&q=lampp&category=t-home&min_price=1000", [1, 1, 1], [0, 1, 0, 0, 0, 0]),
        ("&q=zzzzzz", [0, 0, 0], [0, 0, 0, 0, 0, 0]),
        ("&q=the", [0, 0, 0], [0, 0, 0, 0, 0, 0]),
        ("&q=good&in_stock=true&max_price=2499", [2, 1, 1], [2, 1, 0, 0, 0, 1]),
    ] {
        let (status, answer) = shop.get(&format!("/products?facets=true&limit=1{query}")).await;
        assert_eq!(status, 200, "{answer}");
        let facets = &answer["facets"];
        let counts = |nodes: &Value| {
            let nodes = nodes.as_array().unwrap().iter();
            nodes.map(|node| (node["slug"].clone(), node["count"].clone())).collect::<Vec<_>>()
        };
        let expected = |counts: &[(&str, i64)]| {
            let counts = counts.iter().filter(|(_, count)| *count > 0);
            counts.map(|(slug, count)| (json!(slug), json!(count))).collect::<Vec<_>>()
        };
        let [sea, rope, home] = categories;
        let tree = &facets["categories"];
        assert_eq!(counts(tree), expected(&[("t-sea", sea), ("t-home", home)]), "{query} {facets}");
        if sea > 0 {
            assert_eq!(counts(&tree[0]["children"]), expected(&[("t-rope", rope)]), "{query} {facets}");
        }
        let given =
            facets["price_bands"].as_array().unwrap().iter().map(|band| band["count"].as_i64().unwrap());
        assert_eq!(given.collect::<Vec<_>>(), bands, "{query} {facets}");
    }
    let (_, answer) = shop.get("/products?facets=true").await;
    let facets = &answer["facets"];
    assert_eq!(
        facets["price_bands"][1],
        json!({"min_price": 1000, "max_price": 2499, "count": 2, "capped": false})
    );
    assert_eq!(facets["price_bands"][5], json!({"min_price": 25_000, "count": 1, "capped": false}));
    assert_eq!(
        facets["categories"][1],
        json!({"slug": "t-home", "name": "Home", "count": 1, "capped": false, "children": []})
    );
    for query in ["", "?facets=false"] {
        assert_eq!(shop.get(&format!("/products{query}")).await.1.get("facets"), None);
    }
}

/// Texts that are hard on whoever parses them: each up to `most` characters.
fn hard_texts(most: usize) -> Vec<String> {
    let printable = || (' '..='~').chain(['\u{a0}', '\u{2003}', '\u{200b}', 'é', '☕', '\u{10ffff}']);
    let mut texts: Vec<String> = printable().map(|c| c.to_string().repeat(most)).collect();
    let special: Vec<char> = printable().filter(|c| !c.is_ascii_alphanumeric()).collect();
    for first in &special {
        for second in special.iter().chain(&['a']) {
            texts.push(format!("{first}{second}").repeat(most / 2));
        }
    }
    let parts = [
        "-", "--", "\"", "'", "or", " or ", " ", "(", ")", "!", "&", "|", ":*", "<->", "\\", "a", "lamp",
        "\u{2003}",
    ];
    // Numbers that are the same in every run: SplitMix64.
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    };
    for _ in 0..400 {
        let some: Vec<&str> = (0..=next(6)).map(|_| parts[next(parts.len())]).collect();
        let text: String = (0..most).map(|_| some[next(some.len())]).collect();
        texts.push(text.chars().take(1 + next(most)).collect());
    }
    texts
}

#[tokio::test]
async fn no_text_in_a_search_is_our_fault() {
    let shop = shop().await;
    shop.product(json!({"name": "Harbour Lamp", "description": "With oil."})).await;
    for texts in hard_texts(200).chunks(16) {
        let asked = texts.iter().map(async |text| {
            let answer = shop.anyone(Method::GET, "/products").query(&[("q", text)]).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{text:?}: {}", answer.text().await.unwrap());
        });
        futures_util::future::join_all(asked).await;
    }
    // Other texts that reach the database, one of them through a cursor that was tampered with.
    let some: Vec<String> = hard_texts(60).into_iter().step_by(5).collect();
    for texts in some.chunks(16) {
        let asked = texts.iter().map(async |text| {
            let filters = json!({"q": "lamp", "category": null, "min_price": null, "max_price": null,
                "in_stock": null, "sort": "relevance"});
            let cursor = json!({"filters": filters, "respelt": [text, "lamp"],
                "place": {"relevance": ["name", 5]}, "id": Uuid::now_v7()});
            let cursor = BASE64.encode(cursor.to_string());
            for query in [[("q", "lamp"), ("cursor", &cursor)], [("category", text), ("limit", "1")]] {
                let answer = shop.anyone(Method::GET, "/products").query(&query).send().await.unwrap();
                assert!(answer.status().as_u16() < 500, "{query:?}: {}", answer.text().await.unwrap());
            }
        });
        futures_util::future::join_all(asked).await;
    }
}

#[tokio::test]
async fn stray_punctuation_in_a_search_is_passed_over() {
    let shop = shop().await;
    shop.product(json!({"name": "Harbour Lamp", "description": "Burns oil."})).await;
    shop.product(json!({"name": "Storm Lamp", "description": "For wind."})).await;
    for (q, found) in [
        ("lamp - oil", &["Harbour Lamp"][..]),
        ("harbour -- lamp --", &["Harbour Lamp"]),
        ("harbour \"lamp", &["Harbour Lamp"]),
        ("harbuor - lamp -", &["Harbour Lamp"]),
        ("\"harbour lamp\" -", &["Harbour Lamp"]),
        ("lamp -oil", &["Storm Lamp"]),
        ("lamp -\"burns oil\"", &["Storm Lamp"]),
        ("(storm | harbour)", &[]),
        ("storm or harbour", &[]),
        ("storm - or - lamp", &["Storm Lamp"]),
        (&"-".repeat(200), &[]),
    ] {
        let answer = shop.anyone(Method::GET, "/products").query(&[("q", q)]).send().await.unwrap();
        let (status, page) = crate::common::answer(answer).await;
        let names: Vec<&str> =
            page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
        assert_eq!((status, names), (200, found.to_vec()), "{q}");
    }
}

/// A product's name, and the queries that must find it.
type Case = (&'static str, Vec<&'static str>);

/// `relevance.txt` by language.
fn relevance() -> Vec<(&'static str, Vec<Case>)> {
    let lines = include_str!("../relevance.txt").lines();
    let mut languages: Vec<(&str, Vec<Case>)> = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(language) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            languages.push((language, Vec::new()));
        } else {
            let (name, queries) = line.split_once(" | ").unwrap();
            languages.last_mut().unwrap().1.push((name, queries.split("; ").collect()));
        }
    }
    languages
}

/// The names on the first page of ten. None of the words may have been respelt.
async fn found(shop: &Shop, q: &str) -> Vec<String> {
    let request = shop.anyone(Method::GET, "/products").query(&[("q", q), ("limit", "10")]);
    let (status, page) = answer_of(request.send().await.unwrap()).await;
    assert_eq!(status, 200, "{q}: {page}");
    if page.get("did_you_mean").is_some() {
        return Vec::new();
    }
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_people_type_finds_what_they_mean_in_eight_languages() {
    let shop = shop().await;
    let languages = relevance();
    let products = languages.iter().flat_map(|(_, products)| products);
    let lines = products.enumerate().map(|(number, (name, _))| {
        json!({"sku": format!("R-{number}"), "name": name, "description": "", "category": "t-sea",
            "price": {"amount": 100, "currency": "EUR"}})
        .to_string()
    });
    let lines = lines.collect::<Vec<_>>().join("\n");
    let import = shop.staff(Method::POST, "/product-imports").header("content-type", "application/x-ndjson");
    let (status, report) = answer_of(import.body(lines).send().await.unwrap()).await;
    assert_eq!((status, &report["failed"]), (200, &json!(0)), "{report}");

    let (mut queries, mut low) = (0, Vec::new());
    for (language, products) in &languages {
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, asked) in products {
            assert_eq!(found(&shop, name).await.first().map(String::as_str), Some(*name));
            for q in asked {
                wanted.entry(q).or_default().insert(name);
            }
        }
        let (mut hits, mut missed) = (0.0, Vec::new());
        for (q, wanted) in &wanted {
            let found = found(&shop, q).await;
            let right = wanted.iter().filter(|name| found.iter().any(|found| found == **name)).count();
            hits += right as f64 / wanted.len() as f64;
            if right < wanted.len() {
                missed.push(format!("{q}: {found:?}"));
            }
        }
        queries += wanted.len();
        let recall = hits / wanted.len() as f64;
        println!("{language}: {recall:.3} of {} queries; missed {missed:#?}", wanted.len());
        if recall < 0.95 {
            low.push((language, recall));
        }
    }
    assert!(low.is_empty(), "{low:?}");
    assert!(queries >= 300 && languages.len() == 8, "{queries} queries");
}

#[tokio::test]
async fn a_search_is_for_what_the_text_says() {
    let shop = shop().await;
    for (sku, name) in [
        ("KP7-SEAL114-BLK", "Hatch seal"),
        ("CR-1", "Crème brûlée dish"),
        ("CR-2", "Creme jug"),
        ("CR-3", "Cre\u{300}me spoon"),
        ("B-1", "Smoky Black"),
        ("X-1", "Drill X-200"),
        ("X-2", "Drill X-2000"),
        ("X-3", "Nut 200 x 12"),
        ("T-1", "The Who"),
        ("T-2", "It"),
        ("W-1", "Edelstahlwasserkocher"),
        ("W-2", "Wasserkocher"),
        ("S-1", "Tee - Red"),
        ("S-2", "Tee - Blue"),
    ] {
        shop.product(json!({"sku": sku, "name": name, "description": ""})).await;
    }
    for (q, names) in [
        ("KP7-SEAL114-BLK", &["Hatch seal"][..]),
        ("kp7-seal114", &["Hatch seal"]),
        ("KP7-SE", &["Hatch seal"]),
        ("kp7", &["Hatch seal"]),
        ("kp7seal", &["Hatch seal"]),
        ("seal114", &["Hatch seal"]),
        ("creme", &["Cre\u{300}me spoon", "Creme jug", "Crème brûlée dish"]),
        ("CRÈME BRULEE", &["Crème brûlée dish"]),
        ("brack", &[]),
        ("blakc", &["Smoky Black"]),
        ("x-200", &["Drill X-200", "Drill X-2000"]),
        ("X 200", &["Nut 200 x 12", "Drill X-200"]),
        ("the who", &["The Who"]),
        ("it", &["It"]),
        ("wasserkocher", &["Wasserkocher", "Edelstahlwasserkocher"]),
        ("tee - red", &["Tee - Red"]),
        ("tee -red", &["Tee - Blue"]),
        ("\"tee red\"", &["Tee - Red"]),
        ("TEE   -  RED", &["Tee - Red"]),
    ] {
        let answer = shop.anyone(Method::GET, "/products").query(&[("q", q)]).send().await.unwrap();
        let (_, page) = answer_of(answer).await;
        let found = page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap());
        assert_eq!(found.collect::<Vec<_>>(), names, "{q}");
        let meant = (q == "blakc").then(|| json!("black"));
        assert_eq!(page.get("did_you_mean"), meant.as_ref(), "{q}");
    }
}

#[tokio::test]
async fn names_sort_as_people_sort_them() {
    let shop = shop().await;
    let sorted = ["9 mm drill", "10 mm drill", "Apfel", "Äpfel", "apple", "Olive", "Östers", "Zander"];
    for name in sorted.iter().rev() {
        shop.product(json!({"name": name})).await;
    }
    assert_eq!(names(&shop, "?sort=name").await, sorted);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..=sorted.len() {
        let (_, page) = shop.get(&format!("/products?sort=name&limit=1{cursor}")).await;
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, sorted);
}

#[tokio::test]
async fn products_whose_words_are_old_get_new_ones() {
    let shop = shop().await;
    let product = id(&shop.product(json!({"name": "Kettle"})).await);
    assert_eq!(names(&shop, "?q=kettle").await, ["Kettle"]);
    // As a replica of another release writes, and whoever changes rows by hand.
    sqlx::query("UPDATE products.products SET name = 'Edelstahlwasserkocher' WHERE id = $1::uuid")
        .bind(&product)
        .execute(&shop.pool)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO products.products
             (id, sku, slug, name, description, price, currency, category, attributes, images)
         SELECT gen_random_uuid(), 'OLD-' || n, 'old-' || n, 'Wasserkocher ' || n, '', 1, 'EUR', 't-sea', '{}', '{}'
         FROM generate_series(1, 450) n",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    sqlx::query("INSERT INTO products.stock SELECT id, 1 FROM products.products ON CONFLICT DO NOTHING")
        .execute(&shop.pool)
        .await
        .unwrap();
    shop.replica().await;
    testing::eventually("all are found by their new words", async || {
        let old = "SELECT count(*) FROM products.products WHERE words_version < 1";
        let old: i64 = sqlx::query_scalar(old).fetch_one(&shop.pool).await.unwrap();
        (old == 0).then_some(())
    })
    .await;
    assert_eq!(names(&shop, "?q=kettle").await, Vec::<String>::new());
    let (_, page) = shop.get("/products?q=wasserkocher&facets=true&limit=1").await;
    assert_eq!(page["facets"]["categories"][0]["count"], 451);
}

#[tokio::test]
async fn prices_are_compared_within_one_currency() {
    let shop = shop().await;
    let price = |amount: i64, currency: &str| json!({"amount": amount, "currency": currency});
    let add = async |amount: i64, currency: &str| {
        let name = format!("{amount} {currency}");
        shop.product(json!({"name": name, "price": price(amount, currency), "description": ""})).await;
    };
    add(4000, "EUR").await;
    add(6000, "EUR").await;
    // With one currency there is nothing to name.
    assert_eq!(names(&shop, "?sort=price").await, ["4000 EUR", "6000 EUR"]);
    assert_eq!(names(&shop, "?max_price=5000").await, ["4000 EUR"]);
    let (_, page) = shop.get("/products?facets=true&limit=1").await;
    assert_eq!(page["facets"]["price_currency"], "EUR");
    assert_eq!(page["facets"].get("currencies"), None);

    add(5000, "JPY").await;
    add(9000, "KWD").await;
    for query in ["sort=price", "sort=-price", "max_price=5000", "min_price=1", "q=eur&sort=price"] {
        let (status, problem) = shop.get(&format!("/products?{query}")).await;
        assert_eq!((status, pointers(&problem)), (422, vec!["/currency"]), "{query}");
        assert_eq!(problem["errors"][0]["code"], "currency_required");
    }
    for (query, found) in [
        ("?currency=EUR&sort=price", &["4000 EUR", "6000 EUR"][..]),
        ("?currency=EUR&sort=-price&q=EUR", &["6000 EUR", "4000 EUR"]),
        ("?currency=EUR&max_price=5000", &["4000 EUR"]),
        ("?currency=EUR&max_price=5000&category=t-sea", &["4000 EUR"]),
        ("?currency=JPY", &["5000 JPY"]),
        ("?currency=KWD&sort=price&min_price=5000", &["9000 KWD"]),
        ("?currency=CHF", &[]),
        ("?sort=name", &["4000 EUR", "5000 JPY", "6000 EUR", "9000 KWD"]),
    ] {
        assert_eq!(names(&shop, query).await, found, "{query}");
    }
    for code in ["EURO", "eur", "AAA", ""] {
        let (status, problem) = shop.get(&format!("/products?currency={code}")).await;
        assert_eq!((status, pointers(&problem)), (422, vec!["/currency"]), "{code}");
    }
    let (_, page) = shop.get("/products?currency=EUR&sort=price&limit=1").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(shop.get(&format!("/products?currency=JPY&sort=price&cursor={cursor}")).await.0, 400);

    // Counts: by currency, with bands only where one is named.
    let counts = |facets: &Value| {
        let given = facets["currencies"].as_array().unwrap().iter();
        given.map(|each| (each["currency"].clone(), each["count"].clone())).collect::<Vec<_>>()
    };
    for query in ["", "&q=eur", "&in_stock=false"] {
        let (_, page) = shop.get(&format!("/products?facets=true&limit=1{query}")).await;
        let facets = &page["facets"];
        let mut wanted = vec![(json!("EUR"), json!(2)), (json!("JPY"), json!(1)), (json!("KWD"), json!(1))];
        wanted.truncate(if query == "&q=eur" { 1 } else { 3 });
        assert_eq!(counts(facets), wanted, "{query}");
        assert_eq!((&facets["price_bands"], facets.get("price_currency")), (&json!([]), None), "{query}");
    }
    // The other currencies are still to be chosen, as they would be with the other filters.
    for (query, wanted) in [
        ("", &[("EUR", 2), ("JPY", 1), ("KWD", 1)][..]),
        ("&in_stock=false", &[("EUR", 2), ("JPY", 1), ("KWD", 1)]),
        ("&q=eur", &[("EUR", 2)]),
        ("&max_price=5000", &[("EUR", 1), ("JPY", 1)]),
    ] {
        let (_, page) = shop.get(&format!("/products?facets=true&limit=1&currency=EUR{query}")).await;
        let wanted: Vec<_> = wanted.iter().map(|(code, count)| (json!(code), json!(count))).collect();
        assert_eq!(counts(&page["facets"]), wanted, "{query}");
    }
    for query in ["", "&q=eur"] {
        let (_, page) = shop.get(&format!("/products?facets=true&currency=EUR{query}")).await;
        let bands = page["facets"]["price_bands"].as_array().unwrap().iter().map(|band| &band["count"]);
        assert_eq!(bands.collect::<Vec<_>>(), [0, 0, 1, 1, 0, 0], "{query}");
        assert_eq!(page["facets"]["categories"][0]["count"], 2, "{query}");
    }
}

#[tokio::test]
async fn a_shop_may_say_which_currency_is_meant() {
    let shop = shop_with(&["--default-currency=EUR"]).await;
    for (amount, currency) in [(4000, "EUR"), (5000, "JPY"), (6000, "EUR")] {
        let name = format!("{amount} {currency}");
        shop.product(json!({"name": name, "price": {"amount": amount, "currency": currency}})).await;
    }
    assert_eq!(names(&shop, "?sort=-price").await, ["6000 EUR", "4000 EUR"]);
    assert_eq!(names(&shop, "?max_price=5500").await, ["4000 EUR"]);
    assert_eq!(names(&shop, "?max_price=5500&currency=JPY").await, ["5000 JPY"]);
    assert_eq!(names(&shop, "?sort=newest").await.len(), 3);
    let (_, page) = shop.get("/products?facets=true").await;
    assert_eq!(page["facets"]["price_currency"], "EUR");
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn attributes_filter_and_are_counted() {
    let shop = shop().await;
    for (name, attributes) in [
        ("Tee 1", json!({"color": "Red", "size": "9", "fit": "slim & long"})),
        ("Tee 2", json!({"color": "red", "size": "10"})),
        ("Tee 3", json!({"color": "navy blue", "size": "10.5"})),
        ("Cap", json!({"color": "red"})),
        ("Red", json!({"made of": "wool='x'"})),
    ] {
        shop.product(json!({"name": name, "attributes": attributes, "description": ""})).await;
    }
    for (query, found) in [
        ("?attributes.color=red", &["Cap", "Tee 2", "Tee 1"][..]),
        ("?attributes.color=RED&attributes.size=10", &["Tee 2"]),
        ("?attributes.color=red&q=tee", &["Tee 2", "Tee 1"]),
        ("?attributes.color=red&q=red", &["Cap", "Tee 2", "Tee 1"]),
        ("?attributes.color=red&q=tee%20-slim", &["Tee 2"]),
        ("?attributes.color=red&q=-slim", &["Cap", "Tee 2"]),
        ("?attributes.color=navy%20blue&sort=name", &["Tee 3"]),
        ("?attributes.color=navy", &[]),
        ("?attributes.fit=slim%20%26%20long", &["Tee 1"]),
        ("?attributes.made%20of=wool=%27x%27", &["Red"]),
        ("?attributes.nothing=x&category=t-sea", &[]),
    ] {
        assert_eq!(names(&shop, query).await, found, "{query}");
    }
    let (status, problem) = shop.get(&format!("/products?attributes.color={}", "x".repeat(201))).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/attributes.color"]));
    assert_eq!(shop.get("/products?attributes.=x").await.0, 422);

    let counted = async |query: &str| {
        let (status, page) = shop.get(&format!("/products?facets=attributes&{query}")).await;
        assert_eq!(status, 200, "{page}");
        let facets = page["facets"]["attributes"].as_array().unwrap().clone();
        let facets = facets.into_iter().map(|facet| {
            let values = facet["values"].as_array().unwrap().iter();
            let values =
                values.map(|value| format!("{} {}", value["value"].as_str().unwrap(), value["count"]));
            let values: Vec<String> = values.collect();
            (facet["name"].as_str().unwrap().to_owned(), (facet["type"].clone(), values))
        });
        facets.collect::<BTreeMap<_, _>>()
    };
    let all = counted("limit=1").await;
    assert_eq!(all["color"], (json!("text"), ["red 2", "Red 1", "navy blue 1"].map(str::to_owned).to_vec()));
    assert_eq!(all["size"].0, "number");
    // Whatever an attribute's own filter says.
    for query in ["attributes.color=red&q=tee", "attributes.Color=red&q=tee"] {
        let red = counted(query).await;
        assert_eq!(red["color"].1.len(), 3, "{red:?}");
        assert_eq!(red["size"].1, ["10 1", "9 1"]);
    }
    assert_eq!(shop.get("/products?facets=true").await.1["facets"].get("attributes"), None);
}
