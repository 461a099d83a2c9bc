use std::str::FromStr;

use crate::{ChangeHash, DocumentId, Heads, ParseDocumentIdError, ParseHashError};

/// What people paste: `automerge:<id>`, with heads and a path where the client is new enough.
///
/// `automerge:<id>[/<segment>…][#<head>|<head>…]`, or a bare id. Heads and path never cross the wire
/// of the sync protocol; they matter to REST and to the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentUrl {
    /// The document.
    pub id: DocumentId,
    /// The path inside the document, as written, one entry per segment.
    pub path: Vec<String>,
    /// The version that is meant, if not the newest.
    pub heads: Option<Heads>,
}

impl FromStr for DocumentUrl {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("automerge:").unwrap_or(text);
        let (rest, heads) = match rest.split_once('#') {
            Some((rest, heads)) => (rest, Some(heads)),
            None => (rest, None),
        };
        let mut segments = rest.split('/');
        let id = segments.next().unwrap_or_default().parse()?;
        let path = segments.map(str::to_owned).collect();
        let heads = heads
            .filter(|heads| !heads.is_empty())
            .map(|heads| {
                heads.split('|').map(ChangeHash::from_base58check).collect::<Result<_, _>>()
            })
            .transpose()?;
        Ok(Self { id, path, heads })
    }
}

/// Why a text is not the URL of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUrlError {
    /// The id is wrong.
    #[error(transparent)]
    Id(#[from] ParseDocumentIdError),
    /// A head is wrong.
    #[error("in the heads after '#': {0}")]
    Head(#[from] ParseHashError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "p3u5PhN9wrNpsGCwfkeef2LzF9";

    #[test]
    fn every_form_that_clients_write_names_the_document() {
        let head = ChangeHash([9; 32]);
        for text in [ID.to_owned(), format!("automerge:{ID}"), format!("automerge:{ID}#")] {
            let url: DocumentUrl = text.parse().unwrap();
            assert_eq!((url.id.to_string().as_str(), url.path.len(), url.heads), (ID, 0, None));
        }
        let url: DocumentUrl =
            format!("automerge:{ID}/notes/@0#{}", head.to_base58check()).parse().unwrap();
        assert_eq!(url.path, ["notes", "@0"]);
        assert_eq!(url.heads, Some(Heads::from(vec![head])));
    }
}
