//! Where an order goes.

use serde::{Deserialize, Serialize};
use service::validate::Invalid;

/// The assigned codes of ISO 3166-1 alpha-2.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE \
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM \
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC \
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA \
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub name: String,
    pub line1: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<String>,
    pub city: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

impl Address {
    pub fn check(&self, at: &str, invalid: &mut Invalid) {
        let mut text = |field: &str, value: &str, min: usize, max: usize| {
            invalid.text(&format!("{at}/{field}"), value.to_owned(), min, max);
        };
        text("name", &self.name, 1, 100);
        text("line1", &self.line1, 1, 200);
        text("city", &self.city, 1, 100);
        text("postal_code", &self.postal_code, 1, 20);
        for (field, value) in [("line2", &self.line2), ("region", &self.region)] {
            if let Some(value) = value {
                text(field, value, 0, 200);
            }
        }
        if !COUNTRIES.split(' ').any(|code| code == self.country) {
            invalid.push(format!("{at}/country"), "invalid_country", "An ISO 3166-1 alpha-2 code, like GB.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_is_one_of_the_249() {
        assert_eq!(COUNTRIES.split(' ').count(), 249);
        let address = |country: &str| Address {
            name: "Ada".to_owned(),
            line1: "1 Quay".to_owned(),
            line2: Some(String::new()),
            city: "Hull".to_owned(),
            region: None,
            postal_code: "HU1".to_owned(),
            country: country.to_owned(),
        };
        let accepted = |country: &str| {
            let mut invalid = Invalid::new();
            address(country).check("/shipping_address", &mut invalid);
            invalid.check().is_ok()
        };
        assert!(accepted("GB"));
        for bad in ["", "UK", "gb", "GBR", "ZZ", " "] {
            assert!(!accepted(bad), "{bad:?}");
        }
    }
}
