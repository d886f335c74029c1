//! CSV as other programs write it: records, prices and what goes wrong with them.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Shop, answer, shop};
use crate::imports::{CSV, NDJSON, codes, counts, line};

/// The column that an error names.
fn column(error: &Value) -> &str {
    error["column"].as_str().unwrap_or("-")
}

impl Shop {
    async fn import_as(&self, query: &str, kind: &str, body: &str) -> (u16, Value) {
        let request = self.staff(Method::POST, &format!("/product-imports?{query}"));
        answer(request.header("content-type", kind).body(body.to_owned()).send().await.unwrap()).await
    }
}

const HEADER: &str = "sku,name,description,price,currency,category";

#[tokio::test]
async fn csv_says_the_same_as_json() {
    let shop = shop().await;
    let file = "\u{feff}sku,name,description,price,currency,category,stock,attributes.color,images\r\n\
                A,\"Lamp, \"\"big\"\"\",,19.99,EUR,t-sea,7,red,https://a.example/1.jpg https://a.example/2.jpg\r\n\
                \r\n\
                B,Größe,d,0.05,EUR,t-rope,,,\r\n";
    let (status, report) = shop.import("text/csv; charset=UTF-8", file).await;
    assert_eq!((status, counts(&report)), (200, [2, 0, 0, 0]), "{report}");
    assert_eq!(report["price_unit"], "major");
    let products = shop.by_sku().await;
    assert_eq!(products["A"]["name"], "Lamp, \"big\"");
    assert_eq!(products["A"]["attributes"], json!({"color": "red"}));
    assert_eq!(products["A"]["images"], json!(["https://a.example/1.jpg", "https://a.example/2.jpg"]));
    assert_eq!(products["A"]["stock"]["available"], 7);
    assert_eq!(products["B"]["name"], "Größe");
    assert_eq!(products["B"]["price"], json!({"amount": 5, "currency": "EUR"}));

    let same = [line("A", json!({"name": "Lamp, \"big\"", "description": ""}))];
    assert_eq!(counts(&shop.import_lines(&same).await), [0, 1, 1, 0]);
    let named = "sku,name,description,price_amount,price_currency,category\nB,Größe,d,6,EUR,t-rope";
    assert_eq!(counts(&shop.import(CSV, named).await.1), [0, 1, 0, 0]);
}

