//! E-mail addresses: which are accepted, and which count as the same.

use service::validate::Invalid;

/// RFC 5321, section 4.5.3.1.3 allows a path of 256 octets, brackets included.
const MAX_OCTETS: usize = 254;

/// An e-mail address that can receive mail, as it was typed but without blanks around it.
#[derive(Clone, Debug)]
pub(crate) struct Email {
    text: String,
    /// Where its domain begins.
    domain: usize,
}

impl Email {
    /// Records `invalid_email` at `/email` when `text` is no address.
    pub fn parse(invalid: &mut Invalid, text: &str) -> Option<Self> {
        let email = Self::read(text);
        if email.is_none() {
            let detail = "An e-mail address of at most 254 bytes, such as name@example.com.";
            invalid.push("/email", "invalid_email", detail);
        }
        email
    }

    /// The dot-atom form of RFC 5322 with RFC 6531's Unicode; quoted local parts
    /// and address literals are left out. Keyboards of phones put a blank behind it.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let (local, domain) = text.split_once('@')?;
        let atom = |character: char| match character {
            character if character.is_ascii() => {
                character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character)
            }
            character => !character.is_whitespace() && !character.is_control(),
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let ascii = idna::domain_to_ascii(domain).ok()?;
        let sound = text.len() <= MAX_OCTETS
            && local.len() + 1 + ascii.len() <= MAX_OCTETS
            && local.split('.').all(|part| !part.is_empty() && part.chars().all(atom))
            && ascii.split('.').all(label);
        sound.then(|| Self { text: text.to_owned(), domain: local.len() + 1 })
    }

    /// An account's address, which was accepted when it was opened.
    pub fn stored(text: String) -> Self {
        let domain = text.find('@').map_or(text.len(), |at| at + 1);
        Self { text, domain }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn local(&self) -> &str {
        self.text[..self.domain].trim_end_matches('@')
    }

    fn domain(&self) -> &str {
        &self.text[self.domain..]
    }

    /// The form in which addresses are compared: `bücher.example` is `xn--bcher-kva.example`. A server may
    /// distinguish case before the `@`; no server in common use does.
    pub fn key(&self) -> String {
        let (domain, _) = idna::domain_to_unicode(self.domain());
        format!("{}@{domain}", self.local().to_lowercase())
    }

    /// The key that an account may have from when domains were compared as they were written.
    pub fn old_key(&self) -> String {
        format!("{}@{}", self.local().to_lowercase(), self.ascii_domain())
    }

    fn ascii_domain(&self) -> String {
        idna::domain_to_ascii(self.domain()).unwrap_or_else(|_| self.domain().to_lowercase())
    }

    /// As mail servers take it: the domain in its ASCII form (RFC 5891), which every server knows.
    pub fn for_mail(&self) -> String {
        format!("{}@{}", self.local(), self.ascii_domain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_email(text: &str) -> bool {
        Email::read(text).is_some()
    }

    #[test]
    fn addresses_that_mail_reaches_are_accepted() {
        for good in [
            "demo@dockside.test",
            "a@localhost",
            "first.last+tag@sub.example.co.uk",
            "o'brien@example.com",
            "用户@例え.jp",
            "ünï@bücher.example",
            "ada@bu\u{308}cher.example",
            "ada@xn--bcher-kva.example",
        ] {
            assert!(is_email(good), "{good}");
        }
        assert!(is_email(&format!("{}@example.com", "a".repeat(242))));
    }

    #[test]
    fn blanks_around_an_address_are_not_part_of_it() {
        for typed in ["ada@example.com ", " ada@example.com", "\u{a0}ada@example.com\t", "ada@example.com\n"]
        {
            assert_eq!(Email::read(typed).unwrap().as_str(), "ada@example.com", "{typed:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            " ",
            "@",
            "a",
            "a@",
            "@b",
            "a@@b",
            "a@b@c",
            "a b@c.de",
            "a@b c",
            "a@b..c",
            ".a@b.c",
            "a.@b.c",
            "a..b@c.de",
            "a@-b.c",
            "a@b-.c",
            "a@b.",
            "a@.b",
            "<a@b.c>",
            "a@[127.0.0.1]",
            "a\n@b.c",
            "a\u{2003}b@c.de",
            "a@b_c.de",
            "a,b@c.de",
            "a@xn--a.de",
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
        assert!(!is_email(&format!("{}@example.com", "a".repeat(243))));
        assert!(!is_email(&format!("a@{}.com", "b".repeat(64))));
        // 23 bytes as it is written, and 75 for a mail server.
        assert!(!is_email(&format!("a@{}.com", "ü".repeat(60))));
    }

    #[test]
    fn addresses_are_compared_without_case_and_in_one_form_of_their_domain() {
        let key = |text: &str| Email::read(text).unwrap().key();
        assert_eq!(key("DeMo@Dockside.TEST"), "demo@dockside.test");
        assert_eq!(key("ÄÖ@x.test"), "äö@x.test");
        for same in ["Ada@BÜCHER.example", "ada@xn--bcher-kva.example", "ada@XN--BCHER-KVA.example"] {
            assert_eq!(key(same), "ada@bücher.example", "{same}");
            assert_eq!(Email::read(same).unwrap().old_key(), "ada@xn--bcher-kva.example");
        }
        assert_eq!(Email::read("Ada@Bücher.example").unwrap().for_mail(), "Ada@xn--bcher-kva.example");
    }
}
