//! What a certificate says of itself, for people, metrics and logs. Pure.
//!
//! Whether a certificate is to be trusted, and for which name, webpki alone decides; it does not tell dates and addresses, and
//! these few fields are not worth a second parser of all of X.509 (RFC 5280, in DER: X.690).

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};

use crate::config::SubjectAltName;

/// SHA-256 of a certificate, or of several one after the other.
pub type Fingerprint = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its subjectAltNames that are DNS names (in lower case, `*.` for wildcards), URIs or addresses.
    pub names: Vec<SubjectAltName>,
    /// Of its subject.
    pub common_name: Option<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub fingerprint: Fingerprint,
}

impl Facts {
    /// `None`: this is no certificate.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let mut signed = Der(Der(certificate).expect(SEQUENCE)?);
        let mut fields = Der(signed.expect(SEQUENCE)?);
        let _version = fields.optional(context(0));
        let _serial = fields.expect(INTEGER)?;
        let _algorithm = fields.expect(SEQUENCE)?;
        let _issuer = fields.expect(SEQUENCE)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = fields.expect(SEQUENCE)?;
        let _public_key = fields.expect(SEQUENCE)?;
        let _issuer_id = fields.optional(context(1) & !CONSTRUCTED);
        let _subject_id = fields.optional(context(2) & !CONSTRUCTED);
        let extensions = fields.optional(context(3)).and_then(|outer| Der(outer).expect(SEQUENCE));
        Some(Self {
            names: extensions.and_then(alternative_names).unwrap_or_default(),
            common_name: common_name(subject),
            not_before,
            not_after,
            fingerprint: fingerprint([certificate]),
        })
    }

    pub(super) fn validity(&self, now: SystemTime) -> Validity {
        if now > self.not_after {
            Validity::Expired
        } else if now < self.not_before {
            Validity::NotYet
        } else {
            Validity::Valid
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    Valid,
    Expired,
    NotYet,
}

/// What tells who has issued a certificate.
pub(super) struct Signed<'a> {
    pub(super) subject: &'a [u8],
    pub(super) issuer: &'a [u8],
    /// The public key, with its algorithm.
    pub(super) key: &'a [u8],
    /// What the signature is of.
    pub(super) bytes: &'a [u8],
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// `None`: this is no certificate.
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let mut outer = Der(Der(certificate).expect(SEQUENCE)?);
        let whole = outer.0;
        let mut fields = Der(outer.expect(SEQUENCE)?);
        let bytes = whole.get(..whole.len() - outer.0.len())?;
        let algorithm = outer.expect(SEQUENCE)?;
        let signature = outer.expect(BIT_STRING)?.strip_prefix(&[0])?;
        let _version = fields.optional(context(0));
        let _serial = fields.expect(INTEGER)?;
        let _algorithm = fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?;
        let _validity = fields.expect(SEQUENCE)?;
        let subject = fields.expect(SEQUENCE)?;
        let key = fields.expect(SEQUENCE)?;
        Some(Self { subject, issuer, key, bytes, algorithm, signature })
    }

    /// Whether its key is of RSA, and of less than 2048 bits.
    pub(super) fn has_short_rsa_key(&self) -> bool {
        const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        // A modulus of 2048 bits alone is as long.
        self.key.len() < 2048 / 8 && self.key.windows(RSA.len()).any(|window| window == RSA)
    }
}

pub(in crate::tls) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
    let mut whole = Vec::new();
    parts.into_iter().for_each(|part| whole.extend_from_slice(part));
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, &whole).as_ref());
    fingerprint
}

