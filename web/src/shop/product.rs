//! `/products/{id}`: one product, with what machines read of it.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use serde_json::json;

use super::catalogue::attribute;
use crate::api::types::{Product, Products};
use crate::app::App;
use crate::locale;
use crate::page::{Frame, Holds, Shown, show};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new().route("/products/{id}", get(page))
}

#[derive(Template)]
#[template(path = "product.html")]
struct ProductPage {
    p: Frame,
    product: Product,
    attributes: Vec<(String, String)>,
    /// schema.org's words, as JSON that can stand in a page.
    data: String,
    others: Vec<Product>,
}

async fn page(visitor: Visitor, Path(id): Path<String>) -> Shown {
    let product = visitor.call(Method::GET, &["products", &id]).get::<Product>().await?;
    if id != product.slug {
        return Ok(Redirect::permanent(&format!("/products/{}", product.slug)).into_response());
    }
    let query = [("category", product.category.as_str()), ("limit", "5")];
    let others = visitor.call(Method::GET, &["products"]).query(&query).get::<Products>().await;
    let others = others.map(|found| found.items).unwrap_or_default();
    let mut frame = visitor.frame(&product.name).described(&product.description);
    frame.is_product = true;
    frame.picture = product.picture().map(|path| format!("{}{path}", visitor.app().origin));
    let page = ProductPage {
        data: data(&product, &frame),
        p: frame,
        attributes: product.attributes.iter().map(|(name, value)| (attribute(name), value.clone())).collect(),
        others: others.into_iter().filter(|other| other.id != product.id).take(4).collect(),
        product,
    };
    Ok(show(StatusCode::OK, &page, Holds::Public))
}

fn data(product: &Product, frame: &Frame) -> String {
    let stock = if product.stock.available > 0 { "InStock" } else { "OutOfStock" };
    let data = json!({
        "@context": "https://schema.org",
        "@type": "Product",
        "name": product.name,
        "description": product.description,
        "sku": product.sku,
        "image": frame.picture.iter().collect::<Vec<_>>(),
        "url": frame.canonical,
        "offers": {
            "@type": "Offer",
            "price": locale::plain(&product.price),
            "priceCurrency": product.price.currency,
            "availability": format!("https://schema.org/{stock}"),
            "url": frame.canonical,
        },
    });
    in_page(&data)
}

/// JSON in a script element ends at `</`, whatever quotes it stands in.
fn in_page(data: &serde_json::Value) -> String {
    data.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_products_texts_can_not_end_the_data_they_stand_in() {
        let hostile = json!({"name": "</script><script>alert(1)</script><!--"});
        let text = in_page(&hostile);
        assert!(!text.contains('<') && !text.contains('>'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), hostile);
    }
}
