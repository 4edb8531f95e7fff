//! Texts, numbers, flags, paths, addresses and Matrix identifiers.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use ruma::{OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId};
use url::Url;

use super::{Parse, mismatch};
use crate::{
    document::{Node, Value},
    fault::Findings,
    section::Shape,
};

impl Parse for bool {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            // PyYAML reads YAML 1.1, whose flags have these names too.
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => mismatch(node, findings),
            },
            _ => mismatch(node, findings),
        }
    }

    fn shape() -> Shape {
        Shape::Value("`true` or `false`")
    }
}

impl Parse for f64 {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let number = match &node.value {
            Value::Float(value) => Some(*value),
            #[expect(clippy::cast_precision_loss, reason = "options are small numbers")]
            Value::Integer(value) => Some(*value as f64),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite() && *number >= 0.0).or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("a number from 0 up")
    }
}

impl Parse for String {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            _ => mismatch(node, findings),
        }
    }

    fn shape() -> Shape {
        Shape::Value("a text")
    }
}

impl Parse for PathBuf {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        match node.as_text() {
            Some(text) if !text.is_empty() => Some(Self::from(text)),
            _ => mismatch(node, findings),
        }
    }

    fn shape() -> Shape {
        Shape::Value("a path")
    }
}

impl Parse for IpNet {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let network = node.as_text().and_then(|text| {
            text.parse::<Self>()
                .ok()
                .or_else(|| text.parse::<IpAddr>().ok().map(Self::from))
                .map(|net| net.trunc())
        });
        network.or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("an IP network such as `10.0.0.0/8` or `fc00::/7`")
    }
}

impl Parse for Url {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let url = node.as_text().and_then(|text| Self::parse(text).ok());
        url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("a URL such as `https://matrix.example.com/`")
    }
}

/// Whole numbers: a value outside the type's range is a fault like any other mismatch.
macro_rules! integers {
    ($($type:ty => $words:literal),* $(,)?) => {
        $(
            impl Parse for $type {
                fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
                    let number = match &node.value {
                        Value::Integer(number) => <$type>::try_from(*number).ok(),
                        // `burst_count: 10.0`, as people write it.
                        Value::Float(number) if number.fract() == 0.0 => format!("{number:.0}").parse().ok(),
                        Value::Text(text) => text.parse().ok(),
                        _ => None,
                    };
                    number.or_else(|| mismatch(node, findings))
                }

                fn shape() -> Shape {
                    Shape::Value($words)
                }
            }
        )*
    };
}

integers! {
    u16 => "a number from 0 to 65535",
    u32 => "a whole number",
    u64 => "a whole number",
    i64 => "a whole number",
}

/// Types that are parsed from a text.
macro_rules! texts {
    ($($type:ty => $words:literal),* $(,)?) => {
        $(
            impl Parse for $type {
                fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
                    let text = match &node.value {
                        Value::Text(text) => text.clone(),
                        _ => return mismatch(node, findings),
                    };
                    text.as_str().try_into().ok().or_else(|| mismatch(node, findings))
                }

                fn shape() -> Shape {
                    Shape::Value($words)
                }
            }
        )*
    };
}

texts! {
    OwnedRoomAliasId => "a room alias such as `#lobby:example.com`",
    OwnedRoomId => "a room ID such as `!abc:example.com`",
    OwnedServerName => "a server name such as `example.com`",
    OwnedUserId => "a user ID such as `@alice:example.com`",
}

impl Parse for RoomVersionId {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let version = match &node.value {
            Value::Text(text) => Self::try_from(text.as_str()).ok(),
            Value::Integer(number) => Self::try_from(number.to_string()).ok(),
            _ => None,
        };
        // Any text may be one; only of those that ruma knows there are rules.
        version.filter(|version| version.rules().is_some()).or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("a room version from `\"1\"` to `\"12\"`")
    }
}

impl Parse for OwnedMxcUri {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let uri = node.as_text().map(Self::from);
        uri.filter(|uri| uri.is_valid()).or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("a media address such as `mxc://example.com/abc`")
    }
}

impl Parse for IpAddr {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let address = node.as_text().and_then(|text| match text {
            "localhost" => Some(Self::from([127, 0, 0, 1])),
            _ => text.parse().ok(),
        });
        address.or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("an IP address")
    }
}

/// Declares an option that takes one of a few words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $name:ident: $words:literal {
            $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal $(| $alias:literal)* ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $variant_doc])* $variant, )*
        }

        impl $name {
            /// The word in the configuration file.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::value::Parse for $name {
            fn parse(node: &$crate::document::Node, findings: &mut $crate::fault::Findings) -> Option<Self> {
                match node.as_word() {
                    $( Some($word $(| $alias)*) => Some(Self::$variant), )*
                    _ => {
                        let words = [$( concat!("`", $word, "`") ),*].join(", ");
                        findings.fault(
                            &node.origin,
                            format!(concat!("must be ", $words, ", not {}"), node.describe()),
                            format!("use one of {words}"),
                        );
                        None
                    }
                }
            }

            fn shape() -> $crate::section::Shape {
                $crate::section::Shape::Value(concat!("one of ", $( "`", $word, "` " ),*))
            }
        }
    };
}

pub(crate) use choice;
