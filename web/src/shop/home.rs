//! `/`: the newest products, and the categories.

use askama::Template;
use axum::http::{Method, StatusCode};

use crate::api::types::{Categories, Category, Product, Products};
use crate::page::{Frame, Holds, Shown, show};
use crate::visitor::{Visitor, shown};

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    p: Frame,
    products: Option<Vec<Product>>,
    categories: Option<Vec<Category>>,
}

pub async fn page(visitor: Visitor) -> Shown {
    let products = visitor.call(Method::GET, &["products"]).query(&[("limit", "8"), ("sort", "newest")]);
    let categories = visitor.call(Method::GET, &["categories"]);
    let (products, categories) = tokio::join!(products.get::<Products>(), categories.get::<Categories>());
    let (products, categories) = (shown(products)?, shown(categories)?);
    let status = if products.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let page = Home {
        p: visitor.frame(&visitor.lang().text("home-title", &[])),
        products: products.map(|found| found.items),
        categories: categories.map(|tree| tree.items),
    };
    Ok(show(status, &page, Holds::Public))
}