#[tokio::test]
async fn a_cell_that_is_no_value_of_its_column_fails_its_line() {
    let shop = shop().await;
    let header = "sku,name,description,price,currency,category,stock,attributes,attributes.size,images,category_parent";
    let row = |sku: &str, price: &str, currency: &str, rest: &str| {
        format!("{sku},n,d,{price},{currency},t-sea,{rest}")
    };
    let rows = [
        (row("A", "1", "EUR", ",,,,"), ""),
        (row("B", "", "EUR", ",,,,"), "missing_field"),
        (row("C", "1", "", ",,,,"), "missing_field"),
        (row("D", "", "", ",,,,"), "missing_field"),
        (row("E", "1.505", "EUR", ",,,,"), "too_many_decimals"),
        (row("F", "1e3", "EUR", ",,,,"), "invalid_value"),
        (row("G", "99999999999999999999", "EUR", ",,,,"), "out_of_range"),
        (row("H", "99999999999", "EUR", ",,,,"), "out_of_range"),
        (row("I", "\"{\"\"amount\"\": 1}\"", "EUR", ",,,,"), "missing_field"),
        (row("J", "{", "", ",,,,"), "invalid_value"),
        (row("K", "1", "EUR", "x,,,,"), "invalid_value"),
        (row("L", "1", "EUR", "-1,,,,"), "out_of_range"),
        (row("M", "1", "EUR", ",[1],L,,"), "invalid_value"),
        (row("N", "1", "EUR", ",x,,,"), "invalid_value"),
        (row("O", "1", "EUR", ",,,[,"), "invalid_value"),
        (row("P", "1", "EUR", ",,,x,"), "invalid_value"),
        (row("Q", "1", "EUR", "2,{},L,https://a.example/1.jpg,nowhere"), ""),
        (row("", "1", "EUR", ",,,,"), "invalid_sku"),
        (row("T", "34.50", "JPY", ",,,,"), "too_many_decimals"),
        (row("U", "\"12,90\"", "EUR", ",,,,"), "invalid_value"),
        (row("R", "1", "EUR", ",,,"), "malformed_csv"),
        (row("S", "1", "EUR", ",,,,,"), "malformed_csv"),
    ];
    let file: String = rows.iter().map(|(row, _)| format!("{row}\n")).collect();
    let (status, report) = shop.import(CSV, format!("{header}\n{file}")).await;
    assert_eq!(status, 200, "{report}");
    let wanted = (2..).zip(rows.iter()).filter(|(_, (_, code))| !code.is_empty());
    let wanted: Vec<(u64, &str)> = wanted.map(|(number, (_, code))| (number, *code)).collect();
    assert_eq!(codes(&report), wanted, "{report}");
    let columns: Vec<&str> = report["errors"].as_array().unwrap().iter().map(column).collect();
    let wanted = "price currency price price price price price currency price stock stock attributes attributes \
                  images images sku price price - -";
    assert_eq!(columns.join(" "), wanted);
    let products = shop.by_sku().await;
    assert_eq!(products.len(), 2);
    assert_eq!(products["Q"]["attributes"], json!({"size": "L"}));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn an_open_quote_takes_no_other_line_with_it() {
    let shop = shop().await;
    let file = "sku,name,description,price,currency,category\n\
                A,\"Lamp,d,1,EUR,t-sea\nB,n,d,1,EUR,t-sea\nC,n,d,1\nD,n,d,x,EUR,t-sea\nE,n,\"d\",1,EUR,t-sea";
    let (_, report) = shop.import(CSV, file).await;
    assert_eq!(codes(&report), [(2, "malformed_csv"), (4, "malformed_csv"), (5, "invalid_value")]);
    assert_eq!(counts(&report), [2, 0, 0, 3]);
}

#[tokio::test]
async fn a_text_of_several_lines_is_one_text_in_every_format() {
    let shop = shop().await;
    let text = "Oiled cotton, \"two\" pockets.\n\nCare: wipe clean.\n\t- do not wash";
    let facts = json!({"care": "wash\ndry"});
    let fields = |breaks: &str| json!({"description": text.replace('\n', breaks), "attributes": {"care": format!("wash{breaks}dry")}});
    for (sku, breaks) in [("A", "\n"), ("B", "\r\n"), ("C", "\r")] {
        let mut body = line(sku, fields(breaks));
        assert_eq!(shop.post("/products", &body).await.0, 201);
        body["sku"] = json!(format!("{sku}-json"));
        assert_eq!(counts(&shop.import_lines(&[body]).await), [1, 0, 0, 0]);
        let quoted = text.replace('"', "\"\"").replace('\n', breaks);
        let file = format!(
            "{HEADER},attributes.care\n{sku}-csv,Apron,\"{quoted}\",35,EUR,t-sea,\"wash{breaks}dry\"\n"
        );
        assert_eq!(counts(&shop.import(CSV, file).await.1), [1, 0, 0, 0]);
    }
    let products = shop.by_sku().await;
    assert_eq!(products.len(), 9);
    for (sku, product) in &products {
        assert_eq!((&product["description"], &product["attributes"]), (&json!(text), &facts), "{sku}");
    }
    for (fields, column) in [
        (json!({"name": "a\nb"}), "name"),
        (json!({"sku": "a\nb"}), "sku"),
        (json!({"category": "a\nb"}), "category"),
        (json!({"attributes": {"a\nb": "c"}}), "attributes"),
        (json!({"description": "a\u{0}b"}), "description"),
    ] {
        let report = shop.import_lines(&[line("X", fields)]).await;
        assert_eq!(codes(&report), [(1, "control_character")]);
        assert_eq!(report["errors"][0]["column"], column);
    }
}

#[tokio::test]
async fn no_line_of_a_text_is_a_product_whatever_is_wrong_with_its_record() {
    let shop = shop().await;
    let coat = line("COAT", json!({"price": {"amount": 24900, "currency": "EUR"}, "stock": 3}));
    shop.import_lines(std::slice::from_ref(&coat)).await;
    let before = shop.by_sku().await["COAT"].clone();
    let text = "Goes well with\nCOAT,Winter coat,see above,0.01,EUR,t-sea\nin all sizes.";
    for (n, (record, code)) in [
        (format!("\"{text}\",19.90,EUR,t-sea"), None),
        (format!("\"{text}\",19.905,EUR,t-sea"), Some("too_many_decimals")),
        (format!("\"{text}\",19.90,EUR"), Some("malformed_csv")),
        (format!("\"{text}\",19.90,EUR,t-sea,more"), Some("malformed_csv")),
        (format!("\"A 5\" pipe. {text}\",19.90,EUR,t-sea"), Some("malformed_csv")),
        (format!("\"{text}\",19.90,EUR,nowhere"), Some("unknown_category")),
    ]
    .into_iter()
    .enumerate()
    {
        let file = format!("{HEADER}\nA-{n},Gloves,{record}\nB-{n},n,d,1,EUR,t-sea\n");
        let (_, report) = shop.import(CSV, file.clone()).await;
        let wanted: Vec<(u64, &str)> = code.into_iter().map(|code| (2, code)).collect();
        assert_eq!(codes(&report), wanted, "{file}");
        assert_eq!(counts(&report)[0], 1 + u64::from(code.is_none()), "{file}");
    }
    // Nothing shows where this text ends.
    let file = format!("{HEADER}\nA,Gloves,\"{text},19.90,EUR,t-sea\n");
    let (_, report) = shop.import(CSV, file).await;
    assert_eq!((codes(&report), counts(&report)), (vec![(2, "malformed_csv")], [0, 0, 0, 1]));
    assert!(report["errors"][0]["detail"].as_str().unwrap().contains("end of the file"), "{report}");
    assert_eq!(shop.by_sku().await["COAT"], before);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn prices_with_and_without_decimals_are_the_same_kind_of_money() {
    let shop = shop().await;
    let file = |prices: &[&str]| -> String {
        let rows = prices.iter().enumerate().map(|(n, price)| format!("P-{n},n,,{price},t-sea\n"));
        format!("{HEADER}\n{}", rows.collect::<String>())
    };
    let amounts = async || {
        let products = shop.by_sku().await;
        (0..products.len())
            .map(|n| products[&format!("P-{n}")]["price"]["amount"].clone())
            .collect::<Vec<_>>()
    };
    let prices = ["34,EUR", "34.50,EUR", "5000,JPY", "9.12,KWD", "0,EUR"];
    let (_, report) = shop.import(CSV, file(&prices)).await;
    assert_eq!((counts(&report), &report["price_unit"]), ([5, 0, 0, 0], &json!("major")));
    assert_eq!(amounts().await, [3400, 3450, 5000, 9120, 0]);

    let (_, report) = shop.import_as("price_unit=minor", CSV, &file(&["34,EUR", "34.50,EUR"])).await;
    assert_eq!((codes(&report), &report["price_unit"]), (vec![(3, "invalid_value")], &json!("minor")));
    let minor = "SKU;Name;Description;Price_Minor;Currency;Category\nP-1;n;;35;EUR;t-sea\n";
    let (_, report) = shop.import(CSV, minor).await;
    assert_eq!((counts(&report), &report["price_unit"]), ([0, 1, 0, 0], &json!("minor")), "{report}");
    assert_eq!(amounts().await[..2], [34, 35]);

    let comma = "sku;name;description;price;category\nP-0;n;;12,90;t-sea\nP-1;n;;7;t-sea\nP-4;n;;12.90;t-sea";
    let (_, report) = shop.import_as("decimal=comma&currency=EUR", CSV, comma).await;
    assert_eq!(codes(&report), [(4, "invalid_value")], "{report}");
    assert_eq!(amounts().await[..2], [1290, 700]);
    let (_, report) = shop.import_as("currency=EUR", CSV, comma).await;
    assert_eq!(codes(&report), [(2, "invalid_value")], "{report}");
    assert!(report["errors"][0]["detail"].as_str().unwrap().contains("decimal=comma"), "{report}");

    let json = line("P-0", json!({"price": {"amount": 7, "currency": "EUR"}})).to_string();
    let (_, report) = shop.import_as("price_unit=minor", NDJSON, &json).await;
    assert_eq!(report["price_unit"], "minor");
    for (query, kind, pointer) in [
        ("price_unit=major", NDJSON, "/price_unit"),
        ("decimal=comma", NDJSON, "/decimal"),
        ("price_unit=cents", CSV, "/price_unit"),
        ("decimal=,", CSV, "/decimal"),
        ("currency=eur", CSV, "/currency"),
        ("prices=minor", CSV, "/prices"),
    ] {
        let (status, problem) = shop.import_as(query, kind, &json).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{query} {problem}");
    }
}

#[tokio::test]
async fn any_common_spelling_of_a_text_file_is_read_and_another_charset_is_not() {
    let shop = shop().await;
    let header = "sku,name,description,price,currency,category";
    let record = |sku: &str| format!("{sku},Größe,d,1,EUR,t-sea");
    let json = |sku: &str| line(sku, json!({})).to_string();
    for (kind, file, created, bad) in [
        (NDJSON, format!("\u{feff}{}\r\n\r\n \t\r\n{}\r\n", json("A"), json("B")), 2, vec![]),
        (NDJSON, format!("{}\n\u{feff}{}", json("C"), json("D")), 1, vec![(2, "malformed_json")]),
        (CSV, format!("\r\n{header}\r\n\r\n{}\r\n{}", record("E"), record("F")), 2, vec![]),
        (
            CSV,
            format!("\u{feff}\"sku\", name ,description,price,currency,category\n{}", record("G")),
            1,
            vec![],
        ),
        (CSV, format!("{}\nM;Größe;d;1;EUR;t-sea", header.replace(',', ";")), 1, vec![]),
        (
            CSV,
            format!("sep=\t\r\n{}\r\nN\tGröße\td\t1\tEUR\tt-sea\r\n", header.replace(',', "\t")),
            1,
            vec![],
        ),
    ] {
        let (status, report) = shop.import(kind, file.clone()).await;
        assert_eq!((status, codes(&report)), (200, bad), "{file}");
        assert_eq!(counts(&report)[0], created, "{file}");
    }
    let latin1 = [header.as_bytes(), b"\nH,Gr\xF6\xDFe,d,1,EUR,t-sea\nI,n,d,1,EUR,t-sea"].concat();
    let (_, report) = shop.import(CSV, latin1).await;
    assert_eq!((codes(&report), counts(&report)), (vec![(2, "invalid_utf8")], [1, 0, 0, 1]));
    let utf16 = |sku: &str| format!("{header}\n{}", record(sku)).encode_utf16().collect::<Vec<u16>>();
    let mut little: Vec<u8> = b"\xFF\xFE".to_vec();
    little.extend(utf16("J").iter().flat_map(|unit| unit.to_le_bytes()));
    let big: Vec<u8> = utf16("K").iter().flat_map(|unit| unit.to_be_bytes()).collect();
    // And one with the line ends of Mac OS 9.
    let classic = format!("{header}\r{}\r", record("L")).into_bytes();
    for (kind, file) in [(CSV, little), ("text/csv; charset=utf-16", big), (CSV, classic)] {
        let (status, report) = shop.import(kind, file).await;
        assert_eq!((status, counts(&report)), (200, [1, 0, 0, 0]), "{report}");
    }
    for sku in ["J", "K", "L"] {
        assert_eq!(shop.by_sku().await[sku]["name"], "Größe", "{sku}");
    }
    assert_eq!(shop.count().await, 12);
}

#[tokio::test]
async fn another_platforms_file_is_read_as_it_is() {
    let shop = shop().await;
    let file = "\u{feff}Handle,Title,Body (HTML),Vendor,Type,Option1 Name,Option1 Value,Variant SKU,Variant Price,Variant Taxable,Image Src\r\n\
                coat,Coat,\"<p>Warm</p>\n<p>Dry</p>\",Fathom,Jackets,Color,Red,C/R,34,true,https://a.example/1.jpg\r\n\
                coat,,,,,,Blue,C/B,34.50,true,\r\n\
                mug,Mug,,,,Title,Default Title,,9.005,,\r\n";
    for (query, created) in
        [("currency=EUR&dry_run=true", 0), ("currency=EUR", 2), ("currency=EUR&profile=shopify", 2)]
    {
        let (status, report) = shop.import_as(query, CSV, file).await;
        assert_eq!(status, 200, "{report}");
        assert_eq!(
            (codes(&report), column(&report["errors"][0])),
            (vec![(5, "too_many_decimals")], "Variant Price")
        );
        assert_eq!(report["profile"], "shopify");
        assert_eq!(report["left_out"], json!({"Variant Taxable": 2}));
        assert_eq!(shop.count().await, created);
    }
    let products = shop.by_sku().await;
    assert_eq!(products["C/B"]["name"], "Coat - Blue");
    assert_eq!(products["C/B"]["description"], "<p>Warm</p>\n<p>Dry</p>");
    assert_eq!(products["C/B"]["attributes"], json!({"group": "coat", "Color": "Blue", "brand": "Fathom"}));
    let (_, report) = shop.import_as("currency=EUR", CSV, file).await;
    assert_eq!(counts(&report), [0, 2, 2, 1]);
    // Without a currency its prices are in that of the shop, if it has but one.
    assert_eq!(counts(&shop.import_as("", CSV, file).await.1), [0, 2, 2, 1]);
    shop.import_lines(&[line("YEN", json!({"price": {"amount": 1, "currency": "JPY"}}))]).await;
    let (_, report) = shop.import_as("", CSV, file).await;
    assert_eq!(codes(&report), [(2, "missing_field"), (4, "missing_field"), (5, "missing_field")]);
    let (status, problem) = shop.import_as("profile=magento", CSV, file).await;
    assert_eq!((status, &problem["errors"][0]["code"]), (422, &json!("missing_field")), "{problem}");
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_of_a_file_and_changes_nothing() {
    let shop = shop().await;
    shop.import_lines(&[line("A", json!({"stock": 1}))]).await;
    let (before, events) = (shop.by_sku().await, shop.events().await);
    let mut rows: String = (0..700).map(|n| format!("S-{n},n,,1,EUR,t-new,New,t-sea,5\n")).collect();
    // Of the products and the category that the first batch would have made.
    rows.push_str(
        "s-0,n,,2,EUR,t-new,,,1\nB,n,,1,EUR,t-new,,,\nC,n,,1,EUR,nowhere,,,\na,n,,1,EUR,t-sea,,,7\n",
    );
    let file = format!("{HEADER},category_name,category_parent,stock\n{rows}");
    let (status, dry) = shop.import_as("dry_run=true", CSV, &file).await;
    assert_eq!((status, counts(&dry), &dry["dry_run"]), (200, [701, 2, 0, 1], &json!(true)), "{dry}");
    assert_eq!((shop.by_sku().await, shop.events().await), (before, events));
    let (_, report) = shop.import_as("dry_run=false", CSV, &file).await;
    assert_eq!(
        (counts(&report), &report["errors"], report.get("dry_run")),
        (counts(&dry), &dry["errors"], None)
    );
    assert_eq!(shop.import_as("dry_run=yes", CSV, &file).await.0, 422);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn an_import_of_an_export_finds_nothing_new() {
    let shop = shop().await;
    let facts = json!({"description": "Oiled,\n\"two\" pockets;\t\n", "name": " Größe ",
        "attributes": {"color": "red, \"blue\"", "a=b": "x\ny"}, "stock": 7,
        "images": ["https://a.example/1.jpg", "https://a.example/2,3.jpg"]});
    shop.import_lines(&[
        line("AB 12/\"ü\"", facts),
        line("B;1", json!({"price": {"amount": 5000, "currency": "JPY"}})),
        line("=1", json!({"name": "'=HYPERLINK(1)", "description": "\t@", "category": "t-minus", "category_name": "-1",
            "attributes": {"tilt": "-5"}})),
        line("'+1", json!({"name": "'quoted'"})),
    ])
    .await;
    let pictured =
        shop.product(json!({"sku": "P", "images": ["https://a.example/1.jpg"], "category": "t-rope"})).await;
    let path = format!("/products/{}", pictured["id"].as_str().unwrap());
    let png = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR and what follows".as_slice();
    assert_eq!(
        shop.staff(Method::PUT, &format!("{path}/images/0")).body(png).send().await.unwrap().status(),
        201
    );
    let own = format!("/api/v1{path}/images/0");
    for images in [json!(["https://a.example/1.jpg", own]), json!([own, "https://a.example/1.jpg"])] {
        let patch =
            shop.staff(Method::PATCH, &path).header("if-match", "*").json(&json!({ "images": images }));
        assert_eq!(patch.send().await.unwrap().status(), 200);
        for (format, kind) in [("csv", CSV), ("ndjson", NDJSON)] {
            let before = (shop.by_sku().await, shop.events().await);
            let export = shop.staff(Method::GET, &format!("/product-exports?format={format}"));
            let file = export.send().await.unwrap().text().await.unwrap();
            let (_, report) = shop.import_as("", kind, &file).await;
            assert_eq!(counts(&report), [0, 5, 5, 0], "{file} {report}");
            assert_eq!((shop.by_sku().await, shop.events().await), before);
        }
    }
    // What was sold since is not brought back.
    let file = shop.staff(Method::GET, "/product-exports").send().await.unwrap().text().await.unwrap();
    let adjust = json!({"delta": -1, "reason": "broken"});
    let adjusted = shop.by_sku().await["AB 12/\"ü\""]["id"].as_str().unwrap().to_owned();
    assert_eq!(shop.post(&format!("/products/{adjusted}/stock-adjustments"), &adjust).await.0, 201);
    let (_, report) = shop.import(CSV, file).await;
    assert_eq!(
        (counts(&report), report["errors"][0]["code"].as_str()),
        ([0, 4, 4, 1], Some("stock_changed"))
    );

    let feed = shop.staff(Method::GET, "/product-exports?format=google&link=https://shop.example/p/");
    let feed = feed.send().await.unwrap();
    assert!(feed.headers()["content-type"].to_str().unwrap().starts_with("application/rss+xml"));
    let feed = feed.text().await.unwrap();
    assert_eq!(feed.matches("<item>").count(), 5, "{feed}");
    assert!(feed.contains("<g:price>5000 JPY</g:price>") && feed.ends_with("</rss>\n"), "{feed}");
    // It is a feed like others: what a feed says nothing of stays.
    let report = shop.import_as("", "application/rss+xml", &feed).await.1;
    assert_eq!(
        (report["failed"].as_u64(), report["updated"].as_u64(), &report["profile"]),
        (Some(0), Some(5), &json!("google")),
        "{report}"
    );
    let cut = feed.replace("</item>\n</channel>", "");
    let (_, report) = shop.import_as("", "application/xml", &cut).await;
    assert_eq!(report["errors"][0]["code"], "malformed_xml", "{report}");
    for query in ["format=xml", "format=google", "format=google&link=/p", "link=https://a.example/", "x=1"] {
        let refused = shop.staff(Method::GET, &format!("/product-exports?{query}")).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{query}");
    }
    for (request, status) in [
        (shop.anyone(Method::GET, "/product-exports"), 401),
        (shop.as_role(Role::Customer, Method::GET, "/product-exports"), 403),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn an_export_comes_in_parts_that_are_short() {
    let shop = shop().await;
    let long = "\u{1f6a2}".repeat(5000);
    let lines: Vec<Value> =
        (0..120).map(|n| line(&format!("S-{n}"), json!({ "description": long }))).collect();
    assert_eq!(counts(&shop.import_lines(&lines).await), [120, 0, 0, 0]);
    let address = shop.base.strip_prefix("http://").unwrap().strip_suffix("/api/v1").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/product-exports?format=ndjson HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        shop.token(Role::Staff),
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("chunked"), "{head}");
    let (mut file, mut longest) = (String::new(), 0);
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        file.push_str(&more[..size]);
        (longest, rest) = (longest.max(size), &more[size + 2..]);
    }
    assert_eq!(file.lines().count(), 120);
    assert!(longest < 1100 * 1024, "a part is of {longest} bytes");
    assert_eq!(counts(&shop.import(NDJSON, file).await.1), [0, 120, 120, 0]);
}

#[tokio::test]
async fn bad_lines_come_back_as_a_file_that_can_be_mended() {
    let shop = shop().await;
    let file = "sku;name;description;price;currency;category\nA;n;;1;EUR;t-sea\n\
                B;n;\"a;\nb\";1.005;EUR;t-sea\nC;n;;1;EUR;nowhere\nD;n;;x;EUR;t-sea\n";
    let (_, report) = shop.import_as("rejected=true", CSV, file).await;
    assert_eq!(counts(&report), [1, 0, 0, 3]);
    let rejected = report["rejected"].as_str().unwrap();
    assert!(
        rejected.starts_with(
            "sku;name;description;price;currency;category;_line;_code;_detail\r\nB;n;\"a;\nb\";"
        ),
        "{rejected}"
    );
    assert!(rejected.contains(";3;too_many_decimals;\"/price/amount: "), "{rejected}");
    let mended = rejected.replace("1.005", "1.00").replace("nowhere", "t-sea");
    let (_, report) = shop.import_as("rejected=true", CSV, &mended).await;
    assert_eq!((counts(&report), codes(&report)), ([2, 0, 0, 1], vec![(5, "invalid_value")]));
    let mended = report["rejected"].as_str().unwrap().replace(";x;", ";2;");
    let (_, report) = shop.import_as("", CSV, &mended).await;
    assert_eq!((counts(&report), report.get("rejected")), ([1, 0, 0, 0], None), "{report}");
    assert_eq!(shop.by_sku().await["B"]["description"], "a;\nb");

    // No line of a comma tells what is between cells here, and a record with an open quote has no end.
    let file = format!(
        "sep=|\n{}\nF|a, b, c|;;;;;;;|x|EUR|t-sea\nG|\"n|d|1|EUR|t-sea\nH|n|d|1|EUR|t-sea\n",
        HEADER.replace(',', "|")
    );
    let (_, report) = shop.import_as("rejected=true", CSV, &file).await;
    assert_eq!(codes(&report), [(3, "invalid_value"), (4, "malformed_csv")], "{report}");
    let rejected = report["rejected"].as_str().unwrap();
    assert!(rejected.starts_with("sep=|\r\nsku|") && rejected.lines().count() == 3, "{rejected}");
    let (_, report) = shop.import_as("", CSV, &rejected.replace("|x|", "|2|")).await;
    assert_eq!(counts(&report), [1, 0, 0, 0], "{report}");

    let lines = format!("{}\n{{\n", line("E", json!({"name": ""})));
    let (_, report) = shop.import_as("rejected=true&dry_run=true", NDJSON, &lines).await;
    assert_eq!(report["rejected"], lines);
}
