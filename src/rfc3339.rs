//! Recognises the date-time of [RFC 3339, section 5.6](https://datatracker.ietf.org/doc/html/rfc3339#section-5.6), and two
//! forms of ISO 8601 that Segment reads as well: an offset without a colon, and a time without seconds.

/// Whether `text` is a date-time such as `2026-02-28T23:59:59.5+01:00`. A leap second is one, a space for the `T` is not.
pub fn is_date_time(text: &[u8]) -> bool {
    date_time(text).is_some()
}

fn date_time(text: &[u8]) -> Option<()> {
    let (year, text) = number::<4>(text)?;
    let (month, text) = number::<2>(text.strip_prefix(b"-")?)?;
    let (day, text) = number::<2>(text.strip_prefix(b"-")?)?;
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    let text = text.strip_prefix(b"T").or_else(|| text.strip_prefix(b"t"))?;
    let (hour, text) = number::<2>(text)?;
    let (minute, text) = number::<2>(text.strip_prefix(b":")?)?;
    let (second, text) = match text.strip_prefix(b":") {
        Some(text) => number::<2>(text)?,
        // Without seconds there is no fraction of them.
        None if text.starts_with(b".") => return None,
        None => (0, text),
    };
    let offset = match text.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            fraction.get(digits..).filter(|_| digits > 0)?
        }
        None => text,
    };
    let offset_is_valid = match offset {
        b"Z" | b"z" => true,
        [b'+' | b'-', offset @ ..] => {
            let (hours, rest) = number::<2>(offset)?;
            let (minutes, rest) = number::<2>(rest.strip_prefix(b":").unwrap_or(rest))?;
            hours <= 23 && minutes <= 59 && rest.is_empty()
        }
        _ => false,
    };
    ((1..=days).contains(&day) && hour <= 23 && minute <= 59 && second <= 60 && offset_is_valid).then_some(())
}

/// The number in the first `DIGITS` bytes, and the rest.
fn number<const DIGITS: usize>(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<DIGITS>()?;
    let number = digits
        .iter()
        .try_fold(0_u32, |number, &b| Some(number.wrapping_mul(10).wrapping_add(char::from(b).to_digit(10)?)))?;
    Some((number, rest))
}