/// When the next list of revoked certificates is due; the outer `None`: this is no such list.
pub(super) fn next_update(list: &[u8]) -> Option<Option<SystemTime>> {
    let mut signed = Der(Der(list).expect(SEQUENCE)?);
    let mut fields = Der(signed.expect(SEQUENCE)?);
    let _version = fields.optional(INTEGER);
    let _algorithm = fields.expect(SEQUENCE)?;
    let _issuer = fields.expect(SEQUENCE)?;
    let _this_update = fields.time()?;
    Some(fields.time())
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<SubjectAltName>> {
    let mut extensions = Der(extensions);
    while let Some(extension) = extensions.expect(SEQUENCE) {
        let mut extension = Der(extension);
        let id = extension.expect(OBJECT_IDENTIFIER)?;
        let _critical = extension.optional(BOOLEAN);
        let value = extension.expect(OCTET_STRING)?;
        if id == SUBJECT_ALT_NAME {
            return Some(general_names(Der(Der(value).expect(SEQUENCE)?)));
        }
    }
    None
}

fn general_names(mut list: Der<'_>) -> Vec<SubjectAltName> {
    let mut names = Vec::new();
    while let Some((tag, value)) = list.next() {
        let text = || std::str::from_utf8(value).ok();
        names.extend(match tag {
            DNS_NAME => text().map(|name| SubjectAltName::Dns(name.to_ascii_lowercase())),
            // One that is no text is nobody's, but counts: a SPIFFE identity has no other beside it.
            URI => Some(SubjectAltName::Uri(String::from_utf8_lossy(value).into_owned())),
            IP_ADDRESS => ip_address(value).map(SubjectAltName::Ip),
            _ => None,
        });
    }
    names
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn common_name(subject: &[u8]) -> Option<String> {
    let mut names = Der(subject);
    while let Some(set) = names.expect(SET) {
        let mut attribute = Der(Der(set).expect(SEQUENCE)?);
        if attribute.expect(OBJECT_IDENTIFIER)? == COMMON_NAME {
            let (tag, value) = attribute.next()?;
            let is_text = [UTF8_STRING, PRINTABLE_STRING, TELETEX_STRING, IA5_STRING].contains(&tag);
            return is_text.then(|| String::from_utf8_lossy(value).into_owned());
        }
    }
    None
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const CONSTRUCTED: u8 = 0x20;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Of GeneralName (RFC 5280, 4.2.1.6).
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The tag of the field `[number]`, with fields of its own.
const fn context(number: u8) -> u8 {
    0x80 | CONSTRUCTED | number
}

/// Values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value's tag and contents.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match usize::from(*first) {
            length @ 0..0x80 => (length, rest),
            long => {
                let (bytes, rest) = rest.split_at_checked(long & 0x7f)?;
                if bytes.is_empty() || bytes.len() > 4 {
                    return None;
                }
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, contents))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (is, contents) = self.next()?;
        (is == tag).then_some(contents)
    }

    /// The next value, if it has this tag.
    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        (self.0.first() == Some(&tag)).then(|| self.next())?.map(|(_, contents)| contents)
    }

    /// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`. What was before 1970 counts as then. None is after the year 9999, so that all can be
    /// printed.
    fn time(&mut self) -> Option<SystemTime> {
        if !matches!(self.0.first(), Some(&(UTC_TIME | GENERALIZED_TIME))) {
            return None;
        }
        let (tag, text) = self.next()?;
        let digits = text.strip_suffix(b"Z")?;
        let (century, digits) = if tag == UTC_TIME { (None, digits) } else { (Some(()), digits) };
        let mut pairs = digits.chunks(2).map(two_digits);
        let mut pair = || pairs.next().flatten();
        let year = match century {
            Some(()) => pair()? * 100 + pair()?,
            // RFC 5280, 4.1.2.5.1
            None => pair().map(|year| if year >= 50 { 1900 + year } else { 2000 + year })?,
        };
        let (month, day) = (pair()?, pair()?);
        let (hour, minute, second) = (pair()?, pair()?, pair()?);
        let is_time = hour <= 23 && minute <= 59 && second <= 59;
        if !is_time || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

fn two_digits(pair: &[u8]) -> Option<i64> {
    match pair {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    }
}

/// By the Gregorian calendar: years begin in March, so that the leap day is their last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    of_years + (153 * month + 2) / 5 + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_are_counted_as_calendars_do() {
        for (date, days) in
            [((1970, 1, 1), 0), ((2000, 2, 29), 11_016), ((2000, 3, 1), 11_017), ((2100, 3, 1), 47_541)]
        {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let time = |tag, text: &str| {
            let length = u8::try_from(text.len()).unwrap();
            let value = [&[tag, length], text.as_bytes()].concat();
            Der(&value).time().map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(time(UTC_TIME, "260102030405Z"), Some(1_767_323_045));
        assert_eq!(time(GENERALIZED_TIME, "20260102030405Z"), Some(1_767_323_045));
        assert_eq!(time(GENERALIZED_TIME, "20991231235959Z"), Some(4_102_444_799));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Some(0), "1950");
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799), "RFC 5280, 4.1.2.5");
        for wrong in ["260102030405", "261302030405Z", "26010203040Z", "2601020304xxZ", "Z", ""] {
            assert_eq!(time(UTC_TIME, wrong), None, "{wrong}");
        }
        for wrong in ["99991231995959Z", "20260102240000Z", "20260102006000Z", "20260102000060Z"] {
            assert_eq!(time(GENERALIZED_TIME, wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_harms(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = (Facts::of(&bytes), next_update(&bytes), Signed::of(&bytes));
        }

        /// A certificate with a byte changed, and one cut short.
        #[test]
        fn nearly_right_ones_harm_neither(at in 0..400_usize, byte: u8) {
            let mut der = crate::tls::credentials::tests::authority("x").1.der().to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _any = (Facts::of(&der), Facts::of(&der[..at]));
            let _any = (Signed::of(&der), Signed::of(&der[..at]));
        }
    }
}
