use serde_json::json;

use super::super::columns::{self, Cells};
use super::*;

/// What a file's lines say, or the codes of those that are wrong; and what was left out.
fn read(file: &str, delimiter: u8, currency: &str) -> (Profile, Vec<Value>, BTreeMap<String, u64>) {
    let options = Options { currency: currency.parse().ok(), ..Options::default() };
    let mut cells = Cells::new(delimiter);
    let mut lines = file.lines();
    let header = columns::header(&mut cells, lines.next().unwrap().as_bytes()).unwrap();
    let lower: Vec<String> = header.iter().map(|name| name.to_lowercase()).collect();
    let mut reader = Reader::new(Profile::of(&lower).unwrap(), &header, options).unwrap();
    let mut made = Vec::new();
    for (number, line) in (2..).zip(lines) {
        made.extend(reader.record(number, cells.read(line.as_bytes()).unwrap()));
    }
    made.extend(reader.end());
    let said = made.into_iter().map(|Made { line, body, .. }| match body {
        Ok(mut body) => {
            body["line"] = line.into();
            body
        }
        Err((pointer, code, _)) => json!({"line": line, "pointer": pointer, "code": code}),
    });
    (reader.profile(), said.collect(), reader.left_out().clone())
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn shopifys_variants_share_a_group_and_their_products_texts() {
    let old = "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,Variant Inventory Qty,Variant Price,Variant Compare At Price,Image Src,Variant Image,Status
coat,Coat,<p>Warm</p>,Fathom,Jackets,winter,true,Color,Red,Size,M,C-R,4,34,40.00,https://a.example/1.jpg,https://a.example/r.jpg,active
coat,,,,,,,,Blue,,L,C-B,-2,34.50,,https://a.example/2.jpg,,
coat,,,,,,,,,,,,,,,https://a.example/3.jpg,,
mug,Mug,,Kelp,,,true,Title,Default Title,,,,7,9.00,,,,active
draft,Draft,,Kelp,,,true,Title,Default Title,,,D,7,9.00,,,,draft";
    let (profile, made, left) = read(old, b',', "USD");
    assert_eq!(profile, Profile::Shopify);
    assert_eq!(
        made,
        [
            json!({"line": 2, "sku": "C-R", "name": "Coat - Red / M", "description": "<p>Warm</p>", "stock": 4,
                "price": {"amount": 3400, "currency": "USD"}, "category": "jackets", "category_name": "Jackets",
                "attributes": {"group": "coat", "Color": "Red", "Size": "M", "brand": "Fathom", "tags": "winter"},
                "images": ["https://a.example/r.jpg", "https://a.example/1.jpg", "https://a.example/2.jpg",
                    "https://a.example/3.jpg"]}),
            json!({"line": 3, "sku": "C-B", "name": "Coat - Blue / L", "description": "<p>Warm</p>", "stock": 0,
                "price": {"amount": 3450, "currency": "USD"}, "category": "jackets", "category_name": "Jackets",
                "attributes": {"group": "coat", "Color": "Blue", "Size": "L", "brand": "Fathom", "tags": "winter"},
                "images": ["https://a.example/1.jpg", "https://a.example/2.jpg", "https://a.example/3.jpg"]}),
            json!({"line": 5, "sku": "mug", "name": "Mug", "description": "", "stock": 7,
                "price": {"amount": 900, "currency": "USD"}, "category": "other", "category_name": "Other",
                "attributes": {"brand": "Kelp"}}),
        ]
    );
    assert_eq!(left, counts(&[("Variant Compare At Price", 1), ("products with status draft", 1)]));
    let new = "Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,Status,SKU,Option1 name,Option1 value,Price,Inventory quantity,Product image URL
Cap,cap,Warm,Tern,Apparel > Hats,,,TRUE,Active,K-1,Title,Default Title,12.00,3,https://a.example/1.jpg";
    let (profile, made, left) = read(new, b',', "EUR");
    assert_eq!((profile, made.len()), (Profile::Shopify, 1));
    assert_eq!(
        (&made[0]["sku"], &made[0]["category"], &made[0]["stock"]),
        (&json!("K-1"), &json!("hats"), &json!(3))
    );
    assert_eq!(left, counts(&[("levels above a category", 1)]));
    // Nobody says in which currency.
    let (_, made, _) = read(new, b',', "");
    assert_eq!(made, [json!({"line": 2, "pointer": "/price/currency", "code": "missing_field"})]);
}

#[test]
fn woocommerces_variations_take_from_their_product_what_they_lack() {
    let file = "ID,Type,SKU,Name,Published,Short description,Description,Stock,Regular price,Categories,Images,Parent,Attribute 1 name,Attribute 1 value(s),Tax status
1,variable,HOOD,Hoodie,1,,Warm\\nand soft,,,Clothing > Hoodies,\"https://a.example/1.jpg, https://a.example/2.jpg\",,Color,\"Blue, Red\",taxable
2,variation,HOOD-B,Hoodie - Blue,1,,,4,45,,,HOOD,Color,Blue,taxable
3,simple,,Beanie,1,Short,Long,,18.5,Clothing,,,,,
4,simple,DRAFT,Draft,-1,,,,18,Clothing,,,,,
5,\"simple, downloadable\",ALBUM,Album,1,,,,15,Music,,,,,
6,grouped,SET,Set,1,,,,,Music,,,,,";
    let (profile, made, left) = read(file, b',', "GBP");
    assert_eq!(profile, Profile::Woocommerce);
    assert_eq!(
        made[0],
        json!({"line": 3, "sku": "HOOD-B", "name": "Hoodie - Blue", "description": "Warm\nand soft", "stock": 4,
            "price": {"amount": 4500, "currency": "GBP"}, "category": "hoodies", "category_name": "Hoodies",
            "attributes": {"group": "HOOD", "Color": "Blue"},
            "images": ["https://a.example/1.jpg", "https://a.example/2.jpg"]})
    );
    assert_eq!((&made[1]["sku"], &made[1]["description"]), (&json!("woo-3"), &json!("Short\n\nLong")));
    assert_eq!((made.len(), &made[2]["sku"]), (3, &json!("ALBUM")));
    let wanted = [
        ("Tax status", 2),
        ("levels above a category", 1),
        ("products of type grouped", 1),
        ("products that are not published", 1),
    ];
    assert_eq!(left, counts(&wanted));
}

#[test]
fn rows_of_one_handle_are_made_before_they_are_too_many() {
    let header = ["Handle", "Title", "Body (HTML)", "Variant Price"].map(str::to_owned);
    let long = "x".repeat(5000);
    // The product has texts from the beginning, from the middle on, or none.
    for titled in [0, 3000, 30_000] {
        let mut reader = Reader::new(Profile::Shopify, &header, Options::default()).unwrap();
        let (mut all, mut most) = (0, 0);
        for n in 0..=30_000_u64 {
            let cells = if n == titled { ["a", "A", long.as_str(), "1"] } else { ["a", "", "", "1"] };
            let made =
                if n < 30_000 { reader.record(n, cells.map(str::to_owned).into()) } else { reader.end() };
            all += made.len();
            most = most.max(made.iter().map(|made| made.bytes).sum::<usize>());
        }
        assert_eq!(all, 30_000);
        assert!(most < 3 * 1024 * 1024, "{titled}: {most}");
    }
}

#[test]
fn variations_of_a_product_that_is_not_published_are_left_out() {
    let file = "ID,Type,SKU,Name,Published,Regular price,Parent
1,variable,HID,Hidden,0,,
2,variation,HID-1,Hidden - 1,1,1,HID
3,variation,HID-2,Hidden - 2,1,1,id:1
4,variable,DRAFT,Draft,-1,,
5,variation,DRAFT-1,Draft - 1,1,1,draft
6,variable,HAT,Hat,1,,
7,variation,HAT-1,Hat - 1,1,1,HAT
8,variation,HAT-2,Hat - 2,0,1,HAT";
    let (_, made, left) = read(file, b',', "EUR");
    let skus: Vec<&Value> = made.iter().map(|made| &made["sku"]).collect();
    assert_eq!(skus, ["HAT-1"]);
    assert_eq!(left, counts(&[("products that are not published", 4)]));
}

#[test]
fn what_variations_need_is_not_kept_without_end() {
    let rows: String = (0..40_000).map(|n| format!("\n{n},variable,,,1,,")).collect();
    let file = format!("ID,Type,SKU,Name,Published,Regular price,Parent{rows}\n,variation,V,,1,1,id:1");
    let (_, made, left) = read(&file, b',', "EUR");
    assert_eq!((made.len(), left.len()), (1, 1));
    assert!(left["what variable products have in common"] > 5000, "{left:?}");
    // Whether a product is published may not be known any more.
    let long = "x".repeat(100_000);
    let rows: String = (0..100).map(|n| format!("\n{n},variable,{long}{n},,0,,")).collect();
    let file = format!("ID,Type,SKU,Name,Published,Regular price,Parent{rows}\n,variation,V,,1,1,id:99");
    let (_, made, left) = read(&file, b',', "EUR");
    assert!(made.is_empty());
    assert_eq!(left, counts(&[("variations of products that may not be published", 1)]));
}

#[test]
fn magentos_variants_are_those_that_a_configurable_product_names() {
    let file = "sku,store_view_code,attribute_set_code,product_type,categories,name,description,price,qty,visibility,base_image,additional_attributes,configurable_variations,tax_class_name
MH-S,,Top,simple,Default Category/Men/Tops,Hoodie-S,<p>Soft</p>,52.0000,100.0000,Not Visible Individually,/m/h.jpg,\"color=Black,size=S,material=Fleece\",,Taxable
ALONE,,Top,simple,Default Category/Men/Tops,Alone,d,1.0000,2.0000,\"Catalog, Search\",,,,
MH,,Top,configurable,Default Category/Men/Tops,Hoodie,<p>Soft</p>,52.0000,0.0000,\"Catalog, Search\",,,\"sku=MH-S,size=S,color=Black|sku=GONE,size=M\",
MH-S,de,,,,Kapuze,,,,,,,,";
    let (profile, made, left) = read(file, b',', "USD");
    assert_eq!(profile, Profile::Magento);
    let skus: Vec<&Value> = made.iter().map(|made| &made["sku"]).collect();
    assert_eq!(skus, ["ALONE", "MH-S"]);
    assert_eq!(
        made[1],
        json!({"line": 2, "sku": "MH-S", "name": "Hoodie-S", "description": "<p>Soft</p>", "stock": 100,
            "price": {"amount": 5200, "currency": "USD"}, "category": "tops", "category_name": "Tops",
            "attributes": {"group": "MH", "color": "Black", "size": "S", "material": "Fleece"}})
    );
    let wanted = [
        ("attribute_set_code", 3),
        ("images", 1),
        ("levels above a category", 4),
        ("tax_class_name", 1),
        ("texts of other store views", 1),
    ];
    assert_eq!(left, counts(&wanted));
}

const MAGENTO: &str = "sku,attribute_set_code,product_type,name,price,visibility,product_online,additional_attributes,configurable_variations";

#[test]
fn what_magento_does_not_show_is_left_out() {
    let hidden = "Not Visible Individually";
    let file = format!(
        "{MAGENTO}
OFF-S,,simple,Off,1,{hidden},1,,
OFF,,configurable,Off,1,Catalog,2,,\"sku=OFF-S,size=S|sku=OFF-M,size=M\"
OFF-M,,simple,Off,1,{hidden},1,,
ALONE,,simple,Alone,1,{hidden},1,,
ON-S,,simple,Old,1,{hidden},1,,
ON-S,,simple,On,1,{hidden},1,size=?,
ON,,configurable,On,1,Catalog,1,,\"sku=ON-S,size=S|sku=ON-M,size=M|sku=ON-L,size=L\"
ON-L,,simple,On,1,{hidden},2,,
ON-M,,simple,On,1,{hidden},1,,"
    );
    let (_, made, left) = read(&file, b',', "USD");
    let said: Vec<Value> =
        made.iter().map(|made| json!([made["line"], made["sku"], made["attributes"]])).collect();
    assert_eq!(
        said,
        [json!([7, "ON-S", {"size": "S", "group": "ON"}]), json!([10, "ON-M", {"size": "M", "group": "ON"}])]
    );
    let wanted = [
        ("products that are not published", 3),
        ("products that are neither shown by themselves nor variants", 2),
    ];
    assert_eq!(left, counts(&wanted));
}

#[test]
fn what_waits_for_its_configurable_product_is_not_kept_without_end() {
    let row = |n: u32| format!("\nS-{n},,simple,,,Not Visible Individually,,,");
    let file = format!(
        "{MAGENTO}{}\nC,,configurable,,,,,,sku=S-0|sku=S-39999",
        (0..40_000).map(row).collect::<String>()
    );
    let (_, made, left) = read(&file, b',', "USD");
    assert_eq!((made.len(), &made[0]["sku"]), (1, &json!("S-39999")));
    assert!(left["variants whose product comes too late"] > 5000, "{left:?}");
    assert_eq!(left.values().sum::<u64>(), 39_999);
    // The other way round, with a text for each that comes.
    let long = "x".repeat(100_000);
    let rows = |n: u32| format!("\nC-{n},,configurable,,,,,,\"sku=S-{n},{long}=x\"{}", row(n));
    let file = format!("{MAGENTO}{}", (0..100).map(rows).collect::<String>());
    assert_eq!(read(&file, b',', "USD").1.len(), 100);
    let last = (0..100).map(row).collect::<String>();
    let rows = |n: u32| format!("\nC-{n},,configurable,,,,,,\"sku=S-{n},{long}=x\"");
    let file = format!("{MAGENTO}{}{last}", (0..100).map(rows).collect::<String>());
    assert!((1..50).contains(&read(&file, b',', "USD").1.len()));
}

#[test]
fn magentos_attributes_may_have_commas_and_quotes() {
    for (cell, wanted) in [
        ("a=1,b=x, y,z,c=2", json!({"a": "1", "b": "x, y,z", "c": "2"})),
        ("a=\"1\",b=\"x, \"\"y\"\"\",c=\"2\"|\"3,4\"", json!({"a": "1", "b": "x, \"y\"", "c": "2|3,4"})),
        ("\"a=1,2\",b=3", json!({"a": "1,2", "b": "3"})),
        ("a=5\",b=6\"", json!({"a": "5\"", "b": "6\""})),
        ("lost,a=\"x,b=1", json!({"a": "\"x,b=1"})),
    ] {
        let file = format!("{MAGENTO}\nA,,simple,A,1,Catalog,1,\"{}\",", cell.replace('"', "\"\""));
        let (_, made, left) = read(&file, b',', "USD");
        assert_eq!((&made[0]["attributes"], left.len()), (&wanted, 0), "{cell}");
    }
}

#[test]
fn prestashops_lists_and_import_files_are_read() {
    let file = "Product ID;Active (0/1);Name *;Categories (x,y,z...);Price tax excluded;Reference #;Manufacturer;Quantity;Summary;Description;Image URLs (x,y,z...);Feature(Name:Value:Position);Ecotax
1;1;Mug;Home,Kitchen;9.900000;M-1;Kelp;300;Blue;Large;https://a.example/1.jpg,https://a.example/2.jpg;Material:Clay:1,Volume:300 ml:2;0.1
2;0;Off;Home;9.90;M-2;;1;;;;;";
    let (profile, made, left) = read(file, b';', "EUR");
    assert_eq!(profile, Profile::Prestashop);
    assert_eq!(
        made,
        [json!({"line": 2, "sku": "M-1", "name": "Mug", "description": "Blue\n\nLarge", "stock": 300,
            "price": {"amount": 990, "currency": "EUR"}, "category": "kitchen", "category_name": "Kitchen",
            "attributes": {"brand": "Kelp", "Material": "Clay", "Volume": "300 ml"},
            "images": ["https://a.example/1.jpg", "https://a.example/2.jpg"]})]
    );
    assert_eq!(left, counts(&[("Ecotax", 1), ("products that are not published", 1)]));
    let list = "Product ID;Image;Name;Reference;Category;Price (tax excl.);Price (tax incl.);Quantity;Status
7;;Cup;;Home;€8.00;€9.60;3;1";
    let (_, made, left) = read(list, b';', "EUR");
    assert_eq!((&made[0]["sku"], &made[0]["price"]["amount"]), (&json!("ps-7"), &json!(960)));
    assert_eq!(left, counts(&[("Price (tax excl.)", 1)]));
}

#[test]
fn a_feed_names_its_currency() {
    let file = "id\ttitle\tdescription\tlink\timage_link\tavailability\tprice\titem_group_id\tcolor\tproduct_type\tshipping
A-1\tCap\tWarm\thttps://a.example/cap\thttps://a.example/1.jpg\tin_stock\t12.90 EUR\tCAP\tred\tClothing > Caps\tDE:::5.00 EUR
A-2\tCap\tWarm\thttps://a.example/cap\t\tin_stock\t5000 JPY\tCAP\tblue\tClothing > Caps\t";
    let (profile, made, left) = read(file, b'\t', "USD");
    assert_eq!(profile, Profile::Google);
    assert_eq!(
        made[0],
        json!({"line": 2, "sku": "A-1", "name": "Cap", "description": "Warm",
            "price": {"amount": 1290, "currency": "EUR"}, "category": "caps", "category_name": "Caps",
            "attributes": {"group": "CAP", "color": "red"}, "images": ["https://a.example/1.jpg"]})
    );
    assert_eq!(made[1]["price"], json!({"amount": 5000, "currency": "JPY"}));
    let wanted = [("availability", 2), ("levels above a category", 2), ("link", 2), ("shipping", 1)];
    assert_eq!(left, counts(&wanted));
}

#[test]
fn a_profile_that_the_header_is_not_of_is_refused() {
    let header = ["sku".to_owned(), "name".to_owned()];
    let refused = Reader::new(Profile::Shopify, &header, Options::default()).err().unwrap();
    let pointers: Vec<&str> = refused.errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/handle", "/title", "/variant price"]);
    assert_eq!(Profile::of(&header), None);
}
