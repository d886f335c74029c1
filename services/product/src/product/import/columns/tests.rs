use serde_json::json;

use super::*;

fn try_parse(header: &[u8]) -> Result<Columns, Problem> {
    Columns::new(&super::header(&mut Cells::new(b','), header)?, Options::default())
}

fn parse(header: &str, options: Options) -> Columns {
    Columns::new(&super::header(&mut Cells::new(b','), header.as_bytes()).unwrap(), options).unwrap()
}

fn try_read(columns: &Columns, record: &str) -> Result<Value, Fault> {
    let cells = Cells::new(b',').read(record.as_bytes()).unwrap();
    columns.record(cells, breaks(record.as_bytes()) + 1)
}

fn read(columns: &Columns, record: &str) -> Value {
    try_read(columns, record).unwrap()
}

#[test]
fn a_record_is_what_json_would_have_said() {
    let header =
        "SKU, Name,description,Price,currency,category,stock,attributes.Color,attributes.size,images,_note";
    let columns = parse(header, Options::default());
    let line = r#" A-1,"Lamp, ""big""",,19.99,EUR,sea,7,red,,https://a.example/1 https://a.example/2,x"#;
    assert_eq!(
        read(&columns, line),
        json!({"sku": "A-1", "name": "Lamp, \"big\"", "description": "", "category": "sea", "stock": 7,
            "price": {"amount": 1999, "currency": "EUR"}, "attributes": {"Color": "red"},
            "images": ["https://a.example/1", "https://a.example/2"]})
    );
    let bare = read(&columns, "B,Größe,\"d\r\n\r\ne\",x,,sea,,,,,");
    assert_eq!(bare["price"], json!({"amount": 0}));
    assert_eq!((bare.get("stock"), bare.get("images"), &bare["name"]), (None, None, &json!("Größe")));
    assert_eq!(bare["description"], "d\r\n\r\ne");
}

#[test]
fn columns_may_hold_json() {
    let columns = parse("sku,name,description,price,category,attributes,images", Options::default());
    let line =
        r#"A,n,d,"{""amount"":1,""currency"":""EUR""}",sea,"{""a"":""b""}","[""https://a.example/1""]""#;
    let record = read(&columns, line);
    assert_eq!(record["price"], json!({"amount": 1, "currency": "EUR"}));
    assert_eq!(record["attributes"], json!({"a": "b"}));
    assert_eq!(record["images"], json!(["https://a.example/1"]));
}

#[test]
fn prices_are_in_the_unit_that_the_file_says() {
    let major = Options::default();
    let minor = Options { unit: Unit::Minor, ..major };
    let comma = Options { decimal: Decimal::Comma, ..major };
    let yen = Options { currency: Some("JPY".parse().unwrap()), ..major };
    for (column, options, cells, unit, money) in [
        ("price", major, "34,EUR", Unit::Major, json!({"amount": 3400, "currency": "EUR"})),
        ("price", minor, "34,EUR", Unit::Minor, json!({"amount": 34, "currency": "EUR"})),
        ("price_minor", major, "34,EUR", Unit::Minor, json!({"amount": 34, "currency": "EUR"})),
        ("price.amount", major, "34,EUR", Unit::Minor, json!({"amount": 34, "currency": "EUR"})),
        ("price", comma, "\"12,90\",EUR", Unit::Major, json!({"amount": 1290, "currency": "EUR"})),
        ("price", yen, "34,", Unit::Major, json!({"amount": 34, "currency": "JPY"})),
        ("price", yen, "34,USD", Unit::Major, json!({"amount": 3400, "currency": "USD"})),
        ("price", minor, "34.5,EUR", Unit::Minor, json!({"amount": "34.5", "currency": "EUR"})),
        ("price", major, ",EUR", Unit::Major, json!({"currency": "EUR"})),
    ] {
        let columns = parse(&format!("sku,name,description,category,{column},currency"), options);
        assert_eq!(columns.unit(), unit);
        assert_eq!(read(&columns, &format!("A,n,d,sea,{cells}"))["price"], money, "{column} {cells}");
    }
    let columns = parse("sku,name,description,category,price,currency", major);
    let (pointer, code, _) = try_read(&columns, "A,n,d,sea,34.505,EUR").unwrap_err();
    assert_eq!((pointer, code), ("/price/amount", "too_many_decimals"));
}

