use super::*;

fn address(country: &str, city: &str, postal_code: &str) -> Address {
    let text = |text: &str| text.to_owned();
    Address {
        name: text("Ada Lovelace"),
        line1: text("1 Quay"),
        line2: None,
        city: Some(text(city)),
        region: None,
        postal_code: Some(text(postal_code)),
        country: text(country),
        phone: None,
    }
}

fn faults(address: Address) -> Vec<(&'static str, &'static str)> {
    let faults = address.checked().err().unwrap_or_default();
    faults.into_iter().map(|fault| (fault.field, fault.code)).collect()
}

/// ISO 3166-1 assigns 249 codes; Kosovo has one that it leaves to its users.
#[test]
fn there_are_250_countries_each_with_sound_rules() {
    assert_eq!(all().count(), 250);
    for country in all() {
        let (code, example) = (country.code(), country.like());
        let example = example.trim_start_matches(", like ");
        assert!(country.fits(example), "{code}: {example}");
        // Where a form is known, something is not of it.
        assert!(country.like().is_empty() || !country.fits("?!"), "{code}");
    }
    assert!(["XK", "GB", "HK"].iter().all(|code| Country::find(code).is_some()));
    assert!(["", "UK", "gb", "GBR", "ZZ", " ", "AC", "TA"].iter().all(|code| Country::find(code).is_none()));
}

#[test]
fn a_postal_code_is_asked_for_where_there_are_postal_codes() {
    let without: Vec<_> = all().filter(|country| !country.needs_postal_code()).collect();
    for country in &without {
        let (code, place) = (country.code(), address(country.code(), "Old Town", ""));
        assert_eq!(faults(place), [], "{code}");
    }
    assert_eq!(all().filter(|country| country.like().is_empty() && !country.needs_postal_code()).count(), 71);
    let mut absent = address("GB", "Hull", "");
    absent.postal_code = None;
    assert_eq!(faults(absent), [("postal_code", "missing_field")]);
    for code in ["GB", "US", "DE", "FR", "CN", "JP", "IN"] {
        assert_eq!(faults(address(code, "Old Town", "")), [("postal_code", "too_short")], "{code}");
        assert_eq!(
            faults(address(code, "Old Town", "?!")),
            [("postal_code", "invalid_postal_code")],
            "{code}"
        );
    }
    for (code, good) in [
        ("GB", "hu1 1aa"),
        ("US", "95014-1234"),
        ("JP", "1540023"),
        ("IE", ""),
        ("XK", "10000"),
        ("HK", "0000"),
    ] {
        assert_eq!(faults(address(code, "Old Town", good)), [], "{code} {good}");
    }
    let detail = address("DE", "Hamburg", "2045").checked().unwrap_err().remove(0).detail;
    assert_eq!(detail, "This is not a postal code of GERMANY, like 26133.");
}

#[test]
fn a_city_is_asked_for_where_addresses_have_one_and_never_dropped() {
    for country in all() {
        let mut place = address(country.code(), "Old Town", "ABC 123");
        (place.line2, place.region) = (Some("Flat 7".to_owned()), Some("Northshire".to_owned()));
        let lines = place.lines().join("\n");
        for part in ["Ada Lovelace", "1 Quay", "Flat 7", "Old Town", "Northshire", "ABC 123", country.name()]
        {
            assert!(lines.contains(part), "{part} in {}: {lines}", country.code());
        }
    }
    assert_eq!(faults(address("GB", " ", "HU1 1AA")), [("city", "too_short")]);
    for (code, postal_code) in [("SG", "546080"), ("MO", ""), ("GI", "GX11 1AA"), ("NR", "")] {
        let mut place = address(code, "", postal_code);
        place.region = (code == "NR").then(|| "Aiwo".to_owned());
        assert_eq!(faults(place), [], "{code}");
    }
    // A region or a city says where in the others.
    assert_eq!(faults(address("AE", "", "")), [("city", "too_short")]);
    assert_eq!(faults(address("AE", "Dubai", "")), []);
    let tokyo = address("JP", "Setagaya", "154-0023").checked().unwrap();
    assert_eq!(tokyo.city.as_deref(), Some("Setagaya"));
    assert!(tokyo.lines().contains(&"Setagaya".to_owned()));
}

#[test]
fn lines_are_in_the_countrys_order() {
    let written = |address: Address| address.lines().join(" / ");
    assert_eq!(written(address("DE", "Hamburg", "20457")), "Ada Lovelace / 1 Quay / 20457 Hamburg / GERMANY");
    let mut place = address("US", "Cupertino", "95014");
    place.region = Some("CA".to_owned());
    place.line2 = Some("Apt. 2".to_owned());
    assert_eq!(written(place), "Ada Lovelace / 1 Quay / Apt. 2 / Cupertino, CA 95014 / UNITED STATES");
    assert_eq!(
        written(address("SG", "", "546080")),
        "Ada Lovelace / 1 Quay / SINGAPORE 546080 / REP. OF SINGAPORE"
    );
    let mut place = address("JP", "", "154-0023");
    (place.name, place.line1) = ("山田太郎".to_owned(), "世田谷区若林4-31-9".to_owned());
    place.region = Some("東京都".to_owned());
    assert_eq!(written(place), "〒154-0023 / 東京都 / 世田谷区若林4-31-9 / 山田太郎 / JAPAN");
    // Missing parts leave no punctuation.
    assert_eq!(written(address("US", "Cupertino", "")), "Ada Lovelace / 1 Quay / Cupertino / UNITED STATES");
}

#[test]
fn phone_numbers_become_e164() {
    let kept = |country: &str, number: &str| {
        let mut place = address(country, "Old Town", "");
        place.phone = Some(number.to_owned());
        place.checked().map(|place| place.phone)
    };
    for (country, typed, number) in [
        ("HK", "2123 4567", "+85221234567"),
        ("HK", " +44 20 7946 0958 ", "+442079460958"),
        ("IE", "(01) 677 0000", "+35316770000"),
        ("HK", "+1 650-253-0000", "+16502530000"),
    ] {
        assert_eq!(kept(country, typed), Ok(Some(number.to_owned())), "{typed}");
    }
    assert_eq!(kept("HK", " "), Ok(None));
    for bad in ["12", "phone me", "+999 123456789", "+44 20 7946 0958 ext. 12", "0"] {
        let faults = kept("HK", bad).unwrap_err();
        assert_eq!(faults[0].code, "invalid_phone", "{bad}");
    }
}

#[test]
fn what_is_too_long_is_named() {
    let mut place = address("HK", &"x".repeat(101), "");
    (place.name, place.line1) = ("x".repeat(101), "x".repeat(201));
    (place.line2, place.region) = (Some("x".repeat(201)), Some("x".repeat(201)));
    let named: Vec<_> = faults(place).into_iter().map(|(field, _)| field).collect();
    assert_eq!(named, ["name", "line1", "line2", "city", "region"]);
}
