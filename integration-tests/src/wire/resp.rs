//! As much of Redis' protocol as is needed to tell a notice from everything else.

/// The first whole value of `bytes`: its length, and whether it is a message of a channel. `None` while it is not all there.
pub(super) fn first_value(bytes: &[u8]) -> Option<(usize, bool)> {
    let length = value_length(bytes)?;

    Some((length, is_message(&bytes[..length])))
}

/// Whether a value is what a subscriber is sent for each message that is published: RESP 2 has an array, RESP 3 a push.
fn is_message(value: &[u8]) -> bool {
    let Some((line, rest)) = split_line(value) else { return false };
    matches!(line.first(), Some(b'*' | b'>')) && rest.starts_with(b"$7\r\nmessage\r\n")
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;

    Some((&bytes[..end], &bytes[end + 2..]))
}

fn value_length(bytes: &[u8]) -> Option<usize> {
    let (line, rest) = split_line(bytes)?;
    let head = line.len() + 2;
    let number = || std::str::from_utf8(line.get(1..)?).ok()?.parse::<i64>().ok();
    // Strings and collections that are null have a length of -1.
    let count = usize::try_from(number().unwrap_or_default()).unwrap_or_default();
    match line.first()? {
        b'$' | b'=' | b'!' if number() == Some(-1) => Some(head),
        b'$' | b'=' | b'!' => {
            let length = head + count + 2;
            (bytes.len() >= length).then_some(length)
        }
        b'*' | b'>' | b'~' => values_length(rest, count).map(|length| head + length),
        b'%' | b'|' => values_length(rest, 2 * count).map(|length| head + length),
        _ => Some(head),
    }
}

fn values_length(bytes: &[u8], count: usize) -> Option<usize> {
    let mut length = 0;
    for _ in 0..count {
        length += value_length(bytes.get(length..)?)?;
    }

    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_other_values_wherever_the_bytes_are_cut() {
        #[track_caller]
        fn check(value: &str, is_message: bool) {
            for cut in 0..value.len() {
                assert_eq!(first_value(&value.as_bytes()[..cut]), None, "{value:?} to {cut}");
            }
            let followed = format!("{value}+OK\r\n");
            assert_eq!(first_value(followed.as_bytes()), Some((value.len(), is_message)), "{value:?}");
        }

        check("+OK\r\n", false);
        check(":7\r\n", false);
        check("$-1\r\n", false);
        check("$3\r\na\r\n\r\n", false);
        check("*-1\r\n", false);
        check("%1\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n", false);
        check("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", false);
        check("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", true);
        check(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", true);
    }
}