#[test]
fn one_sign_before_a_formula_is_taken_off() {
    let columns = parse("sku,name,description,price,currency,category,attributes.tilt", Options::default());
    for (cell, text) in [
        ("'=1+1", "=1+1"),
        ("''=1", "'=1"),
        ("=1", "=1"),
        ("'n", "'n"),
        ("'", "'"),
        ("'\t-", "\t-"),
        ("'-5", "-5"),
    ] {
        let record = read(&columns, &format!("'+A,{cell},{cell},1,EUR,sea,{cell}"));
        let wanted = json!({"sku": "+A", "name": text, "description": text, "category": "sea",
            "price": {"amount": 100, "currency": "EUR"}, "attributes": {"tilt": text}});
        assert_eq!(record, wanted, "{cell}");
    }
}

#[test]
fn addresses_of_images_come_apart_at_blanks_and_commas() {
    let two = json!(["https://a.example/1,2.jpg", "https://a.example/3.jpg"]);
    for between in [" ", ", ", ",", "\n", " , ", ";", "|"] {
        let cell = format!("https://a.example/1,2.jpg{between}https://a.example/3.jpg");
        assert_eq!(images(cell), two, "{between:?}");
    }
    assert_eq!(images(" , ".to_owned()), json!([]));
}

#[test]
fn an_error_names_the_column_of_its_cell() {
    let header = "SKU,name,description,Price,Currency,category,Attributes.a/b,attributes,images";
    let names = Arc::clone(parse(header, Options::default()).names());
    for (pointer, name) in [
        ("/sku", Some("SKU")),
        ("/price", Some("Price")),
        ("/price/amount", Some("Price")),
        ("/price/currency", Some("Currency")),
        ("/attributes/a~1b", Some("Attributes.a/b")),
        ("/attributes/c", Some("attributes")),
        ("/images/3", Some("images")),
        ("/stock", None),
        ("", None),
    ] {
        assert_eq!(names.of(pointer), name, "{pointer}");
    }
}

#[test]
fn a_record_has_as_many_cells_as_the_header() {
    let columns = parse("sku,name,description,price,category", Options::default());
    for (bad, said) in
        [("A,n,d,1", "4 cells"), ("A,n,d,1,sea,more", "6 cells"), ("A,\"n\n\n\",d,1", "3 lines")]
    {
        let (_, code, detail) = try_read(&columns, bad).unwrap_err();
        assert!(code == "malformed_csv" && detail.contains(said), "{bad}: {detail}");
    }
    assert!(try_read(&columns, "A,n,d,1,\"sea\"").is_ok());
}

#[test]
fn a_header_that_names_no_product_is_refused() {
    let codes = |header: &[u8]| -> Vec<(String, String)> {
        let problem = try_parse(header).err().unwrap();
        problem.errors.into_iter().map(|error| (error.pointer, error.code)).collect()
    };
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned())).collect()
    };
    assert_eq!(codes(b"sku,name,description,price"), own(&[("/category", "missing_field")]));
    assert_eq!(
        codes(b"sku,SKU,role,name,description,price,price_minor,category"),
        own(&[("/SKU", "duplicate_field"), ("/role", "unknown_field"), ("/price_minor", "duplicate_field")])
    );
    let wide = |columns: usize| (0..columns).map(|n| format!(",attributes.a{n}")).collect::<String>();
    let header = |columns| format!("sku,name,description,price,category{}", wide(columns));
    assert_eq!(codes(header(MOST - 4).as_bytes()), own(&[("", "too_many")]));
    assert!(try_parse(header(MOST - 5).as_bytes()).is_ok());
    assert_eq!(codes(b"sk\xFF"), own(&[("", "malformed_csv")]));
}
